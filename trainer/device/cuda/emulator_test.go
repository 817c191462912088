package cuda

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"testing"
	"unsafe"

	"github.com/musterml/muster/trainer/device"
)

// emulated is a gpu whose kernels run on the host, in a process of their own (emulator/main.cc).
type emulated struct {
	t   testing.TB
	mu  sync.Mutex
	in  io.WriteCloser
	out *bufio.Reader
	// fault, where it is set, is asked before every call by its name, and may fail it.
	fault func(call string) error
	// calls counts what has been asked for and not given back.
	allocated, pinnedBytes, lockedBytes int
	sizes                               map[pointer]int
	blas                                string // the library that it is to have
	noGraphs                            bool
	replays                             int // of graphs
	queues                              []*emulatedQueue
	marks                               map[pointer][]byte // pinned memory by its address
}

var emulatorProgram = sync.OnceValues(func() (string, error) {
	dir, err := os.MkdirTemp("", "muster-emulator-")
	if err != nil {
		return "", err
	}
	program := filepath.Join(dir, "emulator")
	// The address sanitizer finds what a kernel reads or writes beyond its memories.
	out, err := exec.Command("g++", "-std=c++17", "-O1", "-ffp-contract=off", "-fsanitize=address,alignment", "-fno-sanitize-recover=alignment", "-Wall", "-Wno-unknown-pragmas",
		"-Wno-unused-function", "-DMUSTER_EMULATED", "-o", program, "emulator/main.cc").CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("g++: %w\n%s", err, out)
	}
	return program, nil
})

func TestMain(m *testing.M) {
	code := m.Run()
	if os.Getenv(gpuOnly) != "" {
		os.Exit(code)
	}
	if program, err := emulatorProgram(); err == nil {
		_ = os.RemoveAll(filepath.Dir(program))
	}
	os.Exit(code)
}

func emulator(t testing.TB) *emulated {
	t.Helper()
	if os.Getenv(gpuOnly) != "" {
		t.Skip("this test is of the emulator, or on it")
	}
	if _, err := exec.LookPath("g++"); err != nil {
		t.Skip("the kernels are not run: there is no g++ to compile their emulator with")
	}
	program, err := emulatorProgram()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(program)
	cmd.Env = append(os.Environ(), "ASAN_OPTIONS=detect_leaks=0") // what is not given back is counted here
	var words bytes.Buffer                                        // the sanitizer's, which warns at fibers in any case
	cmd.Stderr = &words
	e := &emulated{t: t, sizes: map[pointer]int{}, marks: map[pointer][]byte{}}
	if e.in, err = cmd.StdinPipe(); err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	e.out = bufio.NewReader(out)
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = e.in.Close()
		if err := cmd.Wait(); err != nil {
			t.Errorf("the emulator: %v\n%s", err, &words)
		}
	})
	return e
}

// ask sends a request and reads its answer into answer.
func (e *emulated) ask(call string, what byte, answer []byte, parts ...any) error {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.fault != nil {
		if err := e.fault(call); err != nil {
			return err
		}
	}
	request := []byte{what}
	for _, p := range parts {
		switch p := p.(type) {
		case []byte:
			request = append(request, p...)
		case pointer:
			request = binary.LittleEndian.AppendUint64(request, uint64(p))
		case int:
			request = binary.LittleEndian.AppendUint64(request, uint64(p))
		}
	}
	if _, err := e.in.Write(request); err != nil {
		return err
	}
	status, err := e.out.ReadByte()
	if err != nil {
		return err
	}
	if status == 0 {
		_, err = io.ReadFull(e.out, answer)
		return err
	}
	var n [8]byte
	if _, err := io.ReadFull(e.out, n[:]); err != nil {
		return err
	}
	text := make([]byte, binary.LittleEndian.Uint64(n[:]))
	if _, err := io.ReadFull(e.out, text); err != nil {
		return err
	}
	return errors.New(string(text))
}

func (e *emulated) name() string           { return "emulator" }
func (e *emulated) architecture() string   { return "host" }
func (e *emulated) processors() int        { return 4 }
func (e *emulated) library() string        { return e.blas }
func (e *emulated) memory() (int64, int64) { return int64(e.allocated), 1 << 30 }
func (e *emulated) details() Details       { return Details{Architecture: e.architecture(), Processors: 4} }

func (e *emulated) alloc(bytes int) (pointer, error) {
	var answer [8]byte
	err := e.ask("alloc", 'A', answer[:], bytes)
	p := pointer(binary.LittleEndian.Uint64(answer[:]))
	if err == nil {
		e.allocated += bytes
		e.sizes[p] = bytes
	}
	return p, err
}

func (e *emulated) free(p pointer) error {
	e.allocated -= e.sizes[p]
	delete(e.sizes, p)
	return e.ask("free", 'F', nil, p)
}

func (e *emulated) pinned(bytes int) ([]byte, error) {
	if e.fault != nil {
		if err := e.fault("pinned"); err != nil {
			return nil, err
		}
	}
	e.pinnedBytes += bytes
	b := make([]byte, bytes)
	e.marks[e.address(b)] = b
	return b, nil
}

func (e *emulated) address(b []byte) pointer {
	return pointer(uintptr(unsafe.Pointer(unsafe.SliceData(b))))
}

func (e *emulated) unpin(b []byte) error {
	e.pinnedBytes -= len(b)
	return nil
}

func (e *emulated) lock(b []byte) error {
	if e.fault != nil {
		if err := e.fault("lock"); err != nil {
			return err
		}
	}
	e.lockedBytes += len(b)
	return nil
}

func (e *emulated) unlock(b []byte) error {
	e.lockedBytes -= len(b)
	if e.fault != nil {
		return e.fault("unlock")
	}
	return nil
}

func (e *emulated) newQueue() (queue, error) {
	q := &emulatedQueue{e: e}
	e.queues = append(e.queues, q)
	return q, nil
}

// left is how much there is still to do in all queues.
func (e *emulated) left() (n int) {
	for _, q := range e.queues {
		n += len(q.later)
	}
	return n
}

func (e *emulated) newEvent() (event, error) { return &emulatedEvent{}, nil }

// emulatedQueue does nothing before somebody waits for it: who reads, or gives memory back, before that is found out. And what
// nobody orders behind another queue's work is done too early or too late.
type emulatedQueue struct {
	e     *emulated
	later []func() error
	done  int
}

func (q *emulatedQueue) push(f func() error) error {
	q.later = append(q.later, f)
	return nil
}

func (q *emulatedQueue) write(dst pointer, src []byte) error {
	return q.push(func() error { return q.e.ask("write", 'W', nil, dst, len(src), src) })
}

func (q *emulatedQueue) read(dst []byte, src pointer) error {
	return q.push(func() error { return q.e.ask("read", 'R', dst, src, len(dst)) })
}

func (q *emulatedQueue) fetch(dst pointer, from gpu, src pointer, bytes int) error {
	return q.push(func() error {
		contents := make([]byte, bytes)
		if err := from.(*emulated).ask("fetch", 'R', contents, src, bytes); err != nil {
			return err
		}
		return q.e.ask("fetch", 'W', nil, dst, bytes, contents)
	})
}

func (q *emulatedQueue) zero(p pointer, bytes int) error {
	return q.push(func() error { return q.e.ask("zero", 'Z', nil, p, bytes) })
}

func (q *emulatedQueue) launch(kernel string, grid [3]int, threads, shared int, args []uint64) error {
	if err := launchable(kernel, threads, shared, len(args)); err != nil {
		return err
	}
	var a []byte
	words, where, number := len(args)-2, pointer(args[len(args)-2]), args[len(args)-1]
	for _, w := range args[:words] {
		a = binary.LittleEndian.AppendUint64(a, w)
	}
	return q.push(func() error {
		binary.LittleEndian.PutUint32(q.e.marks[where], uint32(number)) // what the mark does, which the emulator's process cannot reach
		return q.e.ask("launch "+kernel, 'L', nil, len(kernel), []byte(kernel), grid[0], grid[1], grid[2], threads, shared, len(a), a)
	})
}

// gemm is BLAS's product by its definition.
func (q *emulatedQueue) gemm(g gemm) error {
	return q.push(func() error {
		matrix := func(p pointer, columns, ld, rows int) []float32 { // of columns that are rows long
			size := 4
			if g.precision == device.BF16 {
				size = 2
			}
			raw := make([]byte, size*((columns-1)*ld+rows))
			if err := q.e.ask("gemm", 'R', raw, p, len(raw)); err != nil {
				q.e.t.Error(err)
			}
			v := make([]float32, len(raw)/size)
			for i := range v {
				if size == 2 {
					v[i] = math.Float32frombits(uint32(binary.LittleEndian.Uint16(raw[2*i:])) << 16)
				} else {
					v[i] = math.Float32frombits(binary.LittleEndian.Uint32(raw[4*i:]))
				}
			}
			return v
		}
		shape := func(transposed bool, rows, columns int) (int, int) {
			if transposed {
				return rows, columns
			}
			return columns, rows
		}
		aColumns, aRows := shape(g.transA, g.m, g.k)
		bColumns, bRows := shape(g.transB, g.k, g.n)
		a, b, c := matrix(g.a, aColumns, g.lda, aRows), matrix(g.b, bColumns, g.ldb, bRows), make([]float32, g.m*g.n)
		for j := range g.n {
			for i := range g.m {
				sum := 0.0
				for k := range g.k {
					at, bt := k*g.lda+i, j*g.ldb+k
					if g.transA {
						at = i*g.lda + k
					}
					if g.transB {
						bt = k*g.ldb + j
					}
					sum += float64(a[at]) * float64(b[bt])
				}
				c[j*g.m+i] = float32(sum)
			}
		}
		raw := unsafe.Slice((*byte)(unsafe.Pointer(unsafe.SliceData(c))), 4*len(c))
		if g.half {
			raw = raw[:0]
			for _, v := range c {
				bits := math.Float32bits(v)
				raw = binary.LittleEndian.AppendUint16(raw, uint16((bits+0x7fff+bits>>16&1)>>16)) // to nearest even; written behind what is read
			}
		}
		return q.e.ask("gemm", 'W', nil, g.c, len(raw), raw)
	})
}

// A graph is the functions that it would do.
type emulatedGraph []func() error

func (emulatedGraph) close() error { return nil }

func (q *emulatedQueue) capture(f func() error) (graph, error) {
	if q.e.noGraphs {
		return nil, errors.New("no graphs here")
	}
	before := q.later
	q.later = nil
	err := f()
	g := emulatedGraph(q.later)
	q.later = before
	return g, err
}

func (q *emulatedQueue) replay(g graph) error {
	q.e.replays++
	q.later = append(q.later, g.(emulatedGraph)...)
	return nil
}

// emulatedEvent is a place in a queue: to wait for it is to do all that comes before.
type emulatedEvent struct {
	q    *emulatedQueue
	todo int // of q, when it was recorded
}

func (e *emulatedEvent) close() error { return nil }
func (e *emulatedEvent) wait() error  { return e.q.doUntil(e.todo) }

func (q *emulatedQueue) record(e event) error {
	*e.(*emulatedEvent) = emulatedEvent{q, q.done + len(q.later)}
	return nil
}

func (q *emulatedQueue) after(e event) error {
	then := *e.(*emulatedEvent)
	return q.push(then.wait)
}

func (q *emulatedQueue) sync() error { return q.doUntil(q.done + len(q.later)) }

// doUntil does what was asked for before the place.
func (q *emulatedQueue) doUntil(place int) error {
	for q.done < place {
		f := q.later[0]
		q.later = q.later[1:]
		q.done++
		if err := f(); err != nil {
			return err
		}
	}
	return nil
}

func (q *emulatedQueue) close() error { return nil }
