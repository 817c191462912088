//go:build !linux

package collective

import "net"

// unpace does nothing: only Linux lets a connection choose.
func unpace(net.Conn) {}
