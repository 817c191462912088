package node

import (
	"bytes"
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"net"
	"time"

	"github.com/musterml/muster/internal/checkpoint"
	"github.com/musterml/muster/internal/id"
	"github.com/musterml/muster/internal/port"
	pb "github.com/musterml/muster/proto"
	"github.com/musterml/muster/ps"
	"github.com/musterml/muster/trainer"
)

// Checkpoints are written by the node that leads the coordinator, beside the run: it has
// the servers pin the state at a step that is still to come, reads it from them when the
// run has passed it, and lets go. The run only waits for what its servers send meanwhile.

// CheckpointTopic is where every node answers a pb.CheckpointRequest.
const CheckpointTopic = "checkpoint"

const (
	checkpointWithin = 10 * time.Minute       // one save, however large
	pinAgain         = time.Second            // a shard's new leader must hear of the pin, too
	checkpointTick   = 10 * time.Millisecond  // how often to look how far the run is
	pinAhead         = 300 * time.Millisecond // how far ahead of the run a step is pinned that was asked for
)

// saver writes checkpoints while this node leads.
type saver struct {
	n       *Node
	client  *ps.Client // its own: the trainer's lanes are not for it
	asked   chan chan *pb.CheckpointAnswer
	pinned  id.Step
	pinTime time.Time // zero when nothing is pinned
}

func (n *Node) newSaver() (*saver, error) {
	client, err := n.newClient(nil)
	if err != nil {
		return nil, err
	}
	return &saver{n: n, client: client, asked: make(chan chan *pb.CheckpointAnswer)}, nil
}

// run saves the state every so many steps, and when it is asked to.
func (s *saver) run(ctx context.Context) {
	every := id.Step(s.n.cfg.Job.Checkpoint.Every)
	next, rate := id.Step(0), s.rate()
	for {
		select {
		case <-ctx.Done():
			return
		case <-time.After(checkpointTick):
		case answer := <-s.asked:
			at, err := s.now(ctx, rate())
			answer <- s.answer(at, err)
			continue
		}
		rate()
		if !s.n.leads() || every == 0 {
			next = 0
			continue
		}
		done := max(s.n.recorded(), s.n.beginsAt())
		if next == 0 {
			next = (done/every + 1) * every
		}
		if next > s.n.cfg.Job.Steps() {
			continue
		}
		s.pin(ctx, next)
		if done < next {
			continue
		}
		if _, err := s.save(ctx, next); err != nil && ctx.Err() == nil {
			s.n.cfg.Log.Warn().Err(err).Msgf("no checkpoint of %v", next)
		}
		next = 0
	}
}

// rate returns a function that tells how many steps are done in pinAhead, lately.
func (s *saver) rate() func() id.Step {
	at, last, ahead := time.Now(), s.n.recorded(), id.Step(0)
	return func() id.Step {
		if d := time.Since(at); d >= pinAhead {
			done := s.n.recorded()
			ahead = id.Step(float64(done-min(last, done)) * float64(pinAhead) / float64(d))
			at, last = time.Now(), done
		}
		return ahead
	}
}

func (s *saver) pin(ctx context.Context, step id.Step) {
	if s.pinned == step && time.Since(s.pinTime) < pinAgain {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, pinAgain)
	defer cancel()
	if err := s.client.Pin(ctx, step, true); err != nil {
		s.n.cfg.Log.Debug().Err(err).Msg("a step could not be pinned everywhere")
	}
	s.pinned, s.pinTime = step, time.Now()
}

// now saves a step that the run is about to come to.
func (s *saver) now(ctx context.Context, ahead id.Step) (at id.Step, err error) {
	job := s.n.cfg.Job
	if !job.Sync.Steady() {
		return 0, fmt.Errorf("in sync.mode %s the model is at no moment at one step, so there is no checkpoint of one; what survives is on the servers, with cluster.durability disk also when all processes are killed", job.Sync.Mode)
	}
	for try := id.Step(1); try <= 3; try++ {
		at = s.n.recorded() + 1 + try*ahead
		if every := id.Step(job.Sync.CommitEvery); job.Sync.Mode == trainer.ModeRing {
			at = (at + every - 1) / every * every // others are not on the servers
		}
		at = min(at, job.Steps())
		s.pin(ctx, at)
		for s.n.recorded() < at && ctx.Err() == nil {
			s.pin(ctx, at)
			select {
			case <-ctx.Done():
			case <-time.After(checkpointTick):
			}
		}
		if _, err = s.save(ctx, at); !errors.Is(err, ps.ErrGone) {
			return at, err
		}
	}
	return at, err
}

// save reads the state at a step from the servers and writes it.
func (s *saver) save(ctx context.Context, step id.Step) (path string, err error) {
	ctx, cancel := context.WithTimeout(ctx, checkpointWithin)
	defer cancel()
	defer func() {
		unpin, cancel := context.WithTimeout(context.WithoutCancel(ctx), pinAgain)
		defer cancel()
		_ = s.client.Pin(unpin, 0, false) // the next pin does as well
		s.pinned, s.pinTime = 0, time.Time{}
	}()
	n, begin := s.n, time.Now()
	m, err := n.manifest(step)
	if err != nil {
		return "", err
	}
	layout := n.cfg.Job.Layout(n.spec.Params())
	var tables func(dir string) ([]checkpoint.File, error)
	if len(n.spec.Tables()) > 0 {
		tables = func(dir string) ([]checkpoint.File, error) { return s.saveTables(ctx, step, dir) }
	}
	path, err = checkpoint.Write(n.checkpoints(), m, n.spec.Tensors(), layout.Shards, tables, func(lo, hi int) (checkpoint.State, error) {
		return readState(ctx, s.client, layout, step, lo, hi, m.Slots)
	})
	if err != nil {
		return "", err
	}
	n.cfg.Log.Info().Str("path", path).Dur("took", time.Since(begin)).Msg("checkpoint written")
	return path, checkpoint.Prune(n.checkpoints(), m.Digest, n.cfg.Job.Checkpoint.Keep)
}

// readState reads parameters that need not begin or end with a block.
func readState(ctx context.Context, c *ps.Client, l ps.Layout, step id.Step, lo, hi, slots int) (checkpoint.State, error) {
	first, last := id.Block(lo/l.BlockSize), id.Block((hi-1)/l.BlockSize+1)
	from, _ := l.Range(first)
	_, to := l.Range(last - 1)
	state := ps.State{W: make([]float32, to-from)}
	for range slots {
		state.Slots = append(state.Slots, make([]float32, to-from))
	}
	if err := c.Pull(ctx, step, first, last, state); err != nil {
		return checkpoint.State{}, err
	}
	out := checkpoint.State{W: state.W[lo-from : hi-from]}
	for _, slot := range state.Slots {
		out.Slots = append(out.Slots, slot[lo-from:hi-from])
	}
	return out, nil
}

func (n *Node) manifest(step id.Step) (checkpoint.Manifest, error) {
	digest, err := n.stateDigest()
	if err != nil {
		return checkpoint.Manifest{}, err
	}
	job, err := n.cfg.Job.YAML()
	if err != nil {
		return checkpoint.Manifest{}, err
	}
	opt, err := n.cfg.Job.NewOptimizer()
	if err != nil {
		return checkpoint.Manifest{}, err
	}
	return checkpoint.Manifest{
		Job: n.cfg.Job.Name, Digest: digest, JobFile: string(job), Run: n.founding.Run, Step: step, Samples: uint64(step) * uint64(n.cfg.Job.SamplesPerStep()),
		Model: n.spec.Name(), Params: n.spec.Params(), Slots: opt.Slots(), Time: time.Now().UTC(), Version: n.cfg.Version,
	}, nil
}

func (n *Node) stateDigest() (string, error) {
	d, err := n.cfg.Job.StateDigest()
	return hex.EncodeToString(d[:]), err
}

func (n *Node) checkpoints() string { return n.cfg.Job.Checkpoints(n.cfg.Out) }

func (s *saver) answer(at id.Step, err error) *pb.CheckpointAnswer {
	a := &pb.CheckpointAnswer{Step: uint64(at), Node: string(s.n.cfg.Name), Path: s.n.checkpoints() + "/" + checkpoint.Name(at)}
	if err != nil {
		a.Error = err.Error()
	}
	return a
}

// serve answers a person who wants a checkpoint now.
func (s *saver) serve(conn net.Conn, _ port.Peer) {
	defer conn.Close()
	if err := conn.SetDeadline(time.Now().Add(checkpointWithin)); err != nil {
		return
	}
	var req pb.CheckpointRequest
	if err := pb.ReadMessage(conn, &req, requestLimit); err != nil {
		return
	}
	if !s.n.leads() {
		addr, _ := s.n.session.Leader()
		_ = pb.WriteMessage(conn, &pb.CheckpointAnswer{Leader: addr, Error: "the coordinator has no leader now; ask again"})
		return
	}
	answer := make(chan *pb.CheckpointAnswer, 1)
	select {
	case s.asked <- answer:
		_ = pb.WriteMessage(conn, <-answer)
	case <-time.After(checkpointWithin):
	case <-s.n.finished:
		_ = pb.WriteMessage(conn, &pb.CheckpointAnswer{Error: "the run is over; its weights are in its outputs"})
	}
}

// redirectCheckpoint answers on a node that cannot lead.
func (n *Node) redirectCheckpoint(conn net.Conn, _ port.Peer) {
	defer conn.Close()
	addr, _ := n.session.Leader()
	_ = pb.WriteMessage(conn, &pb.CheckpointAnswer{Leader: addr, Error: "the coordinator has no leader now; ask again"})
}

// findCheckpoint looks for what a run without a log to go on with begins with.
func (n *Node) findCheckpoint() error {
	if !n.cfg.Resume || n.resumes() {
		return nil
	}
	digest, err := n.stateDigest()
	if err != nil {
		return err
	}
	found, faults, err := checkpoint.Newest(n.checkpoints(), digest)
	if err != nil {
		return err
	}
	if found == nil && len(faults) > 0 {
		return faults[0]
	}
	for _, fault := range faults {
		n.cfg.Log.Warn().Err(fault).Msg("passing over a checkpoint")
	}
	if found == nil {
		return nil // the run begins at step 0
	}
	n.begin = found
	n.meta.Checkpoint = &pb.Checkpoint{Step: uint64(found.Step), Digest: found.Key()}
	n.cfg.Log.Info().Str("path", found.Path).Msg("there is a checkpoint to resume from")
	return nil
}

// loadCheckpoint gives the servers the state that the run begins with, if this node has
// it. Others may do the same at the same time: the bytes are the same.
func (n *Node) loadCheckpoint(ctx context.Context) error {
	want := n.founding.Checkpoint
	if want == nil || n.begin == nil || !bytes.Equal(n.begin.Key(), want.Digest) {
		return nil
	}
	if step, ok, err := n.client.Complete(ctx); err != nil || ok && step >= n.begin.Step {
		return nil // the run is past it already, or this node is ending
	}
	if steps := n.cfg.Job.Steps(); n.begin.Step > steps {
		return fmt.Errorf("%s is of %v, the job has only %d steps; give it more passes", n.begin.Path, n.begin.Step, uint64(steps))
	}
	state, err := n.begin.Load(n.begin.Path, n.spec.Tensors())
	if err != nil {
		return err
	}
	opt, err := n.cfg.Job.NewOptimizer()
	if err != nil {
		return err
	}
	if len(state.W) != n.spec.Params() || len(state.Slots) != opt.Slots() {
		return fmt.Errorf("%s holds %d parameters with %d slots, the job needs %d with %d", n.begin.Path, len(state.W), len(state.Slots), n.spec.Params(), opt.Slots())
	}
	end := n.waits.Begin("the checkpoint to be taken up", n.begin.Step.String(), "servers")
	defer end()
	if err := n.loadTables(ctx); err != nil { // before the vector: with that the run begins
		return err
	}
	blocks := id.Block(n.cfg.Job.Layout(len(state.W)).Blocks())
	if err := n.client.Put(ctx, n.begin.Step, 0, 0, blocks, ps.State{W: state.W, Slots: state.Slots}); err != nil {
		return nil // only ended: a put repeats itself over any failure
	}
	n.cfg.Log.Info().Stringer("step", n.begin.Step).Str("path", n.begin.Path).Msg("the servers have the checkpoint")
	return nil
}

// beginsAt is the first step of the run, which the servers hold once somebody has loaded it.
func (n *Node) beginsAt() id.Step { return id.Step(n.founding.GetCheckpoint().GetStep()) }

var errNotLoaded = fmt.Errorf("the checkpoint is not taken up yet: it is in the folder of a node that was told to --resume")
