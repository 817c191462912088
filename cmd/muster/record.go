package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"sync"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/musterml/muster/internal/atomicfile"
	"github.com/musterml/muster/internal/flight"
	"github.com/musterml/muster/internal/node"
	pb "github.com/musterml/muster/proto"
)

// recordOptions are the flags of "muster why" that show flight records.
type recordOptions struct {
	record bool
	trace  string
	last   int
}

func (o *recordOptions) flags(f *pflag.FlagSet) {
	f.BoolVar(&o.record, "record", false, "print what the nodes did last")
	f.IntVar(&o.last, "last", 40, "with --record, `NUMBER` of lines; 0: all")
	f.StringVar(&o.trace, "trace", "", "write what the nodes did last into `FILE`, for ui.perfetto.dev")
}

func (o *recordOptions) wanted() bool { return o.record || o.trace != "" }

// run prints or writes the records of all nodes that answer, or of the files.
func (o *recordOptions) run(c *cobra.Command, a *asker, files []string) error {
	if o.last < 0 {
		return fmt.Errorf("--last is %d: give a number of lines, or 0 for all", o.last)
	}
	var records []flight.Record
	var missing []missingRecord
	var err error
	if len(files) > 0 {
		records, err = readRecords(files)
	} else {
		records, missing, err = a.records(c.Context())
	}
	if err != nil {
		return err
	}
	if o.trace != "" {
		err := atomicfile.Write(o.trace, func(w io.Writer) error { return flight.Trace(w, records) })
		if err != nil {
			return fmt.Errorf("--trace: %w", err)
		}
		fmt.Fprintf(c.ErrOrStderr(), "%s holds what %d nodes did last: open it in ui.perfetto.dev\n", o.trace, len(records))
	}
	switch {
	case !o.record:
	case a.json:
		return writeJSON(c.OutOrStdout(), recordsJSON{Records: records, Missing: missing})
	default:
		err = flight.Table(c.OutOrStdout(), records, o.last)
	}
	for _, m := range missing {
		fmt.Fprintf(c.ErrOrStderr(), "%s at %s gave no record: %s\n", m.Node, m.Addr, m.Error)
	}
	return err
}

// recordsJSON is what "muster why --record --json" prints; docs/operations.md describes it.
type recordsJSON struct {
	Records []flight.Record `json:"records"`
	Missing []missingRecord `json:"missing"`
}

type missingRecord struct {
	Node  string `json:"node"`
	Addr  string `json:"addr"`
	Error string `json:"error"`
}

// records asks every node of the run, and puts their times onto this host's clock.
func (a *asker) records(ctx context.Context) ([]flight.Record, []missingRecord, error) {
	st, err := a.ask(ctx)
	if err != nil {
		return nil, nil, err
	}
	records, errs := make([]flight.Record, len(st.Nodes)), make([]error, len(st.Nodes))
	var asking sync.WaitGroup
	for i, n := range st.Nodes {
		asking.Go(func() { records[i], errs[i] = a.recordOf(ctx, n.Addr) })
	}
	asking.Wait()
	have, missing := []flight.Record{}, []missingRecord{}
	for i, n := range st.Nodes {
		if errs[i] != nil {
			missing = append(missing, missingRecord{Node: n.Node, Addr: n.Addr, Error: errs[i].Error()})
			continue
		}
		have = append(have, records[i])
	}
	if len(have) == 0 {
		return nil, nil, errors.New("no node of the run has given its record")
	}
	return have, missing, nil
}

// recordWithin is how long one node may take. Records are looked at when some do not answer any more.
const recordWithin = 1500 * time.Millisecond

func (a *asker) recordOf(ctx context.Context, addr string) (flight.Record, error) {
	begin := time.Now()
	answer := &pb.RecordAnswer{}
	ctx, cancel := context.WithTimeout(ctx, recordWithin)
	defer cancel()
	switch err := a.exchange(ctx, addr, node.RecordTopic, &pb.RecordRequest{}, answer); {
	case ctx.Err() != nil:
		return flight.Record{}, fmt.Errorf("no answer within %v", recordWithin)
	case err != nil:
		return flight.Record{}, err
	}
	r, err := flight.Parse(answer.Record)
	if err == nil {
		r.Shift(begin.Add(time.Since(begin) / 2)) // as near as can be told: the record was made in between
	}
	return r, err
}

func readRecords(files []string) ([]flight.Record, error) {
	var records []flight.Record
	for _, path := range files {
		b, err := os.ReadFile(path)
		if err != nil {
			return nil, err
		}
		r, err := flight.Parse(b)
		if err != nil {
			return nil, fmt.Errorf("%s is %w", path, err)
		}
		records = append(records, r)
	}
	return flight.Merge(records), nil
}
