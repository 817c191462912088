package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/musterml/muster/internal/node"
	"github.com/musterml/muster/internal/port"
	"github.com/musterml/muster/membership"
	pb "github.com/musterml/muster/proto"
)

// The process tests start the real binary, as a user would, on loopback. A cluster is
// the nodes of one test: their addresses, output folders and logs. When a test fails it
// prints the end of every log and keeps the folder; with MUSTER_KEEP=1 it always does.
// With MUSTER_SELF=1 the nodes are the test binary itself: with -race, under the detector.

var musterBinary = sync.OnceValues(func() (string, error) {
	if os.Getenv("MUSTER_SELF") != "" {
		return os.Executable()
	}
	dir, err := os.MkdirTemp("", "muster-binary-")
	if err != nil {
		return "", err
	}
	builtIn = dir
	path := filepath.Join(dir, "muster")
	build := exec.Command("go", "build", "-o", path, ".")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		return "", fmt.Errorf("go build: %w\n%s", err, out)
	}
	return path, nil
})

var builtIn string // the folder of the built binary, once there is one

// asMuster in the environment has the test binary be muster. That the binary holds the
// whole program also tells go test when a result in its cache is out of date.
const asMuster = "MUSTER_TEST_BINARY_IS_MUSTER=1"

func TestMain(m *testing.M) {
	if name, value, _ := strings.Cut(asMuster, "="); os.Getenv(name) == value {
		main()
		return
	}
	if name, value, _ := strings.Cut(asRank, "="); os.Getenv(name) == value {
		if err := ringRank(os.Stdin, os.Stdout); err != nil {
			fmt.Fprintln(os.Stderr, "rank:", err)
			os.Exit(1)
		}
		return
	}
	code := m.Run()
	if builtIn != "" {
		_ = os.RemoveAll(builtIn)
	}
	os.Exit(code)
}

type cluster struct {
	t    *testing.T
	dir  string
	job  string // path of the job file
	key  string // path of the key file, "" for none
	name string // of the cluster
	env  []string

	tools []string // what goes before the commands that ask the cluster, to run them on another host

	mu    sync.Mutex
	nodes []*process // in the order of their starts; one name may be there several times
}

const (
	bothRoles   = "server,trainer"
	serverOnly  = "server"
	trainerOnly = "trainer"
)

// newCluster prepares a cluster for a job; start adds its nodes.
func newCluster(t *testing.T, job string) *cluster {
	t.Helper()
	dir, err := os.MkdirTemp("", "muster-"+strings.NewReplacer("/", "-").Replace(t.Name())+"-")
	if err != nil {
		t.Fatal(err)
	}
	c := &cluster{t: t, dir: dir, job: filepath.Join(dir, "job.yaml"), name: "test"}
	if err := os.WriteFile(c.job, []byte(job), 0o644); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.close)
	return c
}

// nodeSpec is how a node is started; zero fields get what fits the cluster.
type nodeSpec struct {
	name, roles  string
	addr         string
	join         []string
	job, key     string
	cluster      string
	dataDir, out string
	procs        int // GOMAXPROCS
	logLevel     string
	resume       bool
	launch       []string // what goes before the command, to start it on another host
	stranger     string   // what is wrong with it; "" for a node that belongs to the cluster
}

// start runs a node and does not wait for it.
func (c *cluster) start(s nodeSpec) *process {
	c.t.Helper()
	bin, err := musterBinary()
	if err != nil {
		c.t.Fatal(err)
	}
	c.fill(&s)
	args := []string{"node", "-f", s.job, "--name", s.name, "--listen", s.addr, "--roles", s.roles, "--cluster", s.cluster,
		"--data-dir", s.dataDir, "--out", s.out, "--json", "--log-level", s.logLevel}
	if s.resume {
		args = append(args, "--resume")
	}
	if len(s.join) > 0 {
		args = append(args, "--join", strings.Join(s.join, ","))
	}
	if s.key != "" && s.key != "none" {
		args = append(args, "--key-file", s.key)
	}
	p := &process{name: s.name, addr: s.addr, roles: s.roles, out: s.out, spec: s, changed: make(chan struct{}, 1), exited: make(chan struct{})}
	c.mu.Lock()
	p.life = len(c.nodes)
	c.nodes = append(c.nodes, p)
	c.mu.Unlock()
	p.log = filepath.Join(c.dir, fmt.Sprintf("%02d-%s.log", p.life, s.name))
	if len(s.launch) > 0 {
		bin, args = s.launch[0], append(slices.Concat(s.launch[1:], []string{bin}), args...)
	}
	if err := p.run(bin, args, append(c.env, fmt.Sprintf("GOMAXPROCS=%d", s.procs)), c.dir); err != nil {
		c.t.Fatal(err)
	}
	return p
}

func (c *cluster) fill(s *nodeSpec) {
	if s.addr == "" {
		s.addr = freeAddr(c.t)
	}
	if s.join == nil {
		s.join = c.addrs()
	}
	for _, d := range []struct {
		field *string
		value string
	}{
		{&s.roles, bothRoles}, {&s.job, c.job}, {&s.key, c.key}, {&s.cluster, c.name}, {&s.logLevel, "debug"},
		{&s.dataDir, filepath.Join(c.dir, "data", s.name)}, {&s.out, filepath.Join(c.dir, "out", s.name)},
	} {
		if *d.field == "" {
			*d.field = d.value
		}
	}
	if s.procs == 0 {
		s.procs = 2
	}
}

// again starts a node anew that has ended: same name, same address, same folders.
func (c *cluster) again(p *process) *process {
	c.t.Helper()
	s := p.spec
	s.join = slices.DeleteFunc(c.addrs(), func(a string) bool { return a == s.addr })
	return c.start(s)
}

// addrs are those of all nodes so far, each once.
func (c *cluster) addrs() []string {
	c.mu.Lock()
	defer c.mu.Unlock()
	addrs := []string{}
	for _, p := range c.nodes {
		if !slices.Contains(addrs, p.addr) && p.spec.stranger == "" {
			addrs = append(addrs, p.addr)
		}
	}
	return addrs
}

// living are the nodes whose process runs.
func (c *cluster) living() []*process {
	c.mu.Lock()
	defer c.mu.Unlock()
	return slices.DeleteFunc(slices.Clone(c.nodes), func(p *process) bool { return p.ended() })
}

// patience is how long a test waits while nothing moves: far longer than a node may
// take for anything, and on a busy machine a run may take as long as it likes.
const patience = 90 * time.Second

// until polls a condition; the test ends with everybody's log when it stays false while
// nothing moves, or when nobody is left to make it true.
func (c *cluster) until(what string, holds func() bool) {
	c.t.Helper()
	for {
		before := c.steps()
		held := false
		c.within(patience, func() bool {
			held = holds()
			return held || len(c.living()) == 0
		})
		if held || holds() {
			return
		}
		if len(c.living()) == 0 || c.steps() == before {
			c.dump()
			c.t.Fatalf("not within %v: %s", patience, what)
		}
	}
}

// steps adds up the newest steps that the nodes told of; it changes while a run goes on.
func (c *cluster) steps() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	sum := 0
	for _, p := range c.nodes {
		sum += p.lastStep()
	}
	return sum
}

func (c *cluster) within(d time.Duration, holds func() bool) bool {
	deadline := time.After(d)
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for !holds() {
		select {
		case <-deadline:
			return holds()
		case <-tick.C:
		}
	}
	return true
}

// status asks a node, "" any that answers for the whole run.
func (c *cluster) status(addr string) *pb.Status {
	addrs := []string{addr}
	if addr == "" {
		addrs = nil
		for _, p := range c.living() {
			addrs = append(addrs, p.addr)
		}
	}
	for _, a := range addrs {
		if st, err := c.ask(a); err == nil && st.Error == "" {
			return st
		}
	}
	return nil
}

func (c *cluster) ask(addr string) (*pb.Status, error) {
	ctx, cancel := context.WithTimeout(context.Background(), 3*time.Second)
	defer cancel()
	var key []byte
	if c.key != "" {
		b, err := os.ReadFile(c.key)
		if err != nil {
			return nil, err
		}
		key = bytes.TrimSpace(b)
	}
	conn, err := port.DialTool(ctx, port.ToolConfig{Key: key, Version: version}, addr, port.Control, node.StatusTopic)
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	st := &pb.Status{}
	return st, membership.Ask(ctx, conn, &pb.StatusRequest{}, st)
}

// finish waits until every living node has ended by itself, and demands exit status 0.
// A node that was started when the run was all but over, and was never in it, waits for
// another run; it is ended.
func (c *cluster) finish() {
	c.t.Helper()
	c.until("every node of the run has ended", func() bool {
		living := c.living()
		return len(living) == 0 || c.over() && !slices.ContainsFunc(living, (*process).inRun)
	})
	for _, p := range c.living() {
		c.t.Logf("%s came too late for the run", p.name)
		p.kill()
	}
	for _, p := range c.nodes {
		if !p.killed() && p.spec.stranger == "" && p.err != nil {
			c.t.Errorf("%s ended with %v: %s", p.name, p.err, p.complaint())
		}
	}
}

// over says whether a node has come to the end of the run.
func (c *cluster) over() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return slices.ContainsFunc(c.nodes, func(p *process) bool { return p.ended() && p.finished != nil })
}

// dump has every living node write its goroutines into its log, and waits for its end.
func (c *cluster) dump() {
	for _, p := range c.living() {
		_ = p.cmd.Process.Signal(syscall.SIGQUIT)
		select {
		case <-p.exited:
		case <-time.After(5 * time.Second):
		}
	}
}

// close ends what still runs and, after a failure, shows what the nodes said.
func (c *cluster) close() {
	for _, p := range c.living() {
		_ = p.cmd.Process.Kill()
		<-p.exited
	}
	if !c.t.Failed() {
		if os.Getenv("MUSTER_KEEP") == "" {
			_ = os.RemoveAll(c.dir)
		}
		return
	}
	for _, p := range c.nodes {
		c.t.Logf("--- %s (%s), ended: %v\n%s", p.name, p.roles, p.err, p.tail(12))
	}
	c.t.Logf("all of it is kept in %s", c.dir)
}

var errNoExit = errors.New("it did not end")
