package main

import (
	"fmt"
	"io"
	"text/tabwriter"

	pb "github.com/musterml/muster/proto"
)

// tableJSON is a sparse table, over all servers. Rows are those of keys that are admitted.
type tableJSON struct {
	Name     string `json:"name"`
	Keys     uint64 `json:"keys"`
	Rows     uint64 `json:"rows"`
	Bytes    uint64 `json:"bytes"` // of one replica of each shard
	Admitted uint64 `json:"admitted"`
	Expired  uint64 `json:"expired"`
	Evicted  uint64 `json:"evicted"`
}

// tablesOf adds up what the leaders of the shards report.
func tablesOf(st *pb.Status) []tableJSON {
	var all []tableJSON
	place := map[string]int{}
	for _, n := range st.Nodes {
		for _, t := range n.Tables {
			i, ok := place[t.Name]
			if !ok {
				i = len(all)
				place[t.Name] = i
				all = append(all, tableJSON{Name: t.Name})
			}
			a := &all[i]
			a.Keys += t.Keys
			a.Rows += t.Rows
			a.Bytes += t.Bytes
			a.Admitted += t.Admitted
			a.Expired += t.Expired
			a.Evicted += t.Evicted
		}
	}
	return all
}

// tableTable shows them to people, if there are any.
func tableTable(out io.Writer, tables []tableJSON) {
	if len(tables) == 0 {
		return
	}
	t := tabwriter.NewWriter(out, 0, 4, 2, ' ', 0)
	defer t.Flush()
	fmt.Fprintln(t, "\nTABLE\tKEYS\tROWS\tMB\tADMITTED\tEXPIRED\tEVICTED")
	for _, x := range tables {
		fmt.Fprintf(t, "%s\t%d\t%d\t%.1f\t%d\t%d\t%d\n", x.Name, x.Keys, x.Rows, float64(x.Bytes)/1e6, x.Admitted, x.Expired, x.Evicted)
	}
}
