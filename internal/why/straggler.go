package why

import (
	"cmp"
	"fmt"
	"slices"
	"time"

	pb "github.com/musterml/muster/proto"
)

// A member that is always slow is not late by its own measure. It is by that of the others: they wait for it at every
// step, and the run is as slow as it is.

// lagging is a member that holds up the others all the time, or the network at it.
type lagging struct {
	node              *pb.NodeStatus
	what, why, remedy string
}

const (
	stillMuch = 0.2 // of the time, more than the others
	slowly    = 2   // times as long for a logical shard
	slowLeast = 5 * time.Millisecond
)

// straggler finds what the members wait for at every step, nil where there is nothing. Where trainers are at different
// steps (modes ssp and async) nobody waits for each of them.
func straggler(st *pb.Status) *lagging {
	if n := len(st.Metrics); n > 0 && st.Metrics[n-1].Staleness != nil {
		return nil
	}
	var members []*pb.NodeStatus
	for _, m := range st.View.Members {
		if n := node(st, m.Node); n.GetConnected() && len(n.Shards) > 0 {
			members = append(members, n)
		}
	}
	if len(members) < 2 {
		return nil
	}
	still, others := most(members, (*pb.NodeStatus).GetStill)
	if s := still.Still; s > stillMuch+others {
		return &lagging{still, who(still, still.Node), fmt.Sprintf("its process stood still for %.0f %% of the last seconds", 100*s),
			"look at that host: a quota, or other programs, take its processors, or somebody stops the process; without it the others compute its logical shards"}
	}
	whole := func(n *pb.NodeStatus) float64 { return float64(n.Computing) }
	perShard := func(n *pb.NodeStatus) float64 { return whole(n) / float64(len(n.Shards)) }
	slow, each := most(members, perShard)
	last, usual := most(members, whole)
	if slow == last && each > 0 && perShard(slow) > slowly*each && whole(slow)-usual > float64(slowLeast) {
		return &lagging{slow, who(slow, slow.Node), fmt.Sprintf("computing takes it %s a step, the others %s", Seconds(time.Duration(slow.Computing)), Seconds(time.Duration(usual))),
			"look at that host: its processors are slower, or busy with other programs; without it the others compute its logical shards"}
	}
	return slowNetwork(members)
}

// most finds who has most of something, and what the others have: their median.
func most(members []*pb.NodeStatus, of func(*pb.NodeStatus) float64) (first *pb.NodeStatus, others float64) {
	byMost := slices.SortedStableFunc(slices.Values(members), func(a, b *pb.NodeStatus) int { return cmp.Compare(of(b), of(a)) })
	rest := byMost[1:]
	return byMost[0], of(rest[len(rest)/2])
}
