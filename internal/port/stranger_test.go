package port

import (
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"os"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	pb "github.com/musterml/muster/proto"
)

// checkGoroutines fails when more goroutines are left at the end than now.
func checkGoroutines(t *testing.T) {
	t.Helper()
	before := runtime.NumGoroutine()
	t.Cleanup(func() { // after the ports' own, which were registered later
		eventually(t, "goroutines gone", func() bool { return runtime.NumGoroutine() <= before })
	})
}

func TestStrangers(t *testing.T) {
	checkGoroutines(t)
	for name, key := range map[string][]byte{"plain": nil, "key": keyOne} {
		t.Run(name, func(t *testing.T) {
			for what, send := range map[string]string{
				"http":              "GET / HTTP/1.1\r\nHost: x\r\n\r\n",
				"ssh":               "SSH-2.0-OpenSSH_9.9\r\n",
				"absurd length":     "\xA4\xff\xff\xff\xffrest",
				"no protobuf":       "\xA4\x04\x00\x00\x00\xff\xff\xff\xff",
				"broken tls":        "\x16\x03\x01\x00\x04junk and more of it",
				"silent":            "",
				"silent in hello":   "\xA4\x10\x00\x00\x00\x08",
				"unknown protocol":  "\xB7\x00\x00\x00\x00",
				"zeros":             strings.Repeat("\x00", 1000),
				"gone in mid hello": "\xA4\x10",
			} {
				t.Run(what, func(t *testing.T) {
					t.Parallel() // most of the time is the patience with silence
					cfg := testConfig("b")
					cfg.Key = key
					cfg.handshake = time.Second
					b, log := open(t, cfg)
					b.Handle(Ring, "", func(c net.Conn, _ Peer) { t.Error("a stranger was let in"); c.Close() })
					var conns []net.Conn
					for range 3 {
						conn, err := net.Dial("tcp", b.Addr())
						if err != nil {
							t.Fatal(err)
						}
						defer conn.Close()
						if _, err := io.WriteString(conn, send); err != nil {
							t.Fatal(err)
						}
						conns = append(conns, conn)
					}
					for i, conn := range conns {
						if i == 2 && strings.HasPrefix(what, "gone") {
							conn.Close()
							continue
						}
						// However it ends, it ends.
						_ = conn.SetReadDeadline(time.Now().Add(10 * time.Second))
						if _, err := io.Copy(io.Discard, conn); errors.Is(err, os.ErrDeadlineExceeded) {
							t.Error("the connection was left open")
						}
					}
					if n := log.count(`"level":"info"`) + log.count(`"level":"warn"`); n > 1 {
						t.Errorf("logged %d times, want once", n)
					}
					checkStillThere(t, b, key)
				})
			}
		})
	}
}

// checkStillThere opens a proper connection to b.
func checkStillThere(t *testing.T, b *Port, key []byte) {
	t.Helper()
	cfg := testConfig("a")
	cfg.Key = key
	a, _ := open(t, cfg)
	b.Handle(Params, "", echo)
	conn, err := a.Dial(testContext(t), b.Addr(), Params, "x")
	if err != nil {
		t.Fatal(err)
	}
	checkEcho(t, conn)
	conn.Close()
}

// A TLS client that has no certificate at all (a scanner, a browser) gets nowhere.
func TestTLSWithoutCertificate(t *testing.T) {
	checkGoroutines(t)
	cfg := testConfig("b")
	cfg.Key = keyOne
	b, _ := open(t, cfg)
	b.Handle(Ring, "", func(c net.Conn, _ Peer) { t.Error("a stranger was let in"); c.Close() })
	conn, err := net.Dial("tcp", b.Addr())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	c := tls.Client(conn, &tls.Config{InsecureSkipVerify: true, MinVersion: tls.VersionTLS13})
	if err := pb.WriteMessage(c, &pb.Hello{}); err == nil {
		_, err = io.ReadAll(c)
		if err == nil {
			t.Error("the server went on without a certificate")
		}
	}
}

// Whatever follows the Hello in the same packet belongs to the handler.
func TestHandshakeReadsExactly(t *testing.T) {
	b, _ := open(t, testConfig("b"))
	b.Handle(Ring, "", echo)
	conn, err := net.Dial("tcp", b.Addr())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	frame, err := pb.AppendMessage([]byte{byte(Ring)}, &pb.Hello{
		WireVersion: wireVersion, Cluster: "test", Job: testJob[:], Node: "a", Addr: "h:1",
	})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := conn.Write(append(frame, "extra"...)); err != nil {
		t.Fatal(err)
	}
	var first [1]byte
	var welcome pb.Welcome
	if _, err := io.ReadFull(conn, first[:]); err != nil || first[0] != answerByte {
		t.Fatalf("first byte %x, error %v", first, err)
	}
	if err := pb.ReadMessage(conn, &welcome, maxHello); err != nil || welcome.GetRefusal() != pb.Welcome_NONE {
		t.Fatalf("welcome %v, error %v", &welcome, err)
	}
	extra := make([]byte, 5)
	if _, err := io.ReadFull(conn, extra); err != nil || string(extra) != "extra" {
		t.Errorf("got %q, error %v", extra, err)
	}
}

func TestDialNotMuster(t *testing.T) {
	for name, key := range map[string][]byte{"plain": nil, "key": keyOne} {
		t.Run(name, func(t *testing.T) {
			l, err := net.Listen("tcp", "127.0.0.1:0")
			if err != nil {
				t.Fatal(err)
			}
			defer l.Close()
			go func() {
				for {
					conn, err := l.Accept()
					if err != nil {
						return
					}
					_, _ = io.WriteString(conn, "220 mail.example.org ESMTP\r\n")
					_, _ = io.Copy(io.Discard, conn)
					conn.Close()
				}
			}()
			cfg := testConfig("a")
			cfg.Key = key
			a, _ := open(t, cfg)
			if _, err := a.Dial(testContext(t), l.Addr().String(), Ring, "x"); !errors.Is(err, ErrNotMuster) {
				t.Errorf("got %v, want ErrNotMuster", err)
			}
		})
	}
}

// Somebody accepts and says nothing: the context ends the wait.
func TestDialEndsWithContext(t *testing.T) {
	checkGoroutines(t)
	l, err := net.Listen("tcp", "127.0.0.1:0") // its backlog accepts
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	for name, key := range map[string][]byte{"plain": nil, "key": keyOne} {
		t.Run(name, func(t *testing.T) {
			cfg := testConfig("a")
			cfg.Key = key
			a, _ := open(t, cfg)
			ctx, cancel := context.WithTimeout(context.Background(), 50*time.Millisecond)
			defer cancel()
			if _, err := a.Dial(ctx, l.Addr().String(), Ring, "x"); !errors.Is(err, context.DeadlineExceeded) {
				t.Errorf("got %v, want the context's end", err)
			}
			dialed := make(chan error)
			go func() {
				_, err := a.Dial(context.Background(), l.Addr().String(), Ring, "x")
				dialed <- err
			}()
			if err := a.Close(); err != nil {
				t.Error(err)
			}
			if err := <-dialed; !errors.Is(err, net.ErrClosed) {
				t.Errorf("a closed port's Dial gave %v, want net.ErrClosed", err)
			}
		})
	}
}

func TestThousandQuickConnections(t *testing.T) {
	checkGoroutines(t)
	a, _ := open(t, testConfig("a"))
	b, _ := open(t, testConfig("b"))
	b.Handle(Ring, "", echo)
	var wg sync.WaitGroup
	for range 20 {
		wg.Go(func() {
			for i := range 50 {
				if i%5 == 0 { // a port scanner: opens and closes
					if conn, err := net.Dial("tcp", b.Addr()); err == nil {
						conn.Close()
					}
				}
				conn, err := a.Dial(context.Background(), b.Addr(), Ring, "x")
				if err != nil {
					t.Error(err)
					return
				}
				conn.Close()
			}
		})
	}
	wg.Wait()
	eventually(t, "all forgotten", func() bool {
		b.mu.Lock()
		defer b.mu.Unlock()
		return len(b.conns) == 0 && b.opening == 0
	})
}

func TestFloodOfSilence(t *testing.T) {
	checkGoroutines(t)
	cfg := testConfig("b")
	cfg.handshake = time.Minute // only the bound or Close can end them
	b, log := open(t, cfg)
	b.mu.Lock()
	b.opening = maxOpening - 2 // as if so many were there
	b.mu.Unlock()
	var conns []net.Conn
	for range 5 {
		conn, err := net.Dial("tcp", b.Addr())
		if err != nil {
			t.Fatal(err)
		}
		conns = append(conns, conn)
	}
	eventually(t, "logged", func() bool { return log.count("too many connections open") == 1 })
	dropped := 0
	for _, conn := range conns[2:] {
		_ = conn.SetReadDeadline(time.Now().Add(5 * time.Second))
		if _, err := conn.Read(make([]byte, 1)); err != nil && !errors.Is(err, os.ErrDeadlineExceeded) {
			dropped++
		}
	}
	if dropped != 3 {
		t.Errorf("%d dropped, want 3", dropped)
	}
	if err := b.Close(); err != nil {
		t.Error(err)
	}
	for _, conn := range conns {
		conn.Close()
	}
}

func TestCloseWhileBusy(t *testing.T) {
	checkGoroutines(t)
	for name, key := range map[string][]byte{"plain": nil, "key": keyOne} {
		t.Run(name, func(t *testing.T) {
			ca, cb := testConfig("a"), testConfig("b")
			ca.Key, cb.Key = key, key
			a, _ := open(t, ca)
			b, _ := open(t, cb)
			var running atomic.Int32
			b.Handle(Ring, "", func(c net.Conn, from Peer) {
				running.Add(1)
				defer running.Add(-1)
				defer c.Close()
				// A writer whose reader does not read, and a stuck reader.
				if from.Topic == "read" {
					_, _ = io.Copy(io.Discard, c)
					return
				}
				for {
					if _, err := c.Write(make([]byte, 1<<20)); err != nil {
						return
					}
				}
			})
			for _, topic := range []string{"read", "write", "read", "write"} {
				conn, err := a.Dial(testContext(t), b.Addr(), Ring, topic)
				if err != nil {
					t.Fatal(err)
				}
				defer conn.Close()
			}
			silent, err := net.Dial("tcp", b.Addr())
			if err != nil {
				t.Fatal(err)
			}
			defer silent.Close()
			eventually(t, "all at work", func() bool { return running.Load() == 4 })
			var wg sync.WaitGroup
			for range 3 { // from several sides
				wg.Go(func() {
					if err := b.Close(); err != nil {
						t.Error(err)
					}
					if n := running.Load(); n != 0 {
						t.Errorf("Close returned with %d handlers running", n)
					}
				})
			}
			wg.Wait()
			if _, err := a.Dial(testContext(t), b.Addr(), Ring, "read"); !errors.Is(err, syscall.ECONNREFUSED) {
				t.Errorf("dial after close: %v", err)
			}
			if _, err := b.Dial(testContext(t), a.Addr(), Ring, "read"); !errors.Is(err, net.ErrClosed) {
				t.Errorf("dial from a closed port: %v, want net.ErrClosed", err)
			}
		})
	}
}

// starved has no file descriptors left for its first calls.
type starved struct {
	listener
	left atomic.Int32
}

func (s *starved) AcceptTCP() (*net.TCPConn, error) {
	if s.left.Add(-1) >= 0 {
		return nil, &net.OpError{Op: "accept", Err: os.NewSyscallError("accept4", syscall.EMFILE)}
	}
	return s.listener.AcceptTCP()
}

func TestAcceptSurvivesExhaustion(t *testing.T) {
	cfg := testConfig("b")
	cfg.wrap = func(l listener) listener {
		s := &starved{listener: l}
		s.left.Store(4)
		return s
	}
	b, log := open(t, cfg)
	checkStillThere(t, b, nil)
	if n := log.count("ulimit -n"); n != 1 {
		t.Errorf("the remedy was logged %d times, want once", n)
	}
}

// What opening a connection costs beyond TCP's own.
func BenchmarkDial(b *testing.B) {
	for name, key := range map[string][]byte{"plain": nil, "key": keyOne} {
		b.Run(name, func(b *testing.B) {
			ca, cb := testConfig("a"), testConfig("b")
			ca.Key, cb.Key = key, key
			from, _ := open(b, ca)
			to, _ := open(b, cb)
			to.Handle(Ring, "", echo)
			for b.Loop() {
				conn, err := from.Dial(context.Background(), to.Addr(), Ring, "x")
				if err != nil {
					b.Fatal(err)
				}
				conn.Close()
			}
		})
	}
}
