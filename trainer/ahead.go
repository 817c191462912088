package trainer

import (
	"slices"

	"github.com/musterml/muster/internal/id"
	"github.com/musterml/muster/trainer/data"
	"github.com/musterml/muster/trainer/device"
)

// ahead makes samples ready on the host while a device with memory of its own computes with those before, where it would otherwise wait for them. It guesses
// whose they will be: a guess that a change of view belies costs nothing but the reading.
type ahead struct {
	loader  *data.Loader
	room    data.Batch // where they are put
	guess   turn
	samples data.Batch    // of it
	done    chan struct{} // closed when they are there; nil where nothing was guessed
}

// turn is some units that are computed together.
type turn struct {
	step  id.Step
	group []id.LogicalShard
}

// newAhead is nil for a device that computes in the host's memory, whose processors have no time for it.
func newAhead(w *work, room func() data.Batch) *ahead {
	if _, ok := w.device.(device.Locker); !ok {
		return nil
	}
	return &ahead{loader: w.loader, room: room()}
}

// samples are those of a turn: in the bench's room, which changes places with what they were put into if they were guessed. Those of the bench's next
// turn are begun with.
func (b *bench) samples(loader *data.Loader, t turn) (got data.Batch) {
	a := b.ahead
	if a == nil {
		return loader.Fill(t.step, t.group, b.batch)
	}
	guessed := a.done != nil && a.guess.step == t.step && slices.Equal(a.guess.group, t.group)
	if a.wait(); guessed {
		got, b.batch, a.room = a.samples, a.room, b.batch
	} else {
		got = loader.Fill(t.step, t.group, b.batch)
	}
	if len(b.next.group) > 0 {
		a.begin(b.next)
		b.next = turn{}
	}
	return got
}

// begin puts the samples of a turn into the room, beside the caller.
func (a *ahead) begin(t turn) {
	a.guess.step, a.guess.group = t.step, append(a.guess.group[:0], t.group...)
	done := make(chan struct{})
	a.done = done
	go func() {
		defer close(done)
		a.samples = a.loader.Fill(a.guess.step, a.guess.group, a.room)
	}()
}

// wait returns when nothing is under way.
func (a *ahead) wait() {
	if a != nil && a.done != nil {
		<-a.done
		a.done = nil
	}
}
