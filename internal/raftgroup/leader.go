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
