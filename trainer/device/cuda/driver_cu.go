//go:build cuda

package cuda

/*
#include <cuda.h>
#include <stdlib.h>

int muster_cuda_status(void);

// A context is current on a thread, and goroutines change threads.
static CUresult enter(CUcontext c) {
	CUcontext now;
	CUresult r = cuCtxGetCurrent(&now);
	return r != CUDA_SUCCESS || now == c ? r : cuCtxSetCurrent(c);
}

static CUresult pin(CUcontext c, size_t bytes, void **p) {
	CUresult r = enter(c);
	return r != CUDA_SUCCESS ? r : cuMemHostAlloc(p, bytes, CU_MEMHOSTALLOC_PORTABLE);
}

static CUresult lock_host(CUcontext c, void *p, size_t bytes) {
	CUresult r = enter(c);
	return r != CUDA_SUCCESS ? r : cuMemHostRegister(p, bytes, CU_MEMHOSTREGISTER_PORTABLE);
}

static CUresult unlock_host(CUcontext c, void *p) {
	CUresult r = enter(c);
	return r != CUDA_SUCCESS ? r : cuMemHostUnregister(p);
}

static CUresult launch(CUcontext c, CUfunction f, CUstream s, unsigned x, unsigned y, unsigned z, unsigned threads, unsigned shared,
		void *args, size_t bytes) {
	void *extra[] = {CU_LAUNCH_PARAM_BUFFER_POINTER, args, CU_LAUNCH_PARAM_BUFFER_SIZE, &bytes, CU_LAUNCH_PARAM_END};
	CUresult r = enter(c);
	if (r == CUDA_SUCCESS && shared > 48 << 10) // a block has no more unless it is asked for
		r = cuFuncSetAttribute(f, CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES, (int)shared);
	return r != CUDA_SUCCESS ? r : cuLaunchKernel(f, x, y, z, threads, 1, 1, shared, s, NULL, extra);
}

static CUresult begin_capture(CUcontext c, CUstream s) {
	CUresult r = enter(c);
	return r != CUDA_SUCCESS ? r : cuStreamBeginCapture(s, CU_STREAM_CAPTURE_MODE_RELAXED);
}

// end_capture makes a graph of what was captured, unless it was in vain.
static CUresult end_capture(CUcontext c, CUstream s, int in_vain, CUgraphExec *exec) {
	CUgraph g = NULL;
	CUresult r = enter(c), e = cuStreamEndCapture(s, &g);
	if (r == CUDA_SUCCESS) r = e;
	if (r == CUDA_SUCCESS && !in_vain) r = cuGraphInstantiateWithFlags(exec, g, 0);
	if (g) cuGraphDestroy(g);
	return r;
}

static CUresult replay(CUcontext c, CUgraphExec g, CUstream s) {
	CUresult r = enter(c);
	return r != CUDA_SUCCESS ? r : cuGraphLaunch(g, s);
}

static CUresult destroy_graph(CUcontext c, CUgraphExec g) {
	CUresult r = enter(c);
	return r != CUDA_SUCCESS ? r : cuGraphExecDestroy(g);
}

static const char *text(CUresult r) {
	const char *s = NULL;
	return cuGetErrorString(r, &s) == CUDA_SUCCESS && s ? s : "unknown error";
}
*/
import "C"

import (
	"errors"
	"fmt"
	"os"
	"reflect"
	"runtime"
	"sync"
	"unsafe"

	"gorgonia.org/cu"
)

// Built tells whether this binary can reach GPUs.
const Built = true

// card is a gpu through NVIDIA's driver.
type card struct {
	device    cu.Device
	context   cu.CUContext
	module    cu.Module
	title     string
	arch      string
	image     string // which of the embedded objects was taken
	count     int
	total     int64 // bytes of memory
	mu        sync.Mutex
	functions map[string]cu.Function
	reached   map[*card]bool // peers to which access was asked for
	given     given
	blas      *blas // nil where there is none
	noBLAS    error // why
	blasName  string
}

// startDriver does that when the first GPU is asked for, and says why it cannot.
var startDriver = sync.OnceValue(func() error {
	switch status := C.muster_cuda_status(); {
	case status < 0:
		return errors.New("there is no NVIDIA driver on this machine (libcuda.so.1 is not found); install the driver, or compute on the CPU")
	case status != 0:
		return fmt.Errorf("the NVIDIA driver does not start: %w", result(C.CUresult(status)))
	}
	return nil
})

func countGPUs() (int, error) {
	if err := startDriver(); err != nil {
		return 0, err
	}
	n, err := cu.NumDevices()
	if err != nil {
		return 0, fmt.Errorf("the NVIDIA driver finds no device: %w", words(err))
	}
	return n, nil
}

func openGPU(number int) (gpu, error) {
	n, err := countGPUs()
	switch {
	case err != nil:
		return nil, err
	case number < 0 || number >= n:
		return nil, fmt.Errorf("the NVIDIA driver has %d devices, counted from 0", n)
	}
	g := &card{device: cu.Device(number), functions: map[string]cu.Function{}}
	if g.title, err = g.device.Name(); err != nil {
		return nil, err
	}
	var numbers [3]int
	for i, a := range []cu.DeviceAttribute{cu.ComputeCapabilityMajor, cu.ComputeCapabilityMinor, cu.MultiprocessorCount} {
		if numbers[i], err = g.device.Attribute(a); err != nil {
			return nil, err
		}
	}
	g.arch, g.count = fmt.Sprintf("sm_%d%d", numbers[0], numbers[1]), numbers[2]

	var image []byte
	if g.image, image, err = object(g.arch); err != nil {
		return nil, err
	}
	if err := unfit(numbers[0], numbers[1], g.image, cu.Version()); err != nil {
		return nil, fmt.Errorf("%s: %w", g.title, err)
	}
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	if g.context, err = g.device.MakeContext(cu.SchedAuto); err != nil {
		return nil, fmt.Errorf("%s gives no context: %w", g.title, words(err))
	}
	if g.module, err = cu.LoadData(string(image)); err != nil {
		return nil, fmt.Errorf("%s is not taken by %s (%s) with the driver of CUDA %s: %w", g.image, g.title, g.arch, version(cu.Version()), words(err))
	}
	if _, g.total, err = cu.MemInfo(); err != nil {
		return nil, err
	}
	g.blas, g.noBLAS = openBLAS(blasFiles(cu.Version(), os.Getenv(BLASVariable)))
	if g.blas != nil {
		g.tryBLAS()
	}
	return g, nil
}

// tryBLAS makes and gives back a handle: a library of another driver's is found out now and not in a step.
func (g *card) tryBLAS() {
	var h *handle
	if h, g.noBLAS = g.blas.newHandle(nil); g.noBLAS == nil {
		g.blasName, g.noBLAS = fmt.Sprintf("cublas-%d", h.version), h.close()
	}
	if g.noBLAS != nil {
		g.blas, g.blasName = nil, ""
	}
}

func (g *card) library() string { return g.blasName }

func (g *card) name() string         { return g.title }
func (g *card) architecture() string { return g.arch }
func (g *card) processors() int      { return g.count }

func (g *card) details() Details {
	d := Details{Architecture: g.arch, Object: g.image, Driver: cu.Version(), Processors: g.count}
	if khz, err := g.device.Attribute(cu.ClockRate); err == nil {
		d.ClockMHz = khz / 1000
	}
	if d.Library = g.blasName; g.blas != nil {
		d.Library += " from " + g.blas.file
	} else if g.noBLAS != nil {
		d.Library = g.noBLAS.Error()
	}
	_ = g.within(func() (err error) { // what the driver does not say stays 0
		d.Free, d.Memory, err = cu.MemInfo()
		return err
	})
	return d
}

// within calls f on a thread on which the card's context is current.
func (g *card) within(f func() error) error {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	if err := cu.SetCurrentContext(g.context); err != nil {
		return words(err)
	}
	return words(f())
}

// words is an error of package cu's, which is a number, in the driver's words.
func words(err error) error {
	if v := reflect.ValueOf(err); v.Kind() == reflect.Int {
		return result(C.CUresult(v.Int()))
	}
	return err
}

func (g *card) alloc(bytes int) (p pointer, err error) {
	err = g.within(func() error {
		d, err := cu.MemAlloc(int64(bytes))
		p = pointer(d)
		return err
	})
	if err == nil {
		g.given.add(p, bytes)
	}
	return p, err
}

func (g *card) free(p pointer) error {
	g.given.remove(p)
	return g.within(func() error { return cu.MemFree(cu.DevicePtr(p)) })
}

func (g *card) memory() (used, all int64) { return g.given.sum(), g.total }

// given is what alloc has given. No call of the driver's is made while it is locked.
type given struct {
	mu    sync.Mutex
	sizes map[pointer]int
	used  int64 // their sum
}

func (g *given) add(p pointer, bytes int) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.sizes == nil {
		g.sizes = map[pointer]int{}
	}
	g.sizes[p] = bytes
	g.used += int64(bytes)
}

func (g *given) remove(p pointer) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.used -= int64(g.sizes[p])
	delete(g.sizes, p)
}

func (g *given) sum() int64 {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.used
}

func (g *card) pinned(bytes int) ([]byte, error) {
	var p unsafe.Pointer
	if err := result(C.pin(g.raw(), C.size_t(bytes), &p)); err != nil {
		return nil, err
	}
	return unsafe.Slice((*byte)(p), bytes), nil
}

func (g *card) unpin(b []byte) error {
	return g.within(func() error { return cu.MemFreeHost(unsafe.Pointer(unsafe.SliceData(b))) })
}

func (g *card) lock(b []byte) error {
	return result(C.lock_host(g.raw(), unsafe.Pointer(unsafe.SliceData(b)), C.size_t(len(b))))
}

func (g *card) unlock(b []byte) error {
	return result(C.unlock_host(g.raw(), unsafe.Pointer(unsafe.SliceData(b))))
}

func (g *card) address(b []byte) pointer { // of one address space with the host's
	return pointer(uintptr(unsafe.Pointer(unsafe.SliceData(b))))
}

func (g *card) newEvent() (event, error) {
	e := &cardEvent{g: g}
	return e, g.within(func() (err error) {
		e.raw, err = cu.MakeEvent(cu.DisableTiming | cu.BlockingSyncEvent)
		return err
	})
}

func (g *card) newQueue() (queue, error) {
	q := &cardQueue{g: g, args: new([argWords]uint64)}
	return q, g.within(func() (err error) {
		q.stream, err = cu.MakeStream(cu.NonBlocking)
		return err
	})
}

func (g *card) function(kernel string) (cu.Function, error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	f, ok := g.functions[kernel]
	if ok {
		return f, nil
	}
	err := g.within(func() (err error) {
		f, err = g.module.Function(kernel)
		return err
	})
	if err == nil {
		g.functions[kernel] = f
	}
	return f, err
}

// What package cu keeps to itself: a handle is the only field of its struct.
func (g *card) raw() C.CUcontext { return *(*C.CUcontext)(unsafe.Pointer(&g.context)) }

// cardQueue is a stream of the driver's.
type cardQueue struct {
	g      *card
	stream cu.Stream
	blas   *handle           // from the first product on, with
	room   pointer           // to work in
	args   *[argWords]uint64 // of a launch, by themselves: C may not be given memory with pointers of Go's in it
}

func (q *cardQueue) write(dst pointer, src []byte) error {
	return q.g.within(func() error {
		return cu.MemcpyHtoDAsync(cu.DevicePtr(dst), unsafe.Pointer(unsafe.SliceData(src)), int64(len(src)), q.stream)
	})
}

func (q *cardQueue) read(dst []byte, src pointer) error {
	return q.g.within(func() error {
		return cu.MemcpyDtoHAsync(unsafe.Pointer(unsafe.SliceData(dst)), cu.DevicePtr(src), int64(len(dst)), q.stream)
	})
}

// From card to card over whatever joins them: the driver goes by way of the host where it must.
func (q *cardQueue) fetch(dst pointer, from gpu, src pointer, bytes int) error {
	other := from.(*card)
	return q.g.within(func() error {
		if other == q.g {
			return cu.MemcpyDtoDAsync(cu.DevicePtr(dst), cu.DevicePtr(src), int64(bytes), q.stream)
		}
		q.g.reach(other)
		return cu.MemcpyPeerAsync(cu.DevicePtr(dst), q.g.context, cu.DevicePtr(src), other.context, int64(bytes), q.stream)
	})
}

// reach has copies from another card go directly, where the two can; the context is current.
func (g *card) reach(other *card) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.reached[other] {
		return
	}
	if g.reached == nil {
		g.reached = map[*card]bool{}
	}
	g.reached[other] = true
	_ = other.context.EnablePeerAccess(0) // where it cannot be, or has been, copies go all the same
}

func (q *cardQueue) zero(p pointer, bytes int) error {
	return q.g.within(func() error { return cu.MemsetD8Async(cu.DevicePtr(p), 0, int64(bytes), q.stream) })
}

func (q *cardQueue) launch(kernel string, grid [3]int, threads, shared int, args []uint64) error {
	f, err := q.g.function(kernel)
	if err != nil {
		return err
	}
	n := copy(q.args[:], args)
	return result(C.launch(q.g.raw(), *(*C.CUfunction)(unsafe.Pointer(&f)), q.raw(),
		C.uint(grid[0]), C.uint(grid[1]), C.uint(grid[2]), C.uint(threads), C.uint(shared), unsafe.Pointer(q.args), C.size_t(8*n)))
}

func (q *cardQueue) raw() C.CUstream { return *(*C.CUstream)(unsafe.Pointer(&q.stream)) }

// result is the driver's answer as an error.
func result(r C.CUresult) error {
	if r == C.CUDA_SUCCESS {
		return nil
	}
	return errors.New(C.GoString(C.text(r)))
}

// cardGraph is a graph of the driver's, ready to be launched.
type cardGraph struct {
	g    *card
	exec C.CUgraphExec
}

func (q *cardQueue) capture(f func() error) (graph, error) {
	if err := result(C.begin_capture(q.g.raw(), q.raw())); err != nil {
		return nil, err
	}
	c, asked, inVain := &cardGraph{g: q.g}, f(), C.int(0)
	if asked != nil {
		inVain = 1
	}
	if err := errors.Join(asked, result(C.end_capture(q.g.raw(), q.raw(), inVain, &c.exec))); err != nil {
		return nil, err
	}
	return c, nil
}

func (q *cardQueue) replay(g graph) error {
	return result(C.replay(q.g.raw(), g.(*cardGraph).exec, q.raw()))
}

func (c *cardGraph) close() error { return result(C.destroy_graph(c.g.raw(), c.exec)) }

// cardEvent is an event of the driver's.
type cardEvent struct {
	g   *card
	raw cu.Event
}

func (q *cardQueue) record(e event) error {
	return q.g.within(func() error { return e.(*cardEvent).raw.Record(q.stream) })
}

func (q *cardQueue) after(e event) error {
	return q.g.within(func() error { return q.stream.Wait(e.(*cardEvent).raw, 0) })
}

func (e *cardEvent) wait() error { return e.g.within(func() error { return e.raw.Synchronize() }) }

func (e *cardEvent) close() error {
	return e.g.within(func() error { return cu.DestroyEvent(&e.raw) })
}

func (q *cardQueue) gemm(p gemm) error {
	if q.blas == nil {
		if err := q.openBLAS(); err != nil {
			return err
		}
	}
	return q.g.within(func() error { return q.blas.gemm(p) })
}

func (q *cardQueue) openBLAS() (err error) {
	if q.room, err = q.g.alloc(blasWorkspace); err != nil {
		return err
	}
	return q.g.within(func() (err error) {
		if q.blas, err = q.g.blas.newHandle(*(*unsafe.Pointer)(unsafe.Pointer(&q.stream))); err != nil {
			return err
		}
		return q.blas.works(q.room)
	})
}

func (q *cardQueue) sync() error {
	return q.g.within(func() error { return q.stream.Synchronize() })
}

func (q *cardQueue) close() error {
	err := q.g.within(func() (err error) {
		if q.blas != nil {
			err = q.blas.close()
		}
		return errors.Join(err, q.stream.Destroy())
	})
	if q.room != 0 {
		err = errors.Join(err, q.g.free(q.room))
	}
	return err
}
