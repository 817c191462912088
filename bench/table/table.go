// Package table holds what the programs that turn rows of measurements into Markdown share.
package table

import (
	"fmt"
	"os"
	"runtime"
	"slices"
	"strings"
)

// Figure is the median, in three digits; "-" where there are none.
func Figure(values []float64) string {
	if len(values) == 0 {
		return "-"
	}
	return Digits(Median(values))
}

// Median is that of at least one value.
func Median(values []float64) float64 {
	v := slices.Sorted(slices.Values(values))
	if n := len(v); n%2 == 0 {
		return (v[n/2] + v[n/2-1]) / 2
	}
	return v[len(v)/2]
}

// Digits writes a number with three digits, or all that it has before the point.
func Digits(v float64) string {
	switch {
	case v >= 100:
		return fmt.Sprintf("%.0f", v)
	case v >= 10:
		return fmt.Sprintf("%.1f", v)
	}
	return fmt.Sprintf("%.2f", v)
}

// Machine describes this machine in words.
func Machine() string {
	return fmt.Sprintf("%s, %d cores; Linux %s", processor(), runtime.NumCPU(), FirstLine("/proc/sys/kernel/osrelease"))
}

// FirstLine is that of a file, or "unknown".
func FirstLine(file string) string {
	b, err := os.ReadFile(file)
	if err != nil {
		return "unknown"
	}
	line, _, _ := strings.Cut(string(b), "\n")
	return line
}

func processor() string {
	b, _ := os.ReadFile("/proc/cpuinfo")
	for line := range strings.Lines(string(b)) {
		if name, value, ok := strings.Cut(line, ":"); ok && strings.TrimSpace(name) == "model name" {
			return strings.TrimSpace(value)
		}
	}
	return runtime.GOARCH
}
