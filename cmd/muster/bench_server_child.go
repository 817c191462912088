package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/rs/zerolog"

	"github.com/musterml/muster/internal/id"
	"github.com/musterml/muster/internal/optim"
	"github.com/musterml/muster/internal/port"
	"github.com/musterml/muster/internal/raftgroup"
	"github.com/musterml/muster/membership"
	pb "github.com/musterml/muster/proto"
	"github.com/musterml/muster/ps"
)

// benchWorker is what a process does when it is told to.
type benchWorker interface {
	// rounds does rounds over the model, or what this process has of it, and returns the milliseconds of each.
	rounds(ctx context.Context, n int) ([]float64, error)
	count() benchCount
	stop() error
}

// child is one process: it says its address, hears those of the servers, and then does as it is told.
func (o *benchServer) child(ctx context.Context, in io.Reader, out io.Writer) (err error) {
	log := zerolog.New(os.Stderr).Level(zerolog.ErrorLevel).With().Str("role", o.role).Logger()
	name := id.Node(o.role)
	p, err := port.Listen(port.Config{Listen: o.addr, Node: name, Cluster: "bench", Version: version, Log: log})
	if err != nil {
		return err
	}
	defer func() { _ = p.Close() }()
	fmt.Fprintln(out, p.Addr())
	lines := bufio.NewScanner(in)
	if !lines.Scan() {
		return fmt.Errorf("%s: the addresses did not come: %w", o.role, lines.Err())
	}
	addrs := strings.Fields(lines.Text())
	answers := json.NewEncoder(out)
	defer func() {
		if err != nil {
			_ = answers.Encode(benchFailure{err.Error()}) // the parent may have gone
		}
	}()
	var w benchWorker
	if strings.HasPrefix(o.role, "server-") {
		w, err = o.newServer(ctx, p, name, addrs, log)
	} else {
		w, err = o.newTrainer(ctx, p, addrs, log)
		if err == nil && o.mode == "sparse" {
			rank, _ := strconv.Atoi(strings.TrimPrefix(o.role, "trainer-"))
			w, err = newBenchSparse(ctx, w.(*benchTrainer), rank)
		}
	}
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, w.stop()) }()
	if err := answers.Encode("ready"); err != nil {
		return err
	}
	for lines.Scan() {
		var answer any
		verb, arg, _ := strings.Cut(lines.Text(), " ")
		switch verb {
		case "rounds":
			n, _ := strconv.Atoi(arg) // the parent is this very program
			answer, err = w.rounds(ctx, n)
		case "load":
			answer, err = "loaded", w.(*benchTrainer).load(ctx)
		case "silence":
			answer, err = w.(*benchTrainer).silence(arg)
		default:
			answer = w.count()
		}
		if err == nil {
			err = answers.Encode(answer)
		}
		if err != nil {
			return fmt.Errorf("%s: %w", o.role, err)
		}
	}
	return lines.Err()
}

// benchLife is the incarnation of a node in one of its lives; no two nodes have the same.
func benchLife(node id.Node, life int) id.Incarnation {
	return id.Incarnation(fmt.Sprintf("%s-life-%d", node, life))
}

// benchReplicas is a server as a run has it, but for the coordinator: gossip, lifelines, and a replica of each shard.
type benchReplicas struct {
	o      *benchServer
	server *ps.Server
	gossip *membership.Gossip
	found  []raftgroup.Replica
	loops  sync.WaitGroup
	cancel context.CancelFunc
}

func (o *benchServer) newServer(ctx context.Context, p *port.Port, name id.Node, addrs []string, log zerolog.Logger) (*benchReplicas, error) {
	s := &benchReplicas{o: o}
	for i, addr := range addrs {
		node := id.Node(fmt.Sprintf("server-%d", i))
		s.found = append(s.found, raftgroup.Replica{Node: node, Incarnation: benchLife(node, 1), Addr: addr})
	}
	self := raftgroup.Replica{Node: name, Incarnation: benchLife(name, o.life), Addr: p.Addr()}
	meta := &pb.NodeMeta{Incarnation: string(self.Incarnation), Addr: self.Addr, Server: true}
	var err error
	s.gossip, err = membership.StartGossip(membership.GossipConfig{Port: p, Node: name, Cluster: "bench", Meta: meta, Log: zerolog.Nop()})
	if err != nil {
		return nil, err
	}
	if err := s.gossip.Join(ctx, addrs); err != nil {
		return nil, err
	}
	tables, err := o.tables()
	if err != nil {
		return nil, err
	}
	s.server, err = ps.NewServer(ps.ServerConfig{
		Tables: tables, LogicalShards: o.trainers,
		Self: self, Layout: o.layout(), Optimizer: benchOptimizer(), Dir: filepath.Join(o.dir, o.role), Port: p, Log: log, Durable: o.durability == "disk",
	})
	if err != nil {
		return nil, err
	}
	lines := membership.NewLifelines(p, s.gossip, meta, func(gone id.Node, _ id.Incarnation) { s.server.LeaderGone(gone) }, s.server.LeaderSilent)
	for shard := range id.ParamShard(o.shards) {
		found := s.lives(shard, nil)
		if o.life > 1 {
			found = nil
		}
		if err := s.server.Start(shard, found); err != nil {
			return nil, err
		}
	}
	ctx, s.cancel = context.WithCancel(ctx)
	s.loops.Go(func() { lines.Run(ctx) })
	s.loops.Go(func() { s.reconcile(ctx) })
	return s, nil
}

func (s *benchReplicas) want(shard id.ParamShard) []raftgroup.Replica {
	return s.lives(shard, s.gossip.Peers())
}

// lives are the replicas of a shard as they are placed at the founding of a run, all servers on each.
func (s *benchReplicas) lives(shard id.ParamShard, peers []membership.Peer) []raftgroup.Replica {
	f := &pb.Founding{}
	for _, r := range s.found {
		f.Servers = append(f.Servers, &pb.Replica{Node: string(r.Node), Incarnation: string(r.Incarnation), Addr: r.Addr})
	}
	places := membership.FoundingPlacement(f, s.o.shards, len(s.found)).Places(shard.String())
	return membership.Lives(places, f, peers, shard.String())
}

func (s *benchReplicas) reconcile(ctx context.Context) {
	tick := time.NewTicker(200 * time.Millisecond) // as in a run
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
			s.server.Reconcile(s.want)
		}
	}
}

func (s *benchReplicas) count() benchCount {
	c := benchCount{CPU: cpuSeconds(), BytesIn: s.server.BytesIn(), Written: diskWrites(), Terms: make([]uint64, s.o.shards)}
	for _, st := range s.server.Status() {
		c.Terms[st.Shard] = st.Term
		if st.Role == "leader" {
			c.Leads = append(c.Leads, int(st.Shard))
		}
		voting := map[raftgroup.Replica]bool{}
		for _, v := range st.Voters {
			voting[v] = true
		}
		whole := len(st.Voters) == s.o.replicas
		for _, w := range s.want(st.Shard) {
			whole = whole && voting[w]
		}
		if whole {
			c.Whole = append(c.Whole, int(st.Shard))
		}
	}
	return c
}

// rounds commits gradients on the shards led here, lanesPerShard at a time on each.
func (s *benchReplicas) rounds(ctx context.Context, n int) ([]float64, error) {
	leads := s.count().Leads
	if len(leads) == 0 {
		return nil, nil
	}
	steps := make([]id.Step, s.o.blocks)
	for _, st := range s.server.Status() {
		for b := int(st.Shard); b < s.o.blocks && len(st.Steps) > 0; b += s.o.shards {
			steps[b] = slices.Max(st.Steps)
		}
	}
	return benchRounds(n, benchLanes(s.o, leads), func(b id.Block) error {
		err := s.server.Commit(s.o.layout().Shard(b), steps[b], b, b+1, fillOnce)
		steps[b]++
		return err
	})
}

func (s *benchReplicas) stop() error {
	s.cancel()
	s.loops.Wait()
	return errors.Join(s.server.Stop(), s.gossip.Stop(0))
}

// benchTrainer pushes its part of the blocks.
type benchTrainer struct {
	o           *benchServer
	client      *ps.Client
	first, last id.Block
	grad, w     []float32 // of its part
	steps       []id.Step // by block

	mu    sync.Mutex
	acks  [][]time.Time // by shard, with mode kill
	fail  error
	right []float32 // what every weight is after so many steps
	slots [][]float32
}

func (o *benchServer) newTrainer(ctx context.Context, p *port.Port, addrs []string, log zerolog.Logger) (*benchTrainer, error) {
	rank, err := strconv.Atoi(strings.TrimPrefix(o.role, "trainer-"))
	if err != nil {
		return nil, err
	}
	t := &benchTrainer{
		o: o, first: id.Block(rank * o.blocks / o.trainers), last: id.Block((rank + 1) * o.blocks / o.trainers),
		steps: make([]id.Step, o.blocks), acks: make([][]time.Time, o.shards),
	}
	tables, err := o.tables()
	if err != nil {
		return nil, err
	}
	t.client, err = ps.NewClient(ps.ClientConfig{
		Tables: tables,
		Layout: o.layout(), OptimizerSlots: 1, Log: log,
		Replicas: func(id.ParamShard) []string { return addrs },
		Dial: func(ctx context.Context, addr, topic string) (net.Conn, error) {
			return p.Dial(ctx, addr, port.Params, topic)
		},
	})
	if err != nil {
		return nil, err
	}
	t.right, t.slots = []float32{0}, [][]float32{{0}}
	n := int(t.last-t.first) * o.layout().BlockSize
	t.grad, t.w = make([]float32, n), make([]float32, n)
	fillOnce(t.grad)
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	return t, t.client.Put(ctx, 0, 0, t.first, t.last, ps.State{W: t.w, Slots: [][]float32{make([]float32, n)}})
}

func (t *benchTrainer) rounds(ctx context.Context, n int) ([]float64, error) {
	var times []float64
	for range n {
		begin := time.Now()
		if err := t.client.Push(ctx, t.steps[t.first], t.first, t.last, t.grad, t.w); err != nil {
			return nil, err
		}
		times = append(times, time.Since(begin).Seconds()*1e3)
		t.steps[t.first]++
		for b := t.first; b < t.last; b++ {
			if err := t.check(b, t.steps[t.first]); err != nil {
				return nil, err
			}
		}
	}
	return times, nil
}

// check holds the ends of a block to what they must be at a step: no push lost, none done twice.
func (t *benchTrainer) check(b id.Block, step id.Step) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	for opt, w := benchOptimizer(), []float32{0}; len(t.right) <= int(step); t.right = append(t.right, w[0]) {
		w[0] = t.right[len(t.right)-1]
		opt.Update(id.Step(len(t.right)-1), w, []float32{benchGradient}, t.slots)
	}
	size := t.o.layout().BlockSize
	part := t.w[int(b-t.first)*size:][:size]
	if want := t.right[step]; part[0] != want || part[size-1] != want {
		return fmt.Errorf("block %d holds %v and %v at step %d, must be %v", b, part[0], part[size-1], step, want)
	}
	return nil
}

// benchOptimizer is that of the servers.
func benchOptimizer() optim.Optimizer {
	opt, err := optim.New(optim.Config{Name: "momentum", LR: 0.01})
	if err != nil {
		panic(err) // it is written here
	}
	return opt
}

func (t *benchTrainer) count() benchCount { return benchCount{CPU: cpuSeconds()} }

func (t *benchTrainer) stop() error { return t.client.Close() }

// benchGradient is every value of every gradient.
const benchGradient = 1e-3

// fillOnce fills a buffer that comes from the allocator; one that comes back has its values still.
func fillOnce(g []float32) {
	if g[0] == benchGradient && g[len(g)-1] == benchGradient {
		return
	}
	for i := range g {
		g[i] = benchGradient
	}
}

// lanesPerShard is how many blocks of a shard are on their way at a time: the default of ps.ClientConfig.Lanes.
const lanesPerShard = 2

// benchLanes shares the blocks of shards out.
func benchLanes(o *benchServer, shards []int) [][]id.Block {
	lanes := make([][]id.Block, o.shards*lanesPerShard)
	for _, shard := range shards {
		for i, b := 0, shard; b < o.blocks; i, b = i+1, b+o.shards {
			lane := shard*lanesPerShard + i%lanesPerShard
			lanes[lane] = append(lanes[lane], id.Block(b))
		}
	}
	return lanes
}

// benchRounds does something with every block, lane beside lane, n times.
func benchRounds(n int, lanes [][]id.Block, do func(id.Block) error) ([]float64, error) {
	var times []float64
	errs := make([]error, len(lanes))
	for range n {
		begin := time.Now()
		var all sync.WaitGroup
		for i, blocks := range lanes {
			all.Go(func() {
				for _, b := range blocks {
					if errs[i] = do(b); errs[i] != nil {
						return
					}
				}
			})
		}
		all.Wait()
		if err := errors.Join(errs...); err != nil {
			return nil, err
		}
		times = append(times, time.Since(begin).Seconds()*1e3)
	}
	return times, nil
}
