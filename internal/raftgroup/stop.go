package raftgroup

import (
	"errors"
	"time"

	"github.com/hashicorp/raft"
)

// Stop leaves without a word to the others, as a crash would, and waits for
// everything that the group has begun. Every pending Apply and Barrier returns.
func (g *Group) Stop() error {
	g.once.Do(func() {
		g.mu.Lock()
		g.stopping = true
		g.mu.Unlock()
		// First nothing comes in or goes out any more; then what raft still owes
		// its callers is settled; then it is told to end, and the connections that
		// remain, to itself, break.
		g.remove()
		g.transport.stream.sever()
		g.settle()
		g.cancel()
		down := g.raft.Shutdown()
		g.stop = errors.Join(g.transport.Close(), down.Error())
		g.transport.CloseStreams() // the pooled ones, which nobody else closes
		g.transport.stream.Wait()
		g.wg.Wait()
	})
	return g.stop
}

// settle makes sure that nobody waits for raft for ever: at its end, raft does
// not answer for the committed entries that lie in the queue to the FSM. So
// before, a leader steps down, after which no entry comes in from anybody, and
// the queue runs empty. An FSM or a LogStore that hangs is not waited for longer
// than one message may take; Shutdown would wait for it in any case.
func (g *Group) settle() {
	deadline := time.After(g.cfg.Timing.RPCTimeout)
	const often = 500 * time.Microsecond
	for {
		if g.IsLeader() {
			g.abdicate()
		} else if g.raft.Stats()["fsm_pending"] == "0" {
			return
		}
		select {
		case <-time.After(often):
		case <-deadline:
			g.log.Warn().Msg("stopping with entries that are committed and not applied; who waits for them may wait for ever")
			return
		}
	}
}

// abdicate makes the leader, or a candidate, a follower at once, by a message to itself from a
// term that nobody leads. (Left alone without connections it would take the
// lease to step down, and never where it is the only voter.)
func (g *Group) abdicate() {
	self := g.cfg.Self
	request := &raft.AppendEntriesRequest{
		RPCHeader: raft.RPCHeader{ProtocolVersion: raft.ProtocolVersionMax, ID: []byte(self.ServerID())},
		Term:      g.raft.CurrentTerm() + 1,
		// Says nothing, but makes it no heartbeat, which would go past raft's main loop.
		PrevLogTerm: 1,
	}
	var response raft.AppendEntriesResponse
	if err := g.transport.AppendEntries(self.ServerID(), self.ServerAddress(), request, &response); err != nil {
		g.log.Debug().Err(err).Msg("stepping down")
	}
}
