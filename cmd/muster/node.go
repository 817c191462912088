package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"sync"

	"github.com/spf13/cobra"

	"github.com/musterml/muster/internal/id"
	"github.com/musterml/muster/internal/node"
)

type nodeOptions struct {
	common
	name, listen, advertise string
	join, roles             []string
	dataDir, out            string
	resume                  bool
	device                  string
}

func nodeCommand() *cobra.Command {
	var o nodeOptions
	c := &cobra.Command{
		Use:   "node -f JOB --name NAME --listen HOST:PORT --join HOST:PORT,...",
		Short: "Be one node of a cluster until its run is over",
		Long: `Be one node of a cluster until its run is over. Start it on every machine with the
same job file and at least one common address in --join, in any order. The run begins
when the job's number of servers and a trainer are there.`,
		Args: jobByFlag,
		RunE: func(c *cobra.Command, _ []string) error { return o.run(c) },
	}
	host, _ := os.Hostname()
	f := c.Flags()
	o.jobFlag(f)
	o.clusterFlags(f)
	o.outputFlags(f)
	f.StringVar(&o.name, "name", host, "`NAME` of this node, unique in the cluster")
	f.StringVar(&o.listen, "listen", "0.0.0.0:7400", "`HOST:PORT` of this node's one port, TCP and UDP")
	f.StringVar(&o.advertise, "advertise", "", "`HOST:PORT` at which others reach this node (default: by the route to --join)")
	f.StringSliceVar(&o.join, "join", nil, "`HOST:PORT,...` of nodes to find the cluster by; one that answers is enough")
	f.StringSliceVar(&o.roles, "roles", []string{"server", "trainer"}, "`ROLES` of this node: server, trainer or both")
	f.StringVar(&o.dataDir, "data-dir", "", "`DIR` for this node's own files (default: runs/nodes/NAME)")
	f.StringVar(&o.out, "out", "", "`DIR` for the outputs (default: out of the job)")
	deviceFlag(f, &o.device)
	f.BoolVar(&o.resume, "resume", false, "go on with the run that --data-dir holds, else from the newest checkpoint, else begin anew")
	return c
}

func (o *nodeOptions) run(c *cobra.Command) error {
	job, err := o.loadJob()
	if err != nil {
		return err
	}
	key, err := o.key()
	if err != nil {
		return err
	}
	log, err := o.logger(c.ErrOrStderr())
	if err != nil {
		return err
	}
	for _, r := range o.roles {
		if r != "server" && r != "trainer" {
			return fmt.Errorf("--roles names %q: use server, trainer, or server,trainer", r)
		}
	}
	dev, err := openDevice(o.device, log)
	if err != nil {
		return err
	}
	if o.name == "" {
		return errors.New("--name is empty: give this node a name that is unique in the cluster")
	}
	if o.dataDir == "" {
		o.dataDir = "runs/nodes/" + o.name
	}
	if o.out == "" {
		o.out = job.Out
	}
	p := newProgress(c.OutOrStdout(), o.json, job)
	ctx, cancel := context.WithCancel(c.Context())
	var narrator sync.WaitGroup
	defer narrator.Wait()
	defer cancel()
	result, err := node.Run(ctx, node.Config{
		Job: job, Name: id.Node(o.name), Listen: o.listen, Advertise: o.advertise, Join: o.join,
		Server: slices.Contains(o.roles, "server"), Trainer: slices.Contains(o.roles, "trainer"), Device: dev,
		DataDir: o.dataDir, Resume: o.resume, Out: o.out, Cluster: o.cluster, Key: key, Version: version, Log: log,
		OnListen: func(addr string) {
			p.say("listening", map[string]any{"node": o.name, "addr": addr},
				"node %s listens at %s (%s); ask it: muster status --addr %s", o.name, addr, strings.Join(o.roles, ", "), addr)
			narrator.Go(func() { o.narrate(ctx, addr, p) })
		},
		OnData: p.reading, OnSteps: p.of, OnStep: p.step, OnEvent: p.view,
	})
	cancel()
	p.end()
	if err != nil {
		return err
	}
	p.finish(result)
	return nil
}

// finish says how the run ended and where the outputs are.
func (p *progress) finish(r node.Result) {
	f := r.Finish
	p.say("finished", map[string]any{
		"run": r.Run, "steps": f.Step, "test_" + scoreKey(f.Regression): f.TestAccuracy, "test_loss": f.TestLoss, "digest": f.Digest, "out": r.Out, "test_auc": f.TestAuc,
	}, "run %s is done: %d steps, held-out %s %.2f %%%s\nweights sha256 %s", r.Run, f.Step, scoreName(f.Regression), 100*f.TestAccuracy, aucText(f.TestAuc), f.Digest)
	if r.Out != "" && !p.json {
		fmt.Fprintf(p.out, "outputs in %s\n", r.Out)
	}
}
