package flight

import (
	"cmp"
	"fmt"
	"io"
	"slices"
	"strings"
	"text/tabwriter"
	"time"
)

// Table prints the last spans of all records together, oldest first; last 0 means all. Of the spans of one moment the
// reader sees who was in what, and what they waited for.
func Table(out io.Writer, records []Record, last int) error {
	type row struct {
		node string
		Line
	}
	var rows []row
	for _, r := range records {
		for _, l := range r.Spans {
			rows = append(rows, row{string(r.Node), l})
		}
	}
	slices.SortStableFunc(rows, func(a, b row) int { return cmp.Compare(a.Begin, b.Begin) })
	if last > 0 {
		rows = rows[max(0, len(rows)-last):]
	}
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "BEGAN\tNODE\tVIEW\tSTEP\tTRACK\tOPERATION\tBYTES\tTOOK\tOF IT WAITED\tTRANSPORT\tERROR")
	for _, r := range rows {
		fmt.Fprintf(w, "%s\t%s\t%d\t%d\t%s\t%s\t%s\t%s\t%s\t%s\t%s\n",
			time.Unix(0, r.Begin).Format("15:04:05.000000"), r.node, r.View, r.Step, r.Track, r.name(), dash(size(r.Bytes)),
			r.took(), dash(r.waited()), dash(r.Transport), dash(r.Error))
	}
	return w.Flush()
}

// name is what a span is called in a table and a trace: "AllReduce SumInt32, bucket 2".
func (l *Line) name() string {
	name := l.What
	if l.Track == Step.String() && l.What == "step" {
		name = fmt.Sprintf("step %d", l.Step)
	}
	if l.Of != "" {
		name += " " + l.Of
	}
	if l.Bucket != nil {
		name += fmt.Sprintf(", bucket %d", *l.Bucket)
	}
	if l.Shard != nil {
		name += fmt.Sprintf(", shard %d", *l.Shard)
		if l.Shards > 1 {
			name += fmt.Sprintf(" and %d more", l.Shards-1)
		}
	}
	return name
}

func (l *Line) took() string {
	text := millis(l.Took)
	if l.Open {
		text += ", under way"
	}
	return text
}

func (l *Line) waited() string {
	if l.Peer == "" {
		return ""
	}
	return fmt.Sprintf("%s for %s", millis(l.Waited), l.Peer)
}

func millis(ns int64) string { return fmt.Sprintf("%.3f ms", float64(ns)/1e6) }

func size(bytes int) string {
	switch {
	case bytes == 0:
		return ""
	case bytes < 10<<10:
		return fmt.Sprintf("%d B", bytes)
	case bytes < 10<<20:
		return fmt.Sprintf("%d KiB", bytes>>10)
	}
	return fmt.Sprintf("%d MiB", bytes>>20)
}

// dash keeps the columns of a table apart, and each cell on its line.
func dash(text string) string {
	if text == "" {
		return "-"
	}
	return strings.Join(strings.Fields(text), " ")
}
