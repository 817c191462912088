// Package raftgroup runs one replica of a Raft group (hashicorp/raft) over the
// node's port: the coordinator and every parameter shard are such groups.
//
// # What it adds to raft
//
//   - Identity. A replica is one life of a node: its ServerID is
//     "node/incarnation", its ServerAddress "node/incarnation@host:port", and the
//     port's topic carries both. A message meant for an earlier life of a node
//     therefore never reaches a later one.
//   - A place for term and vote (one small checksummed file) and for snapshots,
//     kept apart for every life. It is synced where an identity outlives its process;
//     one that ends with it has nothing to remember after a loss of power.
//   - Reconcile: one step towards the wanted replicas, through non-voters.
//   - LeaderGone and Campaign: stand for election now instead of waiting for the
//     timeout, when the process of the leader is known to be gone (2-4 ms instead
//     of 540 on one machine: BenchmarkFailover), the newest log first (stand.go). LeaderSilent is the same for a leader
//     that a majority hears no more.
//   - Votes for whoever has the newest log, also where its promotion has not been
//     heard of (ballots.go).
//   - Needed: which entries somebody may still ask for, so that the owner cuts its log behind them.
//   - HandOver: another replica is to lead now. Members says who is in the group and
//     whether that is committed.
//   - A Stop after which nobody waits for an entry that raft has forgotten.
//
// # Why a replica that lost its log is another replica
//
// An entry is committed once a majority stored it. A voter that forgets its log
// and goes on under the same name may vote for a candidate that lacks such an
// entry, and the entry is lost. Where the log is in memory, a restart forgets
// it; so Start refuses an identity that has been used and has no log left, and
// the new life joins as a non-voter and is promoted once it has caught up. A log
// on the disk is not forgotten, so there an identity outlives its process; Untrustworthy
// tells the errors of Start after which it must be given up all the same.
//
// # What it leaves out
//
// Entries, snapshots and what they mean belong to the FSM and the LogStore that
// the owner hands in. Who should be a replica is the owner's decision, too.
// A replica that cannot write its term and vote (a full disk) says so and waits.
package raftgroup
