package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"

	"github.com/rs/zerolog"
	"github.com/spf13/cobra"

	"github.com/musterml/muster/internal/id"
	"github.com/musterml/muster/internal/node"
	"github.com/musterml/muster/trainer"
)

type trainOptions struct {
	common
	nodes    int
	out      string
	printJob bool
}

func trainCommand() *cobra.Command {
	var o trainOptions
	c := &cobra.Command{
		Use:   "train [-f JOB]",
		Short: "Train a job in this process alone; without a job file, the built-in one",
		Long: `Train a job in this process alone: servers and trainers are embedded and talk over
loopback only. The weights come out the same, bit for bit, as on a cluster.`,
		Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error { return o.run(c) },
	}
	f := c.Flags()
	o.jobFlag(f)
	o.outputFlags(f)
	f.IntVar(&o.nodes, "nodes", 1, "`NUMBER` of nodes to embed, each server and trainer")
	f.StringVar(&o.out, "out", "", "`DIR` for the outputs (default: out of the job)")
	f.BoolVar(&o.printJob, "print-job", false, "print the effective job, with every default, and end")
	return c
}

func (o *trainOptions) run(c *cobra.Command) error {
	job, err := o.loadJob()
	if err != nil {
		return err
	}
	if o.out != "" {
		job.Out = o.out
	}
	if o.printJob {
		b, err := job.YAML()
		if err == nil {
			_, err = c.OutOrStdout().Write(b)
		}
		return err
	}
	log, err := o.logger(c.ErrOrStderr())
	if err != nil {
		return err
	}
	if o.nodes < 1 || o.nodes > 64 {
		return fmt.Errorf("--nodes is %d: embed 1 to 64", o.nodes)
	}
	p := newProgress(c.OutOrStdout(), o.json, job)
	result, err := trainEmbedded(c.Context(), job, o.nodes, p, log)
	p.end()
	if err != nil {
		return err
	}
	p.finish(result)
	return nil
}

// trainEmbedded runs a whole cluster in this process. Where the job wants more servers
// than there are nodes, it gets as many as there are: durability is not what a single
// process is for, and the weights do not depend on it.
func trainEmbedded(ctx context.Context, job trainer.Job, nodes int, p *progress, log zerolog.Logger) (node.Result, error) {
	job.Cluster.Servers = min(job.Cluster.Servers, nodes)
	job.Cluster.Replicas = min(job.Cluster.Replicas, job.Cluster.Servers)
	dir, err := os.MkdirTemp("", "muster-train-")
	if err != nil {
		return node.Result{}, err
	}
	defer os.RemoveAll(dir)
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	results, errs := make([]node.Result, nodes), make([]error, nodes)
	seed := make(chan string, 1)
	var running sync.WaitGroup
	for i := range nodes {
		cfg := node.Config{
			Job: job, Name: id.Node(fmt.Sprintf("node-%d", i)), Listen: "127.0.0.1:0", Server: true, Trainer: true,
			DataDir: filepath.Join(dir, fmt.Sprint(i)), Out: job.Out, Cluster: filepath.Base(dir), Version: version,
			Log: log.With().Int("node", i).Logger(), OnSteps: p.of, OnStep: p.step,
		}
		if i == 0 {
			cfg.OnListen, cfg.OnEvent = func(addr string) { seed <- addr }, p.view
		} else {
			cfg.Out = filepath.Join(dir, "out", fmt.Sprint(i))
		}
		running.Go(func() {
			if i > 0 {
				select {
				case addr := <-seed:
					seed <- addr
					cfg.Join = []string{addr}
				case <-ctx.Done():
					return
				}
			}
			if results[i], errs[i] = node.Run(ctx, cfg); errs[i] != nil {
				cancel() // one that cannot go on ends the others
			}
		})
	}
	running.Wait()
	return results[0], firstCause(errs)
}

// firstCause leaves out the errors of nodes that were only told to end.
func firstCause(errs []error) error {
	for _, err := range errs {
		if err != nil && !errors.Is(err, context.Canceled) {
			return err
		}
	}
	return errors.Join(errs...)
}
