package raftgroup

import (
	"io"
	"sync"
	"time"

	"github.com/hashicorp/raft"
)

// positions is how far the logs of the others reach, from what they answer to the leader. What lies behind all of
// them nobody needs any more.
type positions struct {
	mu sync.Mutex
	of map[raft.ServerID]position
}

// position is the last entry that a replica is known to have.
type position struct {
	index   uint64
	at      time.Time // when it said so
	sending bool      // a snapshot, which ends at index, is on its way to it
}

func (p *positions) note(of raft.ServerID, index uint64, sending bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.of == nil {
		p.of = map[raft.ServerID]position{}
	}
	p.of[of] = position{index, time.Now(), sending}
}

func (p *positions) forget(of raft.ServerID) {
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.of, of)
}

// last is the earliest of those heard of within a time; false without any.
func (p *positions) last(within time.Duration) (index uint64, known bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, x := range p.of {
		if (x.sending || time.Since(x.at) < within) && (!known || x.index < index) {
			index, known = x.index, true
		}
	}
	return index, known
}

// AppendEntries implements raft.Transport.
func (t transport) AppendEntries(to raft.ServerID, target raft.ServerAddress, args *raft.AppendEntriesRequest, resp *raft.AppendEntriesResponse) error {
	err := t.NetworkTransport.AppendEntries(to, target, args, resp)
	heartbeat := args.PrevLogEntry == 0 && len(args.Entries) == 0 // says nothing of the log
	switch {
	case err != nil:
		t.positions.forget(to)
		if !heartbeat {
			t.stream.untilBack(target)
		}
	case resp.Success && !heartbeat:
		t.positions.note(to, args.PrevLogEntry+uint64(len(args.Entries)), false)
	case !resp.Success && resp.Term == args.Term:
		t.positions.note(to, min(resp.LastLog, args.PrevLogEntry), false)
	}
	return err
}

// InstallSnapshot implements raft.Transport.
func (t transport) InstallSnapshot(to raft.ServerID, target raft.ServerAddress, args *raft.InstallSnapshotRequest, resp *raft.InstallSnapshotResponse, data io.Reader) error {
	t.positions.note(to, args.LastLogIndex, true)
	err := t.NetworkTransport.InstallSnapshot(to, target, args, resp, data)
	if err != nil {
		t.positions.forget(to)
		t.stream.untilBack(target)
	} else {
		t.positions.note(to, args.LastLogIndex, false)
	}
	return err
}

// Needed is the last entry that, as far as the leader knows, all replicas have that can be reached, or will have with the snapshot that
// is on its way to them: what follows it somebody may still ask for. It is false where nobody is known to follow.
func (g *Group) Needed() (after uint64, known bool) {
	if !g.IsLeader() {
		return 0, false
	}
	return g.transport.positions.last(g.cfg.Timing.RPCTimeout)
}
