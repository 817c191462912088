package cpu

// normalise is y = (x-mean)*rstd*gamma + beta.
func (k *kernels) normalise(y, x, gamma, beta []float32, mean, rstd float32) {
	q := k.quickRow(len(x))
	if q > 0 {
		k.rowNormalise(&y[0], &x[0], &gamma[0], &beta[0], q, mean, rstd)
	}
	for i := q; i < len(x); i++ {
		z := (x[i] - mean) * rstd
		y[i] = float32(z*gamma[i]) + beta[i]
	}
}

// normSums is the sums of g = dy*gamma and of g*z, z = (x-mean)*rstd.
func (k *kernels) normSums(dy, gamma, x []float32, mean, rstd float32) (s0, s1 float32) {
	q := k.quickRow(len(x))
	if q > 0 {
		s0, s1 = k.rowNormSums(&dy[0], &gamma[0], &x[0], q, mean, rstd)
	}
	for i := q; i < len(x); i++ {
		g, z := float32(dy[i]*gamma[i]), float32((x[i]-mean)*rstd)
		s0 += g
		s1 += float32(g * z)
	}
	return s0, s1
}

// normBack is dx = rstd*(dy*gamma - m0 - z*m1), z = (x-mean)*rstd; it adds dy*z to dgamma and dy to dbeta.
func (k *kernels) normBack(dx, dy, gamma, x, dgamma, dbeta []float32, mean, rstd, m0, m1 float32) {
	q := k.quickRow(len(x))
	if q > 0 {
		k.rowNormBack(&dx[0], &dy[0], &gamma[0], &x[0], &dgamma[0], &dbeta[0], q, mean, rstd, m0, m1)
	}
	for i := q; i < len(x); i++ {
		z := float32((x[i] - mean) * rstd)
		dgamma[i] += float32(dy[i] * z)
		dbeta[i] += dy[i]
		dx[i] = rstd * (float32(dy[i]*gamma[i]) - m0 - float32(z*m1))
	}
}

// addSquares adds (x-mean)^2 to sum, element by element.
func (k *kernels) addSquares(sum, x, mean []float32) {
	q := k.quickRow(len(x))
	if q > 0 {
		k.rowAddSquares(&sum[0], &x[0], &mean[0], q)
	}
	for i := q; i < len(x); i++ {
		d := x[i] - mean[i]
		sum[i] += float32(d * d)
	}
}

// addProducts adds dy to s0 and dy*(x-mean) to s1, element by element.
func (k *kernels) addProducts(s0, s1, dy, x, mean []float32) {
	q := k.quickRow(len(x))
	if q > 0 {
		k.rowAddProducts(&s0[0], &s1[0], &dy[0], &x[0], &mean[0], q)
	}
	for i := q; i < len(x); i++ {
		s0[i] += dy[i]
		s1[i] += float32(dy[i] * (x[i] - mean[i]))
	}
}

// affine is y = max(floor, x*a + b), element by element.
func (k *kernels) affine(y, x, a, b []float32, floor float32) {
	q := k.quickRow(len(x))
	if q > 0 {
		k.rowAffine(&y[0], &x[0], &a[0], &b[0], q, floor)
	}
	for i := q; i < len(x); i++ {
		y[i] = atLeast(floor, float32(x[i]*a[i])+b[i])
	}
}

// affine2 is y = u*a + (x*b + c), element by element; y may be u or x.
func (k *kernels) affine2(y, u, a, x, b, c []float32) {
	q := k.quickRow(len(x))
	if q > 0 {
		k.rowAffine2(&y[0], &u[0], &a[0], &x[0], &b[0], &c[0], q)
	}
	for i := q; i < len(x); i++ {
		y[i] = float32(u[i]*a[i]) + (float32(x[i]*b[i]) + c[i])
	}
}
