package nn

import (
	"fmt"
	"maps"
	"math"
	"slices"
	"strings"
)

// options reads the options of a model by name, which come from a job file: numbers are whatever its
// parser makes of them. Every fault is kept.
type options struct {
	known  []string
	given  map[string]any
	faults []string
}

func (o *options) fail(format string, args ...any) {
	o.faults = append(o.faults, fmt.Sprintf(format, args...))
}

func (o *options) checkNames() {
	known := "there are no options"
	if len(o.known) > 0 {
		known = "known options are " + strings.Join(o.known, ", ")
	}
	for _, name := range slices.Sorted(maps.Keys(o.given)) {
		if !slices.Contains(o.known, name) {
			o.fail("%.40s is unknown: %s", name, known)
		}
	}
}

// size is an option that is one size.
func (o *options) size(name string, otherwise int) int {
	v, ok := o.given[name]
	if !ok {
		return otherwise
	}
	n, ok := integer(v)
	if !ok || n < 1 || n > maxSize {
		o.fail("%s: %s is not a size from 1 to %d", name, brief(v), maxSize)
		return max(1, otherwise)
	}
	return n
}

// probability is an option from 0 to below 1; the default is 0.
func (o *options) probability(name string) float64 {
	v, ok := o.given[name]
	if !ok {
		return 0
	}
	p, ok := number(v)
	if !ok || !(p >= 0 && p < 1) {
		o.fail("%s: %s is not a number from 0 to below 1", name, brief(v))
		return 0
	}
	return p
}

// sizes is an option that is a list of count sizes (-1: any number but none at all).
func (o *options) sizes(name string, otherwise []int, count int) []int {
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
		o.fail("%s: %s is not a list of sizes, like %v", name, brief(v), otherwise)
		return otherwise
	}
	if len(list) == 0 || len(list) > 100 || count >= 0 && len(list) != count {
		o.fail("%s: %s has %d entries, a list like %v is needed", name, brief(v), len(list), otherwise)
		return otherwise
	}
	sizes := make([]int, 0, len(list))
	for _, e := range list {
		n, ok := integer(e)
		if !ok || n < 1 || n > maxSize {
			o.fail("%s: %s in %s is not a size from 1 to %d", name, brief(e), brief(v), maxSize)
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
