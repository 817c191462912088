// Package node is one process of a run: it wires the port, gossip, the coordinator, the
// parameter servers and the trainer together, in the order in which they need each
// other, and takes them down in the reverse one.
package node

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/rs/zerolog"

	"github.com/musterml/muster/internal/checkpoint"
	"github.com/musterml/muster/internal/flight"
	"github.com/musterml/muster/internal/id"
	"github.com/musterml/muster/internal/port"
	"github.com/musterml/muster/internal/still"
	"github.com/musterml/muster/internal/wait"
	"github.com/musterml/muster/membership"
	pb "github.com/musterml/muster/proto"
	"github.com/musterml/muster/ps"
	"github.com/musterml/muster/trainer"
	"github.com/musterml/muster/trainer/data"
	"github.com/musterml/muster/trainer/device"
	"github.com/musterml/muster/trainer/device/cpu"
	"github.com/musterml/muster/trainer/nn"
)

// Config says what a node is.
type Config struct {
	Job       trainer.Job
	Name      id.Node
	Listen    string   // host:port
	Advertise string   // "" = chosen by the route to the seeds
	Join      []string // seeds; its own address among them does no harm
	Server    bool
	Trainer   bool
	Device    device.Device // that a trainer computes on; nil: this machine's processor
	DataDir   string        // Raft's term, vote and snapshots, with durability disk its logs; one node at a time
	Resume    bool          // go on with the run that DataDir holds
	Out       string        // folder for the outputs
	Cluster   string
	Key       []byte // nil: nothing is encrypted
	Version   string
	Log       zerolog.Logger

	OnListen func(addr string)          // called once the node can be reached
	OnData   func(data.Progress)        // called now and then while the data is read, if that takes long
	OnSteps  func(id.Step)              // called once the number of steps is known
	OnStep   func(*pb.StepMetrics)      // called for every step that this node's trainer takes part in
	OnEvent  func(view membership.View) // called when the agreed membership changes

	OnRetired func(error) // called if the device of this node's trainer fails; others go on
}

// Result is how a run ended.
type Result struct {
	Run    string
	Finish *pb.Finish
	Out    string // where this node wrote its outputs, "" if it wrote none
}

// leaderless is how long a node that has its outputs waits for the coordinator to say
// goodbye before it leaves by itself.
const leaderless = 3 * time.Second

// Node is a running node. Its fields are set by Run, in this order, and not changed
// afterwards, except what mu guards.
type Node struct {
	cfg         Config
	incarnation id.Incarnation
	waits       wait.Registry
	still       still.Meter
	flight      *flight.Recorder
	broken      chan error // why a ring has failed: the record of it is to be written
	graves      graves
	spec        *nn.Spec // on a node that does not train, only once the run is founded
	train, test data.Dataset
	identity    data.Digest // of them, and of weights that are given
	samples     *pb.Samples // of train
	port        *port.Port
	meta        *pb.NodeMeta
	gossip      *membership.Gossip
	founding    *pb.Founding
	held        *held // nil unless this server's logs are on the disk
	hosting     hosting
	handing     sync.WaitGroup // hand-overs under way
	shards      *ps.Server     // nil on a node that is no server
	client      *ps.Client
	coordinator *membership.Coordinator // nil while this node is not of the coordinator
	trainer     *trainer.Trainer        // nil on a node that does not train
	session     *membership.Session

	holding sync.Mutex        // guards held, meta's lists and lostBy once the node serves
	begin   *checkpoint.Found // what a resumed run may begin with
	lostBy  map[string]error  // by group: why this server's log of it was given up

	mu      sync.Mutex // also held when session, coordinator and the job's samples are set, which status reads
	finish  *pb.Finish
	saved   bool
	retired error // why the trainer computes no more

	finished chan struct{} // closed with finish
	bye      chan struct{} // closed when the coordinator lets this node go
	byeOnce  sync.Once
	fatal    chan error // what this node cannot go on with
}

// Run takes part in a run until it ends or ctx does.
func Run(ctx context.Context, cfg Config) (Result, error) {
	return newNode(cfg).run(ctx)
}

func newNode(cfg Config) *Node {
	return &Node{
		cfg: cfg, incarnation: id.Incarnation(random(8)), flight: flight.New(flight.DefaultSpans), lostBy: map[string]error{},
		broken: make(chan error, 1), finished: make(chan struct{}), bye: make(chan struct{}), fatal: make(chan error, 8),
	}
}

func (n *Node) run(ctx context.Context) (Result, error) {
	var down shutdown
	err := n.chooseDevice()
	if err == nil {
		err = n.start(ctx, &down)
	}
	var result Result
	if err == nil {
		result, err = n.await(ctx)
	}
	return result, errors.Join(err, down.run())
}

// chooseDevice takes this machine's processor where nothing else is asked for, and has it compute as the job says.
func (n *Node) chooseDevice() (err error) {
	if !n.cfg.Trainer {
		return nil
	}
	if n.cfg.Device == nil {
		if n.cfg.Device, err = cpu.New(); err != nil {
			return err
		}
	}
	var has bool
	if n.cfg.Device, has, err = n.cfg.Job.On(n.cfg.Device); err == nil && !has {
		n.cfg.Log.Warn().Str("device", n.cfg.Device.Name()).Msgf("the job says precision: %s, which this device has not: it computes in float32", n.cfg.Job.Precision)
	}
	return err
}

// shutdown collects what must be undone, and does it last in, first out.
type shutdown []func() error

func (s *shutdown) add(f func() error) { *s = append(*s, f) }

func (s *shutdown) run() error {
	var errs []error
	for i := len(*s) - 1; i >= 0; i-- {
		errs = append(errs, (*s)[i]())
	}
	return errors.Join(errs...)
}

// start brings the node up: first what can be wrong here alone (data, folder, port),
// then what needs others.
func (n *Node) start(ctx context.Context, down *shutdown) error {
	if err := n.openData(ctx); err != nil {
		return err
	}
	unlock, err := lockDir(n.cfg.DataDir)
	if err != nil {
		return err
	}
	down.add(unlock)
	if err := n.openHeld(); err != nil {
		return err
	}
	if n.cfg.Trainer || n.cfg.Server {
		if err := writable("output folder", n.cfg.Out, useOut); err != nil {
			return err
		}
	}
	if err := n.listen(down); err != nil {
		return err
	}
	if err := n.found(ctx, down); err != nil {
		return err
	}
	if err := n.serve(down); err != nil {
		return err
	}
	return n.work(ctx, down)
}

// openData reads the data and builds the model, on a node that trains. A server learns
// from the trainers what the samples look like.
func (n *Node) openData(ctx context.Context) (err error) {
	if !n.cfg.Trainer {
		return nil
	}
	if n.train, n.test, err = data.Open(ctx, n.cfg.Job.Data, n.cfg.OnData); err != nil {
		return err
	}
	form := n.train.Form()
	n.samples = &pb.Samples{Classes: uint32(form.Classes), Train: uint64(n.train.Len()), Entries: uint32(form.Entries), Fields: uint32(form.Fields)}
	for _, d := range form.Shape {
		n.samples.Shape = append(n.samples.Shape, uint32(d))
	}
	if err := n.prepare(n.samples); err != nil {
		return err
	}
	return n.identify()
}

// identify finds what all trainers of a run must have alike: the samples, and the weights that it begins with where the job names a file.
func (n *Node) identify() error {
	n.identity = data.Identity(n.train, n.test)
	if n.cfg.Job.Weights == "" {
		return nil
	}
	given, err := n.cfg.Job.CheckWeights(n.spec)
	if err != nil {
		return err
	}
	n.identity = sha256.Sum256(append(n.identity[:], given.Digest[:]...))
	level := zerolog.InfoLevel
	if len(given.Drawn) > 0 {
		level = zerolog.WarnLevel
	}
	n.cfg.Log.WithLevel(level).Str("file", n.cfg.Job.Weights).Msg("the run begins with " + given.String())
	return nil
}

// prepare makes of the job what hangs on the data: the number of steps, and the model.
func (n *Node) prepare(s *pb.Samples) (err error) {
	job := n.cfg.Job
	job.Samples = int(s.GetTrain())
	form := data.Form{Kind: job.Data.Kind(), Classes: int(s.GetClasses()), Entries: int(s.GetEntries()), Fields: int(s.GetFields())}
	for _, d := range s.GetShape() {
		form.Shape = append(form.Shape, int(d))
	}
	n.mu.Lock() // a server is asked for its status before it knows
	n.cfg.Job = job
	n.mu.Unlock()
	if n.cfg.OnSteps != nil {
		n.cfg.OnSteps(job.Steps())
	}
	n.spec, err = job.BuildModel(form)
	return err
}

// listen opens the port and begins to gossip.
func (n *Node) listen(down *shutdown) error {
	digest, err := n.cfg.Job.Digest()
	if err != nil {
		return err
	}
	n.port, err = port.Listen(port.Config{
		Listen: n.cfg.Listen, Advertise: n.cfg.Advertise, Seeds: n.cfg.Join,
		Node: n.cfg.Name, Cluster: n.cfg.Cluster, Version: n.cfg.Version, Job: digest, Key: n.cfg.Key, Log: n.cfg.Log,
	})
	if err != nil {
		return err
	}
	down.add(n.port.Close)
	n.meta = &pb.NodeMeta{Incarnation: string(n.incarnation), Addr: n.port.Addr(), Server: n.cfg.Server, Trainer: n.cfg.Trainer}
	if err := n.findCheckpoint(); err != nil {
		return err
	}
	if n.durable() {
		n.meta.Identity = string(n.held.Identity)
		for group, identity := range n.held.Healed {
			if n.meta.Healed == nil {
				n.meta.Healed = map[string]string{}
			}
			n.meta.Healed[group] = string(identity)
		}
		if n.cfg.Resume {
			n.meta.Run = n.held.Run
		}
	}
	if n.cfg.Trainer {
		n.meta.Data, n.meta.Arithmetic, n.meta.Samples = n.identity[:], n.cfg.Device.Arithmetic(), n.samples
	}
	n.gossip, err = membership.StartGossip(membership.GossipConfig{
		Port: n.port, Node: n.cfg.Name, Cluster: n.cfg.Cluster, Key: n.cfg.Key, Meta: n.meta, Log: n.cfg.Log,
	})
	if err != nil {
		return err
	}
	down.add(func() error { return n.gossip.Stop(500 * time.Millisecond) })
	n.port.Handle(port.Control, StatusTopic, n.serveStatus)
	n.port.Handle(port.Control, RecordTopic, n.serveRecord)
	n.port.Handle(port.Control, ServersTopic, n.serveServers)
	n.port.Handle(port.Control, DrainTopic, n.serveDrain)
	n.cfg.Log.Info().Str("addr", n.port.Addr()).Str("node", string(n.cfg.Name)).Msg("listening")
	if n.cfg.OnListen != nil {
		n.cfg.OnListen(n.port.Addr())
	}
	return nil
}

// found finds the others and agrees with them on the run, or learns of it.
func (n *Node) found(ctx context.Context, down *shutdown) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var watch sync.WaitGroup
	defer watch.Wait()
	defer cancel(nil)
	watch.Go(func() {
		select {
		case <-n.gossip.Refused():
			cancel(n.gossip.Err())
		case <-ctx.Done():
		}
	})
	job, err := n.cfg.Job.YAML()
	if err != nil {
		return err
	}
	digest, err := n.cfg.Job.Digest()
	if err != nil {
		return err
	}
	holds := ""
	if n.resumes() {
		holds = n.held.Run
	}
	founder := membership.NewFounder(membership.FoundingConfig{
		Held: holds, Resume: n.cfg.Resume,
		Port: n.port, Gossip: n.gossip, Self: n.meta, Node: n.cfg.Name, Servers: n.cfg.Job.Cluster.Servers,
		Job: digest[:], JobFile: string(job), NewRun: func() string { return n.cfg.Job.Name + "-" + random(3) }, Log: n.cfg.Log,
	})
	end := n.waits.Begin("a seed to answer", "", strings.Join(n.others(), ", "))
	err = n.gossip.Join(ctx, n.others())
	end()
	if err == nil {
		end = n.waits.Begin("the founding of the run", "", "")
		if n.resumes() {
			n.founding, err = n.resume(ctx, founder)
		} else {
			n.founding, err = founder.Find(ctx)
		}
		end()
	}
	if err != nil {
		if n.gossip.Err() != nil {
			return n.gossip.Err()
		}
		if cause := context.Cause(ctx); cause != nil {
			return fmt.Errorf("stopped before it was in a run: %w", cause)
		}
		return err
	}
	if err := n.holdFounding(); err != nil {
		return err
	}
	n.meta.Run = n.founding.Run
	n.cfg.Log.Info().Str("run", n.founding.Run).Int("servers", len(n.founding.Servers)).Msg("in a run")
	return n.gossip.SetMeta(n.meta)
}

// others are the seeds without this node itself.
func (n *Node) others() []string {
	var seeds []string
	for _, s := range n.cfg.Join {
		if s != n.port.Addr() && s != n.cfg.Listen {
			seeds = append(seeds, s)
		}
	}
	return seeds
}

const (
	useDataDir = "choose one that can be written with --data-dir"
	useOut     = "choose one that can be written with --out, or out in the job"
)

// lockDir makes the node's folder and keeps other nodes out of it.
func lockDir(dir string) (unlock func() error, err error) {
	if err := writable("data folder", dir, useDataDir); err != nil {
		return nil, err
	}
	f, err := os.OpenFile(filepath.Join(dir, "lock"), os.O_CREATE|os.O_RDWR, 0o644)
	if err != nil {
		return nil, fmt.Errorf("data folder: %w; %s", err, useDataDir)
	}
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		return nil, errors.Join(fmt.Errorf("data folder %s is in use by another node; give each node its own --data-dir", dir), f.Close())
	}
	return f.Close, nil
}

// writable finds out now, not in the middle of a run or at its end, that a folder can
// be written and its disk is not full.
func writable(what, dir, remedy string) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return fmt.Errorf("%s: %w; %s", what, err, remedy)
	}
	f, err := os.CreateTemp(dir, ".writable-*")
	if err != nil {
		return fmt.Errorf("%s: %w; %s", what, err, remedy)
	}
	_, err = f.Write(make([]byte, 4096)) // an empty file fits on a full disk
	if err = errors.Join(err, f.Close()); err != nil {
		err = fmt.Errorf("%s: %w; make room, or %s", what, err, remedy)
	}
	return errors.Join(err, os.Remove(f.Name()))
}

func random(bytes int) string {
	b := make([]byte, bytes)
	_, _ = rand.Read(b) // never fails (crypto/rand)
	return hex.EncodeToString(b)
}
