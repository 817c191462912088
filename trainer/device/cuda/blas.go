package cuda

import (
	"fmt"
	"path/filepath"

	"github.com/musterml/muster/trainer/device"
)

// BLASVariable is the environment's variable that names the cuBLAS to take, a file, or "none".
const BLASVariable = "MUSTER_CUBLAS"

// gemm is C = op(A) op(B) as BLAS has it: column-major, C (m, n). Of bf16 A and B are such, else float32, as sums are in any case.
type gemm struct {
	transA, transB bool
	m, n, k        int
	a, b, c        pointer
	lda, ldb, ldc  int // elements from a column to the next
	precision      device.Precision
	half           bool // C is bf16, else float32
}

// columns is a row-major product as BLAS has it: C' = op(B)' op(A)'. Lines of factors in bf16 are whole chunks.
func columns(trans device.Trans, m, n, k int, a, b, c pointer, p device.Precision) gemm {
	g := gemm{m: n, n: m, k: k, a: b, b: a, c: c, lda: n, ldb: k, ldc: n, precision: p}
	switch trans {
	case device.NT:
		g.transA, g.lda = true, k
	case device.TN:
		g.transB, g.ldb = true, m
	}
	if n := chunk(p); p == device.BF16 {
		g.lda, g.ldb = ceil(g.lda, n)*n, ceil(g.ldb, n)*n
	}
	return g
}

// multiplyByLibrary is a product by the vendor's library, then what a product ends with.
func (s *stream) multiplyByLibrary(p device.MatMul, args matmulArgs, out outputs) {
	if s.err != nil {
		return
	}
	s.next = call{gemm: columns(p.Trans, p.M, p.N, p.K, args.a, args.b, args.c, s.d.precision)}
	s.next.gemm.half = out.kind == device.BFloat16
	s.ask(&s.next)
	if args.bias != 0 || p.Act != device.Identity {
		s.end(args.c, args.c, args.bias, p.M, p.N, 1, p.Act, out.half()) // in place: one part
	}
	s.factors.wrote(args.c, out.size()*p.M*p.N, len(s.calls))
}

const (
	oldestBLAS = 11 // has cublasGemmEx with compute types
	newestBLAS = 13
)

// blasFiles are where cuBLAS may be, in the order in which they are tried: of the driver's major version, then of older ones, as
// a driver takes what was made for older versions and no other.
func blasFiles(driver int, named string) (files []string) {
	switch named {
	case "none":
		return nil
	case "":
	default:
		return []string{named}
	}
	for major := min(driver/1000, newestBLAS); major >= oldestBLAS; major-- {
		name := fmt.Sprintf("libcublas.so.%d", major)
		files = append(files, name) // where the loader looks
		for _, folder := range []string{fmt.Sprintf("/usr/local/cuda-%d*/lib64", major), "/usr/local/cuda/lib64"} {
			there, _ := filepath.Glob(filepath.Join(folder, name)) // the pattern is well formed
			files = append(files, there...)
		}
	}
	return files
}
