package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/spf13/cobra"

	"github.com/musterml/muster/collective"
)

func benchCommand() *cobra.Command {
	c := &cobra.Command{Use: "bench", Short: "Measure this machine's share of the work", Args: cobra.NoArgs, RunE: listVerbs}
	c.AddCommand(benchRingCommand(), benchGemmCommand(), benchStepCommand(), benchServerCommand())
	return c
}

// benchRing measures all-reduces between real processes on loopback, in the way of the programs that it is compared
// with (bench/ring.sh): a barrier, then one timed call.
type benchRing struct {
	world              int
	sizes, form        string
	secs               float64
	minIters, maxIters int
	warmup             int
	small, chunk       int
	stripes            int
	launch, listen     string
	deadAfter          time.Duration
	tcp                bool
	json               bool
	rank               int // -1: the parent, which starts the ranks
}

func benchRingCommand() *cobra.Command {
	var o benchRing
	c := &cobra.Command{
		Use:   "ring --world N --sizes 4,1K,25M",
		Short: "Measure ring all-reduces between processes, of this machine or of several",
		Long: `Measure all-reduces between processes, of this machine or, with --launch and --listen, of
several (the program must lie at the same path there), over the same port and the same ring as a run's. Each call is timed by itself, after a barrier; a row shows rank 0's
times, the bandwidth, and the processor time of all ranks together.`,
		Args: noArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			if err := o.check(); err != nil {
				return err
			}
			if o.rank >= 0 {
				return o.runRank(c.Context(), os.Stdin, c.OutOrStdout())
			}
			return o.runAll(c.Context(), c.OutOrStdout())
		},
	}
	f := c.Flags()
	f.IntVar(&o.world, "world", 2, "number of ranks")
	f.StringVar(&o.sizes, "sizes", "4,1K,16K,64K,256K,1M,4M,16M,25M,64M,100M", "bytes of the vector, with K, M or G (powers of two)")
	f.StringVar(&o.form, "form", "float32", "what is added: "+strings.Join(benchForms(), ", "))
	f.Float64Var(&o.secs, "secs", 0.5, "measuring time per size, in seconds")
	f.IntVar(&o.minIters, "min-iters", 7, "calls per size, at least")
	f.IntVar(&o.maxIters, "max-iters", 400, "calls per size, at most")
	f.IntVar(&o.warmup, "warmup", 3, "calls before the measured ones")
	f.IntVar(&o.small, "small", 0, "largest vector in bytes that goes the short way; 0: as in a run, -1: none does")
	f.IntVar(&o.chunk, "chunk", 0, "bytes of each segment that go round together; 0: as in a run")
	f.IntVar(&o.stripes, "stripes", 1, "connections between neighbours that share no memory")
	f.StringVar(&o.launch, "launch", "", "`COMMAND` to put before that of each rank, {rank} for its number: \"ssh host-{rank}\", \"ip netns exec lab-{rank}\"")
	f.StringVar(&o.listen, "listen", "127.0.0.1:0", "`HOST:PORT` of each rank, {rank} for its number, {n} for that and one")
	f.DurationVar(&o.deadAfter, "dead-after", 0, "silence after which a rank is given up; 0: as in a run, or with many ranks for each core 5s")
	f.BoolVar(&o.tcp, "tcp", false, "TCP also between processes of this machine, which otherwise use shared memory")
	f.BoolVar(&o.json, "json", false, "one JSON object a line")
	f.IntVar(&o.rank, "rank", -1, "")
	_ = f.MarkHidden("rank") // how it starts itself
	return c
}

func (o *benchRing) check() error {
	var errs []error
	if o.world < 1 || o.world > 64 {
		errs = append(errs, fmt.Errorf("--world is %d: use 1 to 64", o.world))
	}
	if _, err := parseSizes(o.sizes); err != nil {
		errs = append(errs, fmt.Errorf("--sizes: %w", err))
	}
	if benchForm(o.form) == nil {
		errs = append(errs, fmt.Errorf("--form is %q: use one of %s", o.form, strings.Join(benchForms(), ", ")))
	}
	if o.stripes < 1 || o.stripes > collective.MaxStripes {
		errs = append(errs, fmt.Errorf("--stripes is %d: use 1 to %d", o.stripes, collective.MaxStripes))
	}
	if o.minIters < 1 || o.maxIters < o.minIters || o.warmup < 1 || !(o.secs > 0) {
		errs = append(errs, errors.New("--secs, --min-iters and --warmup must be positive, and --max-iters no less than --min-iters"))
	}
	return errors.Join(errs...)
}

// parseSizes reads "4,16K,25M".
func parseSizes(text string) ([]int, error) {
	var sizes []int
	for _, s := range strings.Split(text, ",") {
		number, shift := strings.TrimSpace(s), 0
		if i := strings.IndexAny(number, "kKmMgG"); i >= 0 && i == len(number)-1 {
			shift = 10 * (1 + strings.Index("kmg", strings.ToLower(number[i:])))
			number = number[:i]
		}
		n, err := strconv.Atoi(number)
		if err != nil || n < 0 || n > (16<<30)>>shift || n<<shift%4 != 0 {
			return nil, fmt.Errorf("%q is no size: use multiples of 4 bytes like 4, 16K or 25M", s)
		}
		sizes = append(sizes, n<<shift)
	}
	return sizes, nil
}

// launched is the command that starts a rank elsewhere, in words.
func (o *benchRing) launched(rank int) []string { return strings.Fields(o.forRank(o.launch, rank)) }

func (o *benchRing) forRank(text string, rank int) string {
	return strings.NewReplacer("{rank}", strconv.Itoa(rank), "{n}", strconv.Itoa(rank+1)).Replace(text)
}

// runAll starts one process per rank: this program again. A rank says its address on its standard output, and is
// told all addresses on its standard input; when that ends, so does the rank. Rank 0 then writes the rows.
func (o *benchRing) runAll(ctx context.Context, out io.Writer) (err error) {
	self, err := os.Executable()
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var ended sync.WaitGroup
	failed := make(chan error, o.world)
	defer func() {
		if err != nil {
			cancel()
		}
		ended.Wait()
		close(failed)
		if first, ok := <-failed; ok && err == nil {
			err = first
		}
	}()
	var addrs []string
	var inputs []io.Writer
	for rank := range o.world {
		args := append(o.launched(rank), self, "bench", "ring", "--rank", strconv.Itoa(rank),
			"--world", strconv.Itoa(o.world), "--sizes", o.sizes, "--form", o.form, "--secs", fmt.Sprint(o.secs),
			"--min-iters", strconv.Itoa(o.minIters), "--max-iters", strconv.Itoa(o.maxIters),
			"--warmup", strconv.Itoa(o.warmup), "--small", strconv.Itoa(o.small), "--chunk", strconv.Itoa(o.chunk), "--stripes", strconv.Itoa(o.stripes), "--dead-after", o.deadAfter.String(),
			"--tcp="+strconv.FormatBool(o.tcp), "--json="+strconv.FormatBool(o.json), "--listen", o.forRank(o.listen, rank))
		c := exec.CommandContext(ctx, args[0], args[1:]...)
		c.Stderr = os.Stderr
		in, err := c.StdinPipe()
		if err != nil {
			return err
		}
		pipe, err := c.StdoutPipe()
		if err != nil {
			return err
		}
		if err := c.Start(); err != nil {
			return err
		}
		said := bufio.NewReader(pipe)
		addr, err := said.ReadString('\n')
		rows := io.Discard
		if rank == 0 {
			rows = out
		}
		ended.Go(func() {
			_, _ = io.Copy(rows, said)
			if err := c.Wait(); err != nil {
				failed <- fmt.Errorf("rank %d: %w", rank, err)
				time.AfterFunc(lastWords, cancel)
			}
		})
		if err != nil {
			return fmt.Errorf("rank %d did not start: %w", rank, err)
		}
		addrs, inputs = append(addrs, strings.TrimSpace(addr)), append(inputs, in)
	}
	for _, in := range inputs {
		if _, err := io.WriteString(in, strings.Join(addrs, " ")+"\n"); err != nil {
			return err
		}
	}
	return nil
}

// lastWords is how long the other ranks have, once one has failed, to say what they saw: one that is stopped never ends.
const lastWords = time.Second
