// Package collective adds up vectors across the trainers of one view, over a ring.
//
// # What it promises
//
//   - AllReduce, ReduceScatter, AllGather, Broadcast and Barrier for any world from 1, any length, over any net.Conn. The bytes
//     a rank sends are 2(n-1)/n of the vector for an all-reduce, the least that is possible (Patarasuk and Yuan 2009).
//   - After an all-reduce of float32 every rank holds the same bits: one rank adds up each segment, the others are
//     given its result. The bits depend on the world and the ring's order; Exact removes that (exact.go).
//   - No call hangs. A neighbour that resets its connection is seen at once, one that falls silent after
//     Config.DeadAfter, over long ways somewhat later (watch.go); one that computes for an hour but answers heartbeats is waited for. Whoever sees a failure
//     returns a *PeerError that names the peer; an abort goes round the ring both ways, and every other rank's pending
//     call returns an *AbortError that names who began it, whom it blames, and why. After that every call on this ring
//     returns that same error.
//   - No goroutine is started or, as a rule, woken, and nothing is allocated per operation or per frame.
//   - Where each connection is limited several may be one, each taking the next piece when it is free (Config.Stripes).
//   - Processes of one host use shared memory, and those that share a Config.Locals the process' own; the log says which.
//   - What a call waits for can be read at any time (Ring.Waiting).
//
// # How it works
//
// Rank r dials rank r+1 and accepts rank r-1. Data goes only from r to r+1. The other direction of each connection
// carries heartbeats, aborts and calls. A call frame says "I have begun operation k, it looks like this": only then
// does the previous rank send data of operation k. So
//
//   - the goroutine that reads a connection never has to stop reading, and so heartbeats and aborts are never stuck
//     behind data that nobody has asked for yet, however far ahead a peer is;
//   - two ranks that call different operations find out at once, before a byte is added, and say which.
//
// The rejected design lets a rank that is ahead send at once and leaves it to TCP to hold it back. It saves the
// one-way trip of the call frame (tens of microseconds per operation), but an idle rank then cannot tell a dead peer
// from a waiting one, and an abort cannot overtake the data.
//
// Operations on small vectors take a shorter way over the same connections: every rank's contribution goes whole, both
// ways round the ring, at once, into memory that is kept for it (whole.go).
//
// Between ranks that see the same memory (offer.go) all this goes through a ring of bytes in it, a lane (lane.go), and is
// reduced right out of it. Heartbeats, aborts and byes stay on the connection, whose end is that of the peer.
//
// The caller of an operation does its work itself, by asking connections and lanes what they have (drive.go). A ring's
// goroutines do it where that is not possible, and once nothing has moved for a while: send (data to the next
// rank), receive (data from the previous rank: reads a frame, adds it bit by bit while it is in the cache, makes it
// ready for send), listen (what the next rank says), one more reader for each lane, answer (heartbeats to the previous
// rank) and watch (silence). They start in Join; Close and Abort wait for them.
//
// # What is in the caller's buffers
//
// A reduction reads this rank's contribution from a slice of its own (Vector.From, ExactSum.Parts), which it never writes to, and
// leaves the result in x. So after an error the contribution is what it was, and can be given again under another view. Without
// such a slice it is in place: x is input and result, and after an error an unknown mixture of input, partial sums and results. So
// is what others contribute to a gather or a broadcast; this rank's own part of it stays what it was.
//
// While a call runs, x and the contribution belong to the ring; when the call returns, with or without an error, no goroutine of the
// ring touches them any more.
//
// # What travels
//
// Elements are words of four bytes, int32 or float32, as they lie in memory. A sum of gradients (Sum, SumScatter) has a Form:
// ExactSum (added as int32, the same bits in any order), BF16 (half the bytes, rounded) or Int8 (a quarter, rounded,
// with error feedback). Each states how far its result may be from the sum; form.go says when what is done to a vector.
//
// # What it leaves out
//
// Who takes part and in which order (package membership), who may connect (internal/port: this package trusts its
// peers and checks for mistakes, not for attackers), retries under a new view (trainer), topologies other than a ring,
// and checksums of the payload beyond those of TCP and TLS. A CRC32C of every frame was thought of: it would be two more
// passes over every byte, and where TCP's 16 bits over a checked link are not enough, a key (TLS) is the remedy that
// there is. What goes through shared memory is not encrypted even then: it never leaves the host.
//
// Two operations of one ring do not overlap: calls are made one after another, by every rank in the same order.
package collective
