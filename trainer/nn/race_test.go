//go:build race

package nn

// raced: the race detector makes the plain Go kernels thirty times slower.
const raced = true
