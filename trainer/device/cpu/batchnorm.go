package cpu

import "github.com/musterml/muster/trainer/device"

// statRows is how many rows are added in float32 before the sum goes to float64: a channel of a
// batch of images has too many elements for one float32 chain.
const statRows = 256

// channels is scratch of batch normalisation, by channel.
type channels struct {
	part [2][]float32 // sums of one block of rows
	sum  [2][]float64
	a, b []float32
	c    []float32
}

// channelScratch is scratch for n channels.
func (s *stream) channelScratch(n int) channels {
	if len(s.sums) < 2*n {
		s.sums, s.parts = make([]float64, 2*n), make([]float32, 5*n)
	}
	f, d := s.parts, s.sums
	return channels{
		part: [2][]float32{f[:n], f[n : 2*n]}, sum: [2][]float64{d[:n], d[n : 2*n]},
		a: f[2*n : 3*n], b: f[3*n : 4*n], c: f[4*n : 5*n],
	}
}

// begin clears all sums.
func (c *channels) begin() {
	for k := range c.part {
		clear(c.part[k])
		clear(c.sum[k])
	}
}

// flush adds the sums of a block and clears them.
func (c *channels) flush() {
	for k := range c.part {
		for j, v := range c.part[k] {
			c.sum[k][j] += float64(v)
		}
		clear(c.part[k])
	}
}

// BatchNorm implements device.Ops.
func (s *stream) BatchNorm(p device.BatchNorm) {
	const op = "batch norm"
	if !s.sized(op, p.Rows, p.Channels) {
		return
	}
	n := p.Channels
	y, x := s.floats(op, "Y", p.Y, p.Rows*n), s.floats(op, "X", p.X, p.Rows*n)
	gamma, beta := s.floats(op, "Gamma", p.Gamma, n), s.floats(op, "Beta", p.Beta, n)
	mean, rstds := s.floats(op, "Mean", p.Mean, n), s.floats(op, "RStd", p.RStd, n)
	if s.err != nil {
		return
	}
	c := s.channelScratch(n)
	c.begin()
	for i := 0; i < p.Rows; i += statRows {
		rows := min(statRows, p.Rows-i)
		s.addRows(c.part[0], x[i*n:(i+rows)*n], rows)
		c.flush()
	}
	for j, v := range c.sum[0] {
		mean[j] = float32(v / float64(p.Rows))
	}
	c.begin()
	for i := range p.Rows {
		s.k.addSquares(c.part[0], x[i*n:(i+1)*n], mean)
		if (i+1)%statRows == 0 || i == p.Rows-1 {
			c.flush()
		}
	}
	for j, v := range c.sum[0] {
		rstds[j] = rstd(v/float64(p.Rows), p.Eps)
		c.a[j] = gamma[j] * rstds[j]
		c.b[j] = beta[j] - float32(mean[j]*c.a[j])
	}
	floor := floorOf(p.Act)
	for i := range p.Rows {
		s.k.affine(y[i*n:(i+1)*n], x[i*n:(i+1)*n], c.a, c.b, floor)
	}
}

// BatchNormBackward implements device.Ops.
func (s *stream) BatchNormBackward(p device.BatchNormBackward) {
	const op = "batch norm backward"
	if !s.sized(op, p.Rows, p.Channels) {
		return
	}
	n := p.Channels
	dx, dy, x := s.floats(op, "DX", p.DX, p.Rows*n), s.floats(op, "DY", p.DY, p.Rows*n), s.floats(op, "X", p.X, p.Rows*n)
	gamma := s.floats(op, "Gamma", p.Gamma, n)
	dgamma, dbeta := s.floats(op, "DGamma", p.DGamma, n), s.floats(op, "DBeta", p.DBeta, n)
	mean, rstds := s.floats(op, "Mean", p.Mean, n), s.floats(op, "RStd", p.RStd, n)
	if p.Act == device.ReLU {
		s.ReLUBackward(p.DY, p.DY, p.Y, p.Rows*n)
	}
	if s.err != nil {
		return
	}
	c := s.channelScratch(n)
	c.begin()
	for i := range p.Rows {
		s.k.addProducts(c.part[0], c.part[1], dy[i*n:(i+1)*n], x[i*n:(i+1)*n], mean)
		if (i+1)%statRows == 0 || i == p.Rows-1 {
			c.flush()
		}
	}
	// dx = gamma*rstd * (dy - mean of dy - z * mean of dy*z), z = (x-mean)*rstd, as dy*a + x*b + c.
	for j := range n {
		rows, r := float64(p.Rows), float64(rstds[j])
		dgamma[j], dbeta[j] = float32(c.sum[1][j]*r), float32(c.sum[0][j])
		a := float64(float64(gamma[j]) * r)
		b := -float64(a*r) * float64(r*c.sum[1][j]) / rows
		c.a[j], c.b[j] = float32(a), float32(b)
		c.c[j] = float32(-float64(a*c.sum[0][j])/rows - float64(b*float64(mean[j])))
	}
	for i := range p.Rows {
		s.k.affine2(dx[i*n:(i+1)*n], dy[i*n:(i+1)*n], c.a, x[i*n:(i+1)*n], c.b, c.c)
	}
}
