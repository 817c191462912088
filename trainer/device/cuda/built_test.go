package cuda

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// What is embedded was made from the sources as they are. (That the compiler makes the same of them again is for
// make cuda-kernels and git diff to say: it needs NVRTC.)
func TestEmbeddedKernelsAreUpToDate(t *testing.T) {
	switch got, want, err := sourcesOfKernels(); {
	case err != nil:
		t.Fatal(err)
	case got != want:
		t.Fatalf("the kernels have changed since they were compiled; run: make cuda-kernels")
	}
}

// sourcesOfKernels are the digests of the sources as they are, and as they were when they were compiled.
func sourcesOfKernels() (now, built string, err error) {
	sources, err := filepath.Glob("kernels/*")
	if err != nil || len(sources) < 5 {
		return "", "", fmt.Errorf("%d sources, %v", len(sources), err)
	}
	slices.Sort(sources)
	sum := sha256.New()
	for _, name := range sources {
		text, err := os.ReadFile(name)
		if err != nil {
			return "", "", err
		}
		sum.Write([]byte(filepath.Base(name) + "\n"))
		sum.Write(text)
	}
	digest, err := os.ReadFile("built/sources.sha256")
	return hex.EncodeToString(sum.Sum(nil)), strings.TrimSpace(string(digest)), err
}
