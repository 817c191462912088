package membership

import (
	"slices"
	"strings"

	"github.com/musterml/muster/internal/id"
	pb "github.com/musterml/muster/proto"
)

// View is the agreed membership of the run: which trainers compute which logical
// shards, in ring order, from which step on. A View is immutable; a change makes a
// new one with the next number, agreed through the coordinator's Raft group.
type View struct {
	Number  id.View
	From    id.Step // the first step done in this view
	Members []Member
	Reason  string // why the view before it ended

	// What all members have in common; a trainer that differs is refused. Of fast sums Arithmetic may differ, and is all there are.
	Arithmetic string // class of their kernels
	Data       []byte // identity of their samples
}

// Member is one trainer of a view.
type Member struct {
	Node        id.Node
	Incarnation id.Incarnation
	Addr        string
	Shards      []id.LogicalShard // ascending; every logical shard has exactly one owner
	Holder      bool              // it holds the state at step From; others fetch it before they compute
}

// mixedBy stands between several arithmetics.
const mixedBy = ", "

// Mixed is the arithmetics of a view whose trainers have more than one, "" where they have one.
func (v View) Mixed() string { return Mixed(v.Arithmetic) }

// Mixed is Arithmetic if it is several.
func Mixed(arithmetic string) string {
	if !strings.Contains(arithmetic, mixedBy) {
		return ""
	}
	return arithmetic
}

// Rank returns the place of a node's life in the ring, -1 when it is not in the view.
func (v View) Rank(node id.Node, inc id.Incarnation) int {
	return slices.IndexFunc(v.Members, func(m Member) bool {
		return m.Node == node && m.Incarnation == inc
	})
}

// member returns the member of that name, nil when there is none.
func (v View) member(node id.Node) *Member {
	for i := range v.Members {
		if v.Members[i].Node == node {
			return &v.Members[i]
		}
	}
	return nil
}

// assign spreads the logical shards evenly over the members, in ring order, and
// moves as few as it can: a member keeps what it computed before, up to its share,
// because it may hold those gradients of the interrupted step already.
func assign(members []Member, shards int) {
	quota := func(rank int) int {
		q := shards / len(members)
		if rank < shards%len(members) {
			q++
		}
		return q
	}
	owned := make([]bool, shards)
	for i := range members {
		m := &members[i]
		m.Shards = slices.Clone(m.Shards[:min(len(m.Shards), quota(i))])
		for _, s := range m.Shards {
			owned[s] = true
		}
	}
	next := 0
	for i := range members {
		m := &members[i]
		for len(m.Shards) < quota(i) {
			for owned[next] {
				next++
			}
			owned[next] = true
			m.Shards = append(m.Shards, id.LogicalShard(next))
		}
		slices.Sort(m.Shards)
	}
}

func viewFromProto(p *pb.View) View {
	v := View{Number: id.View(p.GetNumber()), From: id.Step(p.GetFrom()), Reason: p.GetReason(),
		Arithmetic: p.GetArithmetic(), Data: p.GetData()}
	for _, m := range p.GetMembers() {
		member := Member{
			Node: id.Node(m.Node), Incarnation: id.Incarnation(m.Incarnation),
			Addr: m.Addr, Holder: m.Holder,
		}
		for _, s := range m.Shards {
			member.Shards = append(member.Shards, id.LogicalShard(s))
		}
		v.Members = append(v.Members, member)
	}
	return v
}

func (v View) proto() *pb.View {
	p := &pb.View{Number: uint64(v.Number), From: uint64(v.From), Reason: v.Reason, Arithmetic: v.Arithmetic, Data: v.Data}
	for _, m := range v.Members {
		member := &pb.Member{
			Node: string(m.Node), Incarnation: string(m.Incarnation), Addr: m.Addr, Holder: m.Holder,
		}
		for _, s := range m.Shards {
			member.Shards = append(member.Shards, uint32(s))
		}
		p.Members = append(p.Members, member)
	}
	return p
}
