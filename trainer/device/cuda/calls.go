package cuda

import (
	"encoding/binary"
	"fmt"
	"reflect"
	"strings"
	"unsafe"

	"github.com/musterml/muster/trainer/device"
)

// argWords is how many words of 8 bytes the arguments of a kernel may have, its mark among them.
const argWords = 34

// call is something that a stream asks of its queue: a kernel, zeros, or a product of the library. Two that are equal do the same,
// so it is all there is to know of one: graph.go compares them.
type call struct {
	kernel          string // "" where it is something else
	grid            [3]int // blocks
	threads, shared int
	args            [argWords]uint64
	words           int          // of args
	kind            reflect.Type // of the arguments, for words

	zero  pointer // where zeros go, if it is that
	bytes int

	gemm gemm // otherwise
}

// ask has the queue do c; when, issue decides.
func (s *stream) ask(c *call) {
	if s.err != nil {
		return
	}
	s.calls = append(s.calls, *c)
	if s.graphs.off {
		s.issue()
	}
}

// zero fills a memory with zeros.
func (s *stream) zero(p pointer, bytes int) { s.ask(&call{zero: p, bytes: bytes}) }

// launch asks for a kernel on so many blocks; its arguments are the fields of a, in the order of the kernel's struct.
func launch[A any](s *stream, kernel string, grid [3]int, threads int, a A) {
	launchShared(s, kernel, grid, threads, 0, a)
}

// launchShared is launch with so many bytes of shared memory besides what the kernel has by itself. A kernel gets a mark besides: it
// writes its number, counted from 1 since the last Sync, to memory of the host when it begins. That can still be read when
// the GPU has failed, and says in which kernel.
func launchShared[A any](s *stream, kernel string, grid [3]int, threads, shared int, a A) {
	c := &s.next
	*c = call{kernel: kernel, grid: grid, threads: threads, shared: shared, kind: reflect.TypeFor[A]()}
	*(*A)(unsafe.Pointer(&c.args)) = a
	c.words = int(unsafe.Sizeof(a)) / 8
	c.args[c.words], c.args[c.words+1] = uint64(s.markAt), uint64(len(s.calls)+1)
	c.words += 2
	s.ask(c)
}

// do asks the queue for c now.
func (s *stream) do(c *call) error {
	var err error
	switch {
	case c.kernel != "":
		err = s.q.launch(c.kernel, c.grid, c.threads, c.shared, c.args[:c.words])
	case c.bytes > 0:
		err = s.q.zero(c.zero, c.bytes)
	default:
		err = s.q.gemm(c.gemm)
	}
	if err != nil {
		return fmt.Errorf("%v: %w", c, err)
	}
	return nil
}

// String names the kernel and its shape: "kernel matmul_nt_small on 4 x 1 x 1 blocks (m 128, n 10, k 400)".
func (c *call) String() string {
	switch {
	case c.kernel == "" && c.bytes > 0:
		return fmt.Sprintf("zeros (%d bytes)", c.bytes)
	case c.kernel == "":
		return fmt.Sprintf("cuBLAS's product (m %d, n %d, k %d, in %s)", c.gemm.n, c.gemm.m, c.gemm.k, c.gemm.precision) // row-major, as it was asked for
	}
	args, shape := reflect.NewAt(c.kind, unsafe.Pointer(&c.args)).Elem(), []string(nil)
	for i := range args.NumField() {
		if f := args.Field(i); f.CanInt() {
			shape = append(shape, fmt.Sprintf("%s %d", c.kind.Field(i).Name, f.Int()))
		}
	}
	return fmt.Sprintf("kernel %s on %d x %d x %d blocks (%s)", c.kernel, c.grid[0], c.grid[1], c.grid[2], strings.Join(shape, ", "))
}

// asked keeps what the driver has answered to something that it cannot refuse while it works. Errors of a GPU come some time
// after what they are of was asked for, and stay.
func (s *stream) asked(err error) {
	if err != nil && s.broken == nil {
		s.broken = fmt.Errorf("%w: %s: %w%s", device.ErrFailed, s.d.Name(), err, s.lastBegun())
		s.fail(s.broken)
	}
}

// lastBegun names the kernel that was running when the GPU failed, as its mark tells.
func (s *stream) lastBegun() string {
	n := int(binary.LittleEndian.Uint32(s.mark))
	if n < 1 || n > len(s.calls) {
		return ""
	}
	return fmt.Sprintf("; the last that began was %v", &s.calls[n-1])
}

const (
	blockThreads = 256
	warpThreads  = 32
	rowsPerPart  = 256
	totalColumns = 8    // that a block adds the parts of
	mostBlocks   = 4096 // of a kernel whose threads take several elements
)

// each is the grid of a kernel with a thread per element, which may take several.
func each(n int) [3]int { return [3]int{min(ceil(n, blockThreads), mostBlocks), 1, 1} }

func ceil(a, b int) int { return (a + b - 1) / b }
