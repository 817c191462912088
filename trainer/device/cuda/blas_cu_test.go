//go:build cuda

package cuda

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"unsafe"

	"github.com/musterml/muster/trainer/device"
)

// A cuBLAS that multiplies nothing: it checks what it is given, and fails where it is told to.
const fakeBLAS = `
#include <stdlib.h>
#include <string.h>
static int handles;
static int fails(const char *what) { const char *at = getenv("FAKE_CUBLAS_FAULT"); return at && !strcmp(at, what); }
#ifndef WITHOUT_CREATE
int cublasCreate_v2(void **h) { *h = NULL; if (fails("create")) return 3; *h = &handles; handles++; return 0; }
#endif
int cublasDestroy_v2(void *h) { handles--; return h == &handles && handles == 0 ? 0 : 7; }
int cublasSetStream_v2(void *h, void *s) { return fails("stream") ? 14 : h == &handles && *(int *)s == 51 ? 0 : 7; }
int cublasSetWorkspace_v2(void *h, void *at, size_t n) { return fails("workspace") ? 14 : h == &handles && at == (void *)0x5000 && n == 32 << 20 ? 0 : 7; }
int cublasGetVersion_v2(void *h, int *v) { *v = VERSION; return h == &handles ? 0 : 7; }
int cublasGemmEx(void *h, int ta, int tb, int m, int n, int k, const void *alpha, const void *A, int at, int lda, const void *B, int bt, int ldb,
		const void *beta, void *C, int ct, int ldc, int compute, int algorithm) {
	if (fails("gemm")) return 13;
	return h == &handles && ta == 1 && tb == 0 && m == 2 && n == 3 && k == 4 && *(float *)alpha == 1 && A == (void *)0xa0 && at == 14 && lda == 5 &&
		B == (void *)0xb0 && bt == 14 && ldb == 6 && *(float *)beta == 0 && C == (void *)0xc0 && ct == 0 && ldc == 7 && compute == 68 && algorithm == -1 ? 0 : 7;
}
`

func fake(t *testing.T, name string, flags ...string) string {
	t.Helper()
	file := filepath.Join(t.TempDir(), name)
	fakeAt(t, file, flags...)
	return file
}

func fakeAt(t *testing.T, file string, flags ...string) {
	t.Helper()
	cmd := exec.Command("gcc", append([]string{"-shared", "-fPIC", "-o", file, "-x", "c", "-", "-x", "none"}, flags...)...)
	cmd.Stdin = strings.NewReader(fakeBLAS)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("gcc: %v\n%s", err, out)
	}
}

func TestLoadingCuBLAS(t *testing.T) {
	newer, older := fake(t, "libcublas.so.13", "-DVERSION=130001"), fake(t, "libcublas.so.12", "-DVERSION=120901")
	lacks := fake(t, "libcublas.so.11", "-DVERSION=11", "-DWITHOUT_CREATE")
	beside := filepath.Join(t.TempDir(), "libcublas.so.13") // as PyTorch's
	fakeAt(t, filepath.Join(filepath.Dir(beside), "libcublasLt.so.13"), "-DVERSION=0", "-Wl,-soname,libcublasLt.so.13")
	fakeAt(t, beside, "-DVERSION=130001", "-Wl,--no-as-needed", "-L"+filepath.Dir(beside), "-l:libcublasLt.so.13")
	notOne := filepath.Join(t.TempDir(), "text.so")
	if err := os.WriteFile(notOne, []byte("not a library"), 0o600); err != nil {
		t.Fatal(err)
	}
	stream := int32(51)
	product := gemm{transA: true, m: 2, n: 3, k: 4, a: 0xa0, b: 0xb0, c: 0xc0, lda: 5, ldb: 6, ldc: 7, precision: device.BF16}
	for _, c := range []struct {
		name    string
		files   []string
		fault   string
		version int
		want    string // in the error
	}{
		{"the first that is there", []string{"/nowhere/libcublas.so.13", notOne, lacks, older, newer}, "", 120901, ""},
		{"newer", []string{newer, older}, "", 130001, ""},
		{"none", []string{"/nowhere/libcublas.so.13", notOne}, "", 0, "there is no cuBLAS: /nowhere/libcublas.so.13: cannot open"},
		{"a symbol is missing", []string{lacks}, "", 0, "undefined symbol: cublasCreate_v2"},
		{"no memory", []string{older}, "create", 0, "does not start: out of memory"},
		{"no stream", []string{older}, "stream", 0, "does not start: internal error"},
		{"no memory to work in", []string{older}, "workspace", 120901, "internal error"},
		{"what it needs lies beside it", []string{beside}, "", 130001, ""},
		{"a product fails", []string{older}, "gemm", 120901, "execution failed"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Setenv("FAKE_CUBLAS_FAULT", c.fault)
			err := func() error {
				b, err := openBLAS(c.files)
				if err != nil {
					return err
				}
				h, err := b.newHandle(unsafe.Pointer(&stream))
				if err != nil {
					return err
				}
				defer func() {
					if err := h.close(); err != nil {
						t.Error(err)
					}
				}()
				if h.version != c.version {
					t.Errorf("version %d, want %d", h.version, c.version)
				}
				if err := h.works(0x5000); err != nil {
					return err
				}
				return h.gemm(product)
			}()
			if (err == nil) != (c.want == "") || err != nil && !strings.Contains(err.Error(), c.want) {
				t.Errorf("%v, want %q", err, c.want)
			}
		})
	}
}
