package node

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/musterml/muster/trainer"
	"github.com/musterml/muster/trainer/data"
)

// Rows of files, of which only the trainers know how many there are, go the way of pictures: sparse ones and tables, classes and
// numbers, the same bytes on one trainer and on two, and the servers do as many steps.
func TestSameBytesOfRowsOnAnyCluster(t *testing.T) {
	dir := t.TempDir()
	var table, sparse strings.Builder
	table.WriteString("a,b,class,y\n")
	for i := range 130 {
		fmt.Fprintf(&table, "%d,%c,%d,%d.5\n", i*i%37, 'u'+i%3, i%2, i*7%11)
		fmt.Fprintf(&sparse, "%+d %d:1 %d:0.5\n", 2*(i%2)-1, 1+i%7, 100+i)
	}
	paths := map[string]string{data.CSV: filepath.Join(dir, "table"), data.LIBSVM: filepath.Join(dir, "sparse")}
	for source, content := range map[string]string{data.CSV: table.String(), data.LIBSVM: sparse.String()} {
		if err := os.WriteFile(paths[source], []byte(content), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	for _, c := range []struct {
		name   string
		model  trainer.Model
		source data.Source
		mode   string
	}{
		{"sparse", trainer.Model{Name: "logistic"}, data.Source{Source: data.LIBSVM, Path: paths[data.LIBSVM]}, trainer.ModeServer},
		{"table", trainer.Model{Name: "mlp", Options: map[string]any{"hidden": []int{8}}}, data.Source{Source: data.CSV, Path: paths[data.CSV], Table: data.Table{Label: "class"}}, trainer.ModeServer},
		{"numbers", trainer.Model{Name: "linear"}, data.Source{Source: data.CSV, Path: paths[data.CSV], Table: data.Table{Label: "y"}}, trainer.ModeRing},
	} {
		var want []byte
		for _, nodes := range []int{1, 2} {
			job := smallJob()
			job.Name, job.Model, job.Data, job.Sync.Mode = c.name, c.model, c.source, c.mode
			for _, n := range runCluster(t, job, nodes) {
				got := model(t, n)
				if want == nil {
					want = got
				}
				if !bytes.Equal(got, want) {
					t.Errorf("%s on %d trainers: %s has other weights", c.name, nodes, n.cfg.Name)
				}
				if steps := n.cfg.Job.Steps(); steps < 3 || uint64(steps) != n.finish.GetStep() {
					t.Errorf("%s on %d trainers: %s counts %v", c.name, nodes, n.cfg.Name, steps)
				}
			}
		}
	}
}
