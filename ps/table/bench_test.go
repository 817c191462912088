package table

import (
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/musterml/muster/internal/id"
)

// A batch as in muster bench server --mode sparse: 4096 keys by Zipf's law over a million rows of 16 values, with Adagrad, on one
// shard of four.
func BenchmarkPushPull(b *testing.B) {
	const all, keys, dim, shards = 1_000_000, 4096, 16, 4
	s, err := New([]Config{{Name: "t", Dim: dim, Optimizer: newOptimizer(b, "adagrad"), Scale: 0.1}}, 0, shards, 1)
	if err != nil {
		b.Fatal(err)
	}
	r := rand.New(rand.NewPCG(1, 1))
	zipf := rand.NewZipf(r, 1.05, 1, all-1)
	part := func(n int, draw func(i int) uint64) Part {
		seen := map[uint64]bool{}
		for i := range n {
			if k := draw(i); s.Owns(k) {
				seen[k] = true
			}
		}
		rows := Rows{}
		for k := range seen {
			rows.Keys = append(rows.Keys, k)
		}
		slices.Sort(rows.Keys)
		rows.Values = make([]float32, len(rows.Keys)*dim)
		for i := range rows.Values {
			rows.Values[i] = float32(r.NormFloat64())
		}
		return Part{Tables: []Rows{rows}}
	}
	var sets [][]float32
	var pulls [][]byte
	n := 0
	for range 64 {
		p := part(2*keys, func(int) uint64 { return zipf.Uint64() })
		n += len(p.Tables[0].Keys)
		sets, pulls = append(sets, payload(AppendParts(nil, []Part{p}))), append(pulls, appendRequest(nil, [][]uint64{p.Tables[0].Keys}))
	}
	step := id.Step(0)
	_ = s.Push(step, step, []Part{part(all, func(i int) uint64 { return uint64(i) })})
	d := s.Decoder()
	b.Run("push", func(b *testing.B) {
		for i := range b.N {
			step++
			parts, err := d.Parts(sets[i%64])
			if err == nil {
				err = s.Push(step, step, parts)
			}
			if err != nil {
				b.Fatal(err)
			}
		}
		b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/(float64(n)/64), "ns/row")
	})
	b.Run("pull", func(b *testing.B) {
		var changed []byte
		var values []float32
		for i := range b.N {
			keys, _, err := d.Keys(pulls[i%64])
			if err == nil {
				changed, values, err = s.Pull(s.Step(), s.Step(), keys, changed[:0], values[:0])
			}
			if err != nil {
				b.Fatal(err)
			}
		}
		b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/(float64(n)/64), "ns/row")
	})
}
