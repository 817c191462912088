package membership

import (
	"flag"
	"iter"
	"path/filepath"
	"testing"

	"github.com/musterml/muster/internal/id"
)

var update = flag.Bool("update", false, "write the actions in testdata/*.txt anew")

func TestTranscripts(t *testing.T) {
	paths, err := filepath.Glob("testdata/*.txt")
	if err != nil || len(paths) == 0 {
		t.Fatalf("no transcripts: %v", err)
	}
	for _, p := range paths {
		t.Run(filepath.Base(p), func(t *testing.T) { runTranscript(t, p, *update) })
	}
}

func numbers(shards []id.LogicalShard) iter.Seq[int] {
	return func(yield func(int) bool) {
		for _, s := range shards {
			if !yield(int(s)) {
				return
			}
		}
	}
}
