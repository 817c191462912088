package membership

import (
	"slices"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/musterml/muster/internal/id"
	pb "github.com/musterml/muster/proto"
)

// The director's care for the servers: it sees who leads and votes from the nodes' reports,
// proposes the next placement (replace.go), asks leaders to hand over (leaders.go), and
// tells every node what has been agreed, its roster.

// ServerQuota is what the job says of servers.
type ServerQuota struct {
	Shards       int           // parameter shards
	Replicas     int           // of each
	ReplaceAfter time.Duration // absence after which a server's places are given away; 0: never
}

// places is what the director keeps of the servers; all of it can be learned anew.
type places struct {
	quota    ServerQuota
	away     map[id.Node]time.Time // servers of the run without a session, since when
	leads    map[string]reported   // by group: the newest word of its leader
	asked    time.Time             // when the last hand-over was asked for
	unwell   time.Time             // when all was not well the last time
	proposed uint64                // number of the last placement proposed
	roster   *pb.Roster            // as last told
	version  int                   // of roster
	looked   time.Time
}

type reported struct {
	*pb.Lead
	by id.Node
}

const (
	lookAtPlaces = 50 * time.Millisecond // how often the director looks whether places are to change
	calmBefore   = 2 * time.Second       // all must have been well for so long before leaders are spread anew
	betweenMoves = 500 * time.Millisecond
)

// placement is that agreed, or of the founding.
func (d *director) placement() Placement {
	if p := d.state.GetPlacement(); p != nil {
		return PlacementFromProto(p)
	}
	return FoundingPlacement(d.state.GetFounding(), d.places.quota.Shards, d.places.quota.Replicas)
}

// hear takes note of what a node leads.
func (p *places) hear(node id.Node, r *pb.Report) {
	for _, l := range r.GetLeads() {
		if old, known := p.leads[l.Group]; !known || l.Term >= old.Term {
			p.leads[l.Group] = reported{l, node}
		}
	}
}

// placeServers does what is to be done about the servers now.
func (d *director) placeServers() {
	p := &d.places
	if d.state.Founding == nil || d.now.Sub(p.looked) < lookAtPlaces {
		return
	}
	p.looked = d.now
	placement := d.placement()
	d.missServers(placement)
	s := d.standing(placement)
	if next, why, ok := s.next(); ok && p.proposed <= placement.Number {
		d.place(next, d.event("placed", "", "%s", why))
	}
	d.spreadLeaders(&s)
	d.tellRoster(placement)
}

func (d *director) place(next Placement, e *pb.Event) {
	d.places.proposed = next.Number
	d.do(doPropose{&pb.Entry{Placement: next.proto(), Events: []*pb.Event{e}}})
}

// missServers notes which servers have no session, and since when. Who has no place is not
// missed.
func (d *director) missServers(placement Placement) {
	p := &d.places
	for node := range p.away {
		if d.seats[node] != nil || placement.kept(node) == 0 {
			delete(p.away, node)
		}
	}
	for _, g := range placement.Groups {
		for _, s := range g.Places {
			if _, noted := p.away[s.Node]; !noted && d.seats[s.Node] == nil {
				p.away[s.Node] = d.now
			}
		}
	}
}

func (d *director) standing(placement Placement) standing {
	p := &d.places
	s := standing{
		placement: placement, leads: map[string]*pb.Lead{}, leaders: map[string]id.Node{}, servers: map[id.Node]time.Duration{},
		coordinators: len(d.state.Founding.Servers), replicas: p.quota.Replicas, after: p.quota.ReplaceAfter,
	}
	for group, l := range p.leads {
		s.leads[group], s.leaders[group] = l.Lead, l.by
	}
	for node, seat := range d.seats {
		if seat.meta.GetServer() {
			s.servers[node] = 0
		}
	}
	for node, since := range p.away {
		s.servers[node] = max(1, d.now.Sub(since))
	}
	return s
}

// spreadLeaders asks for one hand-over, when it is time for one. What a drain needs
// does not wait for a calm; but also then one change follows the other.
func (d *director) spreadLeaders(s *standing) {
	p := &d.places
	if d.round != nil || !d.recovering.IsZero() || len(p.away) > 0 || slices.ContainsFunc(s.placement.Groups, func(g Group) bool { return !s.follows(g) }) {
		p.unwell = d.now
	}
	if d.round != nil || d.now.Sub(p.asked) < betweenMoves {
		return
	}
	var groups []led
	for _, g := range s.placement.Groups {
		l, known := p.leads[g.Name]
		if !known || d.seats[l.by] == nil {
			continue
		}
		x := led{Lead: l.Lead, by: l.by}
		for _, place := range g.Places {
			if votes(l.Lead, place.Node) && s.here(place.Node) && !s.placement.drained(place.Node) {
				x.voters = append(x.voters, place.Node)
			}
		}
		groups = append(groups, x)
	}
	h, ok := nextLeader(groups, s.placement.drained)
	if !ok || !s.placement.drained(h.from) && d.now.Sub(p.unwell) < calmBefore {
		return
	}
	p.asked = d.now
	d.send(h.from, &pb.Down{M: &pb.Down_HandOver{HandOver: &pb.HandOver{Group: h.group, Term: h.term, To: string(h.to)}}})
}

// tellRoster tells every node of the placement and the groups, when they have changed.
func (d *director) tellRoster(placement Placement) {
	p := &d.places
	roster := &pb.Roster{Placement: placement.proto()}
	for _, g := range placement.Groups {
		if l, known := p.leads[g.Name]; known {
			roster.Leads = append(roster.Leads, l.Lead)
		}
	}
	if !proto.Equal(roster, p.roster) {
		p.roster = roster
		p.version++
	}
	for _, name := range sortedSeats(d.seats) {
		if s := d.seats[name]; s.roster != p.version {
			s.roster = p.version
			d.send(name, &pb.Down{M: &pb.Down_Roster{Roster: p.roster}})
		}
	}
}

// drain begins or ends the draining of a server; the answer is why not, "" for yes. To
// ask again does no harm.
func (d *director) drain(node id.Node, undo bool) string {
	if d.state.Founding == nil {
		return "the run is not founded yet; ask again"
	}
	placement := d.placement()
	if placement.drained(node) != undo {
		return ""
	}
	if d.places.proposed > placement.Number {
		return "the servers' places are changing at this moment; ask again"
	}
	s := d.standing(placement)
	if why := s.refuseDrain(node); why != "" && !undo {
		return why
	}
	text := "%s is to be drained: its groups go to other servers"
	if undo {
		text = "%s is drained no more: it may keep groups again"
	}
	d.place(placement.drain(node, undo), d.event("drain", node, text, node))
	return ""
}
