//go:build cuda

package cuda

/*
#include <dlfcn.h>
#include <stdlib.h>

// The few calls of cuBLAS, by the names that versions 11 to 13 have.
typedef struct {
	void *library;
	int (*create)(void **);
	int (*destroy)(void *);
	int (*stream)(void *, void *);
	int (*workspace)(void *, void *, size_t);
	int (*version)(void *, int *);
	int (*gemm)(void *, int, int, int, int, int, const void *, const void *, int, int, const void *, int, int, const void *, void *, int, int, int, int);
} muster_blas;

// muster_blas_open returns NULL, or what is wrong.
static const char *muster_blas_open(muster_blas *b, const char *file) {
	struct { const char *name; void **to; } calls[] = {
		{"cublasCreate_v2", (void **)&b->create}, {"cublasDestroy_v2", (void **)&b->destroy}, {"cublasSetStream_v2", (void **)&b->stream},
		{"cublasSetWorkspace_v2", (void **)&b->workspace}, {"cublasGetVersion_v2", (void **)&b->version}, {"cublasGemmEx", (void **)&b->gemm},
	};
	b->library = dlopen(file, RTLD_NOW | RTLD_LOCAL);
	if (!b->library) return dlerror();
	for (size_t i = 0; i < sizeof calls / sizeof *calls; i++)
		if (!(*calls[i].to = dlsym(b->library, calls[i].name))) return dlerror();
	return NULL;
}

static int muster_blas_create(muster_blas *b, void *stream, void **handle, int *version) {
	int r = b->create(handle);
	if (r == 0) r = b->stream(*handle, stream);
	return r == 0 ? b->version(*handle, version) : r;
}

static int muster_blas_workspace(muster_blas *b, void *handle, unsigned long long at, size_t bytes) { return b->workspace(handle, (void *)at, bytes); }

static int muster_blas_destroy(muster_blas *b, void *handle) { return b->destroy(handle); }

static int muster_blas_gemm(muster_blas *b, void *handle, int ta, int tb, int m, int n, int k, unsigned long long A, int lda, unsigned long long B, int ldb,
		unsigned long long C, int ldc, int factors, int result, int compute) {
	const float one = 1, zero = 0;
	const int algorithm = -1; // CUBLAS_GEMM_DEFAULT
	return b->gemm(handle, ta, tb, m, n, k, &one, (void *)A, factors, lda, (void *)B, factors, ldb, &zero, (void *)C, result, ldc, compute, algorithm);
}
*/
import "C"

import (
	"errors"
	"fmt"
	"math"
	"strings"
	"unsafe"

	"github.com/musterml/muster/trainer/device"
)

// blas is a cuBLAS that was found.
type blas struct {
	calls C.muster_blas
	file  string
}

// openBLAS takes the first of the files that is a cuBLAS. The error says what was wrong with each.
func openBLAS(files []string) (*blas, error) {
	var faults []error
	for _, file := range files {
		b := &blas{file: file}
		name, needed := C.CString(file), C.CString(strings.Replace(file, "libcublas.so", "libcublasLt.so", 1))
		if strings.Contains(file, "/") { // the loader may not look there for what the library needs; where that fails, the next call says why
			C.dlopen(needed, C.RTLD_NOW|C.RTLD_LOCAL)
		}
		fault := C.muster_blas_open(&b.calls, name)
		C.free(unsafe.Pointer(name))
		C.free(unsafe.Pointer(needed))
		if fault == nil {
			return b, nil
		}
		faults = append(faults, errors.New(C.GoString(fault)))
		if b.calls.library != nil {
			C.dlclose(b.calls.library)
		}
	}
	return nil, fmt.Errorf("there is no cuBLAS: %w", errors.Join(faults...))
}

// handle is a cuBLAS at work in one stream.
type handle struct {
	b       *blas
	raw     unsafe.Pointer
	version int // 120901 is 12.9.1
}

// newHandle makes a handle for a stream of the context that is current.
func (b *blas) newHandle(stream unsafe.Pointer) (*handle, error) {
	h := &handle{b: b}
	var version C.int
	if r := C.muster_blas_create(&b.calls, stream, &h.raw, &version); r != 0 {
		if h.raw != nil {
			C.muster_blas_destroy(&b.calls, h.raw)
		}
		return nil, fmt.Errorf("%s does not start: %w", b.file, blasStatus(r))
	}
	h.version = int(version)
	return h, nil
}

// blasWorkspace is what cuBLAS asks for on the largest cards. With its own, it would take as much anew for every graph that is captured, until the
// handle is closed.
const blasWorkspace = 32 << 20

// works gives the handle that memory to work in.
func (h *handle) works(in pointer) error {
	if r := C.muster_blas_workspace(&h.b.calls, h.raw, C.ulonglong(in), blasWorkspace); r != 0 {
		return fmt.Errorf("%s: %w", h.b.file, blasStatus(r))
	}
	return nil
}

func (h *handle) close() error {
	if r := C.muster_blas_destroy(&h.b.calls, h.raw); r != 0 {
		return fmt.Errorf("%s: %w", h.b.file, blasStatus(r))
	}
	return nil
}

const typeFloat32, typeBF16 = 0, 14 // cudaDataType

// Types of factors, and cublasComputeType_t: sums are float32; tf32's factors are rounded by the library, bf16's are rounded already.
var factorTypes, computeTypes = map[device.Precision]C.int{device.FP32: typeFloat32, device.BF16: typeBF16, device.TF32: typeFloat32},
	map[device.Precision]C.int{device.FP32: 68, device.BF16: 68, device.TF32: 77}

func (h *handle) gemm(g gemm) error {
	for _, n := range []int{g.m, g.n, g.k, g.lda, g.ldb, g.ldc} {
		if n > math.MaxInt32 {
			return fmt.Errorf("a size of %d is too large for cuBLAS", n)
		}
	}
	op := func(transposed bool) C.int {
		if transposed {
			return 1
		}
		return 0
	}
	result := C.int(typeFloat32)
	if g.half {
		result = typeBF16
	}
	r := C.muster_blas_gemm(&h.b.calls, h.raw, op(g.transA), op(g.transB), C.int(g.m), C.int(g.n), C.int(g.k), C.ulonglong(g.a), C.int(g.lda),
		C.ulonglong(g.b), C.int(g.ldb), C.ulonglong(g.c), C.int(g.ldc), factorTypes[g.precision], result, computeTypes[g.precision])
	if r != 0 {
		return blasStatus(r)
	}
	return nil
}

// blasStatus is cublasStatus_t in words.
func blasStatus(r C.int) error {
	words := map[C.int]string{1: "not initialized", 3: "out of memory", 7: "invalid value", 8: "architecture mismatch", 11: "mapping error",
		13: "execution failed", 14: "internal error", 15: "not supported"}
	if w, ok := words[r]; ok {
		return errors.New(w)
	}
	return fmt.Errorf("status %d", int(r))
}
