package trainer

import (
	"context"
	"errors"
	"math"
	"net"
	"sync"
	"testing"
	"time"

	"github.com/rs/zerolog"

	"github.com/musterml/muster/collective"
	"github.com/musterml/muster/internal/id"
	"github.com/musterml/muster/trainer/data"
	"github.com/musterml/muster/trainer/device/cpu"
	"github.com/musterml/muster/trainer/nn"
)

// formRings makes a whole ring, over loopback.
func formRings(t *testing.T, world int) []*collective.Ring {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	peers, listeners := make([]collective.Peer, world), make([]net.Listener, world)
	for i := range peers {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
		listeners[i], peers[i] = l, collective.Peer{Node: id.Node("abcdefgh"[i : i+1]), Addr: l.Addr().String()}
	}
	rings, errs := make([]*collective.Ring, world), make([]error, world)
	var all sync.WaitGroup
	for i := range rings {
		all.Go(func() {
			rings[i], errs[i] = collective.Join(ctx, collective.Config{
				Run: "forms", View: 1, Rank: i, Peers: peers, Log: zerolog.Nop(), DeadAfter: 10 * time.Second,
				Dial: func(ctx context.Context, to collective.Peer) (net.Conn, error) {
					return new(net.Dialer).DialContext(ctx, "tcp", to.Addr)
				},
				Accept: func(context.Context) (net.Conn, error) { return listeners[i].Accept() },
			})
		})
	}
	all.Wait()
	if err := errors.Join(errs...); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		var all sync.WaitGroup
		for _, r := range rings {
			all.Go(func() { _ = r.Close() })
		}
		all.Wait()
	})
	return rings
}

// trainInForm trains lenet on drawn digits with as many trainers as logical shards, whose gradients travel in a form, and
// returns the mean loss of the last steps. Each step is summed twice, as after a failure.
func trainInForm(t *testing.T, rings []*collective.Ring, sum, wire string) (loss float64) {
	t.Helper()
	job := DefaultJob()
	job.Data.Train, job.Data.Test = 512, 8
	job.Samples, job.Passes = 512, 100
	job.Batch = Batch{Size: 32, LogicalShards: len(rings)}
	job.Sync.Sum, job.Sync.Wire = sum, wire
	train, _, err := data.Open(t.Context(), job.Data, nil)
	if err != nil {
		t.Fatal(err)
	}
	dev, err := cpu.New()
	if err != nil {
		t.Fatal(err)
	}
	spec, err := nn.Build(nn.Model{Name: "lenet"}, train.Form())
	if err != nil {
		t.Fatal(err)
	}
	opt, err := job.NewOptimizer()
	if err != nil {
		t.Fatal(err)
	}
	w, err := newWork(job, spec, dev, train, train, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer w.close()
	w.samples = math.MaxInt // no pass ends, after which it would evaluate
	state := newState(spec.Params(), opt.Slots(), ModeRing)
	if err := state.begin(spec, Job{Seed: 3}); err != nil {
		t.Fatal(err)
	}
	var every []id.LogicalShard
	sums := make([]*exchange, len(rings))
	for r := range sums {
		every, sums[r] = append(every, id.LogicalShard(r)), newExchange(job, spec)
	}
	const steps, last = 28, 12
	for at := range id.Step(steps) {
		if err := w.compute(t.Context(), 1, at, state.w, every); err != nil {
			t.Fatal(err)
		}
		digests := make([]string, len(rings))
		var ranks sync.WaitGroup
		for r, x := range sums {
			ranks.Go(func() {
				for again := range 2 {
					if err := sumInForm(x, rings[r], at, w.units, every[r:r+1]); err != nil {
						t.Error(err)
						return
					}
					first := digests[r]
					if digests[r], _ = Digest(spec, x.grad); again > 0 && digests[r] != first {
						t.Errorf("%s %s at %v: the same gradients have another sum when they are summed again", sum, wire, at)
					}
				}
				x.settle()
			})
		}
		ranks.Wait()
		for _, d := range digests {
			if d == "" || d != digests[0] {
				t.Fatalf("%s at %v: the trainers have different sums", wire, at)
			}
		}
		sums[0].update(opt, at, state, sums[0].grad)
		if at >= steps-last {
			for l := range w.units {
				loss += w.units[l].Loss * float64(w.scale) / last
			}
		}
	}
	return loss
}

func sumInForm(x *exchange, ring *collective.Ring, at id.Step, units []unit, mine []id.LogicalShard) error {
	ctx := context.Background()
	for i, b := range x.buckets {
		op := collective.Op{Step: at, Bucket: uint32(i)}
		if err := ring.AllReduce(ctx, op, collective.Int32s(x.prepare(b, units, mine, false)), collective.MaxInt32); err != nil {
			return err
		}
		sum, form := x.own(i, units, mine)
		if err := x.allReduce(ctx, ring, op, sum, form); err != nil {
			return err
		}
	}
	return nil
}

// Training does as well with gradients that are rounded on their way as with those that are not.
func TestTrainingInEveryForm(t *testing.T) {
	rings := formRings(t, 4)
	want := trainInForm(t, rings, SumFast, WireFloat32)
	t.Logf("float32: loss %.4f", want)
	for _, c := range [][2]string{{SumExact, WireFloat32}, {SumFast, WireBF16}, {SumFast, WireInt8}} {
		loss := trainInForm(t, rings, c[0], c[1])
		t.Logf("%s, %s: loss %.4f", c[0], c[1], loss)
		if !(math.Abs(loss-want) < 0.05*want) {
			t.Errorf("%s, %s: loss %v, with float32 %v", c[0], c[1], loss, want)
		}
	}
}
