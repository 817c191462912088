package ps

import (
	"context"
	"encoding/binary"
	"errors"
	"math"
	"net"
	"runtime"
	"testing"
	"time"

	"github.com/musterml/muster/internal/floats"
	"github.com/musterml/muster/internal/id"
	"github.com/musterml/muster/internal/port"
	pb "github.com/musterml/muster/proto"
)

// filling is how many bytes a replica has of payloads that are not whole.
func (c *testCluster) filling(name id.Node) (bytes, payloads int) {
	for _, n := range c.live() {
		if n.self.Node != name {
			continue
		}
		t := n.server.replicas[0].payloads
		t.mu.Lock()
		defer t.mu.Unlock()
		for _, s := range t.streams {
			payloads += len(s.coming)
		}
		return int(t.progress) * pieceBytes, payloads
	}
	return 0, 0
}

// A follower gets what there is of a push before the leader has all of it; what is cut off in the middle leaves
// nothing behind, and what another client sends meanwhile is not held up.
func TestFollowersReceiveWhileTheLeaderDoes(t *testing.T) {
	l := Layout{Params: 1 << 20, BlockSize: 1 << 18, Shards: 1}
	conf := optimizers()["momentum"]
	c := newTestCluster(t, 3, l, conf, nil)
	client := c.client(nil)
	ctx := testContext(t, 20*time.Second)
	o := newOracle(t, conf, l.Params)
	if err := client.Put(ctx, 0, 0, 0, 4, o.state()); err != nil {
		t.Fatal(err)
	}
	eventually(t, "a whole group", func() bool { return c.whole() })
	leader := c.leader(0)
	grad := gradient(0, l.Params)
	size := 4 * l.BlockSize
	begin := func() net.Conn {
		t.Helper()
		conn, err := strangerPort(t).Dial(ctx, c.nodes[leader].self.Addr, port.Params, clientTopic(0))
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = conn.Close() })
		head, err := pb.AppendMessage(nil, &pb.ParamRequest{Kind: pb.ParamRequest_PUSH, Last: 1, Length: uint32(size)})
		if err == nil {
			_, err = conn.Write(append(head, floats.Bytes(grad)[:size/2]...))
		}
		if err != nil {
			t.Fatal(err)
		}
		return conn
	}
	seen := map[id.Node]int{}
	for _, n := range c.names {
		seen[n], _ = c.filling(n)
	}
	partly := func(want int) func() bool {
		return func() bool {
			for _, n := range c.names {
				if bytes, payloads := c.filling(n); n != leader && (payloads != want || want > 0 && bytes-seen[n] < size/2) {
					return false
				}
			}
			return true
		}
	}
	conn := begin()
	eventually(t, "half of it at the followers", partly(1))
	w := make([]float32, l.BlockSize)
	if err := client.Push(ctx, 0, 1, 2, grad[l.BlockSize:2*l.BlockSize], w); err != nil { // overtakes it
		t.Fatal(err)
	}
	_ = conn.Close()
	eventually(t, "nothing left of what was cut off", partly(0))
	conn = begin()
	rest := binary.LittleEndian.AppendUint32(append([]byte(nil), floats.Bytes(grad)[size/2:size]...), floats.Checksum(0, grad[:l.BlockSize]))
	if _, err := conn.Write(rest); err != nil {
		t.Fatal(err)
	}
	var ans pb.ParamAnswer
	for ans.Status = pb.ParamAnswer_WORKING; ans.Status == pb.ParamAnswer_WORKING; {
		if err := pb.ReadMessage(conn, &ans, maxHeader); err != nil {
			t.Fatal(err)
		}
	}
	if ans.Status != pb.ParamAnswer_OK {
		t.Fatalf("answered %v", &ans)
	}
	if err := client.Push(ctx, 0, 0, 4, grad, make([]float32, l.Params)); err != nil {
		t.Fatal(err)
	}
	o.push(grad)
	checkAll(t, c, client, o)
}

// A payload that is damaged on its way from a trainer is refused, and no replica keeps any of it.
func TestDamagedOnTheWay(t *testing.T) {
	l := Layout{Params: 1000, BlockSize: 64, Shards: 1}
	c := newTestCluster(t, 1, l, optimizers()["sgd"], nil)
	eventually(t, "a leader", func() bool { return c.leader(0) != "" })
	conn := c.rawConn(strangerPort(t), clientTopic(0))
	defer func() { _ = conn.Close() }()
	payload := make([]byte, 256+4)
	payload[7] = 1
	for range 3 { // the connection goes on
		if err := pb.WriteMessage(conn, &pb.ParamRequest{Kind: pb.ParamRequest_PUSH, Last: 1, Length: 256}); err != nil {
			t.Fatal(err)
		}
		if _, err := conn.Write(payload); err != nil {
			t.Fatal(err)
		}
		var ans pb.ParamAnswer
		if err := pb.ReadMessage(conn, &ans, maxHeader); err != nil || ans.Status != pb.ParamAnswer_BAD_REQUEST {
			t.Fatalf("answered %v, %v", &ans, err)
		}
	}
	p := c.live()[0].server.replicas[0].payloads
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(p.held) != 0 || p.freeBytes != 4*poolGrain {
		t.Errorf("%d payloads are held, %d bytes free: want the one buffer back", len(p.held), p.freeBytes)
	}
}

// A follower that takes nothing costs the leader a bounded amount of memory, and no buffer is lost.
func TestSlowFollower(t *testing.T) {
	const limit, size, offers = 1 << 20, 64 << 10, 100
	p := newPayloads(1, limit)
	var far net.Conn
	stuck := func(context.Context, string, string) (net.Conn, error) {
		near, other := net.Pipe() // on which nobody reads
		far = other
		return near, nil
	}
	s := startSender(context.Background(), endpoint{}, p, stuck, limit, time.Minute)
	taken := 0
	for range offers {
		x := p.get(size / 4)
		p.name(x)
		if s.offer(x) {
			x.readers = append(x.readers, s)
			taken++
		}
		if taken%2 == 0 {
			p.complete(x, 0)
			p.release(x)
		} else {
			p.abandon(x) // its client has gone
		}
	}
	if taken == 0 || taken > limit/size {
		t.Errorf("%d payloads of %d were queued, the limit is %d", taken, offers, limit/size)
	}
	s.close()
	if far != nil {
		_ = far.Close()
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(p.held) != 0 || p.freeBytes > limit+size || s.bytes != 0 {
		t.Errorf("%d payloads held, %d bytes free, %d queued, when the sender has ended", len(p.held), p.freeBytes, s.bytes)
	}
}

// In the steady state nothing that has the size of a push is allocated: not by the client, the leader or the followers.
func TestNothingIsAllocatedPerPush(t *testing.T) {
	l := Layout{Params: 1 << 20, BlockSize: 1 << 18, Shards: 1}
	conf := optimizers()["momentum"]
	c := newTestCluster(t, 3, l, conf, func(s *ServerConfig) { s.LogLimit = 16 << 20 })
	client := c.client(func(c *ClientConfig) { c.MaxRequest = 1 << 20 })
	ctx := testContext(t, time.Minute)
	if err := client.Put(ctx, 0, 0, 0, 4, newOracle(t, conf, l.Params).state()); err != nil {
		t.Fatal(err)
	}
	grad, w := gradient(0, l.Params), make([]float32, l.Params)
	least := uint64(math.MaxUint64)
	var before, after runtime.MemStats
	for step := range id.Step(40) { // a log that is cut a few times
		runtime.ReadMemStats(&before)
		if err := client.Push(ctx, step, 0, 4, grad, w); err != nil {
			t.Fatal(errors.Join(err, ctx.Err()))
		}
		runtime.ReadMemStats(&after)
		if step > 20 {
			least = min(least, after.TotalAlloc-before.TotalAlloc)
		}
	}
	// Raft's messages and their like are some kilobytes for each of the 4 requests of 1 MiB.
	if least > 200<<10 {
		t.Errorf("a push of 4 MiB allocates %d bytes", least)
	}
	t.Logf("%d bytes are allocated for a push of 4 MiB, by client, leader and followers together", least)
}
