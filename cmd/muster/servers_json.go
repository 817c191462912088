package main

import (
	"encoding/hex"
	"slices"
	"strings"
	"time"

	"github.com/musterml/muster/membership"
	pb "github.com/musterml/muster/proto"
)

// serversJSON is what "muster servers --json" prints; docs/operations.md describes it.
type serversJSON struct {
	Cluster    string       `json:"cluster"`
	Run        string       `json:"run"`
	AnsweredBy string       `json:"answered_by"`
	Time       time.Time    `json:"time"`
	Error      string       `json:"error,omitempty"`
	Step       uint64       `json:"step"`
	Groups     []groupJSON  `json:"groups"`
	Servers    []serverJSON `json:"servers"`
}

type groupJSON struct {
	Group    string        `json:"group"`
	Leader   string        `json:"leader"`
	Term     uint64        `json:"term"`
	Healthy  bool          `json:"healthy"`
	Replicas []replicaJSON `json:"replicas"`
}

type replicaJSON struct {
	Server      string  `json:"server"`
	Role        string  `json:"role"` // leader, voter, learner, or - of one that is not in the group
	Term        uint64  `json:"term"`
	State       string  `json:"state"`
	Healthy     bool    `json:"healthy"`
	Answers     bool    `json:"answers"`
	Applied     uint64  `json:"applied"`
	LagEntries  uint64  `json:"lag_entries"`
	LagBytes    int64   `json:"lag_bytes"`
	Bytes       int64   `json:"bytes"`
	Step        *uint64 `json:"step,omitempty"` // the newest that every block holds
	DigestEntry uint64  `json:"digest_entry,omitempty"`
	DigestStep  uint64  `json:"digest_step,omitempty"`
	Digest      string  `json:"digest,omitempty"`
}

type serverJSON struct {
	Server string   `json:"server"`
	Addr   string   `json:"addr"`
	State  string   `json:"state"` // serving, spare, draining, drained, joining, gone, away since ...
	Groups int      `json:"groups"`
	Leads  []string `json:"leads"`
}

// lagging is how many entries a healthy replica may be behind: they are on their way.
const lagging = 64

func serversObject(a *pb.ServersAnswer) *serversJSON {
	st := a.GetStatus()
	v := &serversJSON{
		Cluster: st.GetCluster(), Run: st.GetRun(), AnsweredBy: st.GetAnsweredBy(), Time: utc(st.GetTime()), Error: a.Error,
		Step: st.GetStep(), Groups: []groupJSON{}, Servers: []serverJSON{},
	}
	for _, name := range groupNames(a) {
		v.Groups = append(v.Groups, groupObject(a, name))
	}
	for _, n := range st.GetNodes() {
		if n.Server {
			v.Servers = append(v.Servers, serverObject(v, st, n))
		}
	}
	slices.SortFunc(v.Servers, func(a, b serverJSON) int { return strings.Compare(a.Server, b.Server) })
	return v
}

// groupNames are those of the placement or, where nobody knows it, of the replicas.
func groupNames(a *pb.ServersAnswer) []string {
	var names []string
	add := func(name string) {
		if !slices.Contains(names, name) {
			names = append(names, name)
		}
	}
	for _, g := range a.GetStatus().GetPlacement().GetGroups() {
		add(g.Group)
	}
	for _, r := range a.Replicas {
		add(r.Group)
	}
	return names
}

func groupObject(a *pb.ServersAnswer, name string) groupJSON {
	st := a.GetStatus()
	g := groupJSON{Group: name, Healthy: true, Replicas: []replicaJSON{}}
	var lead *pb.Lead // who is in the group
	for _, l := range st.GetGroups() {
		if l.Group == name {
			lead = l
		}
	}
	reports, servers := map[string]*pb.ReplicaReport{}, []string{}
	add := func(server string) {
		if !slices.Contains(servers, server) {
			servers = append(servers, server)
		}
	}
	for _, p := range membership.PlacementFromProto(st.GetPlacement()).Places(name) {
		add(string(p.Node))
	}
	for _, member := range slices.Concat(lead.GetVoters(), lead.GetLearners()) {
		add(strings.Split(member, "/")[0])
	}
	var leader *pb.ReplicaReport
	for _, r := range a.Replicas {
		if r.Group != name {
			continue
		}
		reports[r.Node] = r
		add(r.Node)
		if r.Role == "leader" && r.Term > leader.GetTerm() {
			leader = r
		}
	}
	g.Leader, g.Term = leader.GetNode(), leader.GetTerm()
	slices.Sort(servers)
	for _, server := range servers {
		r := replicaObject(st, name, server, lead, reports[server], leader)
		g.Healthy = g.Healthy && r.Healthy
		g.Replicas = append(g.Replicas, r)
	}
	return g
}

// replicaObject describes one replica; report is nil when its server says nothing of it.
func replicaObject(st *pb.Status, group, server string, lead *pb.Lead, report, leader *pb.ReplicaReport) replicaJSON {
	_, placed := membership.PlacementFromProto(st.GetPlacement()).Place(group, nodeID(server))
	r := replicaJSON{Server: server, Role: "-", Answers: report != nil}
	life := server + "/" + report.GetIdentity()
	switch {
	case report != nil && report == leader:
		r.Role = "leader"
	case slices.Contains(lead.GetVoters(), life), report == nil && slices.ContainsFunc(lead.GetVoters(), isLifeOf(server)):
		r.Role = "voter"
	case slices.Contains(lead.GetLearners(), life), report == nil && slices.ContainsFunc(lead.GetLearners(), isLifeOf(server)):
		r.Role = "learner"
	}
	if report != nil {
		r.Term, r.Applied, r.Bytes = report.Term, report.Applied, report.Bytes
		r.LagEntries = max(leader.GetCommit(), report.Applied) - report.Applied
		if len(report.Behind) > 0 {
			r.LagBytes = report.Behind[0]
		}
		if report.Holds {
			r.Step = &report.Step
		}
		if len(report.Digest) > 0 {
			r.DigestEntry, r.DigestStep, r.Digest = report.Audit, report.AuditStep, hex.EncodeToString(report.Digest)
		}
	}
	r.State = replicaState(st, &r, placed, report, leader)
	r.Healthy = r.State == healthy
	return r
}

const healthy = "healthy"

func replicaState(st *pb.Status, r *replicaJSON, placed bool, report, leader *pb.ReplicaReport) string {
	switch {
	case report == nil:
		return missing(st, r.Server)
	case report.Fault != "":
		return "fenced: " + report.Fault
	case len(report.Digest) > 0 && report.Audit == leader.GetAudit() && string(report.Digest) != string(leader.GetDigest()):
		return "differs from the leader"
	case leader == nil:
		return "has no leader"
	case r.Role == "-" && placed:
		return "waits to be added"
	case !placed && len(st.GetPlacement().GetGroups()) > 0:
		return "leaving"
	case r.Role == "learner", r.LagEntries > lagging:
		return "catching up"
	}
	return healthy
}

// missing says why a server says nothing of a replica that it should have.
func missing(st *pb.Status, server string) string {
	for _, n := range st.GetNodes() {
		switch {
		case n.Node != server:
		case n.Away != 0:
			return away(st, n.Away)
		case n.State == "alive":
			return "begins"
		}
	}
	return "does not answer"
}

func isLifeOf(server string) func(string) bool {
	return func(member string) bool { return strings.HasPrefix(member, server+"/") }
}

func serverObject(v *serversJSON, st *pb.Status, n *pb.NodeStatus) serverJSON {
	s := serverJSON{Server: n.Node, Addr: n.Addr, State: "serving", Leads: []string{}}
	for _, g := range v.Groups {
		if slices.ContainsFunc(g.Replicas, func(r replicaJSON) bool { return r.Server == n.Node && r.Role != "-" }) {
			s.Groups++
		}
		if g.Leader == n.Node {
			s.Leads = append(s.Leads, g.Group)
		}
	}
	placed := 0
	for _, g := range membership.PlacementFromProto(st.GetPlacement()).Groups {
		for _, p := range g.Places {
			if string(p.Node) == n.Node {
				placed++
			}
		}
	}
	if n.Away == 0 && !n.Connected && n.State != "alive" {
		s.State = "gone"
		return s
	}
	if n.Away == 0 && !n.Connected && s.Groups == 0 && st.Error == "" {
		s.State = "joining" // it cannot be given a place before it has a session
		return s
	}
	drained := slices.Contains(st.GetPlacement().GetDrained(), n.Node)
	switch {
	case n.Away != 0:
		s.State = away(st, n.Away)
	case drained && s.Groups+placed > 0:
		s.State = "draining"
	case drained:
		s.State = "drained"
	case s.Groups+placed == 0:
		s.State = "spare"
	}
	return s
}
