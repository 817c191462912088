package cuda

// pointer is an address in a GPU's memory.
type pointer uint64

// gpu is one processor, as a driver gives it. Its methods may be called by any goroutine.
type gpu interface {
	name() string         // "NVIDIA H200"
	architecture() string // "sm_90"
	processors() int      // streaming multiprocessors
	details() Details
	memory() (used, all int64) // bytes: what alloc has given, and what there is; not asked of the driver, which may hang
	alloc(bytes int) (pointer, error)
	free(p pointer) error
	// pinned makes memory of the host that the GPU reads and writes by itself; unpin gives it back.
	pinned(bytes int) ([]byte, error)
	unpin(b []byte) error
	// lock makes pinned memory, for all GPUs, of what the program has made itself, until unlock.
	lock(b []byte) error
	unlock(b []byte) error
	// address is where kernels find pinned memory.
	address(b []byte) pointer
	newQueue() (queue, error)
	newEvent() (event, error)
	// library is the vendor's matrix products, "cublas-120901" of cuBLAS 12.9.1; "" where there is none.
	library() string
}

// queue is an ordered queue of work for a GPU, used by one goroutine at a time. What it is asked for is done some time before
// the next sync returns, in order.
type queue interface {
	write(dst pointer, src []byte) error // src is pinned
	read(dst []byte, src pointer) error  // dst is pinned
	// fetch copies from another GPU of the process, or this one.
	fetch(dst pointer, from gpu, src pointer, bytes int) error
	zero(p pointer, bytes int) error
	// launch runs a kernel on grid blocks of so many threads, each with so many bytes of shared memory that the kernel has not by
	// itself. The arguments, a mark at their end, are copied before it returns.
	launch(kernel string, grid [3]int, threads, shared int, args []uint64) error
	gemm(g gemm) error // of a gpu that has a library
	// capture makes a graph of what f asks the queue for: launches, zeros and products. None of that is done now.
	capture(f func() error) (graph, error)
	replay(g graph) error
	// record has e happen when all that was asked for before is done; after has what is asked for from now on wait for what was
	// recorded with e last, by any queue.
	record(e event) error
	after(e event) error
	sync() error
	close() error
}

// event is a place in the order of a queue. It is used again once what waited for it has gone on.
type event interface {
	wait() error
	close() error
}

// graph is work that is asked for all at once.
type graph interface{ close() error }
