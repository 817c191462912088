package collective

import "net"

// within is the TCP connection under conn when both its ends are on this host; nil where they are not.
func within(conn net.Conn) *net.TCPConn {
	if c, ok := conn.(interface{ NetConn() net.Conn }); ok { // TLS
		conn = c.NetConn()
	}
	c, ok := conn.(*net.TCPConn)
	if !ok {
		return nil
	}
	local, ok1 := c.LocalAddr().(*net.TCPAddr)
	remote, ok2 := c.RemoteAddr().(*net.TCPAddr)
	if !ok1 || !ok2 || !local.IP.Equal(remote.IP) && !(local.IP.IsLoopback() && remote.IP.IsLoopback()) {
		return nil
	}
	return c
}
