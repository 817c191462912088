// Package ps keeps the parameters of a run on replicated servers.
//
// The flat parameter vector is cut into blocks; block b lives in shard b mod Shards, and
// every shard is a Raft group (internal/raftgroup) of a few replicas. A Server hosts the
// replicas of one node, a Client puts, pushes and pulls ranges of blocks.
//
// # What it promises
//
//   - Exactly once. A push names its step, and a block that has done that step does not
//     do it again: every request may be repeated, over any failure, and the client does.
//   - A step is never lost once a push or put has returned, as long as a majority of each
//     shard's replicas lives; and a client is not held up by a server that is gone or cut
//     off, nor longer than its context: the error then names the shard and the wait.
//   - The same bits on every replica: entries are applied in log order by arithmetic that
//     is the same everywhere (internal/optim). Audit compares.
//   - A block holds two versions, so readers of step s go on while s+1 is being written,
//     and a Put can keep the version that other blocks still need (mode ring).
//   - Any replica may answer a Pull or a repeated push that it has applied: the value of
//     a block at a step is decided by the first entry that makes it and never changes
//     (see shardState). Complete, which asks how far the shard is, goes through the leader.
//
// # How a push travels
//
//	client --(request, gradient)--> leader --(gradient, side channel)--> followers
//	                                leader --(reference, Raft)---------> followers
//	client <--(W at step+1)-------- leader, once a majority has stored both
//
// It streams. The leader reads the gradient in pieces of 256 KiB into a pooled buffer and has its senders pass on
// what there is (payload.filled, sender), so a follower receives while the leader does. Payloads are sent side by side on one
// connection to each follower (frames begin, part, end, drop), so a client that is slow, or dies in the middle, holds up nobody. The CRC-32C
// comes behind the bytes and is taken of each piece while it is in the cache: by the client, once by the leader for client, followers
// and log, and by the followers (wire.go, frame.go). The optimizer reads the gradient where it was received, the answer is sent from
// the new version's memory, and the client reads it into its caller's. In the steady state nothing of a push's size is
// allocated: buffers come back when the log is cut, and those that only a burst needed are given up (payloads.trim).
//
// The log holds references of some fifty bytes; tensors go over connections of their own
// into pooled buffers. A replica's log store returns only when it holds the payloads of
// the new entries (logPayloads, holder), so "stored by a majority" covers the tensors, and
// Raft's own argument carries over: whoever is elected has every committed payload. What
// does not come by itself is fetched from the leader or any other replica.
//
// # What memory it takes
//
// Besides two versions of its blocks, and for each shard (LogLimit: 64 MiB, or the shard's state if that is more; twice that with Durable):
//
//   - the log's payloads: it is cut when they pass LogLimit, to half of that; while another replica that answers still needs more, or is
//     sent the state, the leader cuts to what it needs, at most to twice LogLimit. Clients wait (WORKING) beyond three
//     times LogLimit, and a follower refuses entries beyond four, when cutting does not keep up;
//   - a leader's queue to each follower, LogLimit/2: what finds no room is not sent, and the follower fetches it. So
//     a follower that is slow or stuck costs no time and no more than that;
//   - a follower's payloads that no entry refers to yet, LogLimit: the oldest are dropped, and fetched if they are needed after all;
//   - requests under way: each connection of a client has one, and Lanes of them are open to a shard.
//
// # Steps, or gradients as they arrive
//
// A push is a step of the whole model, which all trainers have done together; or, where
// Layout.Parts says so (modes ssp and async), the gradient of some logical shards, applied
// as it arrives. Then a block keeps a clock for each logical shard, in the state, and no gradient
// of a logical shard at a step is in a block twice, see parts.go.
//
// # Sparse tables
//
// With ServerConfig.Tables a shard also keeps its part of sparse tables (package table). Their gradients are payloads
// of the same log (PushRows), so they are replicated, made durable and healed like any other; a pull waits at the leader
// for the step it asks for, and is answered with the rows that have changed since the one that the client has.
//
// # Durability
//
// Log and state are in memory: a minority of a shard's replicas may be lost at any time,
// but not a majority at once, and whoever lost its memory comes back under a new identity,
// as a learner. With ServerConfig.Durable the log is on the disk as well (internal/raftlog):
// the log store writes payload and entry with one fsync, an identity outlives its process, and all
// replicas may be killed at once. What a disk damages is healed from the others (heal.go).
// docs/replication.md has the argument and the table of failures.
//
// # Snapshots
//
// In memory Raft's snapshots are references, too (machine): they cost nothing, so the log is cut
// whenever its payloads pass a bound in bytes, and a replica that is too far behind
// fetches the state of the moment on the side channel. With Durable they are the state; of
// sparse tables, what has changed since the snapshot before (layers).
//
// Rejected: payloads inside the log entries (150 MB/s and 12 s of CPU per GB where this
// design does several times that: Raft copies and allocates each entry on every hop), and
// a primary with backups of our own making (the election, the log comparison and the
// change of members would be Raft again, unproven).
//
// # What it leaves out
//
//   - Sparse tables where gradients are applied as they arrive (ssp, async, local).
//   - Comparing digests regularly and fencing a replica that differs: Audit and fence are
//     here, the schedule is the owner's.
package ps
