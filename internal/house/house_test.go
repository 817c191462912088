package house

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

const module = "github.com/musterml/muster"

type goPackage struct {
	ImportPath string
	Imports    []string
	CgoFiles   []string
}

func packages(t *testing.T) []goPackage {
	t.Helper()
	cmd := exec.Command("go", "list", "-json", "./...")
	cmd.Dir = root
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("go list: %v", err)
	}
	var all []goPackage
	for dec := json.NewDecoder(bytes.NewReader(out)); ; {
		var p goPackage
		switch err := dec.Decode(&p); {
		case errors.Is(err, io.EOF):
			return all
		case err != nil:
			t.Fatal(err)
		}
		all = append(all, p)
	}
}

const root = "../.."

// Who may not import whom, of docs/architecture.md: a part is a folder with all below it.
func TestImportDirections(t *testing.T) {
	forbidden := map[string][]string{
		"membership": {"trainer", "ps", "collective", "cmd", "internal/node"},
		"ps":         {"trainer", "membership", "collective", "cmd", "internal/node"},
		"collective": {"trainer", "membership", "ps", "cmd", "internal/node", "internal/port"},
		"trainer":    {"cmd", "internal/node"},
		"proto":      {"trainer", "membership", "ps", "collective", "cmd", "internal"},
		"internal":   {"cmd"},
	}
	under := func(path, part string) bool {
		path = strings.TrimPrefix(path, module+"/")
		return path == part || strings.HasPrefix(path, part+"/")
	}
	all := packages(t)
	if len(all) < 10 {
		t.Fatalf("only %d packages were found", len(all))
	}
	for _, p := range all {
		for part, not := range forbidden {
			if !under(p.ImportPath, part) {
				continue
			}
			for _, i := range p.Imports {
				for _, f := range not {
					if strings.HasPrefix(i, module+"/") && under(i, f) {
						t.Errorf("%s imports %s", p.ImportPath, i)
					}
				}
			}
		}
		// The device knows nothing of the layers, the layers nothing of the run.
		for _, i := range p.Imports {
			if under(p.ImportPath, "trainer/device") && under(i, "trainer/nn") ||
				(under(p.ImportPath, "trainer/nn") || under(p.ImportPath, "trainer/data")) && i == module+"/trainer" {
				t.Errorf("%s imports %s", p.ImportPath, i)
			}
		}
	}
}

// One static binary that needs nothing: no file of the plain build is cgo.
func TestNoCgo(t *testing.T) {
	for _, p := range packages(t) {
		if len(p.CgoFiles) > 0 {
			t.Errorf("%s uses cgo: %v", p.ImportPath, p.CgoFiles)
		}
	}
}

// The generated schema is that of the .proto files. Needs protoc and protoc-gen-go,
// which .ci/run installs.
func TestProtoIsUpToDate(t *testing.T) {
	for _, tool := range []string{"protoc", "protoc-gen-go"} {
		if _, err := exec.LookPath(tool); err != nil {
			t.Skipf("%s is not on the PATH: cannot generate again (make tools installs it)", tool)
		}
	}
	schemas, err := filepath.Glob(root + "/proto/*.proto")
	if err != nil || len(schemas) == 0 {
		t.Fatalf("no schema: %v", err)
	}
	dir := t.TempDir()
	for _, s := range schemas {
		name := filepath.Base(s)
		cmd := exec.Command("protoc", "--go_out="+dir, "--go_opt=paths=source_relative", name)
		cmd.Dir = filepath.Dir(s)
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("protoc %s: %v\n%s", name, err, out)
		}
		pb := strings.TrimSuffix(name, ".proto") + ".pb.go"
		want, err1 := os.ReadFile(filepath.Join(dir, pb))
		got, err2 := os.ReadFile(filepath.Join(root, "proto", pb))
		if err := errors.Join(err1, err2); err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(body(got), body(want)) {
			t.Errorf("proto/%s is not what protoc makes of proto/%s: run make proto", pb, name)
		}
	}
}

// body leaves out the head, where the versions of the tools stand.
func body(b []byte) []byte {
	if i := bytes.Index(b, []byte("\npackage ")); i >= 0 {
		return b[i:]
	}
	return b
}

// A test that sleeps is slow where it passes and fails where the machine is busy.
func TestNoSleepsInTests(t *testing.T) {
	sleep := "time." + "Sleep("
	err := filepath.WalkDir(root, func(path string, d os.DirEntry, err error) error {
		if err != nil || d.IsDir() || !strings.HasSuffix(path, "_test.go") {
			return err
		}
		b, err := os.ReadFile(path)
		if bytes.Contains(b, []byte(sleep)) {
			t.Errorf("%s sleeps", path)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
}
