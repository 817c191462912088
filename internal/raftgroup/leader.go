package raftgroup

import (
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/hashicorp/raft"
	"github.com/musterml/muster/internal/id"
	"github.com/musterml/muster/internal/port"
)

const portProtocol = port.Raft

// Leader returns who leads as far as this replica knows.
func (g *Group) Leader() (Replica, bool) {
	address, _ := g.raft.LeaderWithID()
	if address == "" {
		return Replica{}, false
	}
	leader, err := parseAddress(address)
	if err != nil {
		g.log.Warn().Err(err).Msg("the leader has an address that is none of ours")
		return Replica{}, false
	}
	return leader, true
}

// IsLeader reports whether this replica believes to lead. Only a committed
// entry, or raft's VerifyLeader, proves it.
func (g *Group) IsLeader() bool { return g.raft.State() == raft.Leader }

// watch prepares and returns the goroutine that tells OnLeader. Observations
// only wake it; what it tells is read from raft, so that dropping one that
// comes while another waits loses nothing.
func (g *Group) watch() func() {
	woken := make(chan raft.Observation, 1)
	observer := raft.NewObserver(woken, false, func(o *raft.Observation) bool {
		_, leader := o.Data.(raft.LeaderObservation)
		return leader
	})
	g.raft.RegisterObserver(observer)
	return func() {
		defer g.raft.DeregisterObserver(observer)
		var last Replica
		var lastKnown bool
		var lastTerm uint64
		tick := time.NewTicker(2 * g.cfg.Timing.ElectionTimeout)
		defer tick.Stop()
		confused := false // at the last tick
		for {
			leader, known := g.Leader()
			term := g.raft.CurrentTerm()
			if known != lastKnown || known && (leader != last || term != lastTerm) {
				last, lastKnown, lastTerm = leader, known, term
				g.log.Debug().Str("leader", string(leader.Node)).Bool("known", known).Uint64("term", term).Msg("leader")
				if g.cfg.OnLeader != nil {
					g.cfg.OnLeader(leader, known)
				}
			}
			select {
			case <-woken:
			case <-g.raft.LeaderCh(): // a leader that steps down makes no observation
			case <-tick.C:
				// A candidate that stood by TimeoutNow and lost takes note of the winner but
				// stays a candidate (raft v1.8.0, appendEntries). When the winner dies right
				// then, it believes in that leader for ever, and denies its pre-vote to
				// whoever could be elected. Standing anew makes it forget.
				was := confused
				if confused = known && g.raft.State() == raft.Candidate; confused && was {
					g.stand()
				}
			case <-g.ctx.Done():
				return
			}
		}
	}
}

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
// group, as far as this replica knows, the survivors stand for election, one after the
// other in the order of the configuration: the first at once, each other one only when a
// moment later there is still no leader, because the first may lack a committed entry;
// and later yet when it has given its vote away. So it is to be called on every
// survivor, and does no harm to a group that has another leader. An empty Incarnation
// stands for any life of the node. It does not wait; calls in one term count as one.
func (g *Group) LeaderGone(gone ...Replica) {
	if g.hasLeader(gone) {
		return
	}
	turn, ok := g.turn(gone)
	if !ok {
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
	g.log.Info().Uint64("term", since).Int("turn", turn).Msg("the leader is gone or silent; the others stand for election")
	g.background(func() {
		g.standInTurn(turn, since, gone)
		g.insist(turn, gone)
	})
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

// standInTurn stands for election after turn turns, unless there is a leader by
// then. A candidate that got this replica's vote is given time to win: standing
// against it would throw the group back to its timeouts.
func (g *Group) standInTurn(turn int, since uint64, gone []Replica) {
	const patience = 3 // more turns for whom this replica voted
	for last := turn + patience; ; turn = 1 {
		select {
		case <-time.After(time.Duration(turn) * oneTurn):
		case <-g.ctx.Done():
			return
		}
		if g.hasLeader(gone) {
			return
		}
		last -= turn
		if last <= 0 || !g.votes.votedForOther(since, g.cfg.Self.ServerAddress()) {
			g.stand()
			return
		}
	}
}

// insist stands again, if there is still no leader some turns after this replica could have won: votes were split, because
// replicas that were busy stood at the same time. Raft would wait for its timeout. Replicas wait for different times, longer than an election
// takes also on a busy disk, so that now one wins.
func (g *Group) insist(turn int, gone []Replica) {
	for range 3 {
		select {
		case <-time.After(time.Duration(3*turn+3) * oneTurn):
		case <-g.ctx.Done():
			return
		}
		if g.hasLeader(gone) {
			return
		}
		g.abdicate() // a candidate does not stand twice
		g.stand()
	}
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

// turn is this replica's place among the voters that are left; false when it
// has no vote.
func (g *Group) turn(gone []Replica) (int, bool) {
	members, err := g.Replicas()
	if err != nil {
		return 0, false
	}
	turn := 0
	for _, m := range members {
		if !m.Voter || covered(m.Replica, gone) {
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
	_, ok := g.turn(nil)
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

// HandOver has the voter of another node lead the group, if this replica leads in the term: it sends that
// one what it lacks, takes no entries meanwhile, and has it stand for election, without a pre-vote.
func (g *Group) HandOver(term uint64, to id.Node) error {
	if !g.IsLeader() || g.raft.CurrentTerm() != term {
		return raft.ErrNotLeader
	}
	voters, _, _ := g.Members()
	i := slices.IndexFunc(voters, func(r Replica) bool { return r.Node == to })
	if i < 0 {
		return fmt.Errorf("raft group %s: hand over to %s: it has no vote", g.cfg.Group, to)
	}
	g.log.Info().Str("to", string(to)).Uint64("term", term).Msg("hands over")
	if err := g.raft.LeadershipTransferToServer(voters[i].ServerID(), voters[i].ServerAddress()).Error(); err != nil {
		return fmt.Errorf("raft group %s: hand over to %s: %w", g.cfg.Group, to, err)
	}
	return nil
}

// transfer hands leadership to another voter.
func (g *Group) transfer() error {
	err := g.raft.LeadershipTransfer().Error()
	if err != nil && !errors.Is(err, raft.ErrNotLeader) {
		return fmt.Errorf("hand over leadership: %w", err)
	}
	return nil
}
