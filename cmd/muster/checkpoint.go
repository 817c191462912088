package main

import (
	"context"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/musterml/muster/internal/checkpoint"
	"github.com/musterml/muster/internal/node"
	"github.com/musterml/muster/internal/port"
	"github.com/musterml/muster/membership"
	pb "github.com/musterml/muster/proto"
	"github.com/musterml/muster/trainer"
)

func checkpointCommand() *cobra.Command {
	c := &cobra.Command{
		Use:   "checkpoint",
		Short: "Write, list, show and restore checkpoints of a run",
		Long: `Write, list, show and restore checkpoints of a run. A job writes them by itself with
checkpoint: {every: STEPS}. The node that leads the coordinator writes them, into
checkpoint.path of the job or the folder checkpoints of its outputs. "muster node --resume"
and "muster train --resume" go on from the newest one, on any number of servers, shards and trainers.`,
		Args: cobra.NoArgs,
		RunE: listVerbs,
	}
	c.AddCommand(checkpointSaveCommand(), checkpointListCommand(), checkpointShowCommand(), checkpointRestoreCommand())
	return c
}

func checkpointSaveCommand() *cobra.Command {
	var a asker
	c := &cobra.Command{
		Use:   "save",
		Short: "Have a running cluster write a checkpoint now",
		Args:  noArgs,
		RunE:  func(c *cobra.Command, _ []string) error { return saveCheckpoint(c, &a) },
	}
	a.flags(c.Flags())
	return c
}

func saveCheckpoint(c *cobra.Command, a *asker) error {
	answer, addr := &pb.CheckpointAnswer{}, a.addr
	for range 3 { // the leader, and one that takes over meanwhile
		answer = &pb.CheckpointAnswer{}
		if err := a.command(c.Context(), addr, answer); err != nil {
			return a.explain(err)
		}
		if answer.Leader == "" {
			break
		}
		addr = answer.Leader
	}
	if answer.Error != "" {
		return fmt.Errorf("no checkpoint: %s", answer.Error)
	}
	if a.json {
		return json.NewEncoder(c.OutOrStdout()).Encode(map[string]any{"step": answer.Step, "path": answer.Path, "node": answer.Node})
	}
	fmt.Fprintf(c.OutOrStdout(), "step %d is in %s on %s\n", answer.Step, answer.Path, answer.Node)
	return nil
}

// command has a node do what may take long.
func (a *asker) command(ctx context.Context, addr string, answer *pb.CheckpointAnswer) error {
	key, err := a.key()
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, 10*time.Minute)
	defer cancel()
	conn, err := port.DialTool(ctx, port.ToolConfig{Cluster: a.cluster, Version: version, Key: key}, addr, port.Control, node.CheckpointTopic)
	if err != nil {
		return err
	}
	defer conn.Close()
	return membership.Ask(ctx, conn, &pb.CheckpointRequest{}, answer)
}

// checkpointFolder says where the checkpoints of a job are.
type checkpointFolder struct {
	common
	path string
}

func (o *checkpointFolder) root(job trainer.Job) string {
	if o.path != "" {
		return o.path
	}
	return job.Checkpoints(job.Out)
}

func checkpointListCommand() *cobra.Command {
	var o checkpointFolder
	c := &cobra.Command{
		Use:   "list [-f JOB | --path DIR]",
		Short: "List the checkpoints of a job on this machine, the newest first",
		Args:  noArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			job, err := o.loadJob()
			if err != nil {
				return err
			}
			return listCheckpoints(c.OutOrStdout(), o.root(job), o.json)
		},
	}
	o.jobFlag(c.Flags())
	c.Flags().StringVar(&o.path, "path", "", "`DIR` with checkpoints (default: that of the job)")
	c.Flags().BoolVar(&o.json, "json", false, "for machines: one JSON object a line")
	return c
}

func listCheckpoints(out io.Writer, root string, asJSON bool) error {
	all, err := checkpoint.List(root)
	if err != nil {
		return err
	}
	if asJSON {
		enc := json.NewEncoder(out)
		for _, f := range all {
			line := map[string]any{"path": f.Path}
			if f.Err != nil {
				line["error"] = f.Err.Error()
			} else {
				line["step"], line["job"], line["run"], line["time"], line["params"] = f.Step, f.Job, f.Run, f.Time, f.Params
			}
			if err := enc.Encode(line); err != nil {
				return err
			}
		}
		return nil
	}
	if len(all) == 0 {
		_, err := fmt.Fprintf(out, "no checkpoints in %s\n", root)
		return err
	}
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "STEP\tJOB\tMODEL\tPARAMETERS\tBYTES\tWRITTEN\tPATH")
	for _, f := range all {
		if f.Err != nil {
			fmt.Fprintf(w, "-\t\t\t\t\t\t%v\n", f.Err)
			continue
		}
		size := int64(0)
		for _, file := range slices.Concat(f.Files, f.Tables) {
			size += file.Bytes
		}
		fmt.Fprintf(w, "%d\t%s\t%s\t%d\t%d\t%s\t%s\n", uint64(f.Step), f.Job, f.Model, f.Params, size, f.Time.Local().Format(time.DateTime), f.Path)
	}
	return w.Flush()
}

func checkpointShowCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "show CHECKPOINT",
		Short: "Check every byte of a checkpoint and print its manifest",
		Args:  oneArg,
		RunE: func(c *cobra.Command, args []string) error {
			m, err := checkpoint.Read(args[0])
			if err == nil {
				err = m.Verify(args[0])
			}
			if err != nil {
				return err
			}
			enc := json.NewEncoder(c.OutOrStdout())
			enc.SetIndent("", "  ")
			enc.SetEscapeHTML(false)
			return enc.Encode(m)
		},
	}
}

func checkpointRestoreCommand() *cobra.Command {
	var o checkpointFolder
	c := &cobra.Command{
		Use:   "restore CHECKPOINT [-f JOB | --path DIR]",
		Short: "Make a checkpoint the one that --resume begins from",
		Long: `Make a checkpoint the one that --resume begins from: it is checked, copied into the
job's folder for checkpoints on this machine, and newer ones there are set aside (renamed
to superseded-...). One machine of the cluster is enough.`,
		Args: oneArg,
		RunE: func(c *cobra.Command, args []string) error {
			job, err := o.loadJob()
			if err != nil {
				return err
			}
			return restoreCheckpoint(c.OutOrStdout(), args[0], o.root(job), job)
		},
	}
	o.jobFlag(c.Flags())
	c.Flags().StringVar(&o.path, "path", "", "`DIR` to put it in (default: that of the job)")
	return c
}

func restoreCheckpoint(out io.Writer, from, root string, job trainer.Job) error {
	m, err := checkpoint.Read(from)
	if err == nil {
		err = m.Verify(from)
	}
	if err != nil {
		return err
	}
	digest, err := job.StateDigest()
	if err != nil {
		return err
	}
	if m.Digest != hex.EncodeToString(digest[:]) {
		return fmt.Errorf("%s is of another job (%s, which has another model, data, batch, optimizer or seed); give the job it was made with", from, m.Job)
	}
	to := filepath.Join(root, checkpoint.Name(m.Step))
	if !sameFile(from, to) {
		if err := copyCheckpoint(from, root, to); err != nil {
			return err
		}
	}
	all, err := checkpoint.List(root)
	if err != nil {
		return err
	}
	for _, f := range all {
		if filepath.Base(f.Path) > checkpoint.Name(m.Step) {
			aside := filepath.Join(root, fmt.Sprintf("superseded-%s-%d", filepath.Base(f.Path), time.Now().Unix()))
			if err := os.Rename(f.Path, aside); err != nil {
				return err
			}
			fmt.Fprintf(out, "set aside %s\n", aside)
		}
	}
	_, err = fmt.Fprintf(out, "a run started with --resume begins at step %d, from %s\n", uint64(m.Step), to)
	return err
}

func sameFile(a, b string) bool {
	x, err1 := os.Stat(a)
	y, err2 := os.Stat(b)
	return err1 == nil && err2 == nil && os.SameFile(x, y)
}

// copyCheckpoint copies a folder as a whole or not at all; one of that step is replaced.
func copyCheckpoint(from, root, to string) error {
	if err := os.MkdirAll(root, 0o755); err != nil {
		return err
	}
	temp, err := os.MkdirTemp(root, ".restore-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(temp)
	if err := os.CopyFS(filepath.Join(temp, "new"), os.DirFS(from)); err != nil {
		return err
	}
	if err := os.Rename(to, filepath.Join(temp, "old")); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	return os.Rename(filepath.Join(temp, "new"), to)
}
