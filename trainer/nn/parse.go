package nn

import (
	"errors"
	"fmt"
	"math"
	"reflect"
	"slices"
	"strings"
)

// ParseLayers makes layers of a list as a parser of YAML or JSON gives it. An entry is the name of a kind,
// or a map from it to its options; one option alone, the first that the kind has, needs no name:
//
//	[{conv: {channels: 32, kernel: 3, pad: 1}}, relu, {max_pool: 2}, flatten, {linear: 10}]
//
// All faults are told at once, each with the place of its layer: "model.layers[3] conv: ...".
func ParseLayers(list any) ([]Layer, error) {
	p := &parser{}
	layers := p.list("model.layers", list, 0)
	return layers, errors.Join(p.faults...)
}

// FormatLayers is the inverse of ParseLayers.
func FormatLayers(layers []Layer) []any {
	list := make([]any, len(layers))
	for i, l := range layers {
		list[i] = format(l)
	}
	return list
}

const (
	maxLayers = 10_000 // of one list
	maxDepth  = 20     // of residuals in each other
	maxFaults = 20     // that are told
)

type parser struct{ faults []error }

func (p *parser) fault(place, text string, args ...any) {
	if len(p.faults) < maxFaults {
		p.faults = append(p.faults, faultf("%s: %s", place, fmt.Sprintf(text, args...)))
	}
}

func (p *parser) list(place string, v any, depth int) []Layer {
	entries, ok := v.([]any)
	switch {
	case !ok:
		p.fault(place, "%s is not a list of layers, like [{linear: 128}, relu, {linear: outputs}]", brief(v))
		return nil
	case len(entries) > maxLayers:
		p.fault(place, "%d layers: at most %d are possible", len(entries), maxLayers)
		return nil
	case depth > maxDepth:
		p.fault(place, "more than %d lists in each other", maxDepth)
		return nil
	}
	layers := make([]Layer, 0, len(entries))
	for i, e := range entries {
		if l := p.entry(fmt.Sprintf("%s[%d]", place, i), e, depth); l != nil {
			layers = append(layers, l)
		}
	}
	return layers
}

// entry is the layer of one entry, nil if it has faults.
func (p *parser) entry(place string, e any, depth int) Layer {
	kind, options, given := "", any(nil), false
	switch e := e.(type) {
	case string:
		kind = e
	case map[string]any:
		if len(e) != 1 {
			p.fault(place, "it has %d keys, one kind with its options is needed, like {linear: 128}", len(e))
			return nil
		}
		for kind, options = range e {
			given = true
		}
	default:
		p.fault(place, "%s is not a layer: write its kind, like relu, or its kind and options, like {linear: 128}", brief(e))
		return nil
	}
	i := slices.IndexFunc(kinds, func(l Layer) bool { return l.kind() == kind })
	if i < 0 {
		p.fault(place, "unknown layer %.40q: known are %s", kind, strings.Join(Kinds(), ", "))
		return nil
	}
	place += " " + kind
	l := reflect.New(reflect.TypeOf(kinds[i])).Elem()
	before := len(p.faults)
	p.options(place, l, options, given, depth)
	if len(p.faults) > before {
		return nil
	}
	return l.Interface().(Layer)
}

// Kinds lists the kinds of layers.
func Kinds() []string {
	names := make([]string, len(kinds))
	for i, l := range kinds {
		names[i] = l.kind()
	}
	return names
}

// options sets the fields of l.
func (p *parser) options(place string, l reflect.Value, options any, given bool, depth int) {
	fields := fieldsOf(l.Type())
	values, named := options.(map[string]any)
	switch {
	case !given || given && options == nil: // "linear" alone, or "linear:" with nothing behind it
		values = nil
	case !named && len(fields) == 0:
		p.fault(place, "%s: it has no options", brief(options))
	case !named:
		values = map[string]any{fields[0].name: options}
	}
	for name := range values {
		if !slices.ContainsFunc(fields, func(f field) bool { return f.name == name }) {
			p.fault(place, "unknown option %.40q: %s", name, optionsOf(fields))
		}
	}
	for i, f := range fields {
		v, ok := values[f.name]
		if ok {
			p.set(place, f, l.Field(i), v, depth)
		} else if f.needed {
			p.fault(place, "%s is missing", f.name)
		}
	}
}

func optionsOf(fields []field) string {
	if len(fields) == 0 {
		return "it has none"
	}
	var names []string
	for _, f := range fields {
		names = append(names, f.name)
	}
	return "known options are " + strings.Join(names, ", ")
}

// field is an option of a kind: the tag `job:"name,flags"` of its field.
type field struct {
	name    string
	needed  bool
	zero    bool // 0 is a value
	outputs bool // the word "outputs" is one, and it is 0
	not     bool // the field is the opposite of the option
}

func fieldsOf(t reflect.Type) []field {
	fields := make([]field, t.NumField())
	for i := range fields {
		name, flags, _ := strings.Cut(t.Field(i).Tag.Get("job"), ",")
		fields[i] = field{name: name, needed: flags == "needed", zero: flags == "zero", outputs: flags == "outputs", not: flags == "not"}
	}
	return fields
}

// set gives one field its value.
func (p *parser) set(place string, f field, to reflect.Value, v any, depth int) {
	switch to.Kind() {
	case reflect.Int:
		n, ok := integer(v)
		switch {
		case f.outputs && v == "outputs":
		case !ok || n > maxSize || n < 0 || n == 0 && !f.zero:
			p.fault(place, "%s is %s, which is not a size from %d to %d", f.name, brief(v), btoi(!f.zero), maxSize)
		default:
			to.SetInt(int64(n))
		}
	case reflect.Float64:
		if x, ok := number(v); ok {
			to.SetFloat(x)
		} else {
			p.fault(place, "%s is %s, which is not a number", f.name, brief(v))
		}
	case reflect.Bool:
		if yes, ok := v.(bool); ok {
			to.SetBool(yes != f.not)
		} else {
			p.fault(place, "%s is %s: write true or false", f.name, brief(v))
		}
	case reflect.String:
		if s, ok := v.(string); ok && isName(s) {
			to.SetString(s)
		} else {
			p.fault(place, "%s is %s: names have letters, digits, dots, underscores and hyphens, at most 100, and begin with none of the last three", f.name, brief(v))
		}
	default: // lists of layers
		to.Set(reflect.ValueOf(p.list(placeOf(place, f.name), v, depth+1)))
	}
}

// placeOf is the place of a list within a layer: "layers[3] residual" and body make "layers[3].body".
func placeOf(place, list string) string {
	return place[:strings.LastIndexByte(place, ' ')] + "." + list
}

func btoi(b bool) int {
	if b {
		return 1
	}
	return 0
}

func isName(s string) bool {
	for i, r := range s {
		letter := r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9'
		if !letter && (i == 0 || !strings.ContainsRune("._-", r)) {
			return false
		}
	}
	return len(s) >= 1 && len(s) <= 100
}

// brief is a value as an error shows it.
func brief(v any) string {
	switch v := v.(type) {
	case nil:
		return "nothing"
	case string:
		return fmt.Sprintf("%.40q", v)
	}
	s := fmt.Sprint(v)
	if len(s) > 60 {
		s = s[:60] + "..."
	}
	return strings.ToValidUTF8(s, "?")
}

func number(v any) (float64, bool) {
	switch v := v.(type) {
	case float64:
		return v, !math.IsNaN(v) && !math.IsInf(v, 0)
	default:
		n, ok := integer(v)
		return float64(n), ok
	}
}

// format is one layer as ParseLayers takes it.
func format(l Layer) any {
	v := reflect.ValueOf(l)
	fields := fieldsOf(v.Type())
	options := map[string]any{}
	for i, f := range fields {
		value := v.Field(i)
		switch {
		case f.outputs && value.IsZero():
			options[f.name] = "outputs"
		case value.IsZero():
		case f.not:
			options[f.name] = !value.Bool()
		case value.Kind() == reflect.Slice:
			options[f.name] = FormatLayers(value.Interface().([]Layer))
		default:
			options[f.name] = value.Interface()
		}
	}
	if len(options) == 0 {
		return l.kind()
	}
	if short, ok := options[fields[0].name]; ok && len(options) == 1 {
		if _, list := short.([]any); !list {
			return map[string]any{l.kind(): short}
		}
	}
	return map[string]any{l.kind(): options}
}
