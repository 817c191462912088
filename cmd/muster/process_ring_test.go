package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"
)

// TestRingFaults lets processes (ringRank) work on a ring until one of them is killed, stopped or loses its cable, at any
// moment of any operation, and demands of each survivor a typed error that names that one, the operation and its phase,
// contributions as they were before, and no wrong result before. MUSTER_RING_FAULTS is how often; then time counts, too.
func TestRingFaults(t *testing.T) {
	rounds, soak := ringRounds(t)
	for _, fault := range []string{"killed", "stopped", "cable pulled"} {
		for _, tcp := range []bool{true, false} {
			if fault == "cable pulled" && (!tcp || !soak) {
				continue // hosts share no memory
			}
			t.Run(fmt.Sprintf("%s/tcp=%v", fault, tcp), func(t *testing.T) {
				if took := ringFaults(t, rounds, fault, tcp); soak && took > ringWithin {
					t.Errorf("the last one took %v, more than %v", took, ringWithin)
				}
			})
		}
	}
}

// ringWithin is what is promised.
const ringWithin = 500 * time.Millisecond

// ringRounds is one, or as many as are asked for.
func ringRounds(t *testing.T) (rounds int, soak bool) {
	if testing.Short() {
		t.Skip("starts processes")
	}
	if _, err := fmt.Sscan(os.Getenv("MUSTER_RING_FAULTS"), &rounds); err != nil {
		return 1, false
	}
	return rounds, true
}

// ringFaults returns the longest time that a survivor took.
func ringFaults(t *testing.T, rounds int, fault string, tcp bool) time.Duration {
	const most = 6
	var lab *netlab
	if fault == "cable pulled" {
		lab = newNetlab(t, most)
	}
	var took []time.Duration
	phases := map[string]int{}
	for round := range rounds {
		rng := rand.New(rand.NewPCG(uint64(round), uint64(len(fault))))
		world := 2 + rng.IntN(most-1)
		victim := rng.IntN(world)
		least := rng.IntN(2) << 18 // half of the rounds have long operations only
		ranks := startRing(t, lab, ringOrder{World: world, TCP: tcp, Seed: rng.Uint64(), MinElems: least, MaxElems: least + 4<<rng.IntN(19)})
		<-time.After(time.Duration(rng.IntN(300)) * time.Millisecond)
		begin := time.Now()
		switch fault {
		case "killed":
			_ = ranks[victim].cmd.Process.Kill()
		case "stopped":
			_ = ranks[victim].cmd.Process.Signal(syscall.SIGSTOP)
		default:
			lab.link(victim, "down")
		}
		for i, r := range ranks {
			if i == victim {
				continue
			}
			end := r.ending(t)
			if why := end.wrong(string(benchNode(victim))); why != "" {
				t.Errorf("round %d, rank %d of %d, victim %d: %s: %+v", round, i, world, victim, why, end)
			}
			took = append(took, time.Unix(0, end.At).Sub(begin))
			phases[end.Phase]++
		}
		if lab != nil {
			lab.link(victim, "up")
		}
		for _, r := range ranks {
			r.stop()
		}
	}
	slices.Sort(took)
	at := func(part float64) time.Duration { return took[int(part*float64(len(took)-1))].Round(time.Millisecond) }
	t.Logf("%d rounds, %d survivors: median %v, 90%% %v, at most %v; in phases %v", rounds, len(took), at(0.5), at(0.9), at(1), phases)
	return at(1)
}

// TestRingStutter: a rank that is stopped again and again, each time for less than means death, is waited for.
func TestRingStutter(t *testing.T) {
	rounds, soak := ringRounds(t)
	if !soak {
		t.Skip("set MUSTER_RING_FAULTS to a number: make soak-ring")
	}
	for round := range rounds {
		rng := rand.New(rand.NewPCG(uint64(round), 99))
		world := 2 + rng.IntN(4)
		ranks := startRing(t, nil, ringOrder{World: world, TCP: round%2 == 0, Seed: rng.Uint64(), MaxElems: 1 << 20, Steps: 200})
		victim := ranks[rng.IntN(world)]
		for range 10 {
			_ = victim.cmd.Process.Signal(syscall.SIGSTOP)
			<-time.After(200 * time.Millisecond)
			_ = victim.cmd.Process.Signal(syscall.SIGCONT)
			<-time.After(time.Duration(20+rng.IntN(80)) * time.Millisecond) // time enough for a sign of life, or two stops are one
		}
		for i, r := range ranks {
			if end := r.ending(t); end.Type != "" || end.Wrong != "" {
				t.Errorf("round %d, rank %d of %d: %+v", round, i, world, end)
			}
			r.stop()
		}
	}
}

// wrong says what an ending should not be.
func (e *ringEnding) wrong(victim string) string {
	switch {
	case e.Wrong != "":
		return "wrong bytes"
	case e.Type != "PeerError" && e.Type != "AbortError":
		return "no typed error"
	case e.Peer != victim && !strings.Contains(e.Text, "has left the ring"):
		return "names another"
	case e.Phase == "", e.Phase != "idle" && e.Phase != "join" && e.Step == 0, e.WaitedNS <= 0:
		return "does not say where"
	}
	return ""
}

// ringProcess is the process of one rank.
type ringProcess struct {
	cmd   *exec.Cmd
	in    io.WriteCloser
	lines *bufio.Reader
}

// startRing returns when all ranks have done an operation. In a lab, each is on a host of its own.
func startRing(t *testing.T, lab *netlab, order ringOrder) []*ringProcess {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	var ranks []*ringProcess
	var addrs []string
	for rank := range order.World {
		order.Rank, order.Listen = rank, "127.0.0.1:0"
		args := []string{self}
		if lab != nil {
			order.Listen = lab.ip(rank) + ":0"
			args = append(lab.on(rank), self)
		}
		r := &ringProcess{cmd: exec.Command(args[0], args[1:]...)}
		r.cmd.Env, r.cmd.Stderr = append(os.Environ(), asRank), os.Stderr
		if r.in, err = r.cmd.StdinPipe(); err != nil {
			t.Fatal(err)
		}
		out, err := r.cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		r.lines = bufio.NewReader(out)
		if err := r.cmd.Start(); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(r.stop)
		if err := json.NewEncoder(r.in).Encode(order); err != nil {
			t.Fatal(err)
		}
		ranks, addrs = append(ranks, r), append(addrs, r.line(t))
	}
	for _, r := range ranks {
		if err := json.NewEncoder(r.in).Encode(addrs); err != nil {
			t.Fatal(err)
		}
	}
	for _, r := range ranks {
		if said := r.line(t); said != "at work" {
			t.Fatalf("a rank said %q", said)
		}
	}
	return ranks
}

func (r *ringProcess) line(t *testing.T) string {
	t.Helper()
	s, err := r.lines.ReadString('\n')
	if err != nil {
		t.Fatalf("a rank says nothing more: %v", err)
	}
	return strings.TrimSpace(s)
}

func (r *ringProcess) ending(t *testing.T) (e ringEnding) {
	t.Helper()
	if err := json.Unmarshal([]byte(r.line(t)), &e); err != nil {
		t.Fatal(err)
	}
	return e
}

func (r *ringProcess) stop() {
	_ = r.cmd.Process.Kill()
	_ = r.in.Close()
	_ = r.cmd.Wait()
}
