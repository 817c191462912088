package house

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
)

// TestAssemblyIsGenerated writes all assembly anew and compares. It needs avo in the module
// cache: .ci/run fetches it (cd asm && go mod download).
func TestAssemblyIsGenerated(t *testing.T) {
	if testing.Short() {
		t.Skip("short: the assembly is not generated anew")
	}
	for folder, name := range map[string]string{
		"collective/vec":     "vec_amd64.s",
		"internal/optim/vec": "vec_amd64.s",
		"trainer/device/cpu": "kernels_amd64.s",
	} {
		t.Run(folder, func(t *testing.T) { assemblyIsGenerated(t, folder, name) })
	}
}

func assemblyIsGenerated(t *testing.T, folder, name string) {
	dir := filepath.Join(root, folder)
	offline := append(os.Environ(), "GOPROXY=off", "GOFLAGS=", "GOOS=", "GOARCH=")
	list := exec.Command("go", "build", "-o", os.DevNull, "github.com/mmcloughlin/avo/build")
	list.Dir, list.Env = filepath.Join(dir, "asm"), offline
	if out, err := list.CombinedOutput(); err != nil {
		t.Skipf("avo cannot be had offline, so the assembly was not compared: %v\n%s", err, out)
	}
	file := filepath.Join(t.TempDir(), name)
	gen := exec.Command("go", "run", ".", "-out", file)
	gen.Dir, gen.Env = list.Dir, offline
	if out, err := gen.CombinedOutput(); err != nil {
		t.Fatalf("the generator fails: %v\n%s", err, out)
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	got, err := os.ReadFile(filepath.Join(dir, name))
	if err != nil {
		t.Fatal(err)
	}
	// The first line repeats the command, with the path of the file.
	if !bytes.Equal(afterFirstLine(got), afterFirstLine(want)) {
		t.Fatalf("%s/%s is not what its asm/ generates: run \"go generate\" there", folder, name)
	}
}

func afterFirstLine(b []byte) []byte {
	_, rest, _ := bytes.Cut(b, []byte("\n"))
	return rest
}
