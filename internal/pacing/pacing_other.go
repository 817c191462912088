//go:build !linux

package pacing

import "net"

// Unpace does nothing: only Linux lets a connection choose.
func Unpace(net.Conn) {}

// Widen does nothing: the limits are not known here.
func Widen(net.Conn) {}

// Observe knows nothing here.
func Observe(net.Conn) (State, bool) { return State{}, false }
