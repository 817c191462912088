package cuda

import (
	"fmt"
	"math/rand/v2"
	"testing"

	"github.com/musterml/muster/trainer/device"
)

// joinable is operands of sums and norms (rows, cols).
type joinable struct {
	*bench
	rows, cols             int
	x, y, p, q             device.Buffer // outputs
	gamma, beta            device.Buffer
	dgamma, dbeta          device.Buffer
	byRow, byColumn, other device.Buffer // statistics
}

func (j *joinable) n() int { return j.rows * j.cols }

func (j *joinable) batchNorm() {
	j.BatchNorm(device.BatchNorm{Rows: j.rows, Channels: j.cols, Y: j.y, X: j.x, Gamma: j.gamma, Beta: j.beta, Mean: j.byColumn, RStd: j.other, Eps: 1e-5})
}

func (j *joinable) layerNorm(x device.Buffer) {
	j.LayerNorm(device.LayerNorm{Rows: j.rows, Cols: j.cols, Y: j.y, X: x, Gamma: j.gamma, Beta: j.beta, Mean: j.byRow, RStd: j.other, Eps: 1e-5})
}

func (j *joinable) layerNormBackward() {
	j.LayerNormBackward(device.LayerNormBackward{Rows: j.rows, Cols: j.cols, DX: j.y, DY: j.p, X: j.x, Gamma: j.gamma, DGamma: j.dgamma, DBeta: j.dbeta, Mean: j.byRow, RStd: j.other})
}

// joined asks for operations one by one, or kept back, and counts the calls.
func joined(t *testing.T, precision device.Precision, alone bool, rows, cols int, ask func(j *joinable)) (b *bench, calls int) {
	d := newDevice(emulator(t), nil)
	d.precision = precision
	opened, err := d.NewStream()
	if err != nil {
		t.Fatal(err)
	}
	s := opened.(*stream)
	s.graphs.off = alone // then no call is kept back
	b = &bench{TB: t, Stream: s, rng: rand.New(rand.NewPCG(1, 2)), halves: precision == device.BF16}
	n := rows * cols
	j := &joinable{bench: b, rows: rows, cols: cols, x: b.outputs(n), y: b.outputs(n), p: b.outputs(n), q: b.outputs(n),
		gamma: b.random(cols), beta: b.random(cols), dgamma: b.room(cols), dbeta: b.room(cols), byRow: b.positive(rows), byColumn: b.room(cols), other: b.positive(max(rows, cols))}
	calls = -len(s.calls)
	ask(j)
	calls += len(s.calls)
	for i, m := range []device.Buffer{j.x, j.y, j.p, j.byRow, j.byColumn, j.other} {
		b.keep(fmt.Sprint("memory ", i), m)
	}
	if err := s.Sync(); err != nil {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	return b, calls
}

// Sums, and gradients of ReLUs, are made by the call before them, or a norm makes the sum before it, with the bits of the operations by themselves. They are not where they
// are of something else.
func TestSumsAndNormsJoin(t *testing.T) {
	for _, c := range []struct {
		name       string
		rows, cols int
		ask        func(j *joinable)
		calls      int // of a batch norm 3, of a gradient of layer norm 3
	}{
		{"batch norm, sum", 300, 12, func(j *joinable) { j.batchNorm(); j.Add(j.y, j.y, j.p, j.n(), device.ReLU) }, 3},
		{"of an odd width", 9, 7, func(j *joinable) { j.batchNorm(); j.Add(j.y, j.y, j.p, j.n(), device.Identity) }, 3},
		{"elsewhere", 8, 8, func(j *joinable) { j.batchNorm(); j.Add(j.x, j.y, j.p, j.n(), device.ReLU) }, 4},
		{"in part", 8, 8, func(j *joinable) { j.batchNorm(); j.Add(j.y, j.y, j.p, j.n()/2, device.ReLU) }, 4},
		{"with itself", 8, 8, func(j *joinable) { j.batchNorm(); j.Add(j.y, j.y, j.y, j.n(), device.ReLU) }, 4},
		{"gradient of layer norm, two sums", 5, 36, func(j *joinable) {
			j.layerNormBackward()
			j.Add(j.y, j.y, j.p, j.n(), device.Identity)
			j.Add(j.y, j.y, j.q, j.n(), device.Identity)
		}, 4},
		{"gradient of layer norm, long rows", 2, 1100, func(j *joinable) { j.layerNormBackward(); j.Add(j.y, j.y, j.p, j.n(), device.Identity) }, 3},
		{"gradient of layer norm, ReLU", 2, 36, func(j *joinable) { j.layerNormBackward(); j.Add(j.y, j.y, j.p, j.n(), device.ReLU) }, 4},
		{"sum, layer norm", 5, 36, func(j *joinable) { j.Add(j.x, j.x, j.p, j.n(), device.Identity); j.layerNorm(j.x) }, 1},
		{"sum, layer norm, long rows", 2, 1100, func(j *joinable) { j.Add(j.x, j.p, j.q, j.n(), device.Identity); j.layerNorm(j.x) }, 1},
		{"sum, layer norm of something else", 5, 36, func(j *joinable) { j.Add(j.x, j.x, j.p, j.n(), device.Identity); j.layerNorm(j.p) }, 2},
		{"sum, gradient of ReLU", 5, 36, func(j *joinable) {
			j.Add(j.x, j.x, j.p, j.n(), device.Identity)
			j.ReLUBackward(j.x, j.x, j.q, j.n())
		}, 1},
		{"of an odd number", 3, 7, func(j *joinable) {
			j.Add(j.x, j.p, j.y, j.n(), device.Identity)
			j.ReLUBackward(j.x, j.x, j.q, j.n())
		}, 1},
		{"then layer norm", 5, 36, func(j *joinable) {
			j.Add(j.x, j.x, j.p, j.n(), device.Identity)
			j.ReLUBackward(j.x, j.x, j.q, j.n())
			j.layerNorm(j.x)
		}, 2},
		{"elsewhere", 5, 36, func(j *joinable) {
			j.Add(j.x, j.x, j.p, j.n(), device.Identity)
			j.ReLUBackward(j.p, j.x, j.q, j.n())
		}, 2},
	} {
		t.Run(c.name, func(t *testing.T) {
			for _, precision := range []device.Precision{device.FP32, device.BF16} {
				want, _ := joined(t, precision, true, c.rows, c.cols, c.ask)
				got, calls := joined(t, precision, false, c.rows, c.cols, c.ask)
				if calls != c.calls {
					t.Errorf("%s: %d calls, %d were to be expected", precision, calls, c.calls)
				}
				for i, name := range want.names {
					if err := differ(got.results[i], want.results[i], 0); err != nil {
						t.Errorf("%s: %s: %v", precision, name, err)
					}
				}
			}
		})
	}
}
