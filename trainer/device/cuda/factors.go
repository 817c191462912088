package cuda

import "github.com/musterml/muster/trainer/device"

// How operands of products on tensor cores are rounded, unless they are kept in bf16 already: by a kernel of its own, before the product, to scratch memory. So the product reads half as much
// in bf16, and a factor that comes in two products, one after the other, as the gradient of an output does in the gradients of a layer's input and of
// its weights, is rounded once.

// Rooms are scratch memories of a stream.
const (
	roomOfParts   = iota // of sums, and losses of rows
	roomOfLeft           // left factors, gradients of outputs among them
	roomOfRight          // right ones, and inputs of convolutions
	roomOfWeights        // of convolutions
	roomOfFilled         // gradients of logits
	rooms
)

// factors are what is rounded already, by room. It is good as long as nothing but products is asked for, which say where they write.
type factors struct {
	held  [rooms]factor
	calls int // how many the stream had been asked for then
}

// factor is a matrix, and what it is of.
type factor struct {
	x                pointer
	kind             device.Kind
	rows, cols, taps int // with taps above 1 it is to be turned from (rows/taps, cols, taps)
}

// bytes is how many it has.
func (f factor) bytes() pointer { return pointer(sizeOf(f.kind) * f.rows * f.cols) }

// drop forgets all.
func (f *factors) drop() { f.held = [rooms]factor{} }

// wrote says that a product has been asked for, which writes there, and with it so many calls.
func (f *factors) wrote(to pointer, bytes, calls int) {
	for i, h := range f.held {
		if h.x < to+pointer(bytes) && to < h.x+h.bytes() {
			f.held[i] = factor{}
		}
	}
	f.calls = calls
}

// chunk is how many elements a precision has in 16 bytes, in which tensor cores' operands are copied; 0 of float32, which they have not.
func chunk(p device.Precision) int {
	return map[device.Precision]int{device.TF32: 4, device.BF16: 8}[p]
}

// rounded is a matrix (rows, cols) as tensor cores take it: in the stream's precision, its lines filled up with zeros to whole chunks.
func (s *stream) rounded(room int, f factor) pointer {
	n, rows, cols := chunk(s.d.precision), f.rows, f.cols
	at := s.findFilled(f)
	if at == 0 && s.filled.touches(f.x, int(f.bytes())) {
		s.bringBack()
	}
	if s.factors.calls != len(s.calls) {
		s.factors.drop() // what has been asked for since may have written there
	}
	if at != 0 {
		return at
	}
	if f.kind == device.BFloat16 && cols%n == 0 && f.x%16 == 0 {
		return f.x
	}
	if s.factors.held[room] == f {
		return s.scratch[room]
	}
	to := s.room(room, 16*rows*ceil(cols, n))
	if f.taps == 1 && cols%n == 0 {
		rows, cols = 1, rows*cols // nothing to fill up: no line to find
	}
	count := ceil(cols, n)
	kernel := outputs{s: s, kind: f.kind}.kernel(s.name("round_", string(s.d.precision), ""))
	launch(s, kernel, each(rows*count), blockThreads, struct {
		to, x                   pointer
		rows, cols, words, taps int64
	}{to, f.x, int64(rows), int64(cols), int64(4 * count), int64(f.taps)})
	s.factors.held[room], s.factors.calls = f, len(s.calls)
	return to
}
