package collective

import "net"

// tcpUnder is the TCP connection under conn, nil where there is none.
func tcpUnder(conn net.Conn) *net.TCPConn {
	if c, ok := conn.(interface{ NetConn() net.Conn }); ok { // TLS
		conn = c.NetConn()
	}
	c, _ := conn.(*net.TCPConn)
	return c
}

// within says whether both ends of a connection are on this host.
func within(c *net.TCPConn) bool {
	local, ok1 := c.LocalAddr().(*net.TCPAddr)
	remote, ok2 := c.RemoteAddr().(*net.TCPAddr)
	return ok1 && ok2 && (local.IP.Equal(remote.IP) || local.IP.IsLoopback() && remote.IP.IsLoopback())
}
