// Package data holds what a run trains on, and decides which sample goes where.
//
// It promises that everything is a pure function of the job: sample i of a data set
// has the same bits on every machine, and the place of a sample in the run depends on
// (seed, position) alone, never on how many trainers there are or which of them asks.
// So any node can take over the work of any other.
//
//   - Source is the job's description of its data; Open gives the training and the held-out set.
//   - glyphs (draw.go, strokes.go) are digits that the program draws itself, so that a
//     first run needs no download.
//   - idx (idx.go, idxset.go) is the format of MNIST and its kin.
//   - text (text.go) is a file of text: windows of characters, each labelled with the next one.
//   - libsvm (libsvm.go, sparse.go) is lines of a label and index:value pairs, kept sparse.
//   - csv is tables: records (csv.go) are read twice, a survey (survey.go) leads to a plan (plan.go) of what to make of
//     the columns, by which rows become the samples of a table (table.go).
//   - file.go opens all of them, plain or compressed; a FileError says what is wrong in which line.
//   - own.go takes the samples of a Go program.
//   - A Dataset has a Form: what its samples are made of. Batch (samples.go) is room for them; a Dataset fills it.
//   - Permutation is the order of the samples in a pass; Batches cuts the endless stream
//     of positions into batches and batches into logical shards; Loader fills a trainer's Batch.
//   - HeldOut deals the held-out set to the logical shards for evaluation.
//
// It leaves out, for now: Parquet and other formats, remote storage, and sets that do not fit in
// memory.
package data
