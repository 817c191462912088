package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

// process is one life of a node.
type process struct {
	name, addr, roles, out string
	spec                   nodeSpec
	life                   int
	log                    string // path
	cmd                    *exec.Cmd
	changed                chan struct{} // a line came
	exited                 chan struct{} // closed once err is set
	err                    error

	mu       sync.Mutex
	listens  bool
	step     int // the newest step it told of; -1 before the first
	views    []viewLine
	finished *finishedLine
	dead     bool // killed by the test
}

type viewLine struct {
	View     uint64   `json:"view"`
	From     int      `json:"from"`
	Trainers []string `json:"trainers"`
}

type finishedLine struct {
	Steps  int    `json:"steps"`
	Digest string `json:"digest"`
	Out    string `json:"out"`
}

// run starts the process: lines of stdout are read, stderr goes into the log.
func (p *process) run(bin string, args, env []string, dir string) error {
	log, err := os.Create(p.log)
	if err != nil {
		return err
	}
	p.step = -1
	p.cmd = exec.Command(bin, args...)
	p.cmd.Env, p.cmd.Dir, p.cmd.Stderr = append(append(os.Environ(), asMuster), env...), dir, log
	lines, err := p.cmd.StdoutPipe()
	if err != nil {
		return err
	}
	if err := p.cmd.Start(); err != nil {
		return err
	}
	go func() {
		p.read(lines)
		p.err = p.cmd.Wait()
		_ = log.Close()
		close(p.exited)
	}()
	return nil
}

func (p *process) read(lines io.Reader) {
	s := bufio.NewScanner(lines)
	s.Buffer(nil, 1<<20)
	for s.Scan() {
		p.line(s.Bytes())
		select {
		case p.changed <- struct{}{}:
		default:
		}
	}
}

func (p *process) line(b []byte) {
	var head struct {
		Event string `json:"event"`
		Step  int    `json:"step"`
	}
	if json.Unmarshal(b, &head) != nil {
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	switch head.Event {
	case "listening":
		p.listens = true
	case "step":
		p.step = head.Step
	case "view":
		var v viewLine
		if json.Unmarshal(b, &v) == nil {
			p.views = append(p.views, v)
		}
	case "finished":
		p.finished = &finishedLine{}
		_ = json.Unmarshal(b, p.finished)
	}
}

// lastStep is the newest step that this node told of, -1 before the first.
func (p *process) lastStep() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.step
}

func (p *process) listening() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.listens
}

// inRun says whether the coordinator has told this node of a view.
func (p *process) inRun() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return len(p.views) > 0
}

func (p *process) ended() bool {
	select {
	case <-p.exited:
		return true
	default:
		return false
	}
}

// kill ends the process as a power cut would, and waits until it is gone.
func (p *process) kill() {
	p.signalKill()
	<-p.exited
}

func (p *process) signalKill() {
	p.mu.Lock()
	p.dead = true
	p.mu.Unlock()
	_ = p.cmd.Process.Kill()
}

func (p *process) killed() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.dead
}

// wait waits for the end of a process that is to end by itself.
func (p *process) wait(t *testing.T, within time.Duration) error {
	t.Helper()
	select {
	case <-p.exited:
		return p.err
	case <-time.After(within):
		t.Errorf("%s does not end", p.name)
		return errNoExit
	}
}

func (p *process) text() string {
	b, err := os.ReadFile(p.log)
	if err != nil {
		return err.Error()
	}
	return string(b)
}

// complaint is what the process said to a person before it ended.
func (p *process) complaint() string {
	lines := strings.Split(p.text(), "\n")
	for i := range lines {
		if strings.HasPrefix(lines[i], "muster: ") {
			return strings.TrimSpace(strings.Join(lines[i:], "\n"))
		}
	}
	return ""
}

func (p *process) tail(lines int) string {
	all := strings.Split(strings.TrimRight(p.text(), "\n"), "\n")
	return strings.Join(all[max(0, len(all)-lines):], "\n")
}

// runMuster runs the binary to its end.
func runMuster(t *testing.T, env []string, args ...string) (stdout, stderr string, err error) {
	t.Helper()
	return runMusterOn(t, nil, env, args...)
}

// runMusterOn is runMuster with what goes before the command, to run it on another host.
func runMusterOn(t *testing.T, launch, env []string, args ...string) (stdout, stderr string, err error) {
	t.Helper()
	bin, err := musterBinary()
	if err != nil {
		t.Fatal(err)
	}
	words := append(append(slices.Clone(launch), bin), args...)
	cmd := exec.CommandContext(t.Context(), words[0], words[1:]...)
	var out, errs strings.Builder
	cmd.Stdout, cmd.Stderr, cmd.Env = &out, &errs, append(append(os.Environ(), asMuster), env...)
	err = cmd.Run()
	return out.String(), errs.String(), err
}

var ports struct {
	sync.Mutex
	next int
}

// freeAddr is an address that is free for TCP and UDP and stays free while its node is
// down: it lies below the ports that the kernel gives to outgoing connections.
func freeAddr(t *testing.T) string {
	t.Helper()
	const lowest, highest = 12000, 32000
	ports.Lock()
	defer ports.Unlock()
	if ports.next == 0 {
		ports.next = lowest + rand.IntN(highest-lowest)
	}
	for range 1000 {
		if ports.next++; ports.next >= highest {
			ports.next = lowest
		}
		addr := fmt.Sprintf("127.0.0.1:%d", ports.next)
		if free(addr) {
			return addr
		}
	}
	t.Fatal("no free port")
	return ""
}

func free(addr string) bool {
	tcp, err := net.Listen("tcp", addr)
	if err != nil {
		return false
	}
	defer tcp.Close()
	udp, err := net.ListenPacket("udp", addr)
	if err != nil {
		return false
	}
	udp.Close()
	return true
}

// writeFile makes a file in a cluster's folder.
func (c *cluster) writeFile(name, text string) (path string) {
	c.t.Helper()
	path = filepath.Join(c.dir, name)
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		c.t.Fatal(err)
	}
	return path
}
