package collective

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	crand "crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"math/big"
	"net"
	"os"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/musterml/muster/internal/id"
)

// A trainer that learns of the view late is waited for, through refusals too.
func TestJoinWaits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const world = 4
		m := newMemNet(100)
		begin := time.Now()
		rings := joinAll(t, world, func(rank int) Config {
			cfg := m.config(rank, world)
			switch rank {
			case 0:
				dial := cfg.Dial
				cfg.Dial = func(ctx context.Context, to Peer) (net.Conn, error) {
					if time.Since(begin) < 3*time.Second {
						return nil, errors.New("connection refused")
					}
					return dial(ctx, to)
				}
			case 2:
				<-time.After(12 * time.Second) // longer than an inbox keeps a connection
			}
			return cfg
		})
		defer closeAll(rings)
		if d := time.Since(begin); d < 12*time.Second || d > 13*time.Second {
			t.Errorf("joined after %v", d)
		}
		checkAll(t, rings, 100, 1)
	})
}

func TestJoinNamesWhoIsMissing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newMemNet(100)
		ctx, cancel := context.WithTimeout(bg, 3*time.Second)
		defer cancel()
		begin := time.Now()
		_, err := Join(ctx, m.config(0, 3))
		for _, want := range []string{"view 7", "n1", "n2", "join"} {
			if err == nil || !strings.Contains(err.Error(), want) {
				t.Errorf("%q is not in: %v", want, err)
			}
		}
		if !errors.Is(err, context.DeadlineExceeded) || time.Since(begin) != 3*time.Second {
			t.Errorf("after %v: %v", time.Since(begin), err)
		}
		_ = m.box("n1").Close()
	})
}

// The next host does not answer: that is known long before the time to join is up.
func TestJoinNobodyAnswers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newMemNet(100)
		c := m.config(0, 3)
		c.Dial = func(context.Context, Peer) (net.Conn, error) {
			<-time.After(AnswerWithin)
			return nil, &net.OpError{Op: "dial", Net: "tcp", Err: os.ErrDeadlineExceeded}
		}
		ctx, cancel := context.WithTimeout(bg, time.Hour)
		defer cancel()
		begin := time.Now()
		_, err := Join(ctx, c)
		var lost *PeerError
		if !errors.As(err, &lost) || lost.Peer != "n1" || lost.Phase != "join" || !errors.Is(lost, ErrSilent) {
			t.Error(err)
		}
		if d := time.Since(begin); d > AnswerWithin {
			t.Errorf("took %v", d)
		}
	})
}

// What may lie in the inbox, or knock, before the right one comes.
func TestJoinPastStrangers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newMemNet(1000)
		key := InboxKey("test", 7)
		hello := func(view id.View, gone bool) func() {
			return func() {
				conn := m.dial("stranger", "n1", key)
				h := header{kind: kindHello, run: hashRun("test"), view: view, rank: 0, bucket: wireVersion, verb: 1, seq: 2,
					offset: 64, digest: hashPeers(m.config(0, 2).Peers)}
				var b [headerSize]byte
				h.put(&b)
				_, _ = conn.Write(b[:])
				if gone {
					_ = conn.Close()
				}
			}
		}
		for i, knock := range []func(){
			func() { _, _ = m.dial("stranger", "n1", key).Write([]byte(strings.Repeat("GET / HTTP/1.1\r\n", 10))) },
			func() { m.dial("stranger", "n1", key) },             // says nothing
			func() { _ = m.dial("stranger", "n1", key).Close() }, // leaves at once
			hello(6, false), // an earlier view
			hello(7, true),  // what an earlier attempt has left
			func() { m.dial("n1", "n1", key); m.dial("x", "y", "") }, // for somebody else
		} {
			knock()
			rings := joinAll(t, 2, func(rank int) Config {
				if rank == 0 {
					<-time.After(500 * time.Millisecond)
				}
				return m.config(rank, 2)
			})
			checkAll(t, rings, 10, uint64(i))
			closeAll(rings)
		}
		for _, b := range m.boxes {
			_ = b.Close()
		}
	})
}

func TestJoinDisagreement(t *testing.T) {
	for what, change := range map[string]func(*Config){
		"other peers": func(c *Config) { c.Peers[2].Node = "somebody" },
		"ChunkBytes":  func(c *Config) { c.ChunkBytes = 128 },
		"ranks in":    func(c *Config) { c.Peers = append(c.Peers, Peer{Node: "more"}) },
		"another run": func(c *Config) { c.Run = "best" },
	} {
		t.Run(what, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				m := newMemNet(1000)
				ctx, cancel := context.WithTimeout(bg, 2*time.Second)
				defer cancel()
				errs := make(chan error)
				for rank := range 3 {
					cfg := m.config(rank, 3)
					cfg.Accept = func(ctx context.Context) (net.Conn, error) {
						return m.box(nodeName(rank)).Accept(ctx, "key")
					}
					cfg.Dial = func(context.Context, Peer) (net.Conn, error) {
						return m.dial(nodeName(rank), nodeName((rank+1)%3), "key"), nil
					}
					if rank == 1 {
						change(&cfg)
					}
					go func() {
						_, err := Join(ctx, cfg)
						errs <- err
					}()
				}
				said := false
				for range 3 {
					err := <-errs
					if err == nil {
						t.Error("joined")
					} else if strings.Contains(err.Error(), what) {
						said = true
					}
				}
				if !said {
					t.Errorf("nobody says %q", what)
				}
				for _, b := range m.boxes {
					_ = b.Close()
				}
			})
		})
	}
}

func TestInbox(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		closed := func(c net.Conn) bool { _, err := c.Read(make([]byte, 1)); return err == io.EOF }
		box := NewInbox(time.Second, 2)
		deliver := func(key string) net.Conn {
			a, b := memPair(10)
			box.Deliver(key, b)
			return a
		}
		first := deliver("a")
		second := deliver("a")
		if !closed(first) {
			t.Error("the older connection of a key is kept")
		}
		deliver("b")
		deliver("c")
		if !closed(second) {
			t.Error("more than the limit are kept")
		}
		b, err := box.Accept(bg, "b")
		if err != nil || b == nil {
			t.Error(err)
		}
		late := deliver("d")
		<-time.After(2 * time.Second)
		if !closed(late) {
			t.Error("kept for ever")
		}
		ctx, cancel := context.WithTimeoutCause(bg, time.Second, errBoom)
		defer cancel()
		if _, err := box.Accept(ctx, "d"); !errors.Is(err, errBoom) {
			t.Error(err)
		}
		got := make(chan error)
		for range 2 {
			go func() {
				_, err := box.Accept(bg, "e")
				got <- err
			}()
		}
		synctest.Wait()
		deliver("e")
		deliver("e")
		if err := errors.Join(<-got, <-got); err != nil {
			t.Error(err)
		}
		go func() {
			_, err := box.Accept(bg, "f")
			got <- err
		}()
		synctest.Wait()
		parked := deliver("g")
		_ = box.Close()
		if err := <-got; !errors.Is(err, ErrClosed) {
			t.Error(err)
		}
		if !closed(parked) || !closed(deliver("h")) {
			t.Error("open after Close")
		}
		if _, err := box.Accept(bg, "f"); !errors.Is(err, ErrClosed) {
			t.Error(err)
		}
		if len(box.parked)+len(box.waiting) > 0 {
			t.Error("something is left")
		}
	})
}

// The same faults on real sockets, under load.
func TestTCPFailures(t *testing.T) {
	for name, hit := range map[string]func(r *Ring){
		"abort": func(r *Ring) { r.Abort(errBoom) },
		"reset": func(r *Ring) {
			for _, l := range []*link{&r.prev, &r.next} {
				c := l.conn.(*net.TCPConn)
				_ = c.SetLinger(0)
				_ = c.Close()
			}
		},
		"close": func(r *Ring) { _ = r.Close() },
	} {
		t.Run(name, func(t *testing.T) {
			for range 5 {
				rings := joinAll(t, 4, tcpConfigs(t, 4))
				warm := make(chan struct{}, 4)
				go func() {
					for range 4 {
						<-warm
					}
					hit(rings[1])
				}()
				errs := onAll(rings, func(_ int, r *Ring) error {
					x := make([]int32, 200_000)
					for i := 0; ; i++ {
						if err := r.AllReduce(bg, Op{Step: 1}, Int32s(x), SumInt32); err != nil {
							clear(x)
							return err
						}
						if i == 3 {
							warm <- struct{}{}
						}
					}
				})
				for i, err := range errs {
					var abort *AbortError
					if name == "abort" && (!errors.As(err, &abort) || abort.Origin != "n1" || abort.Reason != "boom") {
						t.Errorf("rank %d: %v", i, err)
					}
					if name == "close" && i != 1 && !errors.Is(err, ErrLeft) && !errors.Is(err, ErrAborted) {
						t.Errorf("rank %d: %v", i, err)
					}
				}
				closeAll(rings)
			}
		})
	}
}

func TestTLS(t *testing.T) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), crand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour)}
	der, err := x509.CreateCertificate(crand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	conf := &tls.Config{
		Certificates:       []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: key}},
		InsecureSkipVerify: true, // the port checks keys; here only the stream matters
		MinVersion:         tls.VersionTLS13,
	}
	plain := tcpConfigs(t, 3)
	secure := func(rank int) Config {
		cfg := plain(rank)
		dial, accept := cfg.Dial, cfg.Accept
		cfg.Dial = func(ctx context.Context, to Peer) (net.Conn, error) {
			c, err := dial(ctx, to)
			if err != nil {
				return nil, err
			}
			return tls.Client(c, conf), nil
		}
		cfg.Accept = func(ctx context.Context) (net.Conn, error) {
			c, err := accept(ctx)
			if err != nil {
				return nil, err
			}
			return tls.Server(c, conf), nil
		}
		return cfg
	}
	rings := joinAll(t, 3, secure)
	checkAll(t, rings, 200_000, 1)
	closeAll(rings)

	rings = joinAll(t, 3, secure)
	defer closeAll(rings)
	errs := onAll(rings, func(i int, r *Ring) error {
		if i == 2 {
			r.Abort(errBoom)
			return r.Err()
		}
		return r.AllReduce(bg, Op{}, Int32s(make([]int32, 200_000)), SumInt32)
	})
	for i, err := range errs {
		var abort *AbortError
		if !errors.As(err, &abort) || abort.Origin != "n2" {
			t.Errorf("rank %d: %v", i, err)
		}
	}
}

// Chunks are small only where every rank is on one host.
func TestDefaultChunkBytes(t *testing.T) {
	for want, addrs := range map[int][]string{
		DefaultChunkBytes: {"127.0.0.1:1", "127.0.0.1:2", "127.0.0.1:3"},
		FarChunkBytes:     {"10.0.0.1:7400", "10.0.0.1:7401", "10.0.0.2:7400"},
	} {
		var peers []Peer
		for _, a := range addrs {
			peers = append(peers, Peer{Addr: a})
		}
		if got := defaultChunkBytes(peers); got != want {
			t.Errorf("%v: %d, want %d", addrs, got, want)
		}
	}
}
