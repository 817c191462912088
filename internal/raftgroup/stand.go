package raftgroup

import (
	"slices"
	"time"

	"github.com/hashicorp/raft"
	"github.com/musterml/muster/internal/id"
)

// When the leader is known to be gone, the others do not wait for Raft's timeout, and do not stand all at once, which
// would split their votes: each asks the others how long their logs are, the one with the newest stands at once, and the
// next ones, one after the other, only if there is still no leader.

// Campaign makes this replica stand for election now, without a pre-vote. It
// is for when the leader's process is known to be gone, and only shortens the
// wait: a candidate that lacks a committed entry still loses. It does nothing
// on the leader and on a replica without a vote, and does not wait.
func (g *Group) Campaign() {
	if g.IsLeader() || !g.voter() {
		return
	}
	g.background(g.stand)
}

// LeaderGone tells this replica that processes are gone. When one of them led the
// group, as far as this replica knows, the survivors stand for election, the one with the newest log
// at once, each other one only when a moment later there is still no leader;
// and later yet when it has given its vote away. So it is to be called on every
// survivor, and does no harm to a group that has another leader. An empty Incarnation
// stands for any life of the node. It does not wait; calls in one term count as one.
func (g *Group) LeaderGone(gone ...Replica) {
	if g.hasLeader(gone) || !g.voter() {
		return
	}
	since := g.raft.CurrentTerm()
	g.mu.Lock()
	again := g.stood == since
	g.stood = since
	g.mu.Unlock()
	if again {
		return
	}
	g.log.Info().Uint64("term", since).Msg("the leader is gone or silent; the others stand for election")
	g.background(func() { g.campaign(gone) })
}

// LeaderSilent does as LeaderGone when a majority of the voters does not hear the leader any more, though
// nobody knows its process to be gone. deaf answers for a voter whether it does not hear another.
// One voter alone would be no reason: it may be the one that is cut off. It reports whether the leader
// is given up.
func (g *Group) LeaderSilent(deaf func(who, to id.Node) bool) bool {
	leader, known := g.Leader()
	if !known || g.IsLeader() {
		return false
	}
	voters, _, _ := g.Members()
	silent := slices.DeleteFunc(slices.Clone(voters), func(of Replica) bool {
		say := 0
		for _, v := range voters {
			if deaf(v.Node, of.Node) {
				say++
			}
		}
		return say < len(voters)/2+1
	})
	if !covered(leader, silent) {
		return false
	}
	g.LeaderGone(silent...)
	return true
}

// campaign has this replica stand for election until there is a leader who is not gone. Votes may be split, because replicas
// that were busy stood at the same time: then they stand again after different times, longer than an election takes also on
// a busy disk. Raft would wait for its timeout.
func (g *Group) campaign(gone []Replica) {
	for try := range 4 {
		since := g.raft.CurrentTerm()
		turn := g.rank(gone)
		if try > 0 {
			turn = 3*turn + 2
		}
		if !g.await(turn, since, gone) {
			return
		}
		if try > 0 {
			g.abdicate() // a candidate does not stand twice
		}
		g.stand()
	}
}

// await waits for so many turns, and reports whether this replica is to stand for election then: not when there is a leader by
// then. A candidate that got this replica's vote is given time to win: standing against it would throw the group
// back to its timeouts.
func (g *Group) await(turns int, since uint64, gone []Replica) bool {
	const patience = 3 // more turns for whom this replica voted
	for last := turns + patience; ; turns = 1 {
		select {
		case <-time.After(time.Duration(turns) * oneTurn):
		case <-g.ctx.Done():
			return false
		}
		if g.hasLeader(gone) {
			return false
		}
		last -= turns
		if last <= 0 || !g.votes.votedForOther(since, g.cfg.Self.ServerAddress()) {
			return true
		}
	}
}

// rank is how many of the voters that are left are to stand before this replica: those with a longer log, and with the same
// those before it in the configuration; where one does not say how long its log is, the configuration decides. (That a longer
// log is of an older term, which makes it the older one, is rare, and costs a turn.)
func (g *Group) rank(gone []Replica) int {
	type answer struct {
		before bool // in the configuration
		last   uint64
	}
	own := g.raft.LastIndex()
	voters, _, _ := g.Members()
	answers, asked, rank := make(chan answer, len(voters)), 0, 0
	before := true
	for _, v := range voters {
		if v.ServerID() == g.cfg.Self.ServerID() {
			before = false
			continue
		}
		if covered(v, gone) {
			continue
		}
		asked++
		if before {
			rank++
		}
		a := answer{before, own}
		g.background(func() {
			if last, err := g.lastIndex(v); err == nil {
				a.last = last
			}
			answers <- a
		})
	}
	timer := time.NewTimer(oneTurn)
	defer timer.Stop()
	for range asked {
		select {
		case a := <-answers:
			if a.before && a.last < own {
				rank--
			} else if !a.before && a.last > own {
				rank++
			}
		case <-timer.C:
			return rank
		case <-g.ctx.Done():
			return rank
		}
	}
	return rank
}

// lastIndex asks another replica for the last entry of its log, by a leader's message of no term: that is refused, and the answer
// has the number.
func (g *Group) lastIndex(of Replica) (uint64, error) {
	self := g.cfg.Self
	request := &raft.AppendEntriesRequest{RPCHeader: raft.RPCHeader{
		ProtocolVersion: raft.ProtocolVersionMax,
		ID:              []byte(self.ServerID()), Addr: []byte(self.ServerAddress()),
	}}
	var response raft.AppendEntriesResponse
	err := g.transport.AppendEntries(of.ServerID(), of.ServerAddress(), request, &response)
	return response.LastLog, err
}

// oneTurn is several times what an election takes between machines that answer, also
// busy ones: two candidates at once would split the votes and cost a timeout.
const oneTurn = 100 * time.Millisecond

// hasLeader reports whether this replica leads or follows somebody who is not gone.
func (g *Group) hasLeader(gone []Replica) bool {
	leader, known := g.Leader()
	return g.IsLeader() || known && !covered(leader, gone)
}

func covered(r Replica, gone []Replica) bool {
	return slices.ContainsFunc(gone, func(g Replica) bool { return g.covers(r) })
}

// covers reports whether other is r, or any life of it when r names none.
func (r Replica) covers(other Replica) bool {
	return r.Node == other.Node && (r.Incarnation == "" || r.Incarnation == other.Incarnation)
}

// turn is this replica's place among the voters; false when it has no vote.
func (g *Group) turn() (int, bool) {
	members, err := g.Replicas()
	if err != nil {
		return 0, false
	}
	turn := 0
	for _, m := range members {
		if !m.Voter {
			continue
		}
		if m.ServerID() == g.cfg.Self.ServerID() {
			return turn, true
		}
		turn++
	}
	return 0, false
}

func (g *Group) voter() bool {
	_, ok := g.turn()
	return ok
}

// background runs f in a goroutine that Stop waits for, unless Stop has begun.
func (g *Group) background(f func()) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if !g.stopping {
		g.wg.Go(f)
	}
}

// stand sends raft's own TimeoutNow, by which a leader hands over, from this
// replica to itself.
func (g *Group) stand() {
	self := g.cfg.Self
	request := &raft.TimeoutNowRequest{RPCHeader: raft.RPCHeader{
		ProtocolVersion: raft.ProtocolVersionMax,
		ID:              []byte(self.ServerID()), Addr: []byte(self.ServerAddress()),
	}}
	var response raft.TimeoutNowResponse
	err := g.transport.TimeoutNow(self.ServerID(), self.ServerAddress(), request, &response)
	if err != nil && g.ctx.Err() == nil {
		g.log.Warn().Err(err).Msg("could not stand for election at once; raft will after its timeout")
	}
}
