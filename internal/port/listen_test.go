package port

import (
	"context"
	"net"
	"strings"
	"testing"
	"time"
)

func TestListenPicksOneNumber(t *testing.T) {
	p, _ := open(t, testConfig("a"))
	_, tcp, _ := net.SplitHostPort(p.Addr())
	_, udp, _ := net.SplitHostPort(p.PacketConn().LocalAddr().String())
	if tcp != udp || tcp == "0" {
		t.Errorf("TCP %s, UDP %s", tcp, udp)
	}
}

func TestListenTaken(t *testing.T) {
	p, _ := open(t, testConfig("a"))
	cfg := testConfig("b")
	cfg.Listen = p.Addr()
	_, err := Listen(cfg)
	if err == nil || !strings.Contains(err.Error(), "port "+p.Addr()+" is taken for TCP") || !strings.Contains(err.Error(), "choose another port") {
		t.Errorf("got %v", err)
	}

	// A number that is taken for UDP alone; others use this host, too.
	var fault error
	for range 10 {
		udp, err := net.ListenPacket("udp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		defer udp.Close()
		cfg.Listen = udp.LocalAddr().String()
		_, fault = Listen(cfg)
		if fault == nil || strings.Contains(fault.Error(), "is taken for UDP") {
			break
		}
	}
	if fault == nil || !strings.Contains(fault.Error(), "is taken for UDP") {
		t.Fatalf("got %v", fault)
	}
	// And the TCP listener that was had first is gone.
	tcp, err := net.Listen("tcp", cfg.Listen)
	if err != nil {
		t.Fatal(err)
	}
	tcp.Close()
}

func TestListenElsewhere(t *testing.T) {
	cfg := testConfig("a")
	cfg.Listen = "192.0.2.1:0" // TEST-NET-1: nobody's
	if _, err := Listen(cfg); err == nil || !strings.Contains(err.Error(), "is not an address of this host") {
		t.Errorf("got %v", err)
	}
}

func TestConfigNamesEveryFault(t *testing.T) {
	_, err := Listen(Config{Listen: "7000", Node: "a/b", Seeds: []string{"host"}, Key: []byte("short")})
	if err == nil {
		t.Fatal("taken")
	}
	for _, want := range []string{"listen:", "node:", "cluster:", "seeds:", "key:"} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("%q does not name %s", err, want)
		}
	}
	for name, ok := range map[string]bool{
		"a": true, "node-1.rack_2": true, "knöten": true,
		"": false, "a b": false, "a@b": false, "a\n": false, strings.Repeat("x", maxName+1): false,
	} {
		if (ValidName(name) == nil) != ok {
			t.Errorf("name %q: valid %t, want %t", name, !ok, ok)
		}
	}
}

// outside is an address of this host that is not loopback, or the test is skipped.
func outside(t *testing.T) net.IP {
	t.Helper()
	addrs, err := net.InterfaceAddrs()
	if err != nil {
		t.Fatal(err)
	}
	for _, a := range addrs {
		if n, ok := a.(*net.IPNet); ok && n.IP.To4() != nil && !n.IP.IsLoopback() {
			return n.IP
		}
	}
	t.Skip("this host has no address but loopback")
	return nil
}

func TestAdvertise(t *testing.T) {
	out := outside(t).String()
	tests := []struct {
		name, bound, advertise string
		seeds                  []string
		want, fault            string
	}{
		{name: "the listener's", bound: "10.0.0.1", want: "10.0.0.1:7000"},
		{name: "loopback alone", bound: "127.0.0.1", want: "127.0.0.1:7000"},
		{name: "given", bound: "0.0.0.0", advertise: "host-a:9000", want: "host-a:9000"},
		{name: "given without port", bound: "0.0.0.0", advertise: "host-a", want: "host-a:7000"},
		{name: "given with port 0", bound: "0.0.0.0", advertise: "host-a:0", want: "host-a:7000"},
		{name: "given v6", bound: "::", advertise: "fd00::1", want: "[fd00::1]:7000"},
		{name: "given, unspecified", bound: "0.0.0.0", advertise: "0.0.0.0", fault: "no address that others can reach"},
		{name: "no seeds", bound: "0.0.0.0", fault: "there are no seeds to choose one by"},
		{name: "no seeds v6", bound: "::", fault: "there are no seeds to choose one by"},
		{name: "by the route", bound: "0.0.0.0", seeds: []string{out + ":7000"}, want: out + ":7000"},
		{name: "by the second seed", bound: "0.0.0.0", seeds: []string{"host.invalid:7000", out + ":7000"}, want: out + ":7000"},
		{name: "loopback does not lead outside", bound: "0.0.0.0", seeds: []string{"127.0.0.1:7000", out + ":7000"}, want: out + ":7000"},
		{name: "all on this host", bound: "0.0.0.0", seeds: []string{"127.0.0.1:7000", "localhost:7001"}, want: "127.0.0.1:7000"},
		{name: "no route", bound: "0.0.0.0", seeds: []string{"host.invalid:7000"}, fault: "no seed has a route"},
		{name: "some on this host", bound: "0.0.0.0", seeds: []string{"127.0.0.1:7000", "host.invalid:7000"}, fault: "no seed has a route"},
		{name: "loopback listener, seed away", bound: "127.0.0.1", seeds: []string{out + ":7000"}, fault: "is this host alone"},
		{name: "loopback given, seed away", bound: "0.0.0.0", advertise: "localhost", seeds: []string{out + ":7000"}, fault: "is this host alone"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			cfg := &Config{Listen: net.JoinHostPort(test.bound, "0"), Advertise: test.advertise, Seeds: test.seeds}
			ctx, cancel := context.WithTimeout(context.Background(), 2*time.Second)
			defer cancel()
			got, err := advertise(ctx, cfg, &net.TCPAddr{IP: net.ParseIP(test.bound), Port: 7000})
			switch {
			case test.fault == "" && (err != nil || got != test.want):
				t.Errorf("got %q, error %v; want %q", got, err, test.want)
			case test.fault != "" && (err == nil || !strings.Contains(err.Error(), test.fault)):
				t.Errorf("got %q, error %v; want %q", got, err, test.fault)
			}
		})
	}
}

// The own name of a host is often 127.0.1.1 in its /etc/hosts.
func TestAdvertiseOwnNameIsNoRoute(t *testing.T) {
	loop := net.IPv4(127, 0, 1, 1)
	cfg := &Config{Listen: "0.0.0.0:0"}
	if ip, err := localFor([]route{{seed: "node-a:7000", local: loop, remote: loop}}, cfg); err == nil || !strings.Contains(err.Error(), "seed node-a:7000 is 127.0.1.1 on this host") {
		t.Errorf("got %v, error %v", ip, err)
	}
}

func TestListenUnspecified(t *testing.T) {
	out := outside(t)
	cfg := testConfig("a")
	cfg.Listen, cfg.Seeds = "0.0.0.0:0", []string{out.String() + ":7000"}
	p, _ := open(t, cfg)
	if host := hostOf(p.Addr()); host != out.String() {
		t.Errorf("advertised %s, want %s", host, out)
	}
	cfg.Seeds = nil
	if _, err := Listen(cfg); err == nil {
		t.Error("an address was guessed")
	}
}
