package main

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strconv"
	"strings"
)

// gemmPeer is another program that times products, see --beside.
type gemmPeer struct {
	name string
	cmd  *exec.Cmd
	in   io.WriteCloser
	out  *bufio.Reader
}

func startGemmPeer(ctx context.Context, program string) (*gemmPeer, error) {
	p := &gemmPeer{cmd: exec.CommandContext(ctx, program)}
	p.cmd.Stderr = os.Stderr
	in, err := p.cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	out, err := p.cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := p.cmd.Start(); err != nil {
		return nil, fmt.Errorf("--beside: %w", err)
	}
	p.in, p.out = in, bufio.NewReader(out)
	if p.name, err = p.answer(); err != nil {
		_ = p.close()
		return nil, err
	}
	return p, nil
}

func (p *gemmPeer) answer() (string, error) {
	line, err := p.out.ReadString('\n')
	if err != nil {
		return "", fmt.Errorf("--beside %s: no answer: %w", p.cmd.Path, err)
	}
	return strings.TrimSpace(line), nil
}

// time is the nanoseconds of one product.
func (p *gemmPeer) time(s gemmShape, secs float64) (float64, error) {
	if _, err := fmt.Fprintf(p.in, "%v %d %d %d %g\n", s.form, s.m, s.n, s.k, secs); err != nil {
		return 0, fmt.Errorf("--beside %s: %w", p.cmd.Path, err)
	}
	line, err := p.answer()
	if err != nil {
		return 0, err
	}
	ns, err := strconv.ParseFloat(line, 64)
	if err != nil || !(ns > 0) {
		return 0, fmt.Errorf("--beside %s: the answer is %q, not nanoseconds", p.cmd.Path, line)
	}
	return ns, nil
}

// close ends the program: its input ends, and so does it.
func (p *gemmPeer) close() error {
	_ = p.in.Close()
	if err := p.cmd.Wait(); err != nil {
		return fmt.Errorf("--beside %s: %w", p.cmd.Path, err)
	}
	return nil
}
