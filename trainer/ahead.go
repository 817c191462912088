package trainer

import (
	"errors"
	"slices"

	"github.com/musterml/muster/internal/id"
	"github.com/musterml/muster/trainer/data"
	"github.com/musterml/muster/trainer/device"
	"github.com/musterml/muster/trainer/nn"
)

// ahead makes samples ready on the host, and brings them to a device with memory of its own, while that computes with those before, where it would otherwise wait for
// them. It guesses whose they will be: a guess that a change of view belies costs nothing but the reading.
type ahead struct {
	loader  *data.Loader
	room    room // where they are put
	guess   turn
	samples data.Batch    // of it
	brought bool          // to the device
	done    chan struct{} // closed when they are there; nil where nothing was guessed
}

// room is for the samples of a turn, on the host and on the device.
type room struct {
	batch data.Batch
	feed  *nn.Feed // nil where samples are few bytes
}

// turn is some units that are computed together.
type turn struct {
	step  id.Step
	group []id.LogicalShard
}

// readAhead has a bench do so, unless its device computes in the host's memory, whose processors have no time for it, or it goes many steps by itself (mode local).
func (b *bench) readAhead(w *work, batch func() data.Batch) (err error) {
	if len(device.Cards(w.device)) == 0 || w.rounds != nil {
		return nil
	}
	b.ahead = &ahead{loader: w.loader, room: room{batch: batch()}}
	if b.feed, err = b.replica.NewFeed(); err == nil {
		b.ahead.room.feed, err = b.replica.NewFeed()
	}
	return err
}

// samples are those of a turn: in the bench's room, which changes places with what they were put into if they were guessed. Those of the bench's next
// turn are begun with.
func (b *bench) samples(loader *data.Loader, t turn) (got data.Batch) {
	b.replica.Fed = nil
	a := b.ahead
	if a == nil {
		return loader.Fill(t.step, t.group, b.batch)
	}
	guessed := a.done != nil && a.guess.step == t.step && slices.Equal(a.guess.group, t.group)
	if a.wait(); guessed {
		got, b.room, a.room = a.samples, a.room, b.room
		if a.brought {
			b.replica.Fed = b.feed
		}
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
		a.samples = a.loader.Fill(a.guess.step, a.guess.group, a.room.batch)
		a.brought = a.room.feed != nil && a.room.feed.Bring(a.samples) == nil // a device that fails says so when it computes
	}()
}

func (b *bench) close() error {
	b.ahead.wait()
	feeds := []*nn.Feed{b.feed}
	if b.ahead != nil {
		feeds = append(feeds, b.ahead.room.feed)
	}
	var errs []error
	for _, f := range feeds {
		if f != nil {
			errs = append(errs, f.Close())
		}
	}
	return errors.Join(append(errs, b.replica.Close())...)
}

// wait returns when nothing is under way.
func (a *ahead) wait() {
	if a != nil && a.done != nil {
		<-a.done
		a.done = nil
	}
}
