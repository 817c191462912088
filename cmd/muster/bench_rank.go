package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"net"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/rs/zerolog"

	"github.com/musterml/muster/collective"
	"github.com/musterml/muster/internal/id"
	"github.com/musterml/muster/internal/port"
)

// benchRow is one line of a result; the fields are those of the peers' programs.
type benchRow struct {
	Prog       string  `json:"prog"`
	Variant    string  `json:"variant"`
	Version    string  `json:"version"`
	World      int     `json:"world"`
	Bytes      int     `json:"bytes"`
	Iters      int     `json:"iters"`
	MedUs      float64 `json:"med_us"`
	P10Us      float64 `json:"p10_us"`
	P90Us      float64 `json:"p90_us"`
	SlowestUs  float64 `json:"slowest_med_us"`
	AlgBW      float64 `json:"algbw_GBps"`
	BusBW      float64 `json:"busbw_GBps"`
	CPUPerGB   float64 `json:"cpu_s_per_GB"`
	Congestion string  `json:"congestion"`
	Transport  string  `json:"transport"`
}

// runRank is one rank's process.
func (o *benchRing) runRank(ctx context.Context, in io.Reader, out io.Writer) error {
	p, err := port.Listen(port.Config{
		Listen: o.listen, Node: benchNode(o.rank), Cluster: "bench", Version: version, Log: zerolog.Nop(),
	})
	if err != nil {
		return err
	}
	defer func() { _ = p.Close() }()
	inbox := collective.NewInbox(0, 0)
	defer func() { _ = inbox.Close() }()
	defer p.Handle(port.Ring, "", func(conn net.Conn, from port.Peer) { inbox.Deliver(from.Topic, conn) })()
	fmt.Fprintln(out, p.Addr())
	input := bufio.NewReader(in)
	line, err := input.ReadString('\n')
	if err != nil {
		return fmt.Errorf("rank %d: the addresses did not come: %w", o.rank, err)
	}
	ctx, cancel := context.WithCancelCause(ctx)
	go func() { // ends with the process
		_, _ = input.ReadByte()
		cancel(errors.New("the parent is gone"))
	}()
	var peers []collective.Peer
	for i, addr := range strings.Fields(line) {
		peers = append(peers, collective.Peer{Node: benchNode(i), Addr: addr})
	}
	join, done := context.WithTimeout(ctx, 20*time.Second)
	defer done()
	const topic = "bench"
	ring, err := collective.Join(join, collective.Config{
		Run: topic, View: 1, Rank: o.rank, Peers: peers, SmallBytes: o.small, ChunkBytes: o.chunk, NoLanes: o.tcp, Stripes: o.stripes,
		Log: zerolog.Nop(), DeadAfter: o.patience(),
		Dial: func(ctx context.Context, to collective.Peer) (net.Conn, error) {
			return p.Dial(ctx, to.Addr, port.Ring, topic)
		},
		Accept: func(ctx context.Context) (net.Conn, error) { return inbox.Accept(ctx, topic) },
	})
	if err != nil {
		return err
	}
	defer func() { _ = ring.Close() }()
	sizes, err := parseSizes(o.sizes)
	if err != nil {
		return err
	}
	for _, size := range sizes {
		row, err := o.measure(ctx, ring, size)
		if err != nil {
			return fmt.Errorf("rank %d: %w", o.rank, err)
		}
		if o.rank == 0 {
			o.print(out, row)
		}
	}
	return nil
}

// patience is how long a rank may be silent: with so many that they wait for a core, longer than in a run.
func (o *benchRing) patience() time.Duration {
	if o.deadAfter == 0 && o.world > 4*runtime.NumCPU() {
		return 5 * time.Second
	}
	return o.deadAfter
}

func benchNode(rank int) id.Node { return id.Node(fmt.Sprintf("rank-%d", rank)) }

// measure times calls of one size. Every rank makes the same calls.
func (o *benchRing) measure(ctx context.Context, ring *collective.Ring, size int) (row benchRow, err error) {
	sum := benchForm(o.form)(ring, size/4)
	var cpu float64
	once := func() float64 {
		sum.fill(float32(o.rank + 1))
		if e := ring.Barrier(ctx, collective.Op{}); e != nil {
			err = e
			return 0
		}
		c, t := cpuSeconds(), time.Now()
		e := sum.reduce(ctx)
		seconds := time.Since(t).Seconds()
		cpu += cpuSeconds() - c
		if e != nil {
			err = e
		}
		return seconds
	}
	var warm []float64
	for range o.warmup {
		warm = append(warm, once())
	}
	if err != nil {
		return row, err
	}
	if err := sum.check(float32(o.world * (o.world + 1) / 2)); err != nil {
		return row, fmt.Errorf("%d bytes: %w", size, err)
	}
	iters := []int32{math.MinInt32}
	if o.rank == 0 {
		iters[0] = int32(max(o.minIters, min(o.maxIters, int(o.secs/max(median(warm), 1e-9)))))
	}
	if err := ring.AllReduce(ctx, collective.Op{}, collective.Int32s(iters), collective.MaxInt32); err != nil {
		return row, err
	}
	n := int(iters[0])
	samples := make([]float64, n+1) // seconds of each call, and the processor's in all
	cpu = 0
	for i := range n {
		if samples[i] = once(); err != nil {
			return row, err
		}
	}
	samples[n] = cpu
	all, err := gatherFloats(ctx, ring, samples)
	if err != nil {
		return row, err
	}
	row = o.row(size, n, all)
	row.Transport = ring.Transport()
	return row, nil
}

func (o *benchRing) row(size, n int, all [][]float64) benchRow {
	slowest, cpu := make([]float64, n), 0.0
	for _, samples := range all {
		for i := range slowest {
			slowest[i] = max(slowest[i], samples[i])
		}
		cpu += samples[n]
	}
	times := slices.Sorted(slices.Values(all[0][:n]))
	med := median(times)
	bw := float64(size) / med / 1e9
	return benchRow{
		Prog: "muster", Variant: o.form, Version: version, World: o.world, Bytes: size, Iters: n,
		MedUs: digits(med*1e6, 2), P10Us: digits(times[n/10]*1e6, 2), P90Us: digits(times[9*n/10]*1e6, 2), SlowestUs: digits(median(slowest)*1e6, 2),
		AlgBW: digits(bw, 6), BusBW: digits(bw*2*float64(o.world-1)/float64(o.world), 6),
		CPUPerGB: digits(cpu/(float64(n)*float64(max(size, 1))/1e9), 4), Congestion: congestion(),
	}
}

func (o *benchRing) print(out io.Writer, r benchRow) {
	if o.json {
		line, _ := json.Marshal(r) // a struct of plain fields
		fmt.Fprintf(out, "%s\n", line)
		return
	}
	fmt.Fprintf(out, "%s world %d %11d bytes %4d calls  %10.1f us (p10 %.1f, p90 %.1f, slowest rank %.1f)  %.3f GB/s  CPU %.2f s/GB\n",
		r.Variant, r.World, r.Bytes, r.Iters, r.MedUs, r.P10Us, r.P90Us, r.SlowestUs, r.AlgBW, r.CPUPerGB)
}

// gatherFloats gives every rank's numbers, as many on each, to all.
func gatherFloats(ctx context.Context, ring *collective.Ring, mine []float64) ([][]float64, error) {
	const wordsPer = 2
	n := len(mine)
	words, bounds := make([]int32, ring.World()*n*wordsPer), make([]int, ring.World()+1)
	for i := range bounds {
		bounds[i] = i * n * wordsPer
	}
	for i, v := range mine {
		b, at := math.Float64bits(v), bounds[ring.Rank()]+wordsPer*i
		words[at], words[at+1] = int32(uint32(b)), int32(uint32(b>>32))
	}
	if err := ring.AllGather(ctx, collective.Op{}, collective.Int32s(words), bounds); err != nil {
		return nil, err
	}
	all := make([][]float64, ring.World())
	for r := range all {
		all[r] = make([]float64, n)
		for i := range all[r] {
			at := bounds[r] + wordsPer*i
			all[r][i] = math.Float64frombits(uint64(uint32(words[at])) | uint64(uint32(words[at+1]))<<32)
		}
	}
	return all, nil
}

// median does not sort v itself.
func median(v []float64) float64 {
	s := slices.Sorted(slices.Values(v))
	if n := len(s); n%2 == 0 {
		return (s[n/2-1] + s[n/2]) / 2
	}
	return s[len(s)/2]
}

func digits(v float64, n int) float64 {
	p := math.Pow10(n)
	return math.Round(v*p) / p
}

// cpuSeconds is the user and system time of this process.
func cpuSeconds() float64 {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		return 0
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano()).Seconds()
}
