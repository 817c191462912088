package flight

import (
	"cmp"
	"slices"

	"github.com/musterml/muster/internal/id"
)

// Merge makes one record of all those of one node: a node writes one whenever its ring fails, and much that the last
// one holds was in those before. The order of the nodes is that of their first records.
func Merge(records []Record) []Record {
	type key struct {
		track string
		begin int64
	}
	records = slices.Clone(records)
	slices.SortStableFunc(records, func(a, b Record) int { return cmp.Compare(a.Time, b.Time) })
	var nodes []id.Node
	merged, places := map[id.Node]*Record{}, map[id.Node]map[key]int{}
	for _, r := range records {
		m := merged[r.Node]
		if m == nil {
			m, places[r.Node] = &Record{Spans: []Line{}}, map[key]int{}
			merged[r.Node], nodes = m, append(nodes, r.Node)
		}
		m.Node, m.Run, m.Time, m.Why = r.Node, r.Run, r.Time, r.Why
		for _, l := range r.Spans {
			k := key{l.Track, l.Begin}
			if at, known := places[r.Node][k]; known { // the newer one knows how it ended
				m.Spans[at] = l
				continue
			}
			places[r.Node][k] = len(m.Spans)
			m.Spans = append(m.Spans, l)
		}
	}
	out := make([]Record, len(nodes))
	for i, n := range nodes {
		out[i] = *merged[n]
	}
	return out
}
