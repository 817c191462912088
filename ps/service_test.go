package ps

import (
	"context"
	"encoding/binary"
	"errors"
	"io"
	"math"
	"net"
	"sync"
	"testing"
	"time"

	"github.com/rs/zerolog"

	"github.com/musterml/muster/internal/floats"
	"github.com/musterml/muster/internal/id"
	"github.com/musterml/muster/internal/port"
	pb "github.com/musterml/muster/proto"
)

// A node that comes back empty, under a new incarnation, catches up while pushes go on
// and votes again: by the log when that reaches back far enough, else by a state.
func TestFreshReplicaCatchesUp(t *testing.T) {
	for name, limit := range map[string]int64{"by log": 64 << 20, "by state": 256 << 10} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			l := Layout{Params: 30_000, BlockSize: 1024, Shards: 1}
			conf := optimizers()["adam"]
			c := newTestCluster(t, 3, l, conf, func(s *ServerConfig) { s.LogLimit = limit })
			client := c.client(nil)
			ctx := testContext(t, 30*time.Second)
			blocks := id.Block(l.Blocks())
			o := newOracle(t, conf, l.Params)
			if err := client.Put(ctx, 0, 0, 0, blocks, o.state()); err != nil {
				t.Fatal(err)
			}
			w := make([]float32, l.Params)
			push := func() {
				t.Helper()
				g := gradient(o.step, l.Params)
				if err := client.Push(ctx, o.step, 0, blocks, g, w); err != nil {
					t.Fatal(err)
				}
				o.push(g)
			}
			for range 30 {
				push()
			}
			victim := id.Node("node-b")
			if c.leader(0) == victim {
				victim = "node-c"
			}
			c.kill(victim)
			push()
			c.restart(victim)
			deadline := time.Now().Add(15 * time.Second)
			for !c.whole() {
				if time.Now().After(deadline) {
					t.Fatal("never made a voter")
				}
				push()
			}
			for range 5 {
				push()
			}
			checkAll(t, c, client, o)
			for _, n := range c.live() {
				eventually(t, "the log is cut", func() bool {
					return n.server.Status()[0].LogBytes <= 2*limit
				})
			}
		})
	}
}

// Each parameter enters the servers once per step, however many trainers there are.
func TestBytesInDoesNotGrowWithTrainers(t *testing.T) {
	l := Layout{Params: 24 * 64, BlockSize: 64, Shards: 2}
	conf := optimizers()["sgd"]
	c := newTestCluster(t, 3, l, conf, nil)
	ctx := testContext(t, 20*time.Second)
	blocks := id.Block(l.Blocks())
	o := newOracle(t, conf, l.Params)
	if err := c.client(nil).Put(ctx, 0, 0, 0, blocks, o.state()); err != nil {
		t.Fatal(err)
	}
	received := func() (sum uint64) {
		for _, n := range c.live() {
			sum += n.server.BytesIn()
		}
		return sum
	}
	for _, trainers := range []int{1, 2, 3, 8} {
		before := received()
		g, w := gradient(o.step, l.Params), make([]float32, l.Params)
		var wg sync.WaitGroup
		for i := range trainers {
			first, last := blocks*id.Block(i)/id.Block(trainers), blocks*id.Block(i+1)/id.Block(trainers)
			lo, hi := l.span(first, last)
			client := c.client(nil)
			wg.Go(func() {
				if err := client.Push(ctx, o.step, first, last, g[lo:hi], w[lo:hi]); err != nil {
					t.Error(err)
				}
			})
		}
		wg.Wait()
		o.push(g)
		sameBits(t, "W", w, o.w)
		if got := received() - before; got != uint64(4*l.Params) {
			t.Errorf("%d trainers: %d bytes for a gradient of %d", trainers, got, 4*l.Params)
		}
	}
}

// A server that takes a request and never answers holds a client for its patience only.
func TestSilentServerDoesNotHoldTheClient(t *testing.T) {
	l := Layout{Params: 1000, BlockSize: 64, Shards: 1}
	conf := optimizers()["sgd"]
	c := newTestCluster(t, 3, l, conf, nil)
	var silent sync.Map
	client := c.client(func(conf *ClientConfig) {
		dial, replicas := conf.Dial, conf.Replicas
		conf.Patience = 100 * time.Millisecond
		conf.Replicas = func(s id.ParamShard) []string { return append(replicas(s), "silent:1", "silent:2") }
		conf.Dial = func(ctx context.Context, addr, topic string) (net.Conn, error) {
			if addr != "silent:1" && addr != "silent:2" {
				return dial(ctx, addr, topic)
			}
			here, there := net.Pipe()
			silent.Store(there, true)
			if addr == "silent:2" { // reads and never answers
				go func() { _, _ = io.Copy(io.Discard, there) }()
			}
			return here, nil
		}
	})
	ctx := testContext(t, 20*time.Second)
	o := newOracle(t, conf, l.Params)
	w := make([]float32, l.Params)
	if err := client.Put(ctx, 0, 0, 0, id.Block(l.Blocks()), o.state()); err != nil {
		t.Fatal(err)
	}
	for range 20 {
		client.shards[0].setHint("silent:2") // as if it had led
		t0 := time.Now()
		g := gradient(o.step, l.Params)
		if err := client.Push(ctx, o.step, 0, id.Block(l.Blocks()), g, w); err != nil {
			t.Fatal(err)
		}
		if d := time.Since(t0); d > 5*time.Second {
			t.Fatalf("push held up for %v", d)
		}
		o.push(g)
		sameBits(t, "W", w, o.w)
	}
}

// rawConn opens a topic of the cluster's first node as a stranger with the right key would.
func (c *testCluster) rawConn(p *port.Port, topic string) net.Conn {
	c.t.Helper()
	conn, err := p.Dial(testContext(c.t, 5*time.Second), c.live()[0].self.Addr, port.Params, topic)
	if err != nil {
		c.t.Fatal(err)
	}
	return conn
}

func strangerPort(t testing.TB) *port.Port {
	t.Helper()
	p, err := port.Listen(port.Config{Listen: "127.0.0.1:0", Node: "stranger", Cluster: "test", Job: [32]byte{1}, Log: zerolog.Nop()})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = p.Close() })
	return p
}

// Absurd requests are answered with a clear sentence, and do no harm.
func TestAbsurdRequests(t *testing.T) {
	l := Layout{Params: 1000, BlockSize: 64, Shards: 2}
	c := newTestCluster(t, 1, l, optimizers()["momentum"], nil)
	eventually(t, "a leader", func() bool { return c.leader(0) != "" && c.leader(1) != "" })
	p := strangerPort(t)
	for name, tc := range map[string]struct {
		req     *pb.ParamRequest
		payload []byte
	}{
		"no kind":             {&pb.ParamRequest{}, nil},
		"unknown kind":        {&pb.ParamRequest{Kind: 77}, nil},
		"range outside":       {&pb.ParamRequest{Kind: pb.ParamRequest_PUSH, First: 0, Last: 17}, nil},
		"range absurd":        {&pb.ParamRequest{Kind: pb.ParamRequest_PUSH, First: math.MaxUint64, Last: 1}, nil},
		"range reversed":      {&pb.ParamRequest{Kind: pb.ParamRequest_PUT, First: 3, Last: 2}, nil},
		"none of the shard":   {&pb.ParamRequest{Kind: pb.ParamRequest_PUSH, First: 1, Last: 2, Length: 256}, make([]byte, 256+4)},
		"length wrong":        {&pb.ParamRequest{Kind: pb.ParamRequest_PUSH, First: 0, Last: 1, Length: 252}, make([]byte, 252+4)},
		"length absurd":       {&pb.ParamRequest{Kind: pb.ParamRequest_PUSH, First: 0, Last: 1, Length: math.MaxUint32}, nil},
		"checksum wrong":      {&pb.ParamRequest{Kind: pb.ParamRequest_PUSH, First: 0, Last: 1, Length: 256}, make([]byte, 256+4)},
		"pull outside":        {&pb.ParamRequest{Kind: pb.ParamRequest_PULL, First: 5, Last: 500}, nil},
		"pull with a payload": {&pb.ParamRequest{Kind: pb.ParamRequest_PULL, First: 5, Last: 6, Length: 4}, make([]byte, 4+4)},
	} {
		t.Run(name, func(t *testing.T) {
			conn := c.rawConn(p, clientTopic(0))
			defer func() { _ = conn.Close() }()
			if err := pb.WriteMessage(conn, tc.req); err != nil {
				t.Fatal(err)
			}
			if _, err := conn.Write(tc.payload); err != nil {
				t.Fatal(err)
			}
			var ans pb.ParamAnswer
			if err := pb.ReadMessage(conn, &ans, maxHeader); err != nil {
				t.Fatal(err)
			}
			if ans.Status != pb.ParamAnswer_BAD_REQUEST || ans.Message == "" {
				t.Fatalf("answered %v", &ans)
			}
			t.Log(ans.Message)
		})
	}
	if s := c.live()[0].server.Status()[0]; s.Role != "leader" || s.LogBytes != 0 {
		t.Fatalf("after absurd requests: %+v", s)
	}
}

// FuzzWire sends anything to a client topic or a side channel of a running server, which
// must go on serving.
func FuzzWire(f *testing.F) {
	l := Layout{Params: 1000, BlockSize: 64, Shards: 1}
	conf := optimizers()["momentum"]
	c := newTestCluster(f, 1, l, conf, nil)
	client := c.client(nil)
	blocks := id.Block(l.Blocks())
	o := newOracle(f, conf, l.Params)
	if err := client.Put(testContext(f, 10*time.Second), 5, 0, 0, blocks, o.state()); err != nil {
		f.Fatal(err)
	}
	p := strangerPort(f)
	request := func(q *pb.ParamRequest, payload int) []byte {
		b, err := pb.AppendMessage(nil, q)
		if err != nil {
			f.Fatal(err)
		}
		return append(b, make([]byte, payload)...)
	}
	f.Add(true, request(&pb.ParamRequest{Kind: pb.ParamRequest_PUSH, Step: 4, Last: 2, Length: 512}, 512+4))
	good := request(&pb.ParamRequest{Kind: pb.ParamRequest_PUSH, Step: 5, Last: 2, Length: 512}, 512)
	f.Add(true, binary.LittleEndian.AppendUint32(good, floats.Checksum(0, make([]float32, 128))))
	f.Add(true, good[:len(good)-100]) // ends in the middle, after the followers were told
	f.Add(true, request(&pb.ParamRequest{Kind: pb.ParamRequest_PULL, Step: 5, Last: 2, State: true}, 0))
	f.Add(true, request(&pb.ParamRequest{Kind: pb.ParamRequest_STEPS}, 0))
	f.Add(true, binary.LittleEndian.AppendUint32(nil, math.MaxUint32))
	for kind := frameOpen; kind <= frameState+1; kind++ {
		b := frame{frameOpen, 0, payloadID{7, 0}, 0}.append(nil)
		f.Add(false, append(frame{kind, 0, payloadID{7, 1}, 64}.append(b), make([]byte, 64)...))
	}
	part := func(frames ...frame) (b []byte) {
		for _, f := range append([]frame{{frameOpen, 0, payloadID{7, 0}, 0}}, frames...) {
			f.id.source = 7
			b = f.append(b)
			if f.kind == framePart {
				b = append(b, make([]byte, f.length)...)
			}
		}
		return b
	}
	one, two := payloadID{7, 1}, payloadID{7, 2}
	f.Add(false, part(frame{frameBegin, 0, one, 64}, frame{frameBegin, 0, two, 32}, frame{framePart, 0, one, 32}, frame{framePart, 0, two, 32},
		frame{framePart, 0, one, 32}, frame{frameEnd, floats.Checksum(0, make([]float32, 16)), one, 0}, frame{frameDrop, 0, two, 0}))
	f.Add(false, part(frame{frameBegin, 0, one, 64}, frame{framePart, 0, one, 32}, frame{frameEnd, 0, one, 0}))
	f.Add(false, part(frame{frameBegin, 0, one, 64}, frame{framePart, 0, one, 128}))
	f.Add(false, part(frame{frameBegin, 0, one, 64}, frame{frameBegin, 0, one, 64}))
	f.Add(false, frame{frameStore, 0, payloadID{7, 1}, math.MaxUint64}.append(nil))
	topics := map[bool]string{true: clientTopic(0), false: payloadTopic(0, c.live()[0].self)}
	f.Fuzz(func(t *testing.T, toClient bool, data []byte) {
		conn, err := p.Dial(testContext(t, 5*time.Second), c.live()[0].self.Addr, port.Params, topics[toClient])
		if err != nil {
			t.Fatal(err)
		}
		if _, err := conn.Write(data); err == nil {
			if tcp, ok := conn.(*net.TCPConn); ok {
				_ = tcp.CloseWrite()
			}
			_ = conn.SetReadDeadline(time.Now().Add(5 * time.Second))
			if _, err := io.Copy(io.Discard, conn); errors.Is(err, context.DeadlineExceeded) {
				t.Fatal("the server holds on to a connection that has ended")
			}
		}
		_ = conn.Close()
		w := make([]float32, 64)
		if err := client.Pull(testContext(t, 5*time.Second), 5, 0, 1, State{W: w}); err != nil && !errors.Is(err, ErrGone) {
			t.Fatal(err)
		}
	})
}
