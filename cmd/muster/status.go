package main

import (
	"fmt"
	"io"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/musterml/muster/internal/why"
	"github.com/musterml/muster/membership"
	pb "github.com/musterml/muster/proto"
)

func statusCommand() *cobra.Command {
	var a asker
	c := &cobra.Command{
		Use:   "status --addr HOST:PORT",
		Short: "Show the run and its nodes, as any node knows them",
		Long: `Show the run, its nodes and its last events. Any node answers: with what the
coordinator's leader knows or, where there is none, with what it knows itself.`,
		Args: noArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			st, err := a.ask(c.Context())
			if err != nil {
				return err
			}
			if a.json {
				return writeJSON(c.OutOrStdout(), statusObject(st))
			}
			return printStatus(c.OutOrStdout(), st)
		},
	}
	a.flags(c.Flags())
	return c
}

// shownEvents is how many of the last events a person sees.
const shownEvents = 8

func printStatus(out io.Writer, st *pb.Status) error {
	var text strings.Builder
	line := func(name, format string, args ...any) {
		fmt.Fprintf(&text, "%-8s %s\n", name, fmt.Sprintf(format, args...))
	}
	run := st.Run
	if run == "" {
		run = "not founded yet"
	}
	line("run", "%s  (job %s, cluster %s; %s answers)", run, st.Job, st.Cluster, st.AnsweredBy)
	if st.Run != "" && st.Error == "" {
		line("progress", "%s", progressText(st))
	}
	if v := st.View; v != nil {
		line("view", "%d from step %d, for %s, because %s", v.Number, v.From, why.Seconds(since(st, v.Time)), v.Reason)
	}
	if mixed := membership.Mixed(st.View.GetArithmetic()); mixed != "" {
		line("mixed", "the trainers compute in several ways (%s): this run cannot be reproduced bit for bit", mixed)
	}
	switch {
	case st.Error == "":
		line("leader", "%s leads the coordinator", st.Coordinator)
	case st.Run != "":
		line("leader", "none known: %s", st.Error)
	}
	line("now", "%s", why.Explain(st).Summary)
	text.WriteByte('\n')
	nodeTable(&text, st)
	tableTable(&text, tablesOf(st))
	if len(st.Events) > 0 {
		text.WriteString("\nlast events\n")
	}
	for _, e := range st.Events[max(0, len(st.Events)-shownEvents):] {
		fmt.Fprintf(&text, "%s  step %-5d %-9s %s\n", time.Unix(0, e.Time).Format("15:04:05.000"), e.Step, e.Kind, e.Text)
	}
	_, err := io.WriteString(out, text.String())
	return err
}

// progressText is how far the run is, how well it does, and how long it will take.
func progressText(st *pb.Status) string {
	text := stepText(st)
	if n := len(st.Metrics); n > 0 && st.Metrics[n-1].Step < st.Steps {
		text += fmt.Sprintf(", loss %.4f, %s %.2f %%", st.Metrics[n-1].Loss, scoreName(st.Metrics[n-1].Regression), 100*st.Metrics[n-1].Accuracy)
	}
	if n := len(st.Metrics); n > 0 && st.Metrics[n-1].GradNorm > 0 {
		text += fmt.Sprintf(", gradient norm %.4g", st.Metrics[n-1].GradNorm)
	}
	if n := len(st.Metrics); n > 0 && st.Metrics[n-1].Staleness != nil {
		s := st.Metrics[n-1].Staleness
		text += fmt.Sprintf(", staleness %.1f steps (%.1f to %.1f)", s.Mean, s.Min, s.Max)
	}
	if r := runRate(st); r > 0 && st.Step < st.Steps {
		left := time.Duration(float64(st.Steps-st.Step) * float64(st.Batch) / r * float64(time.Second))
		text += fmt.Sprintf(", %.0f samples/s, %s left", r, left.Round(time.Second))
	}
	return text
}

// runRate is the samples per second of the whole run: its trainers see the same one,
// give or take the moment of their reports.
func runRate(st *pb.Status) float64 {
	sum, n := 0.0, 0
	for _, x := range st.Nodes {
		if len(x.Shards) > 0 && x.SamplesPerSecond > 0 {
			sum += x.SamplesPerSecond
			n++
		}
	}
	return sum / float64(max(n, 1))
}

// nodeRate is a node's share of it.
func nodeRate(st *pb.Status, n *pb.NodeStatus) float64 {
	return n.SamplesPerSecond * float64(len(n.Shards)) / float64(max(st.LogicalShards, 1))
}

func nodeTable(out io.Writer, st *pb.Status) {
	t := tabwriter.NewWriter(out, 0, 4, 2, ' ', 0)
	defer t.Flush()
	fmt.Fprintln(t, "NODE\tADDRESS\tROLES\tSTATE\tHEARD\tVIEW\tSTEP\tLOGICAL SHARDS\tSAMPLES/S\tDEVICE\tLEADS\tDOES")
	nodes := slices.SortedFunc(slices.Values(st.Nodes), func(a, b *pb.NodeStatus) int { return strings.Compare(a.Node, b.Node) })
	for _, n := range nodes {
		heard, view, step, shards, rate := "-", "-", "-", "-", "-"
		if n.Connected {
			heard = why.Seconds(since(st, n.Heard)) + " ago"
		}
		if n.Connected && n.Trainer {
			view, step = fmt.Sprint(n.View), fmt.Sprint(n.Step)
		}
		if len(n.Shards) > 0 {
			shards = numbers(n.Shards)
			rate = fmt.Sprintf("%.0f", nodeRate(st, n))
		}
		fmt.Fprintf(t, "%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\n", n.Node, orDash(n.Addr), roles(n), state(st, n),
			heard, view, step, shards, rate, orDash(computer(n)), orDash(strings.Join(groups(n), ", ")), orDash(strings.Join(does(st, n), "; ")))
	}
}

// state says whether a node is here, and in the run.
func state(st *pb.Status, n *pb.NodeStatus) string {
	if st.Error == "" && !n.Connected && (n.State == "alive" || n.State == "suspect") {
		return n.State + ", no session"
	}
	return n.State
}

func roles(n *pb.NodeStatus) string {
	var r []string
	if n.Server {
		r = append(r, "server")
	}
	if n.Trainer {
		r = append(r, "trainer")
	}
	return orDash(strings.Join(r, ", "))
}

// computer is what a trainer computes on: "2 x cuda NVIDIA H200, 31.2 of 279.4 GiB".
func computer(n *pb.NodeStatus) string {
	c, text := n.Computer, n.Computer.GetName()
	if c.GetCards() > 0 {
		const gib = 1 << 30
		text += fmt.Sprintf(", %.1f of %.1f GiB", float64(c.Used)/gib, float64(c.Memory)/gib)
	}
	if n.Retired != "" {
		text += ", has failed"
	}
	return text
}

func groups(n *pb.NodeStatus) []string {
	var names []string
	for _, l := range n.Leads {
		names = append(names, l.Group)
	}
	slices.Sort(names)
	return names
}

// does is what a node waits for and works at.
func does(st *pb.Status, n *pb.NodeStatus) []string {
	var texts []string
	for _, w := range n.Waits {
		text := "waits for " + w.What
		switch {
		case w.Work:
			text = w.What + " " + w.Of
		case w.On != "":
			text = fmt.Sprintf("waits for %s: %s", w.On, w.What)
		}
		if w.Of != "" && !w.Work {
			text += " of " + w.Of
		}
		texts = append(texts, text+", "+why.Seconds(since(st, w.Since)))
	}
	return texts
}

// since is how long ago something was, by the clock of the status.
func since(st *pb.Status, at int64) time.Duration { return max(0, time.Duration(st.Time-at)) }

func numbers(ns []uint32) string {
	texts := make([]string, len(ns))
	for i, n := range ns {
		texts[i] = fmt.Sprint(n)
	}
	return strings.Join(texts, ",")
}

func orDash(s string) string {
	if s == "" {
		return "-"
	}
	return s
}
