//go:build !linux

package collective

import (
	"net"
	"runtime"
	"time"
)

// asPrompt: elsewhere the ring's own goroutines wait for connections.
func asPrompt(conn net.Conn) (net.Conn, prompt) {
	p, _ := conn.(prompt)
	return conn, p
}

func awaitSockets(_, _ *link, _ time.Duration) bool { return false }

func yield() { runtime.Gosched() }

func nap() { time.Sleep(time.Nanosecond) }
