package pacing

import (
	"net"
	"testing"
)

func TestWithin(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = l.Close() }()
	near, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = near.Close() }()
	far, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = far.Close() }()
	if !Within(TCP(near)) || !Within(TCP(far)) {
		t.Error("loopback is taken for a network")
	}
	a, b := net.Pipe()
	defer func() { _, _ = a.Close(), b.Close() }()
	if TCP(a) != nil {
		t.Error("a pipe is taken for TCP")
	}
	Unpace(a)
	Unpace(near)
	Widen(a)
	Widen(near)
	if _, ok := Observe(a); ok {
		t.Error("something is known of a pipe")
	}
	if s, ok := Observe(near); ok && s.Far() {
		t.Errorf("loopback is far: %+v", s)
	}
}
