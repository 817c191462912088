package ps

import (
	"errors"
	"fmt"

	"github.com/musterml/muster/internal/id"
)

var (
	// ErrGap is returned when a push names a step that some block has not reached.
	ErrGap = errors.New("ps: push beyond the state held")
	// ErrGone is returned when a step is asked for that the blocks held once, and
	// will not hold again.
	ErrGone = errors.New("ps: step no longer held")
	// ErrSplit is returned when a push of several logical shards meets a block that has some of
	// them already: push each by itself.
	ErrSplit = errors.New("ps: push holds both new and known logical shards")
	// ErrRefused is returned when a request can never be carried out: a range outside
	// the layout, a payload of the wrong length or with a wrong checksum.
	ErrRefused = errors.New("ps: request refused")
	// ErrClosed is returned by a client or server that was closed.
	ErrClosed = errors.New("ps: closed")
)

// StepError says which block stands in the way; it is ErrGap, ErrGone or ErrSplit.
type StepError struct {
	Shard   id.ParamShard
	Block   id.Block
	Step    id.Step // asked for
	Newest  id.Step // held by the block; 0 also when it holds nothing
	Message string
	Kind    error // ErrGap, ErrGone or ErrSplit
}

func (e *StepError) Error() string { return fmt.Sprintf("%v: %v: %s", e.Kind, e.Shard, e.Message) }

// Unwrap makes errors.Is see Kind.
func (e *StepError) Unwrap() error { return e.Kind }
