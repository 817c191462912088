package trainer

import (
	"math"
	"time"

	"github.com/musterml/muster/collective"
	pb "github.com/musterml/muster/proto"
)

// way measures the network to the next trainer in the ring, so that a link that holds up all of them can be named: its sender always
// has something on the way, and what is there arrives slowly.
type way struct {
	ring *collective.Ring
	last collective.Way
	at   time.Time

	busy, weight, rate float64 // busy and weight are 1 for all of the last seconds; rate is the mean, by time in use
}

// wayWindow is how long it takes until a moment counts for a third.
const wayWindow = 5 * time.Second

// look is called every now and then; nil where nothing is known.
func (w *way) look() *pb.Way {
	if w.ring == nil {
		return nil
	}
	now, ok := w.ring.Way()
	if !ok {
		return nil
	}
	w.add(now, time.Now())
	if w.weight == 0 {
		return nil
	}
	return &pb.Way{To: string(now.To), Busy: w.busy / w.weight, Rate: w.rate}
}

// add takes in what is known at a time.
func (w *way) add(now collective.Way, at time.Time) {
	passed := at.Sub(w.at)
	if w.at.IsZero() || passed <= 0 {
		w.last, w.at = now, at
		return
	}
	fresh := 1 - math.Exp(-float64(passed)/float64(wayWindow))
	busy := fresh * min(1, float64(now.Busy-w.last.Busy)/float64(passed))
	w.weight += fresh * (1 - w.weight)
	w.busy = (1-fresh)*w.busy + busy
	if busy > 0 {
		w.rate += busy / w.busy * (now.Rate - w.rate)
	}
	w.last, w.at = now, at
}
