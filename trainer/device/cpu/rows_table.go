package cpu

import (
	"fmt"

	"github.com/musterml/muster/trainer/device"
)

// index checks the places of rows.
func (s *stream) index(op string, p *device.Rows) []int32 {
	if !s.sized(op, p.N, p.Fields, p.Width, p.Rows) {
		return nil
	}
	index := s.ints(op, "Index", p.Index, p.N*p.Fields)
	for i, at := range index {
		if at < 0 || int(at) >= p.Rows {
			s.fail(fmt.Errorf("%s: row %d of field %d of sample %d is not within [0, %d)", op, at, i%p.Fields, i/p.Fields, p.Rows))
			return nil
		}
	}
	return index
}

// ConcatRows implements device.Ops.
func (s *stream) ConcatRows(p device.ConcatRows) {
	const op = "concatenation of rows"
	index, out := s.index(op, &p.Rows), p.C+p.Fields*p.Width
	if s.err != nil {
		return
	}
	x, y, v := s.floats(op, "X", p.X, p.N*p.C), s.floats(op, "Y", p.Y, p.N*out), s.floats(op, "Values", p.Values, p.Rows.Rows*p.Width)
	if s.err != nil {
		return
	}
	for i := range p.N {
		row := y[i*out : (i+1)*out]
		row = row[copy(row, x[i*p.C:(i+1)*p.C]):]
		for _, at := range index[i*p.Fields : (i+1)*p.Fields] {
			row = row[copy(row, v[int(at)*p.Width:int(at+1)*p.Width]):]
		}
	}
}

// ConcatRowsBackward implements device.Ops.
func (s *stream) ConcatRowsBackward(p device.ConcatRowsBackward) {
	const op = "concatenation of rows backward"
	index, out := s.index(op, &p.Rows), p.C+p.Fields*p.Width
	if s.err != nil {
		return
	}
	dx := s.optional(op, "DX", p.DX, p.N*p.C)
	dy, dv := s.floats(op, "DY", p.DY, p.N*out), s.floats(op, "DValues", p.DValues, p.Rows.Rows*p.Width)
	if s.err != nil {
		return
	}
	clear(dv)
	for i := range p.N {
		row := dy[i*out : (i+1)*out]
		if dx != nil {
			copy(dx[i*p.C:(i+1)*p.C], row)
		}
		row = row[p.C:]
		for f, at := range index[i*p.Fields : (i+1)*p.Fields] {
			to := dv[int(at)*p.Width : int(at+1)*p.Width]
			s.k.add(to, to, row[f*p.Width:(f+1)*p.Width], floorNone)
		}
	}
}

// PoolRows implements device.Ops.
func (s *stream) PoolRows(p device.PoolRows) {
	const op = "sum of rows"
	index := s.index(op, &p.Rows)
	if s.err != nil {
		return
	}
	y, v := s.floats(op, "Y", p.Y, p.N*p.Width), s.floats(op, "Values", p.Values, p.Rows.Rows*p.Width)
	if s.err != nil {
		return
	}
	clear(y)
	for i := range p.N {
		to := y[i*p.Width : (i+1)*p.Width]
		for _, at := range index[i*p.Fields : (i+1)*p.Fields] {
			s.k.add(to, to, v[int(at)*p.Width:int(at+1)*p.Width], floorNone)
		}
	}
}

// PoolRowsBackward implements device.Ops.
func (s *stream) PoolRowsBackward(p device.PoolRowsBackward) {
	const op = "sum of rows backward"
	index := s.index(op, &p.Rows)
	if s.err != nil {
		return
	}
	dy, dv := s.floats(op, "DY", p.DY, p.N*p.Width), s.floats(op, "DValues", p.DValues, p.Rows.Rows*p.Width)
	if s.err != nil {
		return
	}
	clear(dv)
	for i := range p.N {
		d := dy[i*p.Width : (i+1)*p.Width]
		for _, at := range index[i*p.Fields : (i+1)*p.Fields] {
			to := dv[int(at)*p.Width : int(at+1)*p.Width]
			s.k.add(to, to, d, floorNone)
		}
	}
}

// interaction is what one sample's interaction works on: z[0] is x, z[1+f] the row of field f.
type interaction struct {
	z, dz [][]float32
	sums  []float32 // the memory of dz
}

func (s *stream) interaction(fields, width int) *interaction {
	t := &s.interact
	if len(t.z) != fields+1 || len(t.sums) != (fields+1)*width {
		*t = interaction{z: make([][]float32, fields+1), dz: make([][]float32, fields+1), sums: make([]float32, (fields+1)*width)}
		for i := range t.dz {
			t.dz[i] = t.sums[i*width : (i+1)*width]
		}
	}
	return t
}

func (t *interaction) take(x, values []float32, index []int32, width int) {
	t.z[0] = x
	for f, at := range index {
		t.z[1+f] = values[int(at)*width : int(at+1)*width]
	}
}

// InteractRows implements device.Ops.
func (s *stream) InteractRows(p device.InteractRows) {
	const op = "interaction of rows"
	index, out := s.index(op, &p.Rows), p.Width+(p.Fields+1)*p.Fields/2
	if s.err != nil {
		return
	}
	x, y, v := s.floats(op, "X", p.X, p.N*p.Width), s.floats(op, "Y", p.Y, p.N*out), s.floats(op, "Values", p.Values, p.Rows.Rows*p.Width)
	if s.err != nil {
		return
	}
	t := s.interaction(p.Fields, p.Width)
	for n := range p.N {
		t.take(x[n*p.Width:(n+1)*p.Width], v, index[n*p.Fields:(n+1)*p.Fields], p.Width)
		row := y[n*out : (n+1)*out]
		row = row[copy(row, t.z[0]):]
		for i := 1; i < len(t.z); i++ {
			dots(row[:i], t.z[i], t.z[:i])
			row = row[i:]
		}
	}
}

// dots are the products of a vector with others, four at a time: they do not wait for each other.
func dots(dst, a []float32, others [][]float32) {
	for ; len(dst) >= 4; dst, others = dst[4:], others[4:] {
		b, c, d, e := others[0][:len(a)], others[1][:len(a)], others[2][:len(a)], others[3][:len(a)]
		var p, q, r, s float32
		for k, v := range a {
			p += float32(v * b[k])
			q += float32(v * c[k])
			r += float32(v * d[k])
			s += float32(v * e[k])
		}
		dst[0], dst[1], dst[2], dst[3] = p, q, r, s
	}
	for j := range dst {
		sum := float32(0)
		for k, v := range others[j][:len(a)] {
			sum += float32(a[k] * v)
		}
		dst[j] = sum
	}
}

// InteractRowsBackward implements device.Ops.
func (s *stream) InteractRowsBackward(p device.InteractRowsBackward) {
	const op = "interaction of rows backward"
	index, out := s.index(op, &p.Rows), p.Width+(p.Fields+1)*p.Fields/2
	if s.err != nil {
		return
	}
	x, v := s.floats(op, "X", p.X, p.N*p.Width), s.floats(op, "Values", p.Values, p.Rows.Rows*p.Width)
	dx := s.optional(op, "DX", p.DX, p.N*p.Width)
	dy, dv := s.floats(op, "DY", p.DY, p.N*out), s.floats(op, "DValues", p.DValues, p.Rows.Rows*p.Width)
	if s.err != nil {
		return
	}
	clear(dv)
	t := s.interaction(p.Fields, p.Width)
	for n := range p.N {
		index := index[n*p.Fields : (n+1)*p.Fields]
		t.take(x[n*p.Width:(n+1)*p.Width], v, index, p.Width)
		row := dy[n*out : (n+1)*out]
		clear(t.sums)
		row = row[copy(t.dz[0], row[:p.Width]):]
		for i := 1; i < len(t.z); i++ {
			for j := range i {
				g, zi, zj, di, dj := row[j], t.z[i], t.z[j], t.dz[i], t.dz[j]
				zj, di, dj = zj[:len(zi)], di[:len(zi)], dj[:len(zi)]
				for k, v := range zi {
					di[k] += float32(g * zj[k])
					dj[k] += float32(g * v)
				}
			}
			row = row[i:]
		}
		if dx != nil {
			copy(dx[n*p.Width:(n+1)*p.Width], t.dz[0])
		}
		for f, at := range index {
			to := dv[int(at)*p.Width : int(at+1)*p.Width]
			s.k.add(to, to, t.dz[1+f], floorNone)
		}
	}
}
