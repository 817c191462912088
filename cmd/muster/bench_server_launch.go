package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"
)

// benchProcess is one server or trainer of bench server. It answers each line on its standard input with one of
// JSON on its standard output, and ends when its input does.
type benchProcess struct {
	role, addr string
	cmd        *exec.Cmd
	in         io.WriteCloser
	out        *bufio.Reader
}

// lineup is all processes of a measurement.
type lineup struct {
	o        *benchServer
	dir      string
	servers  []*benchProcess
	trainers []*benchProcess
	cancel   context.CancelFunc
	ctx      context.Context
}

func (o *benchServer) launchAll(ctx context.Context) (l *lineup, err error) {
	l = &lineup{o: o}
	if l.dir, err = os.MkdirTemp(o.dir, "muster-bench-server-"); err != nil {
		return nil, err
	}
	l.ctx, l.cancel = context.WithCancel(ctx)
	defer func() {
		if err != nil {
			l.cancel()
			err = errors.Join(err, l.end())
		}
	}()
	for i := range o.replicas {
		p, err := l.start(fmt.Sprintf("server-%d", i), "127.0.0.1:0", 1)
		if err != nil {
			return nil, err
		}
		l.servers = append(l.servers, p)
	}
	for i := range o.trainers {
		p, err := l.start(fmt.Sprintf("trainer-%d", i), "127.0.0.1:0", 1)
		if err != nil {
			return nil, err
		}
		l.trainers = append(l.trainers, p)
	}
	return l, l.introduce(append(append([]*benchProcess(nil), l.servers...), l.trainers...)...)
}

func (l *lineup) start(role, addr string, life int) (*benchProcess, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	o := l.o
	n := strconv.Itoa
	c := exec.CommandContext(l.ctx, self, "bench", "server", "--role", role, "--addr", addr, "--life", n(life), "--mode", o.mode,
		"--replicas", n(o.replicas), "--trainers", n(o.trainers), "--shards", n(o.shards), "--blocks", n(o.blocks),
		"--block-bytes", o.blockBytes, "--durability", o.durability, "--data-dir", l.dir)
	p := &benchProcess{role: role, cmd: c}
	c.Stderr = os.Stderr
	if p.in, err = c.StdinPipe(); err != nil {
		return nil, err
	}
	pipe, err := c.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := c.Start(); err != nil {
		return nil, err
	}
	p.out = bufio.NewReader(pipe)
	line, err := p.out.ReadString('\n')
	if err != nil {
		return nil, fmt.Errorf("%s did not start: %w", role, errors.Join(err, c.Wait()))
	}
	p.addr = strings.TrimSpace(line)
	return p, nil
}

// introduce tells processes where the servers are.
func (l *lineup) introduce(ps ...*benchProcess) error {
	var addrs []string
	for _, s := range l.servers {
		addrs = append(addrs, s.addr)
	}
	return each(ps, func(p *benchProcess) error { return p.ask(strings.Join(addrs, " "), nil) })
}

// ask sends one line and reads the answer.
func (p *benchProcess) ask(line string, answer any) error {
	if _, err := io.WriteString(p.in, line+"\n"); err != nil {
		return fmt.Errorf("%s has ended: %w", p.role, errors.Join(err, p.fate()))
	}
	text, err := p.out.ReadBytes('\n')
	if err != nil {
		return fmt.Errorf("%s ended instead of answering %q: %w", p.role, line, errors.Join(err, p.fate()))
	}
	var failure benchFailure
	if json.Unmarshal(text, &failure) == nil && failure.Error != "" {
		return fmt.Errorf("%s, told %q, failed: %s", p.role, line, failure.Error)
	}
	if answer == nil {
		return nil
	}
	if err := json.Unmarshal(text, answer); err != nil {
		return fmt.Errorf("%s answered %q: %w", p.role, text, err)
	}
	return nil
}

// benchFailure is the last answer of a process that ends by an error.
type benchFailure struct {
	Error string `json:"error"`
}

// fate says how a process ended that has not said itself why.
func (p *benchProcess) fate() error {
	err := p.cmd.Wait()
	if status, ok := p.cmd.ProcessState.Sys().(syscall.WaitStatus); ok && status.Signaled() && status.Signal() == syscall.SIGKILL {
		return fmt.Errorf("%w: not by this program; the system kills so when memory runs out (see dmesg): use fewer or smaller --blocks", err)
	}
	return err
}

// each does something with all processes at the same time.
func each(ps []*benchProcess, do func(*benchProcess) error) error {
	errs := make([]error, len(ps))
	var all sync.WaitGroup
	for i, p := range ps {
		all.Go(func() { errs[i] = do(p) })
	}
	all.Wait()
	return errors.Join(errs...)
}

// work has the processes do rounds, and returns the times of all their rounds in milliseconds.
func (l *lineup) work(ps []*benchProcess, rounds int) ([]float64, error) {
	var mu sync.Mutex
	var times []float64
	err := each(ps, func(p *benchProcess) error {
		var t []float64
		err := p.ask(fmt.Sprintf("rounds %d", rounds), &t)
		mu.Lock()
		defer mu.Unlock()
		times = append(times, t...)
		return err
	})
	if err == nil && len(times) == 0 {
		err = errors.New("nobody has done a round")
	}
	return times, err
}

// benchCount is what one process has used up to now, and what a server sees of its shards.
type benchCount struct {
	CPU     float64
	BytesIn uint64
	Written int64    // to disks
	Leads   []int    // shards led
	Whole   []int    // shards in which, as far as this server knows, every replica votes in its present life
	Terms   []uint64 // by shard
}

// total is benchCount over all processes.
type total struct {
	cpu, serverCPU float64
	bytesIn        uint64
	written        int64
	terms          uint64
	leader         map[int]*benchProcess // by shard
	whole          int                   // shards that are whole, added up over the servers
}

func (l *lineup) counts() (t total, err error) {
	var mu sync.Mutex
	t.leader = map[int]*benchProcess{}
	terms := make([]uint64, l.o.shards)
	count := func(server bool) func(*benchProcess) error {
		return func(p *benchProcess) error {
			var c benchCount
			if err := p.ask("count", &c); err != nil {
				return err
			}
			mu.Lock()
			defer mu.Unlock()
			t.cpu += c.CPU
			if !server {
				return nil
			}
			t.serverCPU += c.CPU
			t.bytesIn += c.BytesIn
			t.written += c.Written
			t.whole += len(c.Whole)
			for _, shard := range c.Leads {
				t.leader[shard] = p
			}
			for i, term := range c.Terms {
				terms[i] = max(terms[i], term)
			}
			return nil
		}
	}
	err = errors.Join(each(l.servers, count(true)), each(l.trainers, count(false)))
	for _, term := range terms {
		t.terms += term
	}
	return t, err
}

// await returns when every shard has a leader and every server knows that all replicas vote: a promotion that its leader alone
// knows of ends with it, and then the group has lost its majority.
func (l *lineup) await(ctx context.Context) error {
	begin := time.Now()
	for {
		t, err := l.counts()
		if err != nil {
			return err
		}
		if len(t.leader) == l.o.shards && t.whole == l.o.shards*len(l.servers) {
			return nil
		}
		if time.Since(begin) > time.Minute {
			return fmt.Errorf("after a minute %d of %d shards have a leader, and %d of %d replicas know all others as voters",
				len(t.leader), l.o.shards, t.whole, l.o.shards*len(l.servers))
		}
		select {
		case <-time.After(20 * time.Millisecond):
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// end has all processes end, and removes what they have left.
func (l *lineup) end() error {
	var errs []error
	for _, p := range append(l.trainers, l.servers...) {
		_ = p.in.Close()
		if err := p.cmd.Wait(); err != nil && l.ctx.Err() == nil {
			errs = append(errs, fmt.Errorf("%s: %w", p.role, err))
		}
	}
	l.cancel()
	return errors.Join(append(errs, os.RemoveAll(l.dir))...)
}
