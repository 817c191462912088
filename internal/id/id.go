// Package id names the things that cross package borders, one distinct type each,
// so that a step is never passed where a view is meant.
package id

import "fmt"

// Node is the name of one process of a run, unique in its cluster.
type Node string

// Incarnation tells one life of a node from the next: a process that starts anew
// under the same name has another incarnation. It is random and never reused.
type Incarnation string

// View numbers the agreed memberships of a run, from 1; 0 means no view yet.
type View uint64

// Step numbers the optimizer updates of a run. State "at step s" is the state
// after s updates: step s reads it and makes the state at s+1.
type Step uint64

// LogicalShard is one of the fixed slices of every global batch.
type LogicalShard int

// Block is one of the equal ranges that the flat parameter vector is cut into.
type Block int

// ParamShard is one of the Raft groups that keep the blocks.
type ParamShard int

func (v View) String() string         { return fmt.Sprintf("view %d", uint64(v)) }
func (s Step) String() string         { return fmt.Sprintf("step %d", uint64(s)) }
func (s LogicalShard) String() string { return fmt.Sprintf("logical shard %d", int(s)) }
func (b Block) String() string        { return fmt.Sprintf("block %d", int(b)) }
func (s ParamShard) String() string   { return fmt.Sprintf("shard-%d", int(s)) }
