package trainer

import (
	"cmp"
	"fmt"
	"maps"
	"math"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"time"
)

// misfits names every field of a job file whose value is of another kind than the field, by its path. The YAML package would name the
// types of Go, and take 1.5 for 1 where a whole number is wanted. Fields that there are not are none of its business.
func misfits(of reflect.Type, v any, path string) []error {
	is := func(ok bool, want string) []error {
		if ok || v == nil {
			return nil
		}
		return []error{fmt.Errorf("%s is %s: %s is needed", cmp.Or(path, "the job"), shown(v), want)}
	}
	word, text := v.(string)
	switch fields, mapping := v.(map[string]any); {
	case of == reflect.TypeFor[time.Duration]():
		_, err := time.ParseDuration(word)
		return is(err == nil, "a time with its unit, such as 30s,")
	case of == reflect.TypeFor[Model]():
		return is(mapping, "a section, such as {name: mlp},")
	case of.Kind() == reflect.Pointer:
		return misfits(of.Elem(), v, path)
	case of.Kind() == reflect.Struct && mapping:
		return fieldMisfits(of, fields, path)
	case of.Kind() == reflect.Struct:
		return is(false, "a section with fields of its own")
	case of.Kind() == reflect.Map && mapping:
		var faults []error
		for _, key := range slices.Sorted(maps.Keys(fields)) {
			faults = append(faults, misfits(of.Elem(), fields[key], path+"."+key)...)
		}
		return faults
	case of.Kind() == reflect.Bool:
		_, truth := v.(bool)
		return is(truth, "true or false")
	case of.Kind() == reflect.Slice:
		_, list := v.([]any)
		return is(list, "a list")
	}
	number, isNumber := numberOf(v)
	whole := isNumber && number == math.Trunc(number) && !math.IsInf(number, 0)
	switch of.Kind() {
	case reflect.Int:
		return is(whole, "a whole number")
	case reflect.Uint64:
		return is(whole && number >= 0, "a whole number of 0 or more")
	case reflect.Float64:
		return is(isNumber, "a number")
	case reflect.String:
		return is(text || isNumber, "a word")
	}
	return nil
}

// fieldMisfits is misfits of the fields of a section.
func fieldMisfits(of reflect.Type, fields map[string]any, path string) (faults []error) {
	for f := range of.Fields() {
		name, option, _ := strings.Cut(f.Tag.Get("yaml"), ",")
		if option == "inline" {
			faults = append(faults, fieldMisfits(f.Type, fields, path)...)
			continue
		}
		faults = append(faults, misfits(f.Type, fields[name], strings.TrimPrefix(path+"."+name, "."))...)
	}
	return faults
}

// numberOf is a number as the YAML package reads it, which takes 1e-3 for a word at first.
func numberOf(v any) (float64, bool) {
	switch n := v.(type) {
	case uint64:
		return float64(n), true
	case int64:
		return float64(n), true
	case float64:
		return n, true
	case string:
		number, err := strconv.ParseFloat(n, 64)
		return number, err == nil
	}
	return 0, false
}

// shown is a value as the file has it.
func shown(v any) string {
	switch v := v.(type) {
	case string:
		return fmt.Sprintf("%q", v)
	case []any:
		return "a list"
	case map[string]any:
		return "a section"
	}
	return fmt.Sprint(v)
}
