package raftgroup

import "github.com/hashicorp/raft"

// transport is that of a group in which a candidate is judged by its log alone, as in section 4.1 of Ongaro's
// thesis: a server votes for whoever asks, also for one that is no voter in the configuration it knows.
//
// hashicorp/raft (v1.8.0) refuses such a candidate. But a leader may have committed a promotion with the new voter alone
// and be killed before the other replica hears of it; then only the new voter has the newest log, and the only vote
// there is to be had is that of a replica that still takes it for a learner: the group would have no leader for ever.
// What the refusal is for, a removed server that disturbs a group, pre-votes prevent: who hears a leader grants none. And a
// server that has lost its log stands for nothing: its new life is a learner in every configuration it knows.
type transport struct {
	*raft.NetworkTransport
	positions *positions
	stream    *stream
}

// RequestVote asks without saying who asks, which leaves the candidate's place in the configuration unexamined. The vote is
// given to its address, which stays.
func (t transport) RequestVote(to raft.ServerID, target raft.ServerAddress, args *raft.RequestVoteRequest, resp *raft.RequestVoteResponse) error {
	anonymous := *args
	anonymous.ID = nil
	return t.NetworkTransport.RequestVote(to, target, &anonymous, resp)
}

// RequestPreVote asks a second time, in the name of the server that is asked, if that refuses: pre-votes examine every name.
func (t transport) RequestPreVote(to raft.ServerID, target raft.ServerAddress, args *raft.RequestPreVoteRequest, resp *raft.RequestPreVoteResponse) error {
	if err := t.NetworkTransport.RequestPreVote(to, target, args, resp); err != nil || resp.Granted {
		return err
	}
	again := *args
	again.ID = []byte(to)
	*resp = raft.RequestPreVoteResponse{}
	return t.NetworkTransport.RequestPreVote(to, target, &again, resp)
}
