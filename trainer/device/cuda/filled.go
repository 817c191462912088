package cuda

import "github.com/musterml/muster/trainer/device"

// The gradient of logits is a factor of two products, and as a rule nothing else reads it. Where its lines are no whole chunks (50257 classes), it would be written as it
// is, and copied with its lines filled up. So the loss writes it filled up in the first place, to scratch memory; and where something else than a product
// reads the memory that it belongs in (want), it is brought there first.

// filled is lines of a matrix in bf16 that lie in roomOfFilled, where they begin at multiples of 16 bytes, and not where they belong.
type filled struct {
	x        pointer // where line 0 belongs: a memory's beginning
	cols     int
	from, to int // the lines: none where the two are equal
}

func (f *filled) line() pointer { return pointer(sizeOf(device.BFloat16) * f.cols) }

// pitch is how long lines are in the room.
func (f *filled) pitch() int { return ceil(f.cols, chunk(device.BF16)) * chunk(device.BF16) }

// inRoom is where a line lies, counted from the room's beginning.
func (f *filled) inRoom(line int) pointer {
	return pointer(sizeOf(device.BFloat16) * f.pitch() * line)
}

// touches tells whether some of the memory is where such lines belong.
func (f *filled) touches(x pointer, bytes int) bool {
	return f.from < f.to && x < f.x+f.line()*pointer(f.to) && f.x+f.line()*pointer(f.from) < x+pointer(bytes)
}

// fills finds room for a gradient of logits (rows, cols), 0 if it is not to be filled up: if it needs none, or is no lines of the memory's. The parts of a batch, one after the other, are
// filled up as one.
func (s *stream) fills(o outputs, b device.Buffer, rows, cols int) pointer {
	if s.err != nil || b.IsNone() || o.kind != device.BFloat16 || s.d.precision != device.BF16 || cols%chunk(device.BF16) == 0 || b.Off%cols != 0 || b.Mem.Len()%cols != 0 {
		return 0
	}
	x, f, first := b.Mem.(*memory).at, &s.filled, b.Off/cols
	if f.from == f.to || f.x != x || f.cols != cols || f.to != first {
		s.bringBack()
		*f = filled{x, cols, first, first}
	}
	room := s.room(roomOfFilled, int(f.inRoom(b.Mem.Len()/cols)))
	f.to += rows
	return room + f.inRoom(first)
}

// findFilled is where a factor lies filled up, or 0.
func (s *stream) findFilled(x factor) pointer {
	f := &s.filled
	if x.kind != device.BFloat16 || x.cols != f.cols || x.x < f.x || (x.x-f.x)%f.line() != 0 {
		return 0
	}
	if first := int((x.x - f.x) / f.line()); f.from <= first && first+x.rows <= f.to {
		return s.scratch[roomOfFilled] + f.inRoom(first)
	}
	return 0
}

// bringBack brings lines that are filled up to where they belong.
func (s *stream) bringBack() {
	f := s.filled
	s.filled = filled{}
	if n := f.to - f.from; n > 0 {
		s.columns("columns_bf16", f.x+f.line()*pointer(f.from), s.scratch[roomOfFilled]+f.inRoom(f.from), n, f.cols, f.pitch())
	}
}

// overwrites says that all of a memory will be written anew.
func (s *stream) overwrites(x pointer, bytes int) {
	f := &s.filled
	switch {
	case !f.touches(x, bytes):
	case x <= f.x+f.line()*pointer(f.from) && f.x+f.line()*pointer(f.to) <= x+pointer(bytes):
		*f = filled{}
	default:
		s.bringBack()
	}
}
