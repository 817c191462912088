package cuda

import (
	"crypto/sha256"
	"encoding/hex"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// What is embedded was made from the sources as they are. (That the compiler makes the same of them again is for
// make cuda-kernels and git diff to say: it needs NVRTC.)
func TestEmbeddedKernelsAreUpToDate(t *testing.T) {
	sources, err := filepath.Glob("kernels/*")
	if err != nil || len(sources) < 5 {
		t.Fatalf("%d sources, %v", len(sources), err)
	}
	slices.Sort(sources)
	sum := sha256.New()
	for _, name := range sources {
		text, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		sum.Write([]byte(filepath.Base(name) + "\n"))
		sum.Write(text)
	}
	want, err := os.ReadFile("built/sources.sha256")
	if err != nil {
		t.Fatal(err)
	}
	if got := hex.EncodeToString(sum.Sum(nil)); got != strings.TrimSpace(string(want)) {
		t.Fatalf("the kernels have changed since they were compiled; run: make cuda-kernels")
	}
}
