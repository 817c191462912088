package cuda

import "github.com/musterml/muster/trainer/device"

// How operands of products on tensor cores are rounded: by a kernel of its own, before the product, to scratch memory. So the product reads half as much
// in bf16, and a factor that comes in two products, one after the other, as the gradient of an output does in the gradients of a layer's input and of
// its weights, is rounded once.

// Rooms are scratch memories of a stream.
const (
	roomOfParts   = iota // of sums, and losses of rows
	roomOfLeft           // left factors, gradients of outputs among them
	roomOfRight          // right ones, and inputs of convolutions
	roomOfWeights        // of convolutions
	rooms
)

// factors are what is rounded already, by room. It is good as long as nothing but products is asked for, which say where they write.
type factors struct {
	held  [rooms]factor
	calls int // how many the stream had been asked for then
}

// factor is the matrix that a room has.
type factor struct {
	x                pointer
	rows, cols, taps int
}

// drop forgets all.
func (f *factors) drop() { f.held = [rooms]factor{} }

// wrote says that a product has been asked for, which writes there, and with it so many calls.
func (f *factors) wrote(to pointer, bytes, calls int) {
	for i, h := range f.held {
		if h.x < to+pointer(bytes) && to < h.x+pointer(4*h.rows*h.cols) {
			f.held[i] = factor{}
		}
	}
	f.calls = calls
}

// chunk is how many elements a precision has in 16 bytes, in which tensor cores' operands are copied; 0 of float32, which they have not.
func chunk(p device.Precision) int {
	return map[device.Precision]int{device.TF32: 4, device.BF16: 8}[p]
}

// rounded is a matrix (rows, cols) as tensor cores take it: in the stream's precision, its lines filled up with zeros to whole chunks. With taps
// above 1 it is turned from (rows/taps, cols, taps).
func (s *stream) rounded(room int, x pointer, rows, cols, taps int) pointer {
	n, f := chunk(s.d.precision), factor{x, rows, cols, taps}
	if s.factors.calls != len(s.calls) {
		s.factors.drop() // what has been asked for since may have written there
	}
	if s.factors.held[room] == f {
		return s.scratch[room]
	}
	to := s.room(room, 16*rows*ceil(cols, n))
	if taps == 1 && cols%n == 0 {
		rows, cols = 1, rows*cols // nothing to fill up: no line to find
	}
	count := ceil(cols, n)
	launch(s, s.name("round_", string(s.d.precision), ""), each(rows*count), blockThreads, struct {
		to, x                   pointer
		rows, cols, words, taps int64
	}{to, x, int64(rows), int64(cols), int64(4 * count), int64(taps)})
	s.factors.held[room], s.factors.calls = f, len(s.calls)
	return to
}
