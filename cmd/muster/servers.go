package main

import (
	"context"
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/musterml/muster/internal/node"
	"github.com/musterml/muster/internal/why"
	pb "github.com/musterml/muster/proto"
)

func serversCommand() *cobra.Command {
	var a asker
	c := &cobra.Command{
		Use:   "servers --addr HOST:PORT",
		Short: "Show what the parameter servers keep, and drain them",
		Long: `Show the Raft groups of a run (the coordinator and the parameter shards), which servers keep
them, who leads, how far each replica is behind, and a digest of what it holds. All digests of one
group are of the same place of its log: they are equal, or a replica's state is wrong.`,
		Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			v, err := a.servers(c.Context())
			if err != nil {
				return err
			}
			if a.json {
				return writeJSON(c.OutOrStdout(), v)
			}
			return printServers(c.OutOrStdout(), v)
		},
	}
	a.flags(c.Flags())
	c.AddCommand(drainCommand(), undrainCommand())
	return c
}

// servers asks a node what all servers keep.
func (a *asker) servers(ctx context.Context) (*serversJSON, error) {
	if err := a.valid(); err != nil {
		return nil, err
	}
	answer := &pb.ServersAnswer{}
	if err := a.exchange(ctx, a.addr, node.ServersTopic, &pb.ServersRequest{}, answer); err != nil {
		return nil, a.explain(err)
	}
	return serversObject(answer), nil
}

func printServers(out io.Writer, v *serversJSON) error {
	var text strings.Builder
	if v.Run == "" {
		fmt.Fprintln(&text, "the run is not founded yet: \"muster why\" says what it waits for")
		_, err := io.WriteString(out, text.String())
		return err
	}
	fmt.Fprintf(&text, "run %s at step %d: %s\n", v.Run, v.Step, v.summary())
	if v.Error != "" {
		fmt.Fprintf(&text, "no leader answers for the whole run (%s); this is what the servers say themselves\n", v.Error)
	}
	text.WriteByte('\n')
	t := tabwriter.NewWriter(&text, 0, 4, 2, ' ', 0)
	fmt.Fprintln(t, "GROUP\tSERVER\tROLE\tTERM\tSTATE\tLAG\tHELD\tSTEP\tDIGEST")
	for _, g := range v.Groups {
		for i, r := range g.Replicas {
			name := g.Group
			if i > 0 {
				name = ""
			}
			fmt.Fprintf(t, "%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\n", name, r.Server, r.Role, r.term(), r.State, r.lag(), r.held(), r.step(), r.digest())
		}
	}
	fmt.Fprintln(t, "\nSERVER\tADDRESS\tSTATE\tGROUPS\tLEADS")
	for _, s := range v.Servers {
		fmt.Fprintf(t, "%s\t%s\t%s\t%d\t%s\n", s.Server, orDash(s.Addr), s.State, s.Groups, orDash(strings.Join(s.Leads, ", ")))
	}
	if err := t.Flush(); err != nil {
		return err
	}
	_, err := io.WriteString(out, text.String())
	return err
}

func (v *serversJSON) summary() string {
	unwell := []string{}
	for _, g := range v.Groups {
		if !g.Healthy {
			unwell = append(unwell, g.Group)
		}
	}
	if len(unwell) == 0 {
		return fmt.Sprintf("all %d groups are healthy on %d servers", len(v.Groups), len(v.Servers))
	}
	return fmt.Sprintf("%d of %d groups are healthy; not %s", len(v.Groups)-len(unwell), len(v.Groups), strings.Join(unwell, ", "))
}

func (r *replicaJSON) term() string {
	if r.Role == "-" || r.Term == 0 {
		return "-"
	}
	return fmt.Sprint(r.Term)
}

func (r *replicaJSON) lag() string {
	switch {
	case !r.Answers:
		return "-"
	case r.LagEntries == 0:
		return "0"
	case r.LagBytes == 0:
		return plural(int(r.LagEntries), "entry", "entries")
	}
	return plural(int(r.LagEntries), "entry", "entries") + ", " + kib(r.LagBytes)
}

func (r *replicaJSON) held() string {
	if r.Bytes == 0 {
		return "-"
	}
	return kib(r.Bytes)
}

func (r *replicaJSON) step() string {
	if r.Step == nil {
		return "-"
	}
	return fmt.Sprint(*r.Step)
}

// digest is short: enough to compare with the eye.
func (r *replicaJSON) digest() string {
	if r.Digest == "" {
		return "-"
	}
	return fmt.Sprintf("%.12s at entry %d", r.Digest, r.DigestEntry)
}

func plural(n int, one, many string) string {
	if n == 1 {
		return "1 " + one
	}
	return fmt.Sprintf("%d %s", n, many)
}

func kib(bytes int64) string {
	switch {
	case bytes < 1<<10:
		return fmt.Sprintf("%d B", bytes)
	case bytes < 10<<20:
		return fmt.Sprintf("%d KiB", bytes>>10)
	case bytes < 10<<30:
		return fmt.Sprintf("%d MiB", bytes>>20)
	}
	return fmt.Sprintf("%d GiB", bytes>>30)
}

// away says since when a server has been away.
func away(st *pb.Status, since int64) string {
	return fmt.Sprintf("away since %s (%s)", time.Unix(0, since).Format("15:04:05"), why.Seconds(max(0, time.Duration(st.Time-since))))
}
