package main

import (
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"github.com/musterml/muster/internal/why"
	pb "github.com/musterml/muster/proto"
)

func whyCommand() *cobra.Command {
	var a asker
	var r recordOptions
	c := &cobra.Command{
		Use:   "why --addr HOST:PORT",
		Short: "Say what the run waits for now, and of whom, or what the nodes did last",
		Long: `Say what the run waits for now: the chain from a node that waits to the one that holds
up the others, how long it has lasted and how long it usually does. Any node answers,
also before the run is founded and while the coordinator has no leader.

With --record or --trace, show instead what each node did last: passes, operations on the
ring, updates, commits. All nodes of the run are asked, or the FILEs are read, which nodes
write into their output folders when a trainer is lost.`,
		Example: `  muster why --record --last 100
  muster why --record runs/digits/flight-*.json
  muster why --trace trace.json      # open it in ui.perfetto.dev`,
		RunE: func(c *cobra.Command, files []string) error {
			if r.wanted() {
				return r.run(c, &a, files)
			}
			if len(files) > 0 {
				return fmt.Errorf("%s: files are read with --record or --trace", files[0])
			}
			st, err := a.ask(c.Context())
			if err != nil {
				return err
			}
			if a.json {
				return writeJSON(c.OutOrStdout(), whyObject(st))
			}
			return printWhy(c.OutOrStdout(), why.Explain(st))
		},
	}
	a.flags(c.Flags())
	r.flags(c.Flags())
	return c
}

// printWhy prints the sentence, the chain behind it, and the remedy.
func printWhy(out io.Writer, a why.Answer) error {
	text := a.Summary + "\n"
	for _, l := range a.Chain {
		text += "  " + l.String() + "\n"
	}
	if a.Remedy != "" {
		text += "to do: " + a.Remedy + "\n"
	}
	_, err := io.WriteString(out, text)
	return err
}

// whyJSON is what "muster why --json" prints; docs/operations.md describes it.
type whyJSON struct {
	Run        string     `json:"run"`
	AnsweredBy string     `json:"answered_by"`
	Step       uint64     `json:"step"`
	Steps      uint64     `json:"steps"`
	Summary    string     `json:"summary"`
	Late       bool       `json:"late"`
	Node       string     `json:"node"`
	Remedy     string     `json:"remedy"`
	Chain      []linkJSON `json:"chain"`
}

type linkJSON struct {
	Node         string  `json:"node"`
	What         string  `json:"what"`
	Detail       string  `json:"detail,omitempty"`
	On           string  `json:"on,omitempty"`
	Work         bool    `json:"work"`
	Seconds      float64 `json:"seconds"`
	UsualSeconds float64 `json:"usual_seconds,omitempty"`
	HeardSeconds float64 `json:"heard_seconds"`
}

func whyObject(st *pb.Status) whyJSON {
	a := why.Explain(st)
	o := whyJSON{
		Run: st.Run, AnsweredBy: st.AnsweredBy, Step: st.Step, Steps: st.Steps,
		Summary: a.Summary, Late: a.Late, Node: a.Node, Remedy: a.Remedy, Chain: []linkJSON{},
	}
	for _, l := range a.Chain {
		o.Chain = append(o.Chain, linkJSON{
			Node: l.Node, What: l.What, Detail: l.Detail, On: l.On, Work: l.Work,
			Seconds: l.For.Seconds(), UsualSeconds: l.Usual.Seconds(), HeardSeconds: l.Heard.Seconds(),
		})
	}
	return o
}

// stepText is "step 117 of 235 (49 %)".
func stepText(st *pb.Status) string {
	if st.Step > st.Steps {
		return fmt.Sprintf("all %d steps are done", st.Steps)
	}
	return fmt.Sprintf("step %d of %d (%d %%)", st.Step, st.Steps, 100*st.Step/max(st.Steps, 1))
}
