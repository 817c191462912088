//go:build !linux

package huge

// advise: only Linux is asked.
func advise(_, _ uintptr) {}
