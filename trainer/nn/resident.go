package nn

import (
	"errors"
	"fmt"
	"math"
	"unsafe"

	"github.com/musterml/muster/internal/optim"
	"github.com/musterml/muster/trainer/device"
)

// What a device with memory of its own can keep from step to step: weights and an optimizer's slots, which it then updates by itself, and
// gradients, which it adds up by itself. The host's copy of the state gets older meanwhile, until it is given the newest.

// resident is that memory; all of it are ports.
type resident struct {
	w         []float32   // the host's copy of the state; nil while the device keeps none,
	of        [][]float32 // and its slots
	slots     []device.Memory
	largest   device.Memory   // by block, as those that follow
	exponents device.Memory   //
	squares   device.Memory   // two words each
	words     []float32       // of squares, for the host
	places    []device.Buffer // for gradients
	parts     []device.Buffer // those of them that are in use
	ranges    []device.Buffer // of these and others, here so that they are not allocated for each sum
	room      device.Memory   // for other devices' parts of a sum; nil where there are none
	block     int
}

// holds tells that the device keeps a state, of which w is the host's copy of the weights.
func (k *resident) holds(w []float32) bool {
	return len(k.w) > 0 && len(w) > 0 && &k.w[0] == &w[0]
}

// KeepState makes room on the device for an optimizer's state of so many slots.
func (r *Replica) KeepState(slots int) error {
	a := &allocator{stream: r.stream}
	for range slots {
		r.kept.slots = append(r.kept.slots, a.port(device.Float32, r.spec.params))
	}
	if a.err != nil {
		return fmt.Errorf("model %s: room for the state of the optimizer: %w", r.spec.name, a.err)
	}
	return nil
}

// Take has the device keep a copy of a state: weights and slots, for which there is room, each as long as the model has parameters. From then on calls that
// are given w use the device's weights, and Update makes them new.
func (r *Replica) Take(w []float32, slots [][]float32) error {
	r.kept.w, r.kept.of = w, slots
	r.bindState(device.In)
	return r.sync()
}

// bindState has the ports stand for the state of the host.
func (r *Replica) bindState(how device.Direction) {
	r.stream.Bind(r.w, r.kept.w, how)
	for i, slot := range r.kept.of {
		r.stream.Bind(r.kept.slots[i], slot, how)
	}
}

// Give copies the parameters [lo, hi) of the device's state to the host's.
func (r *Replica) Give(lo, hi int) error {
	r.bindState(device.Out)
	r.stream.Flush(device.Whole(r.w).Range(lo, hi-lo))
	for i := range r.kept.of {
		r.stream.Flush(device.Whole(r.kept.slots[i]).Range(lo, hi-lo))
	}
	return r.sync()
}

// Update makes the device's state that of the next step, with a gradient times a factor; without one, with what AddUp has left.
func (r *Replica) Update(rule optim.Rule, grad []float32, factor float32) error {
	r.bindState(device.Again)
	if grad != nil {
		r.stream.Bind(r.grads[0], grad, device.In)
	}
	n, sum := r.spec.params, device.Whole(r.grads[0])
	if factor != 1 {
		r.stream.Scale(sum, sum, n, factor)
	}
	if rule.Kind == optim.LAMB { // of whole tensors
		for _, t := range r.spec.tensors {
			r.updateRange(rule, sum, t.Offset, t.Len())
		}
	} else {
		r.updateRange(rule, sum, 0, n)
	}
	return r.sync()
}

func (r *Replica) updateRange(rule optim.Rule, sum device.Buffer, at, n int) {
	u := device.Update{N: n, Rule: rule, W: device.Whole(r.w).Range(at, n), Grad: sum.Range(at, n)}
	for i := range r.kept.of {
		u.Slots[i] = device.Whole(r.kept.slots[i]).Range(at, n)
	}
	r.stream.Update(u)
}

// KeepGradients makes room on the device for the gradients of so many parts (Part.Place), and for adding them up by block with those on other devices, all in all
// so many.
func (r *Replica) KeepGradients(parts, block, devices int) error {
	k, n := &r.kept, r.spec.params
	blocks := (n + block - 1) / block
	a, grads := &allocator{stream: r.stream}, r.grads
	for len(grads) < parts && a.err == nil {
		grads = append(grads, a.port(device.Float32, n))
	}
	var room device.Memory
	if devices > 1 {
		room = a.port(device.Float32, (devices-1)*block*((blocks+devices-1)/devices))
	}
	largest, exponents, squares := a.port(device.Float32, blocks), a.port(device.Int32, blocks), a.port(device.Float32, 2*blocks)
	if a.err != nil {
		return fmt.Errorf("model %s: room for the gradients of %d logical shards: %w", r.spec.name, parts, a.err)
	}
	r.grads, k.largest, k.exponents, k.squares, k.words, k.room, k.block = grads, largest, exponents, squares, make([]float32, 2*blocks), room, block
	for _, g := range grads[:parts] {
		k.places = append(k.places, device.Whole(g))
	}
	return nil
}

// UseGradients says how many of them are in use from now on, at least one: what adds them up takes these.
func (r *Replica) UseGradients(parts int) { r.kept.parts = r.kept.places[:parts] }

// Magnitudes finds the largest magnitude of each block of all gradients that are kept, as device.Magnitudes has it.
func (r *Replica) Magnitudes(largest []float32) error {
	k := &r.kept
	r.stream.Bind(k.largest, largest, device.Out)
	r.stream.Magnitudes(device.Magnitudes{N: r.spec.params, Block: k.block, Parts: k.parts, Y: device.Whole(k.largest)})
	r.stream.Flush(device.Whole(k.largest))
	return r.sync()
}

// AddUp adds up all gradients that the devices of some replicas of one model keep; on each the sum lies where its first gradient did. With exponents it is
// added as device.ExactSum does; with none in float32, in the order of the shards, on one device. Unless squares is nil, it gets the sum's squares by block.
func AddUp(all []*Replica, exponents []int32, width int, squares []float64) error {
	r := all[0]
	k, n := &r.kept, r.spec.params
	if exponents == nil {
		for _, part := range k.parts[1:] {
			r.stream.Add(k.parts[0], k.parts[0], part, n, device.Identity)
		}
	} else {
		addExactly(all, exponents, width)
	}
	if squares != nil {
		r.stream.Bind(k.squares, k.words, device.Out)
		r.stream.Squares(device.Squares{N: n, Block: k.block, X: k.parts[0], Y: device.Whole(k.squares)})
		r.stream.Flush(device.Whole(k.squares))
	}
	var errs []error // of all: whose fault it is, one alone may not show
	for _, r := range all {
		errs = append(errs, r.sync())
	}
	if err := errors.Join(errs...); err != nil {
		return err
	}
	for b := range squares {
		squares[b] = math.Float64frombits(uint64(math.Float32bits(k.words[2*b])) | uint64(math.Float32bits(k.words[2*b+1]))<<32)
	}
	return nil
}

// Multiples adds up what the devices of some replicas keep of the gradients' blocks from first on, with these exponents: words, which are for all parameters, get
// the sums of multiples that collective.ExactSum takes. Blocks of a gradient can be asked for but once.
func Multiples(all []*Replica, exponents []int32, first, width int, words []int32) error {
	last := first + len(exponents)
	addMultiples(all, exponents, first, width, true)
	if len(all) > 1 {
		scatter(all, first, last, width, true)
	}
	host := unsafe.Slice((*float32)(unsafe.Pointer(unsafe.SliceData(words))), len(words)) // they lie in the place of numbers
	var errs []error
	for i, r := range all {
		_, _, from, to := r.share(first, last, i, len(all))
		r.stream.Bind(r.kept.parts[0].Mem, host, device.Out)
		r.stream.Flush(r.kept.parts[0].Range(from, to-from))
	}
	for _, r := range all {
		errs = append(errs, r.sync())
	}
	return errors.Join(errs...)
}

// addExactly makes the exact sum on each device.
func addExactly(all []*Replica, exponents []int32, width int) {
	addMultiples(all, exponents, 0, width, len(all) > 1)
	if len(all) == 1 {
		return
	}
	scatter(all, 0, len(exponents), width, false)
	for _, r := range all { // an all-gather: a device writes over what another one fetches only with what comes from there, and so behind it
		for j, other := range all {
			if _, _, from, to := r.share(0, len(exponents), j, len(all)); other != r && to > from {
				r.stream.Fetch(r.kept.parts[0].Range(from, to-from), other.stream, other.kept.parts[0].Range(from, to-from))
			}
		}
	}
}

// addMultiples makes multiples of each device's gradients, in the blocks from one on, and adds them; open, the sums stay such.
func addMultiples(all []*Replica, exponents []int32, first, width int, open bool) {
	for _, r := range all {
		k := &r.kept
		_, _, from, to := r.share(first, first+len(exponents), 0, 1)
		k.ranges = k.ranges[:0]
		for _, part := range k.parts {
			k.ranges = append(k.ranges, part.Range(from, to-from))
		}
		r.stream.BindInt32(k.exponents, exponents)
		r.stream.ExactSum(device.ExactSum{N: to - from, Block: k.block, Width: width, Parts: k.ranges, Y: k.ranges[0], Open: open,
			Exponents: device.Whole(k.exponents).Range(0, len(exponents))})
	}
}

// scatter has each device fetch its share of the others' sums in the blocks [first, last), and add these; open, what comes out stays multiples.
func scatter(all []*Replica, first, last, width int, open bool) {
	for i, r := range all {
		k := &r.kept
		at, end, from, to := r.share(first, last, i, len(all))
		if from == to {
			continue
		}
		words := append(k.ranges[:0], k.parts[0].Range(from, to-from))
		for _, other := range all {
			if other != r {
				room := device.Whole(k.room).Range((len(words)-1)*(to-from), to-from)
				r.stream.Fetch(room, other.stream, other.kept.parts[0].Range(from, to-from))
				words = append(words, room)
			}
		}
		r.stream.ExactSum(device.ExactSum{N: to - from, Block: k.block, Width: width, Words: words, Y: words[0], Open: open,
			Exponents: device.Whole(k.exponents).Range(at-first, end-at)})
		k.ranges = words
	}
}

// share is that of device i of n in the blocks [first, last): the blocks [at, end), which are the parameters [from, to).
func (r *Replica) share(first, last, i, n int) (at, end, from, to int) {
	at, end = first+i*(last-first)/n, first+(i+1)*(last-first)/n
	return at, end, min(at*r.kept.block, r.spec.params), min(end*r.kept.block, r.spec.params)
}

// Kept copies the gradient that is kept in a place to the host.
func (r *Replica) Kept(place int, grad []float32) error {
	part := r.kept.parts[place]
	r.stream.Bind(part.Mem, grad, device.Out)
	r.stream.Flush(part)
	return r.sync()
}
