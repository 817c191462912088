package membership

import (
	"strings"
	"testing"
	"time"

	pb "github.com/musterml/muster/proto"
)

// A node of a run that was founded apart is named once, and its state says where it is.
func TestElsewhere(t *testing.T) {
	stranger := Peer{Node: "b", Alive: true, Meta: &pb.NodeMeta{Incarnation: "1", Addr: "b:1", Run: "two-2", Trainer: true}}
	now := time.Now()
	d := newDirector(now, &pb.RunState{Founding: &pb.Founding{Run: "two-1"}}, 8, true, ServerQuota{}, defaultTiming())
	told := 0
	for range 3 {
		now = now.Add(20 * time.Millisecond)
		for _, action := range d.step(now, evTick{trainers: 1, elsewhere: []Peer{stranger}}) {
			if p, ok := action.(doPropose); ok {
				for _, e := range p.entry.Events {
					if told++; e.Kind != "elsewhere" || !strings.Contains(e.Text, "b at b:1 takes part in another run, two-2") {
						t.Errorf("event %v", e)
					}
				}
			}
		}
	}
	if told != 1 {
		t.Errorf("told %d times, want once", told)
	}

	for run, want := range map[string]string{"two-1": "in run two-2", "two-2": "alive", "": "alive"} {
		st := &pb.Status{Run: run}
		AddGossip(st, []Peer{stranger})
		if got := st.Nodes[0].State; got != want {
			t.Errorf("in run %q b is %q, want %q", run, got, want)
		}
	}
}
