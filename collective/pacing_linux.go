package collective

import (
	"net"
	"syscall"
)

// hostCongestion is the TCP congestion control that a ring uses between processes of one host.
const hostCongestion = "reno"

// unpace keeps a connection within one host from being paced. Nothing is ever congested there, and bbr, which paces
// with a timer per burst, costs about 40 % more processor time and a third of the bandwidth from 4 MiB on
// (bench/RESULTS-ring.md). Reno is built into every kernel and open to every user. Between hosts the administrator's
// choice stands. Where it cannot be set the connection works as before, so there is no error to report.
func unpace(conn net.Conn) {
	c := within(conn)
	if c == nil {
		return
	}
	raw, err := c.SyscallConn()
	if err != nil {
		return
	}
	_ = raw.Control(func(fd uintptr) {
		_ = syscall.SetsockoptString(int(fd), syscall.IPPROTO_TCP, syscall.TCP_CONGESTION, hostCongestion)
	})
}
