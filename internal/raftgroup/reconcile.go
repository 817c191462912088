package raftgroup

import (
	"errors"
	"fmt"
	"time"

	"github.com/hashicorp/raft"
	"github.com/musterml/muster/internal/id"
)

// Reconcile, on the leader, takes one step from the replicas that the group has
// to those that it should have, and waits until that step is committed or
// leadership is lost (raft.ErrNotLeader, raft.ErrLeadershipLost). Its owner calls
// it again and again; with nothing to do it costs nothing. In this order:
//
//  1. remove an earlier life of a wanted node: it will not come back, and must
//     not vote if it does;
//  2. add a wanted replica as a non-voter (or correct its address);
//  3. promote a non-voter that has applied what was committed when it was asked;
//     applied is to return the replica's applied index, without long delay;
//  4. once all that are wanted vote: remove what nobody wants.
//
// A wanted replica without an Incarnation stands for whichever life of the node is in the
// group; where none is, it is waited for. Incarnations have no order, so want must be up to date: an earlier life in it
// would turn out the later one. A leader that is to be removed hands over first. Each step changes one server,
// so any two successive configurations share a majority (Ongaro's thesis, 4.1).
func (g *Group) Reconcile(want []Replica, applied func(Replica) (uint64, error)) error {
	if !g.IsLeader() {
		return raft.ErrNotLeader
	}
	have, err := g.Replicas()
	if err != nil {
		return err
	}
	c, err := next(have, want, g.cfg.Self, func(r Replica) (bool, error) {
		committed := g.raft.CommitIndex()
		got, err := applied(r)
		return err == nil && got > 0 && got+promotionLag >= committed, err
	})
	if c.kind == changeNone {
		if err != nil {
			return fmt.Errorf("raft group %s: reconcile: %w", g.cfg.Group, err)
		}
		return nil
	}
	// A replica that did not answer is asked again next time; it is no reason
	// not to take the step that can be taken.
	if err := g.change(c); err != nil {
		return fmt.Errorf("raft group %s: %s %s: %w", g.cfg.Group, c.kind, c.replica, err)
	}
	g.log.Info().Stringer("replica", c.replica).Msg("replicas changed: " + c.kind.String())
	return nil
}

// promotionLag is how many entries a replica may be behind what was committed
// when it was asked: about what is committed during the question. One that has
// nothing yet is behind, however short the log is.
const promotionLag = 16

type changeKind int

const (
	changeNone changeKind = iota
	changeRemove
	changeAdd
	changePromote
	changeTransfer
)

func (k changeKind) String() string {
	return [...]string{"nothing", "removed", "added as a non-voter", "made a voter", "handed over by"}[k]
}

// change is one step; replica is the one to remove, add, promote or hand over from.
type change struct {
	kind    changeKind
	replica Replica
}

// next decides on the step. It is a function of its arguments; caughtUp is
// asked only about wanted non-voters.
func next(have []Member, want []Replica, self Replica, caughtUp func(Replica) (bool, error)) (change, error) {
	if len(want) == 0 {
		return change{}, errors.New("no replica is wanted, which would end the group")
	}
	wanted := make(map[id.Node]Replica, len(want))
	for _, w := range want {
		if err := w.validate(); err != nil && w.Incarnation != "" {
			return change{}, fmt.Errorf("wanted replica %s: %w", w, err)
		}
		if other, twice := wanted[w.Node]; twice {
			return change{}, fmt.Errorf("wanted are %s and %s of one node", other, w)
		}
		wanted[w.Node] = w
	}
	members := make(map[id.Node]Member, len(have))
	for _, m := range have {
		w, ok := wanted[m.Node]
		if ok && w.Incarnation != m.Incarnation && w.Incarnation != "" {
			return removal(m.Replica, self), nil
		}
		members[m.Node] = m
	}
	for _, w := range want {
		if w.Incarnation == "" {
			continue
		}
		if m, ok := members[w.Node]; !ok || (!m.Voter && m.Addr != w.Addr) {
			return change{changeAdd, w}, nil
		} else if m.Addr != w.Addr {
			return change{changePromote, w}, nil // keeps its vote, gets its address
		}
	}
	var errs []error
	voting := true
	for _, w := range want {
		if members[w.Node].Voter {
			continue
		}
		voting = false
		if w.Incarnation == "" {
			continue
		}
		ok, err := caughtUp(w)
		if ok {
			return change{changePromote, w}, nil
		}
		if err != nil {
			errs = append(errs, fmt.Errorf("applied index of %s: %w", w, err))
		}
	}
	if !voting {
		return change{}, errors.Join(errs...)
	}
	last := change{}
	for _, m := range have {
		if _, ok := wanted[m.Node]; !ok {
			last = removal(m.Replica, self)
			if last.kind == changeRemove {
				return last, nil
			}
		}
	}
	return last, nil
}

func removal(r, self Replica) change {
	if r.ServerID() == self.ServerID() {
		return change{changeTransfer, r}
	}
	return change{changeRemove, r}
}

// change carries out a step. raft takes one change at a time, and bounds the
// wait for a majority by the leader's lease.
func (g *Group) change(c change) error {
	const enqueue = time.Second
	id, addr := c.replica.ServerID(), c.replica.ServerAddress()
	switch c.kind {
	case changeRemove:
		return g.raft.RemoveServer(id, 0, enqueue).Error()
	case changeAdd:
		return g.raft.AddNonvoter(id, addr, 0, enqueue).Error()
	case changePromote:
		return g.raft.AddVoter(id, addr, 0, enqueue).Error()
	case changeTransfer:
		return g.transfer()
	case changeNone:
	}
	return nil
}
