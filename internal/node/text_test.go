package node

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/musterml/muster/trainer"
	"github.com/musterml/muster/trainer/data"
)

// Text goes the way of pictures: the same bytes on one trainer and on two, in both modes.
func TestSameBytesOfTextOnAnyCluster(t *testing.T) {
	path := filepath.Join(t.TempDir(), "text")
	if err := os.WriteFile(path, []byte(strings.Repeat("Nay, answer me: stand, and unfold yourself. ", 40)), 0o644); err != nil {
		t.Fatal(err)
	}
	var want []byte
	for _, mode := range []string{trainer.ModeRing, trainer.ModeServer} {
		for _, nodes := range []int{1, 2} {
			job := smallJob()
			job.Name, job.Sync.Mode = "text", mode
			job.Model = trainer.Model{Name: "gpt", Options: map[string]any{"width": 32, "heads": 2, "layers": 1}}
			job.Data = data.Source{Source: data.Text, Path: path, Context: 16, Train: 128, Test: 20}
			for _, n := range runCluster(t, job, nodes) {
				got := model(t, n)
				if want == nil {
					want = got
				}
				if !bytes.Equal(got, want) {
					t.Errorf("mode %s on %d trainers: %s has other weights", mode, nodes, n.cfg.Name)
				}
			}
		}
	}
}
