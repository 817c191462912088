package nn

import (
	"math"
	"slices"
	"sort"
	"strings"
)

// options reads a model's options, which come from a job file: numbers are whatever its
// parser makes of them.
type options struct {
	b     *builder
	known []string
	given map[string]any
}

func (o options) checkNames() {
	var unknown []string
	for name := range o.given {
		if !slices.Contains(o.known, name) {
			unknown = append(unknown, name)
		}
	}
	if len(unknown) == 0 {
		return
	}
	sort.Strings(unknown)
	known := "it has none"
	if len(o.known) > 0 {
		known = "known options are " + strings.Join(o.known, ", ")
	}
	o.b.fail("unknown option %s: %s", strings.Join(unknown, ", "), known)
}

// size is an option that is one size.
func (o options) size(name string, otherwise int) int {
	v, ok := o.given[name]
	if !ok {
		return otherwise
	}
	n, ok := integer(v)
	if !ok || n < 1 || n > maxSize {
		o.b.fail("%s: %v is not a size from 1 to %d", name, v, maxSize)
		return otherwise
	}
	return n
}

// sizes is an option that is a list of count sizes (-1: any number but none at all).
func (o options) sizes(name string, otherwise []int, count int) []int {
	v, ok := o.given[name]
	if !ok {
		return otherwise
	}
	var list []any
	switch v := v.(type) {
	case []any:
		list = v
	case []int:
		for _, n := range v {
			list = append(list, n)
		}
	default:
		o.b.fail("%s: %v is not a list of sizes, like %v", name, v, otherwise)
		return otherwise
	}
	if len(list) == 0 || len(list) > 100 || count >= 0 && len(list) != count {
		o.b.fail("%s: %v has %d entries, a list like %v is needed", name, v, len(list), otherwise)
		return otherwise
	}
	sizes := make([]int, 0, len(list))
	for _, e := range list {
		n, ok := integer(e)
		if !ok || n < 1 || n > maxSize {
			o.b.fail("%s: %v in %v is not a size from 1 to %d", name, e, v, maxSize)
			return otherwise
		}
		sizes = append(sizes, n)
	}
	return sizes
}

func integer(v any) (int, bool) {
	switch v := v.(type) {
	case int:
		return v, true
	case int64:
		return int(v), true
	case uint64:
		return int(v), v <= math.MaxInt32
	case float64:
		return int(v), v == math.Trunc(v) && math.Abs(v) <= math.MaxInt32
	}
	return 0, false
}
