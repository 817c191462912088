package why

import (
	"fmt"
	"slices"
	"strings"
	"time"

	pb "github.com/musterml/muster/proto"
)

// String is the link as a line: "node-a waits for node-b: ...".
func (l Link) String() string {
	if l.Work || l.On == "" {
		return l.Node + " is " + clause(l)
	}
	return fmt.Sprintf("%s waits for %s: %s", l.Node, l.On, strings.TrimPrefix(clause(l), "waiting for "))
}

// clause says what a node does and for how long, fit to stand after "is".
func clause(l Link) string {
	text := l.What
	if !l.Work && l.For > 0 {
		text = "waiting for " + text
	}
	if l.Detail != "" {
		text += " (" + l.Detail + ")"
	}
	if l.For > 0 {
		text += " for " + Seconds(l.For)
	}
	if l.Usual > 0 {
		text += ", usually " + Seconds(l.Usual)
	}
	return text
}

// who names a node with the logical shards that wait with it.
func who(n *pb.NodeStatus, name string) string {
	if len(n.GetShards()) == 0 {
		return name
	}
	shards := make([]string, len(n.Shards))
	for i, s := range n.Shards {
		shards[i] = fmt.Sprint(s)
	}
	return fmt.Sprintf("%s (logical shards %s)", name, strings.Join(shards, ", "))
}

// absent says what is known of a node without a session.
func absent(n *pb.NodeStatus) string {
	if n.GetState() == "alive" {
		return "without a session with the coordinator's leader"
	}
	return "gone"
}

func stepOf(st *pb.Status) string {
	if st.Step >= st.Steps {
		return "the end of the run"
	}
	return fmt.Sprintf("step %d of %d", st.Step, st.Steps)
}

func heard(st *pb.Status, n *pb.NodeStatus) string {
	if !n.GetConnected() {
		return absent(n)
	}
	return "last heard " + Seconds(age(st, n.GetHeard())) + " ago"
}

// node finds a node by name, nil when there is none.
func node(st *pb.Status, name string) *pb.NodeStatus {
	i := slices.IndexFunc(st.Nodes, func(n *pb.NodeStatus) bool { return n.Node == name })
	if i < 0 || name == "" {
		return nil
	}
	return st.Nodes[i]
}

// names lists the nodes of a role that gossip has not lost.
func names(st *pb.Status, role func(*pb.NodeStatus) bool) []string {
	var out []string
	for _, n := range st.Nodes {
		if role(n) && n.State != "gone" {
			out = append(out, n.Node)
		}
	}
	return out
}

func someAddr(st *pb.Status) string {
	if n := node(st, st.AnsweredBy); n != nil {
		return n.Addr
	}
	return "the address of a node that is here"
}

func age(st *pb.Status, at int64) time.Duration { return max(0, time.Duration(st.Time-at)) }

// Seconds prints a duration with two digits that count, or whole seconds.
func Seconds(d time.Duration) string {
	switch s := d.Seconds(); {
	case s >= 10:
		return fmt.Sprintf("%.0f s", s)
	case s >= 1:
		return fmt.Sprintf("%.1f s", s)
	case s >= 0.1:
		return fmt.Sprintf("%.2f s", s)
	default:
		return fmt.Sprintf("%.3f s", s)
	}
}

func count(n int, what string) string {
	if n == 1 {
		return "one " + what
	}
	return fmt.Sprintf("%d %ss", n, what)
}
