package raftgroup

import (
	"errors"
	"fmt"

	"github.com/hashicorp/raft"
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
//
// It sends raft's own TimeoutNow, by which a leader hands over, from this
// replica to itself.
func (g *Group) Campaign() {
	if g.IsLeader() || !g.voter() {
		return
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.stopping {
		return
	}
	g.wg.Go(func() {
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
	})
}

// LeaderGone is Campaign for somebody who knows that a process is gone but not
// whether it leads this group: it does nothing while this replica follows
// another leader. An empty Incarnation stands for any life of the node.
func (g *Group) LeaderGone(gone Replica) {
	leader, known := g.Leader()
	if known && (leader.Node != gone.Node || gone.Incarnation != "" && leader.Incarnation != gone.Incarnation) {
		return
	}
	g.Campaign()
}

func (g *Group) voter() bool {
	members, err := g.Replicas()
	if err != nil {
		return false
	}
	for _, m := range members {
		if m.ServerID() == g.cfg.Self.ServerID() {
			return m.Voter
		}
	}
	return false
}

// transfer hands leadership to another voter.
func (g *Group) transfer() error {
	err := g.raft.LeadershipTransfer().Error()
	if err != nil && !errors.Is(err, raft.ErrNotLeader) {
		return fmt.Errorf("hand over leadership: %w", err)
	}
	return nil
}
