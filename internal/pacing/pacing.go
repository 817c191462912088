// Package pacing suits TCP connections to how far they go: the congestion control of those that do not go far, and how much those that
// do may have on their way.
package pacing

import (
	"net"
	"time"
)

// State is what the kernel knows of a connection and its reader cannot see.
type State struct {
	Arrived  uint32        // packets with data that have come, those too that lie behind a lost one and cannot be read yet; wraps
	RTT      time.Duration // now
	Shortest time.Duration // round trip of the last minutes: what the way takes when nothing queues on it
	Busy     time.Duration // in which something sent was on its way, and the peer had room for it; since the connection was made
	Rate     uint64        // bytes per second at which what was sent last has arrived
}

// Far says whether the peer is further away than a local network goes.
func (s State) Far() bool { return s.Shortest >= near }

// near is a round trip that a local network has, and no longer distance.
const near = 2 * time.Millisecond

// TCP is the TCP connection under conn, nil where there is none.
func TCP(conn net.Conn) *net.TCPConn {
	if c, ok := conn.(interface{ NetConn() net.Conn }); ok { // TLS
		conn = c.NetConn()
	}
	c, _ := conn.(*net.TCPConn)
	return c
}

// Within says whether both ends of a connection are on this host.
func Within(c *net.TCPConn) bool {
	local, ok1 := c.LocalAddr().(*net.TCPAddr)
	remote, ok2 := c.RemoteAddr().(*net.TCPAddr)
	return ok1 && ok2 && (local.IP.Equal(remote.IP) || local.IP.IsLoopback() && remote.IP.IsLoopback())
}
