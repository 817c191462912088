package port

import (
	"bytes"
	"context"
	"errors"
	"net"
	"strings"
	"testing"

	pb "github.com/musterml/muster/proto"
)

var (
	keyOne = []byte("one secret that is long enough")
	keyTwo = []byte("two secret that is long enough")
)

// Every refusal, as the dialing side gets it and as the accepting side logs it.
func TestRefusals(t *testing.T) {
	tests := []struct {
		name           string
		dialing        func(*Config)
		accepting      func(*Config)
		proto          Protocol
		dialer, logged string
	}{
		{
			name: "cluster", dialing: func(c *Config) { c.Cluster = "other" }, proto: Ring,
			dialer: `a is in cluster "other", b in cluster "test"; use the same cluster name on every node`,
		},
		{
			name: "job", dialing: func(c *Config) { c.Job = [32]byte{0xab, 0xcd} }, proto: Control,
			dialer: "a runs job abcd00000000, b runs job 010203000000; use the same job file on every node, and in Go programs the same data",
		},
		{
			name: "no job", dialing: func(c *Config) { c.Job = [32]byte{} }, proto: Ring,
			dialer: "a has no job, and without one only control is open to it, not ring on b",
		},
		{
			name: "no job there", accepting: func(c *Config) { c.Job = [32]byte{} }, proto: Ring,
			dialer: "a runs job 010203000000, b runs job none; use the same job file on every node, and in Go programs the same data",
		},
		{
			name: "another key", proto: Ring,
			dialing: func(c *Config) { c.Key = keyOne }, accepting: func(c *Config) { c.Key = keyTwo },
			dialer: "its key differs; use the same --key-file on every node",
		},
		{
			name: "no key", accepting: func(c *Config) { c.Key = keyTwo }, proto: Ring,
			dialer: "b has a key, a has none; use the same --key-file on every node",
		},
		{
			name: "no key there", dialing: func(c *Config) { c.Key = keyOne }, proto: Ring,
			dialer: "it has no key, but this side has one; use the same --key-file on every node",
			logged: "it has a key, but this side has none; use the same --key-file on every node",
		},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			ca, cb := testConfig("a"), testConfig("b")
			if test.dialing != nil {
				test.dialing(&ca)
			}
			if test.accepting != nil {
				test.accepting(&cb)
			}
			a, _ := open(t, ca)
			b, log := open(t, cb)
			b.Handle(test.proto, "", echo)
			for range 3 { // who tries again and again is logged once
				_, err := a.Dial(testContext(t), b.Addr(), test.proto, "x")
				var refused *Refused
				if !errors.As(err, &refused) || refused.Reason != test.dialer || refused.Addr != b.Addr() {
					t.Fatalf("dialing side got %v,\nwant %q", err, test.dialer)
				}
			}
			want := test.dialer
			if test.logged != "" {
				want = test.logged
			}
			// The log is JSON: quotes are escaped.
			want = strings.ReplaceAll(want, `"`, `\"`)
			eventually(t, "logged: "+want, func() bool { return log.count(want) > 0 })
			if n := log.count("refused a connection"); n != 1 {
				t.Errorf("logged %d times, want once", n)
			}
		})
	}
}

// helloFrom sends a Hello of our making.
func helloFrom(t *testing.T, addr string, proto Protocol, hello *pb.Hello) error {
	t.Helper()
	conn, err := dial(testContext(t), dialTimeout, nil, hello, addr, proto)
	if err == nil {
		err = conn.Close()
	}
	return err
}

func TestRefusesOtherWireVersion(t *testing.T) {
	b, log := open(t, testConfig("b"))
	b.Handle(Ring, "", echo)
	// Whatever else a later version changes: the version is looked at first.
	hello := &pb.Hello{WireVersion: wireVersion + 1, Version: "v9", Node: "a", Cluster: "elsewhere"}
	err := helloFrom(t, b.Addr(), Ring, hello)
	want := "a speaks wire version 2 (muster v9), b speaks 1 (muster v1); install the same muster on every node"
	var refused *Refused
	if !errors.As(err, &refused) || refused.Reason != want {
		t.Errorf("dialing side got %v, want %q", err, want)
	}
	eventually(t, "logged", func() bool { return log.count(want) == 1 })
}

func TestJobOfAnotherSizeDiffers(t *testing.T) {
	if jobOf(&pb.Hello{Job: []byte{1}}) == testJob {
		t.Error("a short digest equals ours")
	}
	b, _ := open(t, testConfig("b"))
	b.Handle(Ring, "", echo)
	var refused *Refused
	err := helloFrom(t, b.Addr(), Ring, &pb.Hello{WireVersion: wireVersion, Cluster: "test", Node: "a", Addr: "h:1", Job: testJob[:20]})
	if !errors.As(err, &refused) {
		t.Errorf("got %v, want a refusal", err)
	}
}

func TestTools(t *testing.T) {
	for name, key := range map[string][]byte{"plain": nil, "key": keyOne} {
		t.Run(name, func(t *testing.T) {
			cfg := testConfig("b")
			cfg.Key = key
			b, _ := open(t, cfg)
			peers := make(chan Peer, 1)
			b.Handle(Control, "status", func(c net.Conn, from Peer) {
				peers <- from
				echo(c, from)
			})
			b.Handle(Ring, "", echo)
			tool := func(cluster string, proto Protocol) error {
				cfg := ToolConfig{Cluster: cluster, Version: "v1", Key: key}
				conn, err := DialTool(testContext(t), cfg, b.Addr(), proto, "status")
				if err != nil {
					return err
				}
				checkEcho(t, conn)
				return conn.Close()
			}
			for _, cluster := range []string{"", "test"} {
				if err := tool(cluster, Control); err != nil {
					t.Errorf("cluster %q: %v", cluster, err)
				}
				if from := <-peers; !from.Tool || from.Addr != "" || from.Topic != "status" {
					t.Errorf("peer %+v, want a tool", from)
				}
			}
			var refused *Refused
			if err := tool("other", Control); !errors.As(err, &refused) {
				t.Errorf("another cluster: %v, want a refusal", err)
			}
			if err := tool("", Ring); !errors.As(err, &refused) {
				t.Errorf("ring: %v, want a refusal", err)
			}
			if key != nil {
				_, err := DialTool(testContext(t), ToolConfig{}, b.Addr(), Control, "status")
				if !errors.As(err, &refused) {
					t.Errorf("without the key: %v, want a refusal", err)
				}
			}
		})
	}
	if _, err := DialTool(context.Background(), ToolConfig{Key: []byte("short")}, "127.0.0.1:1", Control, ""); err == nil {
		t.Error("a short key was taken")
	}
}

// A node without a job may still ask and answer control questions.
func TestNodeWithoutJobControls(t *testing.T) {
	cfg := testConfig("a")
	cfg.Job = [32]byte{}
	a, _ := open(t, cfg)
	b, _ := open(t, testConfig("b"))
	b.Handle(Control, "", echo)
	conn, err := a.Dial(testContext(t), b.Addr(), Control, "job")
	if err != nil {
		t.Fatal(err)
	}
	checkEcho(t, conn)
	if err := conn.Close(); err != nil {
		t.Error(err)
	}
}

func TestKeyIsAPureFunction(t *testing.T) {
	one, err := newIdentity(keyOne)
	if err != nil {
		t.Fatal(err)
	}
	again, err := newIdentity(keyOne)
	if err != nil {
		t.Fatal(err)
	}
	other, err := newIdentity(keyTwo)
	if err != nil {
		t.Fatal(err)
	}
	der := func(i *identity) []byte { return i.config.Certificates[0].Certificate[0] }
	if !bytes.Equal(der(one), der(again)) {
		t.Error("the same key gives two certificates")
	}
	if one.public.Equal(other.public) {
		t.Error("two keys give the same certificate")
	}
	if g := GossipKey(keyOne); len(g) != 32 || bytes.Equal(g, GossipKey(keyTwo)) || !bytes.Equal(g, GossipKey(keyOne)) {
		t.Errorf("gossip key %x", g)
	}
	if GossipKey(nil) != nil {
		t.Error("no key gives a gossip key")
	}
}
