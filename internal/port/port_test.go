package port

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/musterml/muster/internal/id"
	"github.com/rs/zerolog"
)

// lines is a log that tests can search.
type lines struct {
	mu  sync.Mutex
	all []string
}

func (l *lines) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.all = append(l.all, string(p))
	return len(p), nil
}

func (l *lines) count(text string) int {
	l.mu.Lock()
	defer l.mu.Unlock()
	n := 0
	for _, line := range l.all {
		if strings.Contains(line, text) {
			n++
		}
	}
	return n
}

var testJob = [32]byte{1, 2, 3}

func testConfig(node id.Node) Config {
	return Config{
		Listen: "127.0.0.1:0", Node: node, Cluster: "test", Version: "v1", Job: testJob,
		Log: zerolog.Nop(),
	}
}

// open listens with cfg and closes at the end of the test.
func open(t testing.TB, cfg Config) (*Port, *lines) {
	t.Helper()
	log := &lines{}
	cfg.Log = zerolog.New(log)
	p, err := Listen(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := p.Close(); err != nil {
			t.Error(err)
		}
	})
	return p, log
}

// eventually polls, because what it waits for happens on the far side of a socket.
func eventually(t testing.TB, what string, ok func() bool) {
	t.Helper()
	deadline := time.After(10 * time.Second)
	tick := time.NewTicker(2 * time.Millisecond)
	defer tick.Stop()
	for !ok() {
		select {
		case <-tick.C:
		case <-deadline:
			t.Fatalf("not within 10 s: %s", what)
		}
	}
}

func testContext(t testing.TB) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	t.Cleanup(cancel)
	return ctx
}

func echo(conn net.Conn, _ Peer) {
	defer conn.Close()
	_, _ = io.Copy(conn, conn) // ends however the test ends it
}

func checkEcho(t testing.TB, conn net.Conn) {
	t.Helper()
	message := []byte("hello, ring")
	if _, err := conn.Write(message); err != nil {
		t.Fatal(err)
	}
	got := make([]byte, len(message))
	if _, err := io.ReadFull(conn, got); err != nil || string(got) != string(message) {
		t.Fatalf("echo gave %q, error %v", got, err)
	}
}

func TestDialHandle(t *testing.T) {
	for _, key := range [][]byte{nil, []byte("0123456789abcdef")} {
		t.Run(fmt.Sprintf("key=%t", key != nil), func(t *testing.T) {
			ca, cb := testConfig("a"), testConfig("b")
			ca.Key, cb.Key = key, key
			a, _ := open(t, ca)
			b, _ := open(t, cb)
			peers := make(chan Peer, 2)
			handler := func(name string) Handler {
				return func(conn net.Conn, from Peer) {
					from.Topic = name + ":" + from.Topic
					peers <- from
					echo(conn, from)
				}
			}
			b.Handle(Ring, "exact", handler("exact"))
			removeAll := b.Handle(Ring, "", handler("any"))
			for topic, want := range map[string]string{"exact": "exact:exact", "other": "any:other"} {
				conn, err := a.Dial(testContext(t), b.Addr(), Ring, topic)
				if err != nil {
					t.Fatal(err)
				}
				if _, plain := conn.(*net.TCPConn); plain != (key == nil) {
					t.Errorf("got a %T", conn)
				}
				checkEcho(t, conn)
				if got, want := <-peers, (Peer{Node: "a", Addr: a.Addr(), Topic: want}); got != want {
					t.Errorf("peer %+v, want %+v", got, want)
				}
				if err := conn.Close(); err != nil {
					t.Error(err)
				}
			}
			removeAll()
			if _, err := a.Dial(testContext(t), b.Addr(), Ring, "other"); !errors.Is(err, ErrNoTopic) {
				t.Errorf("after remove: %v, want ErrNoTopic", err)
			}
			if _, err := a.Dial(testContext(t), b.Addr(), Params, "exact"); !errors.Is(err, ErrNoTopic) {
				t.Errorf("another protocol: %v, want ErrNoTopic", err)
			}
		})
	}
}
