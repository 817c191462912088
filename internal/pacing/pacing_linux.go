package pacing

import (
	"net"
	"os"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// nearCongestion is the TCP congestion control within a host and within a local network.
const nearCongestion = "reno"

// Unpace takes a connection that does not go far from bbr, if that is what the system chooses, to reno.
//
// Within a host nothing is ever congested, and bbr, which paces with a timer per burst, costs about 40 % more processor
// time and a third of the bandwidth from 4 MiB on (bench/RESULTS-ring.md). Within a local network its pacing is free,
// but every 10 s of unbroken sending it drains each connection for 0.2 s to measure the round trip, and a ring waits for
// all of them: four ranks at 100 Mb/s reached 87 % of the link, with reno 96 % (bench/net.sh). The losses that reno takes
// badly on long ways it recovers from within some milliseconds here.
//
// Over longer ways the administrator's choice stands, and any other than bbr stands everywhere but within a host. Reno
// is built into every kernel and open to every user. Where it cannot be set the connection works as before, so there
// is no error to report.
func Unpace(conn net.Conn) {
	c := TCP(conn)
	if c == nil {
		return
	}
	raw, err := c.SyscallConn()
	if err != nil {
		return
	}
	_ = raw.Control(func(fd uintptr) {
		if Within(c) || paced(int(fd)) {
			_ = unix.SetsockoptString(int(fd), unix.IPPROTO_TCP, unix.TCP_CONGESTION, nearCongestion)
		}
	})
}

// Widen lets a connection that goes far have more on its way than it could get by itself, where the administrator allows that:
// by itself it keeps at most tcp_wmem of what the peer has not acknowledged, and twice wmem_max when it asks. One over 20 ms
// each way at 1 Gb/s took 55 % of the link with the 4 MiB of tcp_wmem, and takes 86 to 92 % with twice that (bench/net.sh).
//
// Where twice wmem_max is less, as it is unless somebody has raised it, the connection is left as it is: raise tcp_wmem there.
func Widen(conn net.Conn) {
	c := TCP(conn)
	if c == nil || Within(c) {
		return
	}
	raw, err := c.SyscallConn()
	if err != nil {
		return
	}
	own, err1 := lastNumber("/proc/sys/net/ipv4/tcp_wmem")
	asked, err2 := lastNumber("/proc/sys/net/core/wmem_max")
	if err1 != nil || err2 != nil || 2*asked <= own {
		return
	}
	_ = raw.Control(func(fd uintptr) {
		if far(int(fd)) {
			_ = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_SNDBUF, asked)
			_ = unix.SetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_NOTSENT_LOWAT, notSent)
		}
	})
}

// Observe asks the kernel about a connection; ok is false where it is not TCP.
func Observe(conn net.Conn) (s State, ok bool) {
	c := TCP(conn)
	if c == nil {
		return s, false
	}
	raw, err := c.SyscallConn()
	if err != nil {
		return s, false
	}
	err = raw.Control(func(fd uintptr) { s, ok = ObserveSocket(int(fd)) })
	return s, ok && err == nil
}

// ObserveSocket is Observe for a descriptor.
func ObserveSocket(fd int) (s State, ok bool) {
	info, err := unix.GetsockoptTCPInfo(fd, unix.IPPROTO_TCP, unix.TCP_INFO)
	if err != nil {
		return s, false
	}
	return State{
		Arrived:  info.Data_segs_in,
		RTT:      time.Duration(info.Rtt) * time.Microsecond,
		Shortest: time.Duration(min(info.Rtt, info.Min_rtt)) * time.Microsecond,
		Busy:     time.Duration(info.Busy_time-min(info.Busy_time, info.Rwnd_limited)) * time.Microsecond,
		Rate:     info.Delivery_rate,
	}, true
}

// notSent bounds what lies in such a connection and is not on its way yet: an abort waits behind it.
const notSent = 1 << 20

// lastNumber of a file is the limit.
func lastNumber(path string) (int, error) {
	b, err := os.ReadFile(path)
	if err != nil {
		return 0, err
	}
	words := strings.Fields(string(b))
	return strconv.Atoi(words[len(words)-1])
}

// far says whether a connection's peer is not near.
func far(fd int) bool {
	s, ok := ObserveSocket(fd)
	return ok && s.RTT >= near
}

// paced says whether a socket is bbr's and its peer near.
func paced(fd int) bool {
	name, err := unix.GetsockoptString(fd, unix.IPPROTO_TCP, unix.TCP_CONGESTION)
	if err != nil || name != "bbr" {
		return false
	}
	s, ok := ObserveSocket(fd)
	return ok && s.RTT < near
}
