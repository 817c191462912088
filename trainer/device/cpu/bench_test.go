package cpu

import (
	"fmt"
	"testing"

	"github.com/musterml/muster/trainer/device"
)

// BenchmarkMatMul is one processor. On the Zen 4 machine where the kernel's shape was chosen,
// OpenBLAS did 82 to 98 GF/s at 1024, gonum 9 to 12; the processor's peak is 112.
func BenchmarkMatMul(b *testing.B) {
	for _, set := range InstructionSets() {
		for _, p := range []device.MatMul{
			{Trans: device.NN, M: 1024, N: 1024, K: 1024},
			{Trans: device.NT, M: 1024, N: 1024, K: 1024},
			{Trans: device.TN, M: 1024, N: 1024, K: 1024},
			{Trans: device.NT, M: 32, N: 128, K: 3136}, // lenet's first dense layer: forward,
			{Trans: device.NN, M: 32, N: 3136, K: 128}, // gradient of the data,
			{Trans: device.TN, M: 128, N: 3136, K: 32}, // and of the weights
		} {
			if set == "go" && p.M == 1024 {
				p.M, p.N, p.K = 256, 256, 256
			}
			b.Run(fmt.Sprintf("%s/%v/%dx%dx%d", set, p.Trans, p.M, p.N, p.K), func(b *testing.B) {
				t := newBench(b, set)
				_, p.A = t.random(p.M * p.K)
				_, p.B = t.random(p.K * p.N)
				p.C = t.room(p.M * p.N)
				for b.Loop() {
					t.s.MatMul(p)
				}
				t.result(p.C)
				b.ReportMetric(2*float64(p.M)*float64(p.N)*float64(p.K)*float64(b.N)/b.Elapsed().Seconds()/1e9, "GF/s")
			})
		}
	}
}

func BenchmarkConv2D(b *testing.B) {
	for _, set := range InstructionSets() {
		for _, g := range []device.ConvShape{
			{N: 32, C: 1, H: 28, W: 28, Out: 32, KH: 3, KW: 3, Stride: 1, Pad: 1},
			{N: 32, C: 32, H: 14, W: 14, Out: 64, KH: 3, KW: 3, Stride: 1, Pad: 1},
			{N: 8, C: 512, H: 4, W: 4, Out: 512, KH: 3, KW: 3, Stride: 1, Pad: 1}, // resnet18's last
		} {
			t := newBench(b, set)
			_, x := t.random(g.N * g.H * g.W * g.C)
			_, w := t.random(g.Out * g.C * g.KH * g.KW)
			_, y := t.random(g.N * g.OutH() * g.OutW() * g.Out)
			for name, f := range map[string]func(){
				"forward": func() { t.s.Conv2D(device.Conv2D{Shape: g, Y: y, X: x, W: w}) },
				"data":    func() { t.s.Conv2DBackwardData(device.Conv2DBackwardData{Shape: g, DX: x, DY: y, W: w}) },
				"weights": func() { t.s.Conv2DBackwardWeight(device.Conv2DBackwardWeight{Shape: g, DW: w, X: x, DY: y}) },
			} {
				b.Run(fmt.Sprintf("%s/%d-%d/%s", set, g.C, g.Out, name), func(b *testing.B) {
					for b.Loop() {
						f()
					}
					flops := 2 * float64(g.N*g.OutH()*g.OutW()*g.Out) * float64(g.C*g.KH*g.KW)
					b.ReportMetric(flops*float64(b.N)/b.Elapsed().Seconds()/1e9, "GF/s")
				})
			}
			if err := t.s.Sync(); err != nil {
				b.Fatal(err)
			}
		}
	}
}

// BenchmarkDropout and BenchmarkSparse count elements and entries, in millions a second.
func BenchmarkDropout(b *testing.B) {
	for _, set := range InstructionSets() {
		b.Run(set, func(b *testing.B) {
			const n = 1 << 16
			t := newBench(b, set)
			_, x := t.random(n)
			p := device.Dropout{N: n, Y: x, X: x, P: 0.1, Key: device.DropoutKey{Seed: 1}}
			for b.Loop() {
				t.s.Dropout(p)
			}
			b.ReportMetric(n*float64(b.N)/b.Elapsed().Seconds()/1e6, "M/s")
		})
	}
}

func BenchmarkSparse(b *testing.B) {
	for _, out := range []int{1, 20} {
		const rows, cols, perRow = 256, 50000, 80
		t := newBench(b, "")
		starts, columns := []int32{0}, []int32{}
		for i := range rows {
			for range perRow {
				columns = append(columns, int32(t.r.IntN(cols)))
			}
			starts = append(starts, int32((i+1)*perRow))
		}
		_, values := t.random(len(columns))
		x := device.Sparse{Rows: rows, Cols: cols, Entries: len(columns), Starts: t.int32s(starts), Columns: t.int32s(columns), Values: values}
		_, w := t.random(out * cols)
		_, y := t.random(rows * out)
		for name, f := range map[string]func(){
			"forward": func() { t.s.SparseMatMul(device.SparseMatMul{X: x, Out: out, Y: y, W: w}) },
			"weights": func() {
				t.s.SparseMatMulBackwardWeight(device.SparseMatMulBackwardWeight{X: x, Out: out, DW: w, DY: y})
			},
		} {
			b.Run(fmt.Sprintf("%d/%s", out, name), func(b *testing.B) {
				for b.Loop() {
					f()
				}
				b.ReportMetric(float64(rows*perRow*out)*float64(b.N)/b.Elapsed().Seconds()/1e6, "M/s")
			})
		}
	}
}
