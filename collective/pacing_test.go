package collective

import (
	"net"
	"testing"
)

func TestWithin(t *testing.T) {
	rings := joinAll(t, 2, tcpConfigs(t, 2))
	defer closeAll(rings)
	for _, r := range rings {
		if !within(tcpUnder(r.prev.conn)) || !within(tcpUnder(r.next.conn)) {
			t.Error("loopback is taken for a network")
		}
	}
	a, b := net.Pipe()
	defer func() { _, _ = a.Close(), b.Close() }()
	if tcpUnder(a) != nil {
		t.Error("a pipe is taken for TCP")
	}
	unpace(a)
}
