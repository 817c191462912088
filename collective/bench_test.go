package collective

import (
	"fmt"
	"io"
	"testing"
)

// BenchmarkAllReduce reports GB/s as vector bytes per time (every rank sends and receives 2(n-1)/n of that at once).
func BenchmarkAllReduce(b *testing.B) {
	for _, world := range []int{2, 4} {
		for _, bytes := range []int{4 << 10, 1 << 20, 16 << 20} {
			for _, f := range []Reduce{SumInt32, SumFloat32} {
				b.Run(fmt.Sprintf("world=%d/bytes=%d/%v", world, bytes, f), func(b *testing.B) {
					benchmark(b, world, bytes, func(r *Ring, v Vector) error { return r.AllReduce(bg, Op{}, v, f) }, f == SumFloat32)
				})
			}
		}
	}
}

func BenchmarkBarrier(b *testing.B) {
	for _, world := range []int{2, 8} {
		b.Run(fmt.Sprintf("world=%d", world), func(b *testing.B) {
			benchmark(b, world, 0, func(r *Ring, _ Vector) error { return r.Barrier(bg, Op{}) }, false)
		})
	}
}

func benchmark(b *testing.B, world, bytes int, f func(*Ring, Vector) error, float bool) {
	rings := joinAll(b, world, tcpConfigs(b, world))
	defer closeAll(rings)
	vectors := make([]Vector, world)
	for i := range vectors {
		if vectors[i] = Int32s(make([]int32, bytes/elemSize)); float {
			vectors[i] = Float32s(make([]float32, bytes/elemSize))
		}
	}
	b.SetBytes(int64(bytes))
	b.ReportAllocs()
	errs := make(chan error, world)
	b.ResetTimer()
	for i := 1; i < world; i++ {
		go func() {
			for range b.N {
				if err := f(rings[i], vectors[i]); err != nil {
					errs <- err
					return
				}
			}
			errs <- nil
		}()
	}
	for range b.N {
		if err := f(rings[0], vectors[0]); err != nil {
			b.Fatal(err)
		}
	}
	for range world - 1 {
		if err := <-errs; err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkExact(b *testing.B) {
	const n = 1 << 20
	e := Exact{BlockSize: 4096, Shards: 8}
	grad := randomGrads(1, 1, n)[0]
	exps, sum := newExps(e.Blocks(n)), make([]int32, n)
	run := func(name string, f func()) {
		b.Run(name, func(b *testing.B) {
			for b.Loop() {
				f()
			}
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/n, "ns/element")
		})
	}
	run("Exponents", func() { e.Exponents(exps, grad) })
	s := &ExactSum{Exact: e, Exps: exps, Parts: [][]float32{grad}}
	run("encode", func() { s.encode(nil, sum, nil, 0) })
	run("add", func() { s.add(nil, sum, sum, nil, 0) })
	run("decode", func() { s.decode(nil, grad, sum, 0) })
}

func BenchmarkReduce(b *testing.B) {
	const n = DefaultChunkBytes / elemSize
	dst, src := Int32s(make([]int32, n)), Int32s(make([]int32, n))
	for _, f := range []Reduce{SumInt32, MaxInt32, SumFloat32} {
		b.Run(f.String(), func(b *testing.B) {
			b.SetBytes(DefaultChunkBytes)
			for b.Loop() {
				f.apply(dst.raw, src.raw)
			}
		})
	}
}

// BenchmarkBareTCP is the figure to compare BenchmarkAllReduce/world=2 with: two connections, each carrying the same
// number of bytes one way, at the same time, in chunks of the same size, with nothing done to them.
func BenchmarkBareTCP(b *testing.B) {
	for _, bytes := range []int{1 << 20, 16 << 20} {
		b.Run(fmt.Sprintf("world=2/bytes=%d", bytes), func(b *testing.B) {
			configs := tcpConfigs(b, 2)
			b.SetBytes(int64(bytes))
			done := make(chan error, 4)
			for rank := range 2 {
				out, err := configs(rank).Dial(bg, configs(1 - rank).Peers[1-rank])
				if err != nil {
					b.Fatal(err)
				}
				in, err := configs(1 - rank).Accept(bg)
				if err != nil {
					b.Fatal(err)
				}
				defer func() { _, _ = out.Close(), in.Close() }()
				move := func(f func([]byte) (int, error)) {
					chunk := make([]byte, min(DefaultChunkBytes, bytes))
					for range b.N * bytes / len(chunk) {
						if _, err := f(chunk); err != nil {
							done <- err
							return
						}
					}
					done <- nil
				}
				go move(out.Write)
				go move(func(p []byte) (int, error) { return io.ReadFull(in, p) })
			}
			for range 4 {
				if err := <-done; err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
