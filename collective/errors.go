package collective

import (
	"errors"
	"fmt"
	"time"

	"github.com/musterml/muster/internal/id"
)

var (
	// ErrAborted is matched by every *AbortError: returned when a rank, this one or another, has aborted the ring.
	ErrAborted = errors.New("ring aborted")
	// ErrClosed is returned when this rank has closed the ring, or the inbox.
	ErrClosed = errors.New("ring closed")
	// ErrBusy is returned when a call is made while another one runs on the same ring; the ring lives on.
	ErrBusy = errors.New("another operation is running on this ring")
	// ErrArgument is returned when a call's arguments cannot be right on any rank; nothing was sent, the ring lives on.
	ErrArgument = errors.New("bad argument")
	// ErrSilent is in a PeerError when nothing was heard of the peer for Config.DeadAfter.
	ErrSilent = errors.New("no sign of life")
	// ErrLeft is in a PeerError when the peer has closed its ring but is needed for this operation.
	ErrLeft = errors.New("has left the ring")
	// ErrProtocol is in a PeerError when the peer sent what it should not: garbage, a frame of another run or view.
	ErrProtocol = errors.New("ring protocol violated")
	// ErrMismatch is in a PeerError when the peer's call differs from this rank's: every rank must make the same calls.
	ErrMismatch = errors.New("ranks call different operations")
)

// PeerError is a neighbour's failure, as this rank saw it.
type PeerError struct {
	Peer   id.Node
	Op     Op            // the operation that was running; zero when Phase is "idle" or "join"
	Phase  string        // "reduce-scatter", "all-gather", "exchange", "idle" or "join"
	Waited time.Duration // since the operation began, or since the peer was last heard where that is longer
	Err    error
}

func (e *PeerError) Error() string {
	where := e.Phase
	if e.Phase != "idle" && e.Phase != "join" {
		where = fmt.Sprintf("%s of %v", e.Phase, e.Op)
	}
	return fmt.Sprintf("peer %s, %s, after %v: %v", e.Peer, where, e.Waited.Round(time.Millisecond), e.Err)
}

func (e *PeerError) Unwrap() error { return e.Err }

// AbortError says that the ring was given up, by whom and why, and what this rank was doing. It matches ErrAborted.
type AbortError struct {
	Origin  id.Node       // the rank that began the abort
	Suspect id.Node       // the peer whose failure it saw; "" when the abort was on purpose
	Reason  string        // in the origin's words
	Op      Op            // the operation that was running here; zero when Phase is "idle"
	Phase   string        // as in PeerError, of this rank
	Waited  time.Duration // since the operation began here; idle: since the previous rank was last heard
	Cause   error         // only on the origin itself: what was given to Abort, or the context's cause
}

func (e *AbortError) Error() string {
	if e.Suspect == "" {
		return fmt.Sprintf("ring aborted by %s: %s", e.Origin, e.Reason)
	}
	return fmt.Sprintf("ring aborted by %s, which lost %s: %s", e.Origin, e.Suspect, e.Reason)
}

// Unwrap makes errors.Is find both ErrAborted and the cause.
func (e *AbortError) Unwrap() []error {
	if e.Cause == nil {
		return []error{ErrAborted}
	}
	return []error{ErrAborted, e.Cause}
}
