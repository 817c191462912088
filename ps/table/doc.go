// Package table holds sparse tables: rows of float32 by 64-bit keys, made when they are first needed, with the state of
// their optimizer. It is pure: a Store is a function of the entries applied to it in order, and does no I/O.
//
// # What a Store promises
//
//   - Exactly once per (step, logical shard). A step's gradients arrive in Parts, one for each logical shard, in any order
//     and any number of times; the first of each counts. When all are here the step is done: the gradients of a
//     key are added in the order of logical shards, in float32, and its row is updated once. So rows have the same
//     bits whoever computed which logical shard, and a trainer that recomputes one after a failure changes nothing.
//   - The same bits for any number of shards. A key belongs to one of Slots slots, by a hash, and everything that looks at
//     more than one row (the limit of rows) looks at one slot; a shard keeps slot s if s mod shards is its number.
//   - The past stays readable. Applying a step notes what the rows it changes were before (undo), so the state at
//     an earlier step can be read as long as its notes are kept: by trainers that do a step again and by checkpoints, while
//     steps go on. A Snapshot, which may take long, is left copies of rows instead. What changed since a step is known without looking at what did not.
//
// # Rows
//
// A row that nobody has pushed to has its initial value, a function of (seed, table, key, element): reading makes nothing.
// A key is seen by a step in which some logical shard pushes a gradient for it. With Admit k it has no row before
// the k-th step that sees it: until then it reads as zeros, its gradients are dropped, and only a count is kept; the
// step that admits it drops its gradient, too, for it was computed for zeros. With Expire n a key is forgotten when n steps
// have not seen it. With MaxRows the keys seen longest ago are forgotten at the end of a step when their slot has more
// than its share, ceil(MaxRows/Slots), counting those that wait to be admitted; of keys last seen by the same step the
// smaller goes first. A forgotten key that comes again begins anew.
//
// Because only these rules forget, and both forget what was seen longest ago, what is there follows from the last record of
// every key: a snapshot and the records that changed after it make the state without a word of what is gone.
//
// # Speed
//
// An update is a few arithmetic operations on a row that lies somewhere in gigabytes: its time is that of misses in the caches. So
// keys are found by open addressing in one line of memory (index), a row and its optimizer's values lie side by side in large pieces on huge pages
// (table.grow), and what is done for a row is done for a group of them at a time, part by part, so that the misses of a group
// overlap (work). A map of Go and one row after the other took four times as long. Nothing is allocated in the steady state.
package table
