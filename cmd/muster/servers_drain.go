package main

import (
	"context"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/musterml/muster/internal/id"
	"github.com/musterml/muster/internal/node"
	"github.com/musterml/muster/membership"
	pb "github.com/musterml/muster/proto"
)

func drainCommand() *cobra.Command {
	var a asker
	c := &cobra.Command{
		Use:   "drain NAME",
		Short: "Move everything that a server keeps to other servers",
		Long: `Move what a server leads, then what it keeps, to other servers, while the run goes on. Afterwards
the node may be stopped, and nobody notices; if it is a trainer as well, it goes on training until
then. The order is part of the run's state: it is carried out also when this command is ended, and holds when
the server is started again, until "muster servers undrain NAME". To give it twice does no harm.`,
		Args: oneArg,
		RunE: func(c *cobra.Command, args []string) error {
			if err := a.drain(c.Context(), args[0], false); err != nil {
				return err
			}
			return a.followDrain(c.Context(), c.OutOrStdout(), args[0])
		},
	}
	a.flags(c.Flags())
	return c
}

func undrainCommand() *cobra.Command {
	var a asker
	c := &cobra.Command{
		Use:   "undrain NAME",
		Short: "Let a server that was drained be used again",
		Long:  `Let a server that was drained be used again: it is a spare then, and takes the place of the next that is lost or drained.`,
		Args:  oneArg,
		RunE: func(c *cobra.Command, args []string) error {
			if err := a.drain(c.Context(), args[0], true); err != nil {
				return err
			}
			if a.json {
				return writeJSON(c.OutOrStdout(), map[string]any{"server": args[0], "drained": false})
			}
			_, err := fmt.Fprintf(c.OutOrStdout(), "%s may keep groups again\n", args[0])
			return err
		},
	}
	a.flags(c.Flags())
	return c
}

func nodeID(name string) id.Node { return id.Node(name) }

// drain gives the order to whoever leads the coordinator.
func (a *asker) drain(ctx context.Context, server string, undo bool) error {
	if err := a.valid(); err != nil {
		return err
	}
	addr, answer := a.addr, &pb.DrainAnswer{}
	for range 20 { // a leader may have just gone
		answer = &pb.DrainAnswer{}
		err := a.exchange(ctx, addr, node.DrainTopic, &pb.DrainRequest{Node: server, Undo: undo}, answer)
		switch {
		case err != nil && addr == a.addr:
			return a.explain(err)
		case err == nil && answer.Error == "":
			return nil
		case err == nil && answer.Leader != "":
			addr = answer.Leader
			continue
		case err == nil && !strings.HasSuffix(answer.Error, "ask again"):
			return fmt.Errorf("%s", answer.Error)
		}
		addr = a.addr
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(100 * time.Millisecond):
		}
	}
	return fmt.Errorf("%s", answer.Error)
}

// followDrain prints what happens until the server keeps nothing.
func (a *asker) followDrain(ctx context.Context, out io.Writer, server string) error {
	say := func(line string) error {
		if a.json {
			return writeJSON(out, map[string]any{"server": server, "drained": false, "progress": line})
		}
		_, err := fmt.Fprintln(out, line)
		return err
	}
	seen, kept, faults := map[string]bool{}, -1, 0
	for {
		st, err := a.ask(ctx)
		switch {
		case err == nil && st.Error == "":
			faults = 0
		case faults > 50:
			return fmt.Errorf("the run does not answer any more; the order stands, and \"muster servers\" on another node shows how far it is")
		default:
			faults++
		}
		if err == nil && st.Error == "" {
			if !slices.Contains(st.GetPlacement().GetDrained(), server) {
				if err := a.drain(ctx, server, false); err != nil { // its leader was lost before it was agreed
					return err
				}
			}
			for _, line := range drainLines(st, server, seen) {
				if err := say(line); err != nil {
					return err
				}
			}
			left := keptBy(st, server)
			if left != kept && left > 0 && kept != -1 {
				if err := say(fmt.Sprintf("%s still keeps %s", server, plural(left, "group", "groups"))); err != nil {
					return err
				}
			}
			unsettled := slices.ContainsFunc(st.GetGroups(), func(l *pb.Lead) bool { return !l.Settled })
			if kept = left; left == 0 && !unsettled {
				break
			}
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("%s still keeps %s; the order stands, \"muster servers\" shows how far it is", server, plural(max(kept, 0), "group", "groups"))
		case <-time.After(50 * time.Millisecond):
		}
	}
	if a.json {
		return writeJSON(out, map[string]any{"server": server, "drained": true})
	}
	_, err := fmt.Fprintf(out, "%s keeps nothing any more; it may be stopped, or taken back by: muster servers undrain %s\n", server, server)
	return err
}

// drainLines are the events since the drain was ordered that have not been seen yet.
func drainLines(st *pb.Status, server string, seen map[string]bool) []string {
	var lines []string
	ordered := false
	for _, e := range st.Events {
		ordered = ordered || e.Kind == "drain" && e.Node == server
		key := fmt.Sprint(e.Time, e.Text)
		if seen[key] || !ordered || !slices.Contains([]string{"drain", "placed", "leader"}, e.Kind) {
			continue
		}
		seen[key] = true
		lines = append(lines, e.Text)
	}
	return lines
}

// keptBy is the number of groups that a server still has to leave.
func keptBy(st *pb.Status, server string) int {
	left := map[string]bool{}
	for _, g := range membership.PlacementFromProto(st.GetPlacement()).Groups {
		for _, p := range g.Places {
			if string(p.Node) == server {
				left[g.Name] = true
			}
		}
	}
	for _, l := range st.GetGroups() {
		if slices.ContainsFunc(slices.Concat(l.Voters, l.Learners), isLifeOf(server)) {
			left[l.Group] = true
		}
	}
	return len(left)
}
