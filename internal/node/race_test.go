//go:build race

package node

// raced: the race detector makes training many times slower.
const raced = true
