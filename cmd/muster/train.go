package main

import (
	"fmt"

	"github.com/spf13/cobra"

	"github.com/musterml/muster/internal/checkpoint"
	"github.com/musterml/muster/internal/node"
	"github.com/musterml/muster/trainer"
	"github.com/musterml/muster/trainer/data"
)

type trainOptions struct {
	common
	nodes     int
	out       string
	printJob  bool
	printData bool
	expand    bool
	resume    bool
	device    string
}

func trainCommand() *cobra.Command {
	var o trainOptions
	c := &cobra.Command{
		Use:   "train [-f JOB]",
		Short: "Train a job in this process alone; without a job file, the built-in one",
		Long: `Train a job in this process alone: servers and trainers are embedded and talk over
loopback only. The weights come out the same, bit for bit, as on a cluster.`,
		Args: jobByFlag,
		RunE: func(c *cobra.Command, _ []string) error { return o.run(c) },
	}
	f := c.Flags()
	o.jobFlag(f)
	o.outputFlags(f)
	f.IntVar(&o.nodes, "nodes", 1, "`NUMBER` of nodes to embed, each server and trainer")
	f.StringVar(&o.out, "out", "", "`DIR` for the outputs (default: out of the job)")
	deviceFlag(f, &o.device)
	f.BoolVar(&o.resume, "resume", false, "go on from the last commit (durability disk), else from the newest checkpoint, else begin anew")
	f.BoolVar(&o.printJob, "print-job", false, "print the effective job, with every default, and end")
	f.BoolVar(&o.printData, "print-data", false, "read the data, print what was made of it, and end")
	f.BoolVar(&o.expand, "expand", false, "--print-job, with the model as the list of layers that it is")
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
	if o.expand {
		o.printJob = true
		if job.Model, err = job.Model.Expand(); err != nil {
			return err
		}
	}
	if o.printJob {
		b, err := job.YAML()
		if err == nil {
			_, err = c.OutOrStdout().Write(b)
		}
		return err
	}
	if o.printData {
		train, test, err := data.Open(c.Context(), job.Data, nil)
		if err != nil {
			return err
		}
		return data.Describe(c.OutOrStdout(), train, test)
	}
	log, err := o.logger(c.ErrOrStderr())
	if err != nil {
		return err
	}
	if o.nodes < 1 || o.nodes > 64 {
		return fmt.Errorf("--nodes is %d: embed 1 to 64", o.nodes)
	}
	dev, err := openDevice(o.device, log)
	if err != nil {
		return err
	}
	p := newProgress(c.OutOrStdout(), o.json, job)
	result, err := node.RunEmbedded(c.Context(), node.Config{Job: job, Device: dev, Resume: o.resume, Version: version, Log: log, OnData: p.reading, OnSteps: p.of, OnStep: p.step, OnEvent: p.view}, o.nodes)
	p.end()
	if err != nil && c.Context().Err() != nil {
		err = fmt.Errorf("%w; %s", err, kept(job))
	}
	if err != nil {
		return err
	}
	p.finish(result)
	return nil
}

// kept says from where a run that was interrupted can go on.
func kept(job trainer.Job) string {
	if job.Cluster.Durability == trainer.DurabilityDisk {
		return "with --resume it goes on from its last commit"
	}
	all, err := checkpoint.List(job.Checkpoints(job.Out))
	if err == nil && len(all) > 0 {
		return "with --resume it goes on from the newest checkpoint, " + all[0].Path
	}
	return "nothing of it is kept: a job with checkpoint: {every: STEPS} can be resumed"
}
