package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/musterml/muster/ps"
)

// benchServer measures parameter servers as real processes on loopback: this one starts them and tells them what to
// do; the optimizer is SGD with momentum, applied on every replica.
type benchServer struct {
	mode               string
	replicas, trainers int
	shards             int
	blocks             int
	blockBytes         string
	durability, dir    string
	rounds, warmup     int
	kills              int
	json               bool
	role               string // "": the parent, which starts the others
	addr               string // where a server that is started again listens
	life               int
}

func benchServerModes() []string { return []string{"log", "roundtrip", "kill", "sparse"} }

func benchServerCommand() *cobra.Command {
	var o benchServer
	c := &cobra.Command{
		Use:   "server --replicas R --trainers N",
		Short: "Measure replicated parameter servers, as processes of this machine",
		Long: `Measure replicated parameter servers with momentum SGD, as processes of this machine, by --mode:

  roundtrip  the trainers push the gradient of every block, each its part, and get the new weights
  log        the leaders commit gradients that they have already: the replicated log alone
  kill       leaders are killed with SIGKILL under full load; the time to the next commit of what they led
  sparse     the trainers push gradients of 4096 rows of 16 values each, of a table of a million, with Adagrad, and pull the 4096 of
             their next batch as they are after it; a row that is pushed and pulled is counted once

The trainers check the weights that come back. Time and rate are of rounds over the whole model, processor time is that of all processes together. A server's death is
found as in a run: by gossip and lifelines.`,
		Args: noArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			if err := o.check(); err != nil {
				return err
			}
			if o.role != "" {
				return o.child(c.Context(), os.Stdin, c.OutOrStdout())
			}
			row, err := o.measure(c.Context())
			if err == nil {
				err = o.print(c.OutOrStdout(), row)
			}
			return err
		},
	}
	f := c.Flags()
	f.StringVar(&o.mode, "mode", "roundtrip", "what is measured: "+strings.Join(benchServerModes(), ", "))
	f.IntVar(&o.replicas, "replicas", 3, "servers; each has a replica of every shard")
	f.IntVar(&o.trainers, "trainers", 1, "trainers; each pushes its part of the blocks, as in sync.mode server")
	f.IntVar(&o.shards, "shards", 4, "parameter shards, each a Raft group")
	f.IntVar(&o.blocks, "blocks", 25, "blocks of the model")
	f.StringVar(&o.blockBytes, "block-bytes", "4MiB", "bytes of a block, with KiB or MiB")
	f.StringVar(&o.durability, "durability", "memory", "of the log: memory or disk")
	f.StringVar(&o.dir, "data-dir", "", "`FOLDER` for a folder of the servers' data; default: where temporary files go")
	f.IntVar(&o.rounds, "rounds", 40, "rounds measured")
	f.IntVar(&o.warmup, "warmup", 12, "rounds before the measured ones")
	f.IntVar(&o.kills, "kills", 50, "leaders killed, with --mode kill")
	f.BoolVar(&o.json, "json", false, "a JSON object")
	f.StringVar(&o.role, "role", "", "")
	f.StringVar(&o.addr, "addr", "127.0.0.1:0", "")
	f.IntVar(&o.life, "life", 1, "")
	for _, own := range []string{"role", "addr", "life"} {
		_ = f.MarkHidden(own) // how it starts itself
	}
	return c
}

func (o *benchServer) check() error {
	o.small()
	var errs []error
	fault := func(ok bool, format string, args ...any) {
		if !ok {
			errs = append(errs, fmt.Errorf(format, args...))
		}
	}
	fault(slices.Contains(benchServerModes(), o.mode), "--mode is %q: use one of %s", o.mode, strings.Join(benchServerModes(), ", "))
	fault(o.replicas >= 1 && o.replicas <= 9, "--replicas is %d: use 1 to 9", o.replicas)
	fault(o.mode != "kill" || o.replicas >= 3, "--mode kill needs at least --replicas 3, or nobody is left to go on")
	fault(o.trainers >= 1 && o.trainers <= o.blocks, "--trainers is %d: use 1 to the number of blocks (%d)", o.trainers, o.blocks)
	fault(o.shards >= 1 && o.shards <= o.blocks, "--shards is %d: use 1 to the number of blocks (%d)", o.shards, o.blocks)
	fault(o.durability == "memory" || o.durability == "disk", "--durability is %q: use memory or disk", o.durability)
	fault(o.rounds >= 1 && o.warmup >= 0 && o.kills >= 1, "--rounds and --kills must be at least 1, --warmup at least 0")
	size, err := parseSizes(strings.TrimSuffix(strings.TrimSuffix(o.blockBytes, "B"), "i"))
	fault(err == nil && len(size) == 1 && size[0] > 0, "--block-bytes is %q: use a multiple of 4 bytes like 64KiB or 4MiB", o.blockBytes)
	return errors.Join(errs...)
}

// blockSize is the bytes of a block; check has seen that they can be read.
func (o *benchServer) blockSize() int {
	size, _ := parseSizes(strings.TrimSuffix(strings.TrimSuffix(o.blockBytes, "B"), "i"))
	return size[0]
}

func (o *benchServer) layout() ps.Layout {
	size := o.blockSize() / 4
	return ps.Layout{Params: o.blocks * size, BlockSize: size, Shards: o.shards}
}

// serverRow is the result. Rates are of the model's bytes, each counted once for a round.
type serverRow struct {
	Prog       string  `json:"prog"`
	Version    string  `json:"version"`
	Mode       string  `json:"mode"`
	Replicas   int     `json:"replicas"`
	Trainers   int     `json:"trainers"`
	Shards     int     `json:"shards"`
	Blocks     int     `json:"blocks"`
	BlockBytes int     `json:"block_bytes"`
	Durability string  `json:"durability"`
	Rounds     int     `json:"rounds,omitempty"`
	MedMs      float64 `json:"med_ms"` // of a round; with mode kill, of the times to the next commit
	P90Ms      float64 `json:"p90_ms"`
	WorstMs    float64 `json:"worst_ms"`
	GBps       float64 `json:"GBps,omitempty"`                // all rounds, from the first's begin to the last's end
	CPUPerGB   float64 `json:"cpu_s_per_GB,omitempty"`        // mode sparse: per million rows, as the servers' part
	ServerCPU  float64 `json:"server_cpu_s_per_GB,omitempty"` // the servers' part of it
	Ingress    float64 `json:"ingress_bytes_per_step,omitempty"`
	Kills      int     `json:"kills,omitempty"`
	RowsPerS   float64 `json:"rows_per_s,omitempty"`          // mode sparse: rows that were both pushed and pulled, each counted once
	DiskGBps   float64 `json:"disk_GBps,omitempty"`           // durability disk: what the disk takes of replicas that write each byte once, see rawDisk, divided by their number
	Written    float64 `json:"disk_bytes_per_byte,omitempty"` // durability disk: by all servers, of the model's bytes
	Elections  int     `json:"elections"`                     // terms that began during the measurement without a kill
}

func (o *benchServer) print(out io.Writer, r serverRow) error {
	if o.json {
		return json.NewEncoder(out).Encode(r)
	}
	disk := ""
	if r.DiskGBps > 0 {
		disk = fmt.Sprintf(", %.1f bytes written to the disk for each of the model, which alone takes %.3f GB/s of %d replicas: %.2f of that", r.Written, r.DiskGBps, r.Replicas, r.GBps/r.DiskGBps)
	}
	what := fmt.Sprintf("%s, R=%d, %d trainers, %d shards, %d blocks of %s, %s", r.Mode, r.Replicas, r.Trainers, r.Shards, r.Blocks, o.blockBytes, r.Durability)
	if r.Kills > 0 {
		_, err := fmt.Fprintf(out, "%s: %d kills, to the next commit %.0f ms (p90 %.0f, worst %.0f)\n", what, r.Kills, r.MedMs, r.P90Ms, r.WorstMs)
		return err
	}
	if r.RowsPerS > 0 {
		_, err := fmt.Fprintf(out, "sparse, R=%d, %d trainers, %d shards, %s: %d batches of %d rows, %.2f ms (p90 %.2f, worst %.2f), %.0f rows/s (each pushed and pulled, counted once), CPU %.2f s per million (servers %.2f), %d elections\n",
			r.Replicas, r.Trainers, r.Shards, r.Durability, r.Rounds, sparseRows, r.MedMs, r.P90Ms, r.WorstMs, r.RowsPerS, r.CPUPerGB, r.ServerCPU, r.Elections)
		return err
	}
	_, err := fmt.Fprintf(out, "%s: %d rounds of %.1f ms (p90 %.1f, worst %.1f), %.3f GB/s, CPU %.2f s/GB (servers %.2f), %.1f MB into the servers per step, %d elections%s\n",
		what, r.Rounds, r.MedMs, r.P90Ms, r.WorstMs, r.GBps, r.CPUPerGB, r.ServerCPU, r.Ingress/1e6, r.Elections, disk)
	return err
}

// measure starts the processes, has them work, and ends them.
func (o *benchServer) measure(ctx context.Context) (row serverRow, err error) {
	l, err := o.launchAll(ctx)
	if err != nil {
		return row, err
	}
	defer func() {
		err = errors.Join(err, l.end())
		if ctx.Err() != nil { // its processes were ended with it
			err = fmt.Errorf("bench server was ended before it was done: %w", context.Cause(ctx))
		}
	}()
	row = serverRow{
		Prog: "muster", Version: version, Mode: o.mode, Replicas: o.replicas, Trainers: o.trainers, Shards: o.shards,
		Blocks: o.blocks, BlockBytes: o.blockSize(), Durability: o.durability,
	}
	if err := l.await(ctx); err != nil {
		return row, err
	}
	if o.mode == "kill" {
		err = o.measureKills(ctx, l, &row)
		return row, err
	}
	workers := l.trainers
	if o.mode == "log" {
		workers = l.servers
	}
	if _, err := l.work(workers, o.warmup); err != nil {
		return row, err
	}
	raw := 0.0
	if o.durability == "disk" {
		if raw, err = rawDisk(l.dir, o.replicas, o.blockSize()); err != nil {
			return row, fmt.Errorf("measuring the disk alone: %w", err)
		}
	}
	before, err := l.counts()
	if err != nil {
		return row, err
	}
	begin := time.Now()
	times, err := l.work(workers, o.rounds)
	if err != nil {
		return row, err
	}
	seconds := time.Since(begin).Seconds()
	after, err := l.counts()
	if err != nil {
		return row, err
	}
	bytes := float64(o.rounds) * float64(4*o.layout().Params)
	sorted := slices.Sorted(slices.Values(times))
	row.Rounds = o.rounds
	row.MedMs, row.P90Ms, row.WorstMs = digits(median(times), 2), digits(sorted[9*len(sorted)/10], 2), digits(sorted[len(sorted)-1], 2)
	row.GBps = digits(bytes/seconds/1e9, 4)
	row.CPUPerGB, row.ServerCPU = digits((after.cpu-before.cpu)/bytes*1e9, 3), digits((after.serverCPU-before.serverCPU)/bytes*1e9, 3)
	row.Ingress = digits(float64(after.bytesIn-before.bytesIn)/float64(o.rounds), 0)
	row.DiskGBps = digits(raw/float64(o.replicas)/1e9, 3)
	if raw > 0 {
		row.Written = digits(float64(after.written-before.written)/bytes, 2)
	}
	if o.mode == "sparse" {
		rows := float64(o.rounds) * sparseRows * float64(o.trainers)
		row.RowsPerS, row.GBps = digits(rows/seconds, 0), 0
		row.CPUPerGB, row.ServerCPU = digits((after.cpu-before.cpu)/rows*1e6, 3), digits((after.serverCPU-before.serverCPU)/rows*1e6, 3)
	}
	row.Elections = int(after.terms - before.terms)
	return row, nil
}
