package ps

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/rs/zerolog"

	"github.com/musterml/muster/internal/crash"
	"github.com/musterml/muster/internal/id"
	"github.com/musterml/muster/internal/optim"
	"github.com/musterml/muster/internal/port"
	"github.com/musterml/muster/internal/raftgroup"
)

// Some tests need servers that die as processes do. Their nodes are this test binary,
// started again with childEnv set: each hosts all shards, with its log on the disk.

const childEnv = "MUSTER_PS_CHILD"

func TestMain(m *testing.M) {
	if config := os.Getenv(childEnv); config != "" {
		if err := child(config); err != nil {
			fmt.Fprintln(os.Stderr, "child:", err)
			os.Exit(1)
		}
		return
	}
	os.Exit(m.Run())
}

type childConfig struct {
	Self     raftgroup.Replica
	All      []raftgroup.Replica
	Known    bool
	Dir      string
	Layout   Layout
	Opt      optim.Config
	LogLimit int64
}

// child serves until its parent is gone.
func child(config string) error {
	var c childConfig
	if err := json.Unmarshal([]byte(config), &c); err != nil {
		return err
	}
	p, err := port.Listen(port.Config{Listen: c.Self.Addr, Node: c.Self.Node, Cluster: "test", Job: [32]byte{1}, Log: zerolog.Nop()})
	if err != nil {
		return err
	}
	opt, err := optim.New(c.Opt)
	if err != nil {
		return err
	}
	s, err := NewServer(ServerConfig{
		Self: c.Self, Layout: c.Layout, Optimizer: opt, Dir: c.Dir, Port: p, LogLimit: c.LogLimit, Durable: true,
		Life:   func(id.ParamShard) (id.Incarnation, bool) { return c.Self.Incarnation, c.Known },
		Timing: raftgroup.Timing{HeartbeatTimeout: 200 * time.Millisecond},
		Log:    zerolog.New(os.Stderr),
	})
	if err != nil {
		return err
	}
	for shard := range c.Layout.Shards {
		if err := s.Start(id.ParamShard(shard), c.All); err != nil {
			return err
		}
	}
	fmt.Println("ready")
	_, err = io.Copy(io.Discard, os.Stdin)
	return err
}

// family is a cluster of children.
type family struct {
	logLimit int64 // of each shard
	t        *testing.T
	dir      string
	layout   Layout
	opt      optim.Config
	port     *port.Port
	client   *Client
	oracle   *oracle

	mu       sync.Mutex
	all      []raftgroup.Replica
	children map[id.Node]*childProcess
}

type childProcess struct {
	cmd    *exec.Cmd
	stdin  io.Closer
	exited chan struct{}
	served bool // it came so far
	mu     sync.Mutex
	log    bytes.Buffer
}

func (p *childProcess) Write(b []byte) (int, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.log.Write(b)
}

func (p *childProcess) text() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.log.String()
}

func (p *childProcess) ended() bool {
	select {
	case <-p.exited:
		return true
	default:
		return false
	}
}

func newFamily(t *testing.T) *family {
	t.Helper()
	f := &family{
		t: t, dir: t.TempDir(), layout: Layout{Params: 3000, BlockSize: 256, Shards: 2},
		opt: optim.Config{Name: "adam", LR: 0.01}, logLimit: 64 << 10, children: map[id.Node]*childProcess{},
	}
	for _, name := range []id.Node{"a", "b", "c"} {
		f.all = append(f.all, raftgroup.Replica{Node: name, Incarnation: id.Incarnation(name) + "-disk", Addr: freeAddr(t)})
	}
	var err error
	f.port, err = port.Listen(port.Config{Listen: "127.0.0.1:0", Node: "trainer", Cluster: "test", Job: [32]byte{1}, Log: zerolog.Nop()})
	if err != nil {
		t.Fatal(err)
	}
	f.client = f.clientOf(f.all...)
	f.oracle = newOracle(t, f.opt, f.layout.Params)
	t.Cleanup(func() {
		for _, r := range f.all {
			f.kill(r.Node)
		}
		_ = f.port.Close()
		if t.Failed() {
			for name, p := range f.children {
				t.Logf("--- %s\n%s", name, p.text())
			}
		}
	})
	return f
}

// freeAddr is an address that is free now for TCP and UDP.
func freeAddr(t *testing.T) string {
	t.Helper()
	for range 100 {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		addr := l.Addr().String()
		u, err := net.ListenPacket("udp", addr)
		_ = l.Close()
		if err == nil {
			_ = u.Close()
			return addr
		}
	}
	t.Fatal("no free port")
	return ""
}

// clientOf is a client that knows only some of the replicas.
func (f *family) clientOf(replicas ...raftgroup.Replica) *Client {
	f.t.Helper()
	c, err := NewClient(ClientConfig{
		Layout: f.layout, OptimizerSlots: testOptimizer(f.t, f.opt).Slots(),
		Replicas: func(id.ParamShard) []string {
			var addrs []string
			for _, r := range replicas {
				addrs = append(addrs, r.Addr)
			}
			return addrs
		},
		Dial: func(ctx context.Context, addr, topic string) (net.Conn, error) {
			return f.port.Dial(ctx, addr, port.Params, topic)
		},
	})
	if err != nil {
		f.t.Fatal(err)
	}
	f.t.Cleanup(func() { _ = c.Close() })
	return c
}

// start runs a node and waits until it serves, or has died; crashAt arms a crash point.
func (f *family) start(node id.Node, crashAt string) {
	f.t.Helper()
	f.mu.Lock()
	again := f.children[node] != nil && f.children[node].served
	f.mu.Unlock()
	c := childConfig{All: f.all, Known: again, Dir: filepath.Join(f.dir, string(node)), Layout: f.layout, Opt: f.opt, LogLimit: f.logLimit}
	for _, r := range f.all {
		if r.Node == node {
			c.Self = r
		}
	}
	config, err := json.Marshal(c)
	if err != nil {
		f.t.Fatal(err)
	}
	p := &childProcess{cmd: exec.Command(os.Args[0]), exited: make(chan struct{})}
	p.cmd.Env = append(os.Environ(), childEnv+"="+string(config), crash.Env+"="+crashAt, "GOMAXPROCS=2")
	p.cmd.Stderr = p
	out, err := p.cmd.StdoutPipe()
	if err != nil {
		f.t.Fatal(err)
	}
	if p.stdin, err = p.cmd.StdinPipe(); err != nil {
		f.t.Fatal(err)
	}
	if err := p.cmd.Start(); err != nil {
		f.t.Fatal(err)
	}
	p.served = bufio.NewScanner(out).Scan() || again // false when it dies first
	go func() {
		_ = p.cmd.Wait()
		close(p.exited)
	}()
	f.mu.Lock()
	f.children[node] = p
	f.mu.Unlock()
}

func (f *family) startAll() {
	f.t.Helper()
	var all sync.WaitGroup
	for _, r := range f.all {
		all.Go(func() { f.start(r.Node, "") })
	}
	all.Wait()
}

func (f *family) child(node id.Node) *childProcess {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.children[node]
}

func (f *family) kill(node id.Node) {
	if p := f.child(node); p != nil {
		_ = p.cmd.Process.Kill()
		<-p.exited
	}
}

func (f *family) killAll() {
	for _, r := range f.all {
		if p := f.child(r.Node); p != nil {
			_ = p.cmd.Process.Kill()
		}
	}
	for _, r := range f.all {
		f.kill(r.Node)
	}
}

func (f *family) blocks() id.Block { return id.Block(f.layout.Blocks()) }

func (f *family) ctx() context.Context {
	ctx, cancel := context.WithTimeout(f.t.Context(), time.Minute)
	f.t.Cleanup(cancel)
	return ctx
}

// begin puts the first state.
func (f *family) begin() {
	f.t.Helper()
	if err := f.client.Put(f.ctx(), 0, 0, 0, f.blocks(), f.oracle.state()); err != nil {
		f.t.Fatal(err)
	}
}

// steps pushes steps and holds what comes back to the oracle.
func (f *family) steps(n int) {
	f.t.Helper()
	w := make([]float32, f.layout.Params)
	for range n {
		g := gradient(f.oracle.step, f.layout.Params)
		if err := f.client.Push(f.ctx(), f.oracle.step, 0, f.blocks(), g, w); err != nil {
			f.t.Fatal(err)
		}
		f.oracle.push(g)
		sameBits(f.t, fmt.Sprintf("weights after step %d", f.oracle.step), w, f.oracle.w)
	}
}

// check reads the whole state from every replica by itself.
func (f *family) check() {
	f.t.Helper()
	for _, r := range f.all {
		got := emptyState(f.layout.Params, len(f.oracle.slots))
		if err := f.clientOf(r).Pull(f.ctx(), f.oracle.step, 0, f.blocks(), got); err != nil {
			f.t.Fatalf("%s: %v", r.Node, err)
		}
		sameBits(f.t, string(r.Node)+": weights", got.W, f.oracle.w)
		for k := range got.Slots {
			sameBits(f.t, fmt.Sprintf("%s: slot %d", r.Node, k), got.Slots[k], f.oracle.slots[k])
		}
	}
}

// segments are the files of a node's log of a shard, oldest first.
func (f *family) segments(node id.Node, shard id.ParamShard) []string {
	f.t.Helper()
	files, err := filepath.Glob(filepath.Join(f.dir, string(node), shard.String(), "*", "log", "*.seg"))
	if err != nil || len(files) == 0 {
		f.t.Fatalf("%s has no log of %v: %v", node, shard, err)
	}
	return files
}

func (f *family) says(node id.Node, what string) bool {
	return strings.Contains(f.child(node).text(), what)
}
