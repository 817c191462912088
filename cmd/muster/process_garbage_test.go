package main

import (
	"context"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/rs/zerolog"

	"github.com/musterml/muster/internal/port"
	"github.com/musterml/muster/membership"
	pb "github.com/musterml/muster/proto"
	"github.com/musterml/muster/trainer"
)

// TestGarbage sends rubbish to everything that listens on the ports of a running
// cluster: to the bare port over TCP and UDP, and, as a node that greets properly, to
// every protocol and topic. No node may die or take up memory, and the run must end right.
func TestGarbage(t *testing.T) {
	if testing.Short() {
		t.Skip("starts processes")
	}
	job := killJob
	job.mode = "server"
	c := newCluster(t, job.String())
	a := c.start(nodeSpec{name: "a"})
	c.start(nodeSpec{name: "b"})
	c.start(nodeSpec{name: "c"})
	c.until("some steps", func() bool { return a.lastStep() >= 5 })
	before := a.lastStep()
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	rubbish := allRubbish(rand.New(rand.NewPCG(seed, 1)))
	for _, p := range c.living() {
		for _, r := range rubbish {
			c.sendBare(p.addr, r)
		}
	}
	vandal, topics := c.vandal(job), c.topics()
	var sent atomic.Int64
	var sending sync.WaitGroup
	for _, r := range rubbish {
		sending.Go(func() {
			for _, to := range topics {
				if c.sendTo(vandal, to, r) {
					sent.Add(1)
				}
			}
		})
	}
	sending.Wait()
	t.Logf("%d messages of rubbish were sent to %d topics between steps %d and %d", sent.Load(), len(topics), before, a.lastStep())
	if a.ended() {
		t.Error("the run was over before all was sent")
	}
	for _, p := range c.living() {
		// The race detector multiplies memory; only the real binary is measured.
		if peak := peakMemory(p); peak > 600<<20 && os.Getenv("MUSTER_SELF") == "" {
			t.Errorf("%s took up %d MB", p.name, peak>>20)
		}
	}
	c.finish()
	c.checkOutputs(job)
}

// rubbish is what comes behind a proper beginning.
type rubbish struct {
	what  string
	bytes []byte
}

func allRubbish(random *rand.Rand) []rubbish {
	noise := make([]byte, 64<<10)
	for i := range noise {
		noise[i] = byte(random.Uint32())
	}
	huge := binary.LittleEndian.AppendUint32(nil, 0xffffffff)
	rs := []rubbish{
		{"nothing", nil},
		{"an absurd length", append(huge, noise[:100]...)},
		{"a large length", append(binary.LittleEndian.AppendUint32(nil, 1<<30-1), noise[:100]...)},
		{"half a frame", append(binary.LittleEndian.AppendUint32(nil, 1000), noise[:100]...)},
		{"empty frames", make([]byte, 4096)},
		{"noise", noise},
		{"a list of 4 billion in msgpack", append([]byte{0, 0x81, 0xa7, 'E', 'n', 't', 'r', 'i', 'e', 's', 0xdd, 0xff, 0xff, 0xff, 0xff}, noise[:64]...)},
		{"4 GB of bytes in msgpack", append([]byte{0, 0x81, 0xa6, 'L', 'e', 'a', 'd', 'e', 'r', 0xc6, 0xff, 0xff, 0xff, 0xff}, noise[:64]...)},
		{"HTTP", []byte("GET / HTTP/1.1\r\nHost: x\r\n\r\n")},
	}
	for _, n := range []int{1, 7, 64, 300} { // a frame of the right length with noise inside
		rs = append(rs, rubbish{fmt.Sprintf("a frame of %d bytes of noise", n), append(binary.LittleEndian.AppendUint32(nil, uint32(n)), noise[:n]...)})
	}
	return rs
}

// sendBare sends rubbish without a greeting, bare and behind each protocol's byte.
func (c *cluster) sendBare(addr string, r rubbish) {
	heads := [][]byte{nil, {0x16, 3, 1}}
	for p := port.Gossip; p <= port.Control; p++ {
		heads = append(heads, []byte{byte(p)})
	}
	for _, head := range heads {
		conn, err := net.Dial("tcp", addr)
		if err != nil {
			c.t.Errorf("%s: %v", addr, err)
			return
		}
		_ = conn.SetDeadline(time.Now().Add(time.Second))
		_, _ = conn.Write(append(head, r.bytes...))
		_ = conn.Close()
	}
	if packet, err := net.Dial("udp", addr); err == nil {
		_, _ = packet.Write(r.bytes[:min(len(r.bytes), 1400)])
		_ = packet.Close()
	}
}

// vandal is a port that greets as a node of the cluster does.
func (c *cluster) vandal(j jobText) *port.Port {
	c.t.Helper()
	job, err := trainer.ParseJob([]byte(j.String()))
	if err != nil {
		c.t.Fatal(err)
	}
	digest, err := job.Digest()
	if err != nil {
		c.t.Fatal(err)
	}
	p, err := port.Listen(port.Config{Listen: "127.0.0.1:0", Node: "vandal", Cluster: c.name, Version: version, Job: digest, Log: zerolog.Nop()})
	if err != nil {
		c.t.Fatal(err)
	}
	c.t.Cleanup(func() { _ = p.Close() })
	return p
}

type topicOf struct {
	addr  string
	proto port.Protocol
	topic string
}

// topics are those that the nodes of the cluster handle.
func (c *cluster) topics() []topicOf {
	c.t.Helper()
	var st *pb.Status
	c.until("a status", func() bool { st = c.status(""); return st != nil })
	var all []topicOf
	for _, p := range c.living() {
		add := func(proto port.Protocol, topics ...string) {
			for _, t := range topics {
				all = append(all, topicOf{p.addr, proto, t})
			}
		}
		add(port.Gossip, "")
		add(port.Ring, "view-1", "view-2", "view-99", "")
		add(port.Control, "status", "session", "pledge", "founding", "state")
		for _, life := range leadOf(st, membership.CoordinatorGroup).GetVoters() {
			if inc, ours := strings.CutPrefix(life, p.name+"/"); ours {
				add(port.Control, "lifeline/"+inc, "applied/"+inc)
				add(port.Raft, st.Run+"."+membership.CoordinatorGroup+"/"+life)
				for shard := range killJob.paramShards {
					add(port.Raft, fmt.Sprintf("shard-%d/%s", shard, life))
					add(port.Params, fmt.Sprintf("client/shard-%d", shard), fmt.Sprintf("payload/shard-%d/%s", shard, life))
				}
			}
		}
	}
	return all
}

// sendTo greets, sends rubbish and reads what comes, for a moment. It is false when the
// topic is not handled.
func (c *cluster) sendTo(from *port.Port, to topicOf, r rubbish) bool {
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	conn, err := from.Dial(ctx, to.addr, to.proto, to.topic)
	if err != nil {
		return false
	}
	defer conn.Close()
	_ = conn.SetDeadline(time.Now().Add(20 * time.Millisecond))
	var answer sync.WaitGroup
	answer.Go(func() {
		_, _ = conn.Read(make([]byte, 1024))
	})
	_, _ = conn.Write(r.bytes)
	answer.Wait()
	return true
}

// peakMemory is the most memory that a process ever held, in bytes; 0 where it cannot be known.
func peakMemory(p *process) int {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", p.cmd.Process.Pid))
	if err != nil {
		return 0
	}
	for line := range strings.Lines(string(b)) {
		if kb, ok := strings.CutPrefix(line, "VmHWM:"); ok {
			n, _ := strconv.Atoi(strings.TrimSpace(strings.TrimSuffix(strings.TrimSpace(kb), "kB")))
			return n << 10
		}
	}
	return 0
}
