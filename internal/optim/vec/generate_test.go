package vec

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
)

// TestAssemblyIsGenerated writes the assembly anew and compares. It needs avo in the module
// cache (fetch it with "cd asm && go mod download").
func TestAssemblyIsGenerated(t *testing.T) {
	if testing.Short() {
		t.Skip("short: the assembly is not generated anew")
	}
	offline := append(os.Environ(), "GOPROXY=off", "GOFLAGS=", "GOOS=", "GOARCH=")
	list := exec.Command("go", "build", "-o", os.DevNull, "github.com/mmcloughlin/avo/build")
	list.Dir, list.Env = "asm", offline
	if out, err := list.CombinedOutput(); err != nil {
		t.Skipf("avo cannot be had offline, so the assembly was not compared: %v\n%s", err, out)
	}
	file := filepath.Join(t.TempDir(), "vec_amd64.s")
	gen := exec.Command("go", "run", ".", "-out", file)
	gen.Dir, gen.Env = "asm", offline
	if out, err := gen.CombinedOutput(); err != nil {
		t.Fatalf("the generator fails: %v\n%s", err, out)
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	got, err := os.ReadFile("vec_amd64.s")
	if err != nil {
		t.Fatal(err)
	}
	// The first line repeats the command, with the path of the file.
	if !bytes.Equal(afterFirstLine(got), afterFirstLine(want)) {
		t.Fatal(`vec_amd64.s is not what asm/ generates: run "go generate" in internal/optim/vec`)
	}
}

func afterFirstLine(b []byte) []byte {
	_, rest, _ := bytes.Cut(b, []byte("\n"))
	return rest
}
