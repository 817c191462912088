package why

import (
	"fmt"
	"slices"
	"strings"
	"time"

	pb "github.com/musterml/muster/proto"
)

// Answer is what a run waits for.
type Answer struct {
	Summary string // one sentence, without a full stop
	Late    bool   // something takes longer than it should
	Node    string // the node that the others wait for, "" if there is none
	Chain   []Link // who waits for whom, the cause last
	Remedy  string // what a person can do, "" where nothing needs to be done
}

// Link is one node's part in the chain.
type Link struct {
	Node   string
	What   string // "computing step 7", "the all-reduce of step 7"
	Detail string
	On     string // what it waits for; "" for work and where it is not known
	Work   bool   // it works, it does not wait
	For    time.Duration
	Usual  time.Duration // 0 when not known
	Heard  time.Duration // since its last report
}

// A node reports every 100 ms; one that is silent for so long is itself the news. One that has missed a report may stand
// still, and does not say what it waits for now.
const (
	silentAfter = 300 * time.Millisecond
	missedAfter = 200 * time.Millisecond
)

// Explain says what the run waits for.
func Explain(st *pb.Status) Answer {
	switch {
	case st.Finish.GetFailed() != "":
		return Answer{Summary: fmt.Sprintf("the run ended at step %d: %s", st.Finish.Step, st.Finish.Failed), Late: true,
			Remedy: "mend the cause, and start the nodes anew"}
	case st.Finish != nil:
		return Answer{Summary: fmt.Sprintf("all %d steps are done; the nodes save their outputs and leave", st.Steps)}
	case st.Run == "":
		return unfounded(st)
	case st.Error != "":
		return leaderless(st)
	case st.Round != nil:
		return changing(st)
	case len(st.View.GetMembers()) == 0:
		return Answer{Summary: "the run is founded, but has no trainer yet", Late: true,
			Remedy: "start a node with --roles trainer or server,trainer"}
	}
	return steady(st)
}

// unfounded is a run that has not begun; gossip tells who is here.
func unfounded(st *pb.Status) Answer {
	servers, trainers := names(st, (*pb.NodeStatus).GetServer), names(st, (*pb.NodeStatus).GetTrainer)
	here := fmt.Sprintf("%d of %d servers are here", len(servers), st.ServersWanted)
	if len(servers) > 0 {
		here += " (" + strings.Join(servers, ", ") + ")"
	}
	a := Answer{Late: true}
	missing := int(st.ServersWanted) - len(servers)
	seeds := ""
	for _, w := range node(st, st.AnsweredBy).GetWaits() {
		if w.What == "a seed to answer" {
			seeds = fmt.Sprintf("; none of the seeds %s has answered for %s", w.On, Seconds(age(st, w.Since)))
		}
	}
	switch {
	case seeds != "":
		a.Summary = "the run is not founded: " + here + seeds
		a.Remedy = "start the nodes at these addresses, or correct --join"
	case missing > 0:
		a.Summary = "the run is not founded: " + here
		a.Remedy = fmt.Sprintf("start %s with the role server, and --join %s", count(missing, "more node"), someAddr(st))
	case len(trainers) == 0:
		a.Summary = "the run is not founded: " + here + ", but no trainer"
		a.Remedy = fmt.Sprintf("start a node with the role trainer, and --join %s", someAddr(st))
	default:
		a.Summary, a.Late = "the run is being founded: "+here, false
	}
	return a
}

// leaderless is a run whose coordinator does not answer; gossip tells who is here.
func leaderless(st *pb.Status) Answer {
	var alive, missing []string
	for _, n := range st.Nodes {
		switch {
		case !slices.ContainsFunc(st.Servers, func(s *pb.Replica) bool { return s.Node == n.Node }):
		case n.State == "alive":
			alive = append(alive, n.Node)
		default:
			missing = append(missing, n.Node)
		}
	}
	a := Answer{Late: true}
	need := len(st.Servers)/2 + 1
	if len(alive) < need {
		a.Summary = fmt.Sprintf("the coordinator has no majority: %d of %d servers are here (%s), %d are needed; missing: %s",
			len(alive), len(st.Servers), strings.Join(alive, ", "), need, strings.Join(missing, ", "))
		a.Remedy = "if only the network has failed, the run goes on when they are back; if their processes are gone, so is the run's state (cluster.durability memory): start the run anew"
		return a
	}
	if st.Coordinator != "" {
		a.Node = st.Coordinator
		a.Summary = fmt.Sprintf("the coordinator's leader %s does not answer; the servers (%s) elect another within a second", a.Node, strings.Join(alive, ", "))
		return a
	}
	a.Summary = fmt.Sprintf("the coordinator has had no leader for %s; the servers (%s) are electing one", Seconds(time.Duration(st.Leaderless)), strings.Join(alive, ", "))
	return a
}

// changing is a run between two views.
func changing(st *pb.Status) Answer {
	r := st.Round
	a := Answer{Late: age(st, r.Since) > time.Second}
	a.Summary = fmt.Sprintf("view %d is ending since %s, because %s", st.View.GetNumber(), Seconds(age(st, r.Since)), r.Reason)
	if st.View == nil {
		a.Summary = "the first view is being agreed"
	}
	var waits []string
	for _, name := range r.Awaits {
		a.Node = name
		waits = append(waits, fmt.Sprintf("%s (%s)", name, heard(st, node(st, name))))
	}
	switch {
	case len(waits) > 0:
		a.Summary += "; it waits for the word of " + strings.Join(waits, ", ")
	case len(names(st, (*pb.NodeStatus).GetTrainer)) == 0:
		a.Late, a.Remedy = true, "start a node with the role trainer"
		a.Summary += "; no trainer is left"
	default:
		a.Summary += "; the next one is being agreed"
	}
	return a
}

// steady is a run in a view: the chain of waits within it.
func steady(st *pb.Status) Answer {
	chain := follow(st)
	last := chain[len(chain)-1]
	n := node(st, last.Node)
	a := Answer{Chain: chain, Node: last.Node}
	if group := missingLeader(st); last.On == "servers" && group != "" {
		a.Late, a.Node = true, ""
		a.Summary = fmt.Sprintf("%s waits for the parameter servers: %s has no leader; its replicas are electing one", stepOf(st), group)
		return a
	}
	silent := last.Heard > silentAfter
	slow := slices.ContainsFunc(chain, tooLong) // a node that has stopped says nothing new, but who waits for it does
	a.Late = silent || slow
	doing := clause(last)
	switch {
	case !n.GetConnected():
		a.Late = true
		a.Summary = fmt.Sprintf("%s waits for %s, which is %s", stepOf(st), who(n, last.Node), doing)
	case last.On == "coordinator" && !silent:
		a.Summary = fmt.Sprintf("%s waits for the coordinator: %s is %s", stepOf(st), last.Node, doing)
	case last.On == "servers" && slow && last.Heard < missedAfter:
		a.Summary = fmt.Sprintf("%s waits for the parameter servers: %s is %s", stepOf(st), last.Node, doing)
	case !a.Late:
		if s := straggler(st); s != nil {
			a.Late, a.Node = true, s.node.Node
			a.Summary = fmt.Sprintf("%s, as every step lately, waits for %s: %s", stepOf(st), s.what, s.why)
			a.Remedy = s.remedy
			break
		}
		a.Summary = fmt.Sprintf("nothing is late: %s is under way; %s is %s", stepOf(st), last.Node, doing)
	case silent:
		a.Summary = fmt.Sprintf("%s waits for %s, of which nothing has been heard for %s; it was %s", stepOf(st), who(n, last.Node), Seconds(last.Heard), doing)
		a.Remedy = "look at that host; a process that stays silent is left out by itself within two seconds"
	default:
		a.Summary = fmt.Sprintf("%s waits for %s: %s; last heard %s ago", stepOf(st), who(n, last.Node), doing, Seconds(last.Heard))
	}
	return a
}

// tooLong says whether a link lasts so much longer than it does usually that something is wrong.
func tooLong(l Link) bool {
	if l.Usual == 0 {
		return l.For > time.Second/2
	}
	return l.For > 150*time.Millisecond && l.For > 3*l.Usual
}

// follow goes from a node that waits to the one it waits for, until one works, is
// silent, or waits for something that is no node. Reports of different moments may form
// a circle; it ends at the node that is furthest behind.
func follow(st *pb.Status) []Link {
	name := begin(st)
	var chain []Link
	for {
		l := link(st, name)
		chain = append(chain, l)
		next := cause(st, l)
		if next == nil || l.Heard > silentAfter {
			return chain
		}
		if i := slices.IndexFunc(chain, func(l Link) bool { return l.Node == next.Node }); i >= 0 {
			circle := chain[i:]
			behind := slices.MinFunc(circle, func(a, b Link) int { return compare(st, a.Node, b.Node) })
			for chain[len(chain)-1].Node != behind.Node {
				chain = chain[:len(chain)-1]
			}
			return chain
		}
		name = next.Node
	}
}

// cause is the node that a link waits for, nil where it is none that is known.
func cause(st *pb.Status, l Link) *pb.NodeStatus {
	if n := node(st, l.On); n != nil {
		return n
	}
	switch l.On {
	case "ring": // it does not form: because of the member furthest behind, if one is
		var names []string
		for _, m := range st.View.Members {
			names = append(names, m.Node)
		}
		last := slices.MinFunc(names, func(a, b string) int { return compare(st, a, b) })
		n := node(st, last)
		if last != l.Node && (n.GetView() < st.View.Number || age(st, n.GetHeard()) > silentAfter) {
			return n
		}
	case "servers": // the one that was asked, if it is silent
		for _, n := range st.Nodes {
			if n.Node != l.Node && strings.Contains(l.Detail, "asked "+n.Node) && (!n.Connected || age(st, n.Heard) > silentAfter) {
				return n
			}
		}
	}
	return nil
}

// begin is the member that has waited longest, of those that are heard, or else any.
func begin(st *pb.Status) string {
	first, since := st.View.Members[0].Node, int64(0)
	for _, m := range st.View.Members {
		n := node(st, m.Node)
		if age(st, n.GetHeard()) > silentAfter {
			continue
		}
		for _, w := range n.GetWaits() {
			if !w.Work && (since == 0 || w.Since < since) {
				first, since = m.Node, w.Since
			}
		}
	}
	return first
}

// compare orders nodes by how far they are behind.
func compare(st *pb.Status, a, b string) int {
	x, y := node(st, a), node(st, b)
	switch {
	case x.GetView() != y.GetView():
		return int(int64(x.GetView()) - int64(y.GetView()))
	case x.GetStep() != y.GetStep():
		return int(int64(x.GetStep()) - int64(y.GetStep()))
	}
	return int(x.GetHeard() - y.GetHeard())
}

// link is what a node does: of several waits the one for another node counts, then the
// one for the servers, then its work.
func link(st *pb.Status, name string) Link {
	n := node(st, name)
	l := Link{Node: name, Heard: age(st, n.GetHeard())}
	if !n.GetConnected() {
		l.What, l.Heard = absent(n), 0
		return l
	}
	rank := func(w *pb.Wait) int {
		switch {
		case node(st, w.On) != nil && w.On != name:
			return 0
		case w.On == "servers":
			return 1
		case w.Work:
			return 2
		}
		return 3
	}
	if len(n.Waits) == 0 {
		l.What, l.Work = "between two operations", true
		return l
	}
	w := slices.MinFunc(n.Waits, func(a, b *pb.Wait) int { return rank(a) - rank(b) })
	l.What, l.Detail, l.On, l.Work = w.What, w.Detail, w.On, w.Work
	for _, n := range st.Nodes { // people know nodes by their names
		if n.Addr != "" {
			l.Detail = strings.ReplaceAll(l.Detail, n.Addr, n.Node)
		}
	}
	if w.Of != "" {
		l.What += " of " + w.Of
		if w.Work {
			l.What = w.What + " " + w.Of
		}
	}
	l.For, l.Usual = age(st, w.Since), time.Duration(w.Usual)
	return l
}

// missingLeader names a parameter shard that no node says it leads, "" if there is none.
func missingLeader(st *pb.Status) string {
	for i := range st.ParameterShards {
		group := fmt.Sprintf("shard-%d", i)
		led := slices.ContainsFunc(st.Nodes, func(n *pb.NodeStatus) bool {
			return slices.ContainsFunc(n.Leads, func(l *pb.Lead) bool { return l.Group == group })
		})
		if !led {
			return group
		}
	}
	return ""
}
