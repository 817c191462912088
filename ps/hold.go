package ps

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"
)

// ErrPayload is returned by the log store when the payload of an entry could not be had;
// Raft tries again.
var ErrPayload = errors.New("ps: payload not held")

// holder makes the log store wait until every payload of the new entries is here.
//
// It runs on Raft's main goroutine, which cannot vote or count heartbeats meanwhile, so
// it must not wait for what will not come. A payload comes by itself only on an open
// stream of its source that has not gone past it; any other is fetched at once, and
// when no replica has it the store fails at once. What remains is bounded: a stream
// without progress is not waited for longer than stall, and nothing longer than timeout
// after the last payload that came.
type holder struct {
	payloads *payloads
	// fetch asks the leader, then every other replica, for the payloads and shares
	// what it got; it fails when it got none.
	fetch   func(ctx context.Context, refs []reference) error
	timeout time.Duration
	stall   time.Duration

	mu     sync.Mutex
	cancel context.CancelCauseFunc // of the hold under way

	missing, absent []reference // reused
}

func (h *holder) hold(ctx context.Context, refs []reference) error {
	if len(refs) == 0 {
		return nil
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	h.mu.Lock()
	h.cancel = cancel
	h.mu.Unlock()
	last, seen, count := time.Now(), h.payloads.received(), len(refs)+1
	moved := last
	for {
		h.missing = h.payloads.log(refs, h.missing[:0])
		if len(h.missing) == 0 {
			return nil
		}
		now := time.Now()
		if len(h.missing) < count {
			count, last, moved = len(h.missing), now, now
		}
		if r := h.payloads.received(); r != seen {
			seen, moved = r, now
		}
		if now.Sub(last) >= h.timeout {
			return fmt.Errorf("%w: %v and %d more did not come within %v", ErrPayload, h.missing[0].id, len(h.missing)-1, h.timeout)
		}
		h.absent = h.absent[:0]
		for _, r := range h.missing {
			if !h.payloads.coming(r.id) || now.Sub(moved) >= h.stall {
				h.absent = append(h.absent, r)
			}
		}
		if len(h.absent) > 0 {
			if err := h.fetch(ctx, h.absent); err != nil {
				// It may have come by the stream meanwhile.
				if h.missing = h.payloads.log(refs, h.missing[:0]); len(h.missing) == 0 {
					return nil
				}
				return fmt.Errorf("%w: %v and %d more: %w", ErrPayload, h.missing[0].id, len(h.missing)-1, err)
			}
			continue
		}
		if err := h.pause(ctx); err != nil {
			return err
		}
	}
}

// pause waits for an arrival, at most for stall.
func (h *holder) pause(ctx context.Context) error {
	timer := time.NewTimer(h.stall)
	defer timer.Stop()
	select {
	case <-h.payloads.wake:
	case <-timer.C:
	case <-ctx.Done():
		return fmt.Errorf("%w: %w", ErrPayload, context.Cause(ctx))
	}
	return nil
}

// leaderGone ends a wait for what the leader was sending, be it on a connection to it.
func (h *holder) leaderGone() {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.cancel != nil {
		h.cancel(errLeaderGone)
	}
}

var errLeaderGone = errors.New("the leader is gone")

// contains tells whether refs has the payload.
func contains(refs []reference, id payloadID) bool {
	return slices.ContainsFunc(refs, func(r reference) bool { return r.id == id })
}
