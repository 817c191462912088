package why

import (
	"strings"
	"testing"
	"time"

	pb "github.com/musterml/muster/proto"
)

const now = int64(time.Hour)

func ago(d time.Duration) int64 { return now - int64(d) }

// three is a run of three nodes in view 2 at step 42, each computing.
func three() *pb.Status {
	st := &pb.Status{
		Run: "digits-1", Job: "digits", Step: 42, Steps: 235, Time: now, Coordinator: "a", AnsweredBy: "a",
		ServersWanted: 3, ParameterShards: 2, LogicalShards: 8, Batch: 256,
		View: &pb.View{Number: 2, From: 3, Time: ago(time.Second)},
	}
	for i, name := range []string{"a", "b", "c"} {
		st.Servers = append(st.Servers, &pb.Replica{Node: name})
		st.View.Members = append(st.View.Members, &pb.Member{Node: name, Shards: []uint32{uint32(2 * i), uint32(2*i + 1)}})
		st.Nodes = append(st.Nodes, &pb.NodeStatus{
			Node: name, Addr: "10.0.0." + name + ":7400", Server: true, Trainer: true, State: "alive", Connected: true,
			View: 2, Step: 42, Heard: ago(50 * time.Millisecond), Shards: st.View.Members[i].Shards,
			Waits: []*pb.Wait{computing(20 * time.Millisecond)},
		})
	}
	st.Nodes[0].Leads = []*pb.Lead{{Group: "coordinator"}, {Group: "shard-0"}}
	st.Nodes[1].Leads = []*pb.Lead{{Group: "shard-1"}}
	return st
}

func computing(d time.Duration) *pb.Wait {
	return &pb.Wait{What: "computing", Of: "step 42", Work: true, Since: ago(d), Usual: int64(300 * time.Millisecond)}
}

func reduce(on string, d time.Duration) *pb.Wait {
	return &pb.Wait{What: "the all-reduce", Of: "step 42", On: on, Detail: "for it to begin", Since: ago(d), Usual: int64(time.Millisecond)}
}

// ways gives the ring a to b to c such rates; all are in use.
func ways(st *pb.Status, rates ...float64) {
	for i, r := range rates {
		st.Nodes[i].Way = &pb.Way{To: st.Nodes[(i+1)%len(rates)].Node, Busy: 0.6, Rate: r}
	}
}

func TestExplain(t *testing.T) {
	tests := []struct {
		name   string
		change func(*pb.Status)
		want   string // the summary begins so
		node   string
		chain  string // nodes
		late   bool
		remedy bool
	}{
		{"all is well", func(*pb.Status) {}, "nothing is late: step 42 of 235 is under way; a is computing step 42 for 0.020 s, usually 0.30 s", "a", "a", false, false},
		{"a slow node is found through another", func(st *pb.Status) {
			st.Nodes[0].Waits = []*pb.Wait{reduce("b", 3900*time.Millisecond)}
			st.Nodes[1].Waits = []*pb.Wait{reduce("c", 3800*time.Millisecond)}
			st.Nodes[2].Waits = []*pb.Wait{computing(4100 * time.Millisecond)}
		}, "step 42 of 235 waits for c (logical shards 4, 5): computing step 42 for 4.1 s, usually 0.30 s; last heard 0.050 s ago", "c", "a b c", true, false},
		{"a stopped node, whose last report points back", func(st *pb.Status) {
			st.Nodes[0].Waits = []*pb.Wait{reduce("c", 400*time.Millisecond)}
			st.Nodes[2].Waits = []*pb.Wait{reduce("a", 420*time.Millisecond)}
			st.Nodes[2].Heard = ago(400 * time.Millisecond)
		}, "step 42 of 235 waits for c (logical shards 4, 5), of which nothing has been heard for 0.40 s; it was waiting for the all-reduce of step 42", "c", "a c", true, true},
		{"a stopped node, before it is silent", func(st *pb.Status) {
			st.Nodes[0].Waits = []*pb.Wait{reduce("c", 250*time.Millisecond)}
			st.Nodes[2].Waits = nil
			st.Nodes[2].Heard = ago(250 * time.Millisecond)
		}, "step 42 of 235 waits for c (logical shards 4, 5): between two operations; last heard 0.25 s ago", "c", "a c", true, false},
		{"a node that is always slow", func(st *pb.Status) {
			for i, n := range st.Nodes {
				n.Computing = int64([]time.Duration{20, 400, 30}[i] * time.Millisecond)
			}
		}, "step 42 of 235, as every step lately, waits for b (logical shards 2, 3): computing takes it 0.40 s a step, the others 0.020 s", "b", "a", true, true},
		{"one that has more to do", func(st *pb.Status) {
			for i, n := range st.Nodes {
				n.Computing = int64([]time.Duration{20, 60, 20}[i] * time.Millisecond)
			}
			st.Nodes[1].Shards = []uint32{2, 3, 6, 7}
		}, "nothing is late", "a", "a", false, false},
		{"a process that gets no processor", func(st *pb.Status) {
			for i, n := range st.Nodes {
				n.Still = []float64{0.01, 0.02, 0.61}[i]
			}
		}, "step 42 of 235, as every step lately, waits for c (logical shards 4, 5): its process stood still for 61 % of the last seconds", "c", "a", true, true},
		{"a host on which all stand still", func(st *pb.Status) {
			for _, n := range st.Nodes {
				n.Still = 0.5
			}
		}, "nothing is late", "a", "a", false, false},
		{"a host with a slow link", func(st *pb.Status) { ways(st, 12e6, 11e6, 500e6) },
			"step 42 of 235, as every step lately, waits for the network of b: it carries 88 Mb/s, other ways of the ring 4000 Mb/s", "b", "a", true, true},
		{"a slow way", func(st *pb.Status) { ways(st, 450e6, 500e6, 11e6) },
			"step 42 of 235, as every step lately, waits for the network from c to a: it carries 88 Mb/s, other ways of the ring 4000 Mb/s", "c", "a", true, true},
		{"a slow way that little is sent over", func(st *pb.Status) {
			ways(st, 450e6, 500e6, 11e6)
			st.Nodes[2].Way.Busy = 0.1
		}, "nothing is late", "a", "a", false, false},
		{"a network that is slow everywhere", func(st *pb.Status) { ways(st, 12e6, 11e6, 10e6) }, "nothing is late", "a", "a", false, false},
		{"a way with nothing to compare it with", func(st *pb.Status) {
			ways(st, 12e6, 500e6, 0)
			st.Nodes[2].Way = nil // it goes through memory
		}, "nothing is late", "a", "a", false, false},
		{"a circle of reports ends at the node furthest behind", func(st *pb.Status) {
			st.Nodes[0].Waits = []*pb.Wait{reduce("b", 2*time.Millisecond)}
			st.Nodes[1].Waits = []*pb.Wait{reduce("a", 3*time.Millisecond)}
			st.Nodes[1].Step = 41
		}, "nothing is late: step 42 of 235 is under way; b is waiting for the all-reduce of step 42 (for it to begin) for 0.003 s", "b", "b", false, false},
		{"a ring that does not form, because of a member that has not heard of the view", func(st *pb.Status) {
			st.Nodes[1].Waits = []*pb.Wait{{What: "the ring", Of: "view 2", On: "ring", Since: ago(2 * time.Second)}}
			st.Nodes[0].Waits = []*pb.Wait{{What: "the ring", Of: "view 2", On: "ring", Since: ago(time.Second)}}
			st.Nodes[2].View, st.Nodes[2].Waits = 1, []*pb.Wait{computing(time.Second)}
		}, "step 42 of 235 waits for c (logical shards 4, 5): computing step 42 for 1.0 s", "c", "b c", true, false},
		{"a shard without a leader", func(st *pb.Status) {
			st.Nodes[1].Leads = nil
			st.Nodes[0].Waits = []*pb.Wait{{What: "the update by the servers", Of: "step 42", On: "servers", Since: ago(time.Second)}}
		}, "step 42 of 235 waits for the parameter servers: shard-1 has no leader", "", "a", true, false},
		{"a silent server", func(st *pb.Status) {
			st.Nodes[0].Waits = []*pb.Wait{{What: "the update by the servers", Of: "step 42", On: "servers", Detail: "push on shard-1, asked 10.0.0.b:7400", Since: ago(time.Second)}}
			st.Nodes[1].Heard = ago(time.Second)
		}, "step 42 of 235 waits for b (logical shards 2, 3), of which nothing has been heard for 1.0 s", "b", "a b", true, true},
		{"a new leader that has not met a member yet", func(st *pb.Status) {
			st.Nodes[0].Connected = false
		}, "step 42 of 235 waits for a (logical shards 0, 1), which is without a session with the coordinator's leader", "a", "a", true, false},
		{"a server that is gone", func(st *pb.Status) {
			st.Nodes[0].Waits = []*pb.Wait{{What: "the update by the servers", Of: "step 42", On: "servers", Detail: "push on shard-1, asked 10.0.0.b:7400", Since: ago(time.Second)}}
			st.Nodes[1].Connected, st.Nodes[1].State, st.Nodes[1].Shards = false, "gone", nil
		}, "step 42 of 235 waits for b, which is gone", "b", "a b", true, false},
		{"a view that ends", func(st *pb.Status) {
			st.Round = &pb.Round{Since: ago(200 * time.Millisecond), Reason: "a says of c: no sign of life", Awaits: []string{"c"}}
			st.Nodes[2].Heard = ago(700 * time.Millisecond)
		}, "view 2 is ending since 0.20 s, because a says of c: no sign of life; it waits for the word of c (last heard 0.70 s ago)", "c", "", false, false},
		{"one server is missing before the founding", func(st *pb.Status) {
			unfound(st)
			st.Nodes = st.Nodes[:2]
		}, "the run is not founded: 2 of 3 servers are here (a, b)", "", "", true, true},
		{"alone", func(st *pb.Status) {
			unfound(st)
			st.Nodes = st.Nodes[:1]
			st.Nodes[0].Waits = []*pb.Wait{{What: "a seed to answer", On: "10.0.0.b:7400", Since: ago(12 * time.Second)}}
		}, "the run is not founded: 1 of 3 servers are here (a); none of the seeds 10.0.0.b:7400 has answered for 12 s", "", "", true, true},
		{"no trainer", func(st *pb.Status) {
			unfound(st)
			for _, n := range st.Nodes {
				n.Trainer = false
			}
		}, "the run is not founded: 3 of 3 servers are here (a, b, c), but no trainer", "", "", true, true},
		{"an election", func(st *pb.Status) {
			st.Error, st.View, st.Coordinator, st.Leaderless = "no leader", nil, "", int64(200*time.Millisecond)
		}, "the coordinator has had no leader for 0.20 s; the servers (a, b, c) are electing one", "", "", true, false},
		{"a leader that has stopped", func(st *pb.Status) {
			st.Error, st.View, st.Coordinator = "timeout", nil, "c"
		}, "the coordinator's leader c does not answer", "c", "", true, false},
		{"no majority", func(st *pb.Status) {
			st.Error, st.View, st.Coordinator = "no leader", nil, ""
			st.Nodes[1].State, st.Nodes[2].State = "gone", "suspect"
		}, "the coordinator has no majority: 1 of 3 servers are here (a), 2 are needed; missing: b, c", "", "", true, true},
		{"the end", func(st *pb.Status) { st.Finish = &pb.Finish{Step: 235} }, "all 235 steps are done", "", "", false, false},
		{"a failure", func(st *pb.Status) { st.Finish = &pb.Finish{Step: 7, Failed: "training diverged"} }, "the run ended at step 7: training diverged", "", "", true, true},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			st := three()
			test.change(st)
			a := Explain(st)
			var chain []string
			for _, l := range a.Chain {
				chain = append(chain, l.Node)
			}
			if !strings.HasPrefix(a.Summary, test.want) || a.Node != test.node || a.Late != test.late ||
				strings.Join(chain, " ") != test.chain || (a.Remedy != "") != test.remedy {
				t.Errorf("got %+v\nwant %+v", a, test)
			}
		})
	}
}

// unfound makes it a cluster whose run has not begun.
func unfound(st *pb.Status) {
	st.Run, st.View, st.Coordinator, st.Servers, st.Error = "", nil, "", nil, "the run is not founded yet"
	for _, n := range st.Nodes {
		n.Connected, n.Waits = false, nil
	}
}
