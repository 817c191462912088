package trainer

import (
	"math"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/musterml/muster/trainer/data"
)

// A generator that is given the beginnings of a window, one character more each time, finds the probabilities that make the window's loss: so it
// looks at the right place, and at nothing that comes later.
func TestGenerator(t *testing.T) {
	path := filepath.Join(t.TempDir(), "text")
	if err := os.WriteFile(path, []byte(strings.Repeat("the quick brown fox jumps over the lazy dog. ", 20)), 0o644); err != nil {
		t.Fatal(err)
	}
	m := newUntrained(t, "model: {name: gpt, width: 16, heads: 2, layers: 2}\nbatch: {size: 8}\ndata: {source: text, train: 40, test: 3, context: 12, path: "+path+"}")
	g, err := NewGenerator(m.spec, m.device, m.weights, m.train)
	if err != nil {
		t.Fatal(err)
	}
	defer g.Close()
	want, err := Evaluate(t.Context(), m.job, m.spec, m.device, m.weights, nil, m.train, m.test)
	if err != nil {
		t.Fatal(err)
	}
	rng := rand.New(rand.NewPCG(1, 2))
	loss, one := 0.0, data.NewBatch(m.test, 1)
	for i := range m.test.Len() {
		m.test.Sample(i, one)
		text := append([]int32{7, 7, 7}, one.Tokens...) // what is too far back is not seen
		for k, label := range one.Labels {
			from := 3
			if k == len(one.Labels)-1 {
				from = 0
			}
			if _, err := g.Next(text[from:3+k+1], 1, rng); err != nil {
				t.Fatal(err)
			}
			sum := 0.0
			for _, p := range g.weighed {
				sum += p
			}
			loss -= math.Log(g.weighed[label] / sum)
		}
	}
	if math.Abs(loss-want.Loss) > 1e-4*want.Loss {
		t.Errorf("the loss is %v, Evaluate says %v", loss, want.Loss)
	}
	likeliest, err := g.Next(one.Tokens, 0, rng)
	if err != nil {
		t.Fatal(err)
	}
	drawn := map[int32]int{}
	for range 2000 {
		next, err := g.Next(one.Tokens[:1], 1, rng)
		if err != nil {
			t.Fatal(err)
		}
		drawn[next]++
	}
	sum := 0.0
	for _, p := range g.weighed {
		sum += p
	}
	for k, p := range g.weighed {
		if share := float64(drawn[int32(k)]) / 2000; math.Abs(share-p/sum) > 0.05 {
			t.Errorf("token %d was drawn in %.3f of all cases, its probability is %.3f", k, share, p/sum)
		}
	}
	for range 5 {
		if again, err := g.Next(one.Tokens, 0, rng); err != nil || again != likeliest {
			t.Errorf("at temperature 0 %d comes after %d (%v)", again, likeliest, err)
		}
	}
}
