package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/bits"
	"math/rand/v2"
	"net"
	"time"

	"github.com/rs/zerolog"

	"github.com/musterml/muster/collective"
	"github.com/musterml/muster/internal/id"
	"github.com/musterml/muster/internal/port"
)

// asRank in the environment has the test binary be one rank of a ring, which does operation after operation until
// one fails.
const asRank = "MUSTER_TEST_BINARY_IS_RANK=1"

// ringOrder is what it is told; all of a ring have the same but for Rank and Listen.
type ringOrder struct {
	Rank, World int
	Listen      string
	TCP         bool
	Seed        uint64 // of what the operations are
	MinElems    int    // of an operation, at least
	MaxElems    int
	Steps       int // then it ends; 0: it goes on
}

// ringEnding is what it says at last.
type ringEnding struct {
	At                int64 // unix nanoseconds, when the last operation returned
	Type, Peer, Phase string
	Step              id.Step
	Bucket            uint32
	WaitedNS          int64
	Text              string
	Wrong             string // with the bytes of a result or of the contributions; "" where all is well
}

func ringRank(in io.Reader, out io.Writer) error {
	var o ringOrder
	lines := json.NewDecoder(in)
	if err := lines.Decode(&o); err != nil {
		return err
	}
	p, err := port.Listen(port.Config{Listen: o.Listen, Node: benchNode(o.Rank), Cluster: "faults", Version: version, Log: zerolog.Nop()})
	if err != nil {
		return err
	}
	inbox := collective.NewInbox(0, 0)
	const topic = "faults"
	p.Handle(port.Ring, "", func(conn net.Conn, from port.Peer) { inbox.Deliver(from.Topic, conn) })
	fmt.Fprintln(out, p.Addr())
	var addrs []string
	if err := lines.Decode(&addrs); err != nil {
		return err
	}
	var peers []collective.Peer
	for i, addr := range addrs {
		peers = append(peers, collective.Peer{Node: benchNode(i), Addr: addr})
	}
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	ring, err := collective.Join(ctx, collective.Config{
		Run: topic, View: 1, Rank: o.Rank, Peers: peers, NoLanes: o.TCP, Log: zerolog.Nop(),
		Dial: func(ctx context.Context, to collective.Peer) (net.Conn, error) {
			return p.Dial(ctx, to.Addr, port.Ring, topic)
		},
		Accept: func(ctx context.Context) (net.Conn, error) { return inbox.Accept(ctx, topic) },
	})
	if err != nil {
		return err
	}
	w := &ringWork{ringOrder: o, ring: ring, rng: rand.New(rand.NewPCG(o.Seed, 1))}
	w.mine, w.x = make([]float32, o.MaxElems), make([]float32, o.MaxElems)
	for i := range w.mine {
		w.mine[i] = w.value(i, o.Rank)
	}
	end := w.run(func() { fmt.Fprintln(out, "at work") })
	_ = ring.Close()
	err = json.NewEncoder(out).Encode(end)
	_, _ = io.Copy(io.Discard, in) // until the parent has seen it
	return err
}

// ringWork is what a rank does.
type ringWork struct {
	ringOrder
	ring    *collective.Ring
	rng     *rand.Rand // runs alike on all ranks
	mine, x []float32
}

// value is what a rank contributes: whole numbers so small that every form adds up to 32 of them without rounding.
func (w *ringWork) value(i, rank int) float32 { return float32((i+3*rank)%8 + 1) }

func (w *ringWork) sum(i int) float32 {
	s := float32(0)
	for rank := range w.World {
		s += w.value(i, rank)
	}
	return s
}

func (w *ringWork) run(begun func()) ringEnding {
	for step := id.Step(1); w.Steps == 0 || step <= id.Step(w.Steps); step++ {
		n := w.MinElems + w.rng.IntN(1<<w.rng.IntN(bits.Len(uint(w.MaxElems-w.MinElems))))
		check, err := w.once(step, w.x[:n], w.mine[:n])
		at := time.Now().UnixNano()
		end := ringEnding{At: at}
		if err == nil {
			end.Wrong = check()
		} else {
			end = endingOf(err)
			end.At = at
		}
		for i, v := range w.mine[:n] {
			if v != w.value(i, w.Rank) {
				end.Wrong = fmt.Sprintf("contribution %d of %d of step %d is %g, was %g", i, n, step, v, w.value(i, w.Rank))
				break
			}
		}
		if err != nil || end.Wrong != "" {
			return end
		}
		if step == 1 {
			begun()
		}
	}
	return ringEnding{At: time.Now().UnixNano()}
}

func endingOf(err error) ringEnding {
	e := ringEnding{Type: fmt.Sprintf("%T", err), Text: err.Error()}
	var peer *collective.PeerError
	var abort *collective.AbortError
	switch {
	case errors.As(err, &peer):
		e.Type, e.Peer, e.Phase, e.Step, e.Bucket, e.WaitedNS = "PeerError", string(peer.Peer), peer.Phase, peer.Op.Step, peer.Op.Bucket, int64(peer.Waited)
	case errors.As(err, &abort):
		e.Type, e.Peer, e.Phase, e.Step, e.Bucket, e.WaitedNS = "AbortError", string(abort.Suspect), abort.Phase, abort.Op.Step, abort.Op.Bucket, int64(abort.Waited)
	}
	return e
}

// once does an operation; check looks at what has become of x.
func (w *ringWork) once(step id.Step, x, mine []float32) (check func() string, err error) {
	ctx, op, n := context.Background(), collective.Op{Step: step, Bucket: 7}, len(x)
	bounds := make([]int, w.World+1)
	for i := range bounds {
		bounds[i] = i * n / w.World
	}
	lo, hi := bounds[w.Rank], bounds[w.Rank+1]
	all := func(lo, hi int, want func(i int) float32) func() string {
		return func() string {
			for i := lo; i < hi; i++ {
				if x[i] != want(i) {
					return fmt.Sprintf("element %d of %d of step %d is %g, want %g", i, n, step, x[i], want(i))
				}
			}
			return ""
		}
	}
	exact := func() *collective.ExactSum {
		e := collective.Exact{BlockSize: 16384, Shards: 8}
		exps := make([]int32, e.Blocks(n))
		for i := range exps {
			exps[i] = 3 // of 8, the largest
		}
		return &collective.ExactSum{Exact: e, Exps: exps, Parts: [][]float32{mine}}
	}
	switch w.rng.IntN(8) {
	case 0:
		return all(0, n, w.sum), w.ring.Sum(ctx, op, collective.Float32s(x), exact())
	case 1:
		return all(lo, hi, w.sum), w.ring.SumScatter(ctx, op, collective.Float32s(x), bounds, exact())
	case 2:
		copy(x, mine)
		return all(0, n, w.sum), w.ring.Sum(ctx, op, collective.Float32s(x), collective.BF16{})
	case 3:
		copy(x, mine)
		return all(lo, hi, w.sum), w.ring.ReduceScatter(ctx, op, collective.Float32s(x), bounds, collective.SumFloat32)
	case 4:
		root := w.rng.IntN(w.World)
		if root == w.Rank {
			copy(x, mine)
		}
		return all(0, n, func(i int) float32 { return w.value(i, root) }), w.ring.Broadcast(ctx, op, collective.Float32s(x), root)
	case 5:
		copy(x[lo:hi], mine[lo:hi])
		owner := func(i int) float32 {
			rank := 0
			for bounds[rank+1] <= i {
				rank++
			}
			return w.value(i, rank)
		}
		return all(0, n, owner), w.ring.AllGather(ctx, op, collective.Float32s(x), bounds)
	case 6:
		return all(0, 0, nil), w.ring.Barrier(ctx, op)
	default:
		copy(x, mine)
		return all(0, n, w.sum), w.ring.AllReduce(ctx, op, collective.Float32s(x), collective.SumFloat32)
	}
}
