package why

import (
	"cmp"
	"fmt"
	"slices"

	pb "github.com/musterml/muster/proto"
)

// A ring is as fast as its slowest way. Whoever sends over that has something on the way all the time, and it arrives slowly; what
// the others send waits for it, and arrives at once.

const (
	busyMuch  = 0.3 // of the time; with less the network holds up nobody
	slowRate  = 0.5 // of that of the others
	leastWays = 3   // there must be others to compare with, and not only the way back
)

// slowNetwork finds what part of the network the members wait for at every step, nil where none is slower than the others: a
// way, or where it is both that to a host and that from it, the host's link.
func slowNetwork(members []*pb.NodeStatus) *lagging {
	ways := slices.DeleteFunc(slices.Clone(members), func(n *pb.NodeStatus) bool { return n.GetWay().GetRate() == 0 })
	if len(ways) < leastWays {
		return nil
	}
	slices.SortStableFunc(ways, func(a, b *pb.NodeStatus) int { return cmp.Compare(a.Way.Rate, b.Way.Rate) })
	from := ways[0]
	usual := ways[1+(len(ways)-1)/2].Way.Rate
	slow := func(n *pb.NodeStatus) bool { return n.Way.Busy > busyMuch && n.Way.Rate < slowRate*usual }
	if !slow(from) {
		return nil
	}
	l := &lagging{
		node: from, what: fmt.Sprintf("the network from %s to %s", from.Node, from.Way.To),
		why:    fmt.Sprintf("it carries %s, other ways of the ring %s", rate(from.Way.Rate), rate(usual)),
		remedy: fmt.Sprintf("look at the links of %s and %s: speed (ethtool), errors, who else uses them, the switches between", from.Node, from.Way.To),
	}
	for _, n := range members {
		to := func(m *pb.NodeStatus) bool { return m.Way.To == n.Node && slow(m) }
		if slices.ContainsFunc(ways, to) && slices.Contains(ways, n) && slow(n) {
			l.node, l.what = n, "the network of "+n.Node
			l.remedy = fmt.Sprintf("look at the link of %s: speed (ethtool), errors, who else uses it", n.Node)
			break
		}
	}
	return l
}

// rate is a number of bytes per second as links are named.
func rate(bytes float64) string { return fmt.Sprintf("%.0f Mb/s", 8*bytes/1e6) }
