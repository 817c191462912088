package data

import (
	"context"
	"errors"
	"strings"
	"testing"
)

func TestReadingIsTold(t *testing.T) {
	s := rowsSource(t, LIBSVM, strings.Repeat("1 1:1\n0 2:1\n", 20_000), "")
	var told []Progress
	w := &watch{ctx: t.Context(), tell: func(p Progress) { told = append(told, p) }}
	if _, _, err := w.openLIBSVM(s, ""); err != nil {
		t.Fatal(err)
	}
	const size = 20_000 * 12
	if len(told) < size/bufferSize {
		t.Fatalf("told %d times", len(told))
	}
	last := int64(0)
	for _, p := range told {
		if p.Path != s.Path || p.Size != size || p.Read < last {
			t.Errorf("%+v after %d", p, last)
		}
		last = p.Read
	}
	if last != size {
		t.Errorf("at the end %d bytes of %d", last, size)
	}
}

// Whoever gives up need not wait for the end of a file, of any format.
func TestReadingStops(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	for _, s := range []Source{
		source(t, fiveImages, fiveLabels), textSource(t, alphabet(4000), 16, 500, 100),
		rowsSource(t, LIBSVM, "1 1:1\n0 1:2\n", "1 1:1\n"), csvSource(t, "x,y\n1,a\n2,b\n", "x,y\n1,a\n", byLabel("y")),
	} {
		if _, _, err := Open(ctx, s, nil); !errors.Is(err, context.Canceled) {
			t.Errorf("%s: %v", s.Source, err)
		}
	}
}
