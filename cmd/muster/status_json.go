package main

import (
	"encoding/json"
	"fmt"
	"io"
	"time"

	"github.com/musterml/muster/internal/node"
	"github.com/musterml/muster/membership"
	pb "github.com/musterml/muster/proto"
)

// statusJSON is what "muster status --json" prints; docs/operations.md describes it.
// Times are RFC 3339 in UTC, by the clock of the answer's own time; durations are seconds.
type statusJSON struct {
	Cluster          string         `json:"cluster"`
	Job              string         `json:"job"`
	Run              string         `json:"run"`
	AnsweredBy       string         `json:"answered_by"`
	Time             time.Time      `json:"time"`
	Error            string         `json:"error,omitempty"`
	Step             uint64         `json:"step"`
	Steps            uint64         `json:"steps"`
	Loss             *float64       `json:"loss,omitempty"`
	Accuracy         *float64       `json:"accuracy,omitempty"`  // of classes
	RSquared         *float64       `json:"r_squared,omitempty"` // of numbers to be found
	GradNorm         float64        `json:"grad_norm,omitempty"` // of the last step, before it was clipped
	Staleness        *stalenessJSON `json:"staleness,omitempty"`
	SamplesPerSecond float64        `json:"samples_per_second"`
	Coordinator      string         `json:"coordinator"`
	Servers          []string       `json:"servers"`
	ServersWanted    uint32         `json:"servers_wanted"`
	View             *viewJSON      `json:"view,omitempty"`
	Changing         *roundJSON     `json:"changing,omitempty"`
	Nodes            []nodeJSON     `json:"nodes"`
	Tables           []tableJSON    `json:"tables,omitempty"`
	Events           []eventJSON    `json:"events"`
	Finished         *finishJSON    `json:"finished,omitempty"`
}

// stalenessJSON is of the last step, in steps, in sync.mode ssp and async.
type stalenessJSON struct {
	Min  float64 `json:"min"`
	Mean float64 `json:"mean"`
	Max  float64 `json:"max"`
}

type viewJSON struct {
	Number   uint64    `json:"number"`
	From     uint64    `json:"from"`
	Time     time.Time `json:"time"`
	Reason   string    `json:"reason"`
	Trainers []string  `json:"trainers"`
	Mixed    string    `json:"mixed,omitempty"` // the arithmetics of trainers that compute in several ways
}

type roundJSON struct {
	Seconds float64  `json:"seconds"`
	Reason  string   `json:"reason"`
	Awaits  []string `json:"awaits"`
}

type nodeJSON struct {
	Node             string      `json:"node"`
	Addr             string      `json:"addr"`
	Server           bool        `json:"server"`
	Trainer          bool        `json:"trainer"`
	State            string      `json:"state"`
	Session          bool        `json:"session"`
	HeardSeconds     *float64    `json:"heard_seconds,omitempty"`
	View             uint64      `json:"view"`
	Step             uint64      `json:"step"`
	LogicalShards    []uint32    `json:"logical_shards"`
	SamplesPerSecond float64     `json:"samples_per_second"`
	Device           *deviceJSON `json:"device,omitempty"` // of a trainer
	Leads            []leadJSON  `json:"leads"`
	Waits            []waitJSON  `json:"waits"`
}

// deviceJSON is what a trainer computes on.
type deviceJSON struct {
	Name   string `json:"name"`
	Cards  uint32 `json:"cards"` // with memory of their own
	Used   uint64 `json:"used_bytes"`
	Memory uint64 `json:"memory_bytes"`
	Failed string `json:"failed,omitempty"` // why it computes no more
}

type leadJSON struct {
	Group    string   `json:"group"`
	Term     uint64   `json:"term"`
	Voters   []string `json:"voters"`
	Learners []string `json:"learners"`
}

type waitJSON struct {
	What         string  `json:"what"`
	Of           string  `json:"of,omitempty"`
	Detail       string  `json:"detail,omitempty"`
	On           string  `json:"on,omitempty"`
	Work         bool    `json:"work"`
	Seconds      float64 `json:"seconds"`
	UsualSeconds float64 `json:"usual_seconds,omitempty"`
}

type eventJSON struct {
	Time time.Time `json:"time"`
	Kind string    `json:"kind"`
	Node string    `json:"node,omitempty"`
	View uint64    `json:"view"`
	Step uint64    `json:"step"`
	Text string    `json:"text"`
}

type finishJSON struct {
	Steps        uint64   `json:"steps"`
	TestAccuracy *float64 `json:"test_accuracy,omitempty"`
	TestRSquared *float64 `json:"test_r_squared,omitempty"`
	TestAUC      float64  `json:"test_auc,omitempty"`
	TestLoss     float64  `json:"test_loss"`
	Digest       string   `json:"digest"`
	Failed       string   `json:"failed,omitempty"`
}

func statusObject(st *pb.Status) statusJSON {
	o := statusJSON{
		Cluster: st.Cluster, Job: st.Job, Run: st.Run, AnsweredBy: st.AnsweredBy, Time: utc(st.Time), Error: st.Error,
		Step: st.Step, Steps: st.Steps, SamplesPerSecond: runRate(st), Coordinator: st.Coordinator,
		Servers: []string{}, ServersWanted: st.ServersWanted, Nodes: []nodeJSON{}, Events: []eventJSON{},
	}
	if n := len(st.Metrics); n > 0 && st.Metrics[n-1].Step < st.Steps {
		m := st.Metrics[n-1]
		o.Loss, o.GradNorm = &m.Loss, m.GradNorm
		o.Accuracy, o.RSquared = node.Score(m.Regression, &m.Accuracy)
		if s := m.Staleness; s != nil {
			o.Staleness = &stalenessJSON{s.Min, s.Mean, s.Max}
		}
	}
	for _, s := range st.Servers {
		o.Servers = append(o.Servers, s.Node)
	}
	if v := st.View; v != nil {
		o.View = &viewJSON{Number: v.Number, From: v.From, Time: utc(v.Time), Reason: v.Reason, Mixed: membership.Mixed(v.Arithmetic)}
		for _, m := range v.Members {
			o.View.Trainers = append(o.View.Trainers, m.Node)
		}
	}
	if r := st.Round; r != nil {
		o.Changing = &roundJSON{Seconds: since(st, r.Since).Seconds(), Reason: r.Reason, Awaits: list(r.Awaits)}
	}
	for _, n := range st.Nodes {
		o.Nodes = append(o.Nodes, nodeObject(st, n))
	}
	o.Tables = tablesOf(st)
	for _, e := range st.Events {
		o.Events = append(o.Events, eventJSON{utc(e.Time), e.Kind, e.Node, e.View, e.Step, e.Text})
	}
	if f := st.Finish; f != nil {
		o.Finished = &finishJSON{Steps: f.Step, TestLoss: f.TestLoss, TestAUC: f.TestAuc, Digest: f.Digest, Failed: f.Failed}
		o.Finished.TestAccuracy, o.Finished.TestRSquared = node.Score(f.Regression, &f.TestAccuracy)
	}
	return o
}

func nodeObject(st *pb.Status, n *pb.NodeStatus) nodeJSON {
	o := nodeJSON{
		Node: n.Node, Addr: n.Addr, Server: n.Server, Trainer: n.Trainer, State: n.State, Session: n.Connected,
		View: n.View, Step: n.Step, LogicalShards: list(n.Shards), SamplesPerSecond: nodeRate(st, n),
		Leads: []leadJSON{}, Waits: []waitJSON{},
	}
	if c := n.Computer; c != nil {
		o.Device = &deviceJSON{c.Name, c.Cards, c.Used, c.Memory, n.Retired}
	}
	if n.Connected {
		heard := since(st, n.Heard).Seconds()
		o.HeardSeconds = &heard
	}
	for _, l := range n.Leads {
		o.Leads = append(o.Leads, leadJSON{l.Group, l.Term, list(l.Voters), list(l.Learners)})
	}
	for _, w := range n.Waits {
		o.Waits = append(o.Waits, waitJSON{
			What: w.What, Of: w.Of, Detail: w.Detail, On: w.On, Work: w.Work,
			Seconds: since(st, w.Since).Seconds(), UsualSeconds: time.Duration(w.Usual).Seconds(),
		})
	}
	return o
}

func utc(ns int64) time.Time { return time.Unix(0, ns).UTC() }

// list makes nil an empty list, which JSON tells from null.
func list[T any](s []T) []T {
	if s == nil {
		return []T{}
	}
	return s
}

func writeJSON(out io.Writer, o any) error {
	b, err := json.Marshal(o)
	if err != nil {
		return fmt.Errorf("JSON: %w", err)
	}
	_, err = fmt.Fprintf(out, "%s\n", b)
	return err
}
