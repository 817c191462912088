// Package samebits has the elementary functions whose every bit all machines of a run must agree on. Package math's
// may differ in the last bit between processors (assembly here, fused multiply-adds there).
//
// How: products and sums in a fixed order, every product converted explicitly, which by the language's rules forbids
// the compiler to fuse it into a multiply-add; quotients are correctly rounded by IEEE 754.
package samebits

import "math"

// Exp is e**x for x <= 0, or hardly above (and NaN), with a relative error below 1e-14; below -700 it is 0.
func Exp(x float64) float64 {
	if x != x {
		return x
	}
	if x < least {
		return 0
	}
	r, power := reduced(x)
	// Taylor; |r| <= ln(2)/2, so the 13th term is below 2e-16.
	y := 1.0
	for i := 13; i >= 1; i-- {
		y = 1 + float64(float64(r*y)*inverse[i])
	}
	return float64(y * power)
}

// least is what e is raised to, at least.
const least = -700

// Exps is dst[i] = Exp(x[i]), four side by side: each waits for one operation after the other.
func Exps(dst, x []float64) {
	for ; len(x) >= 4; dst, x = dst[4:], x[4:] {
		if !(x[0] >= least && x[1] >= least && x[2] >= least && x[3] >= least) {
			for i, v := range x[:4] {
				dst[i] = Exp(v)
			}
			continue
		}
		r0, power0 := reduced(x[0])
		r1, power1 := reduced(x[1])
		r2, power2 := reduced(x[2])
		r3, power3 := reduced(x[3])
		y0, y1, y2, y3 := 1.0, 1.0, 1.0, 1.0
		for i := 13; i >= 1; i-- {
			y0 = 1 + float64(float64(r0*y0)*inverse[i])
			y1 = 1 + float64(float64(r1*y1)*inverse[i])
			y2 = 1 + float64(float64(r2*y2)*inverse[i])
			y3 = 1 + float64(float64(r3*y3)*inverse[i])
		}
		dst[0], dst[1] = float64(y0*power0), float64(y1*power1)
		dst[2], dst[3] = float64(y2*power2), float64(y3*power3)
	}
	for i, v := range x {
		dst[i] = Exp(v)
	}
}

// reduced is the r of at most ln(2)/2 in magnitude, and the power of two, with e**x = e**r * power.
func reduced(x float64) (r, power float64) {
	const (
		log2e = 1.44269504088896338700
		ln2Hi = 6.93147180369123816490e-01 // the upper bits of ln 2, so that k*ln2Hi is exact
		ln2Lo = 1.90821492927058770002e-10
	)
	k := math.Floor(float64(x*log2e) + 0.5)
	return float64(x-float64(k*ln2Hi)) - float64(k*ln2Lo), math.Float64frombits(uint64(1023+int(k)) << 52)
}

var inverse = [14]float64{0, 1, 1. / 2, 1. / 3, 1. / 4, 1. / 5, 1. / 6, 1. / 7, 1. / 8, 1. / 9, 1. / 10, 1. / 11, 1. / 12, 1. / 13}

// Log is ln x for finite x >= 1 (and NaN, +Inf), with a relative error below 1e-14.
func Log(x float64) float64 {
	if x != x || x > math.MaxFloat64 {
		return x
	}
	m, e := math.Frexp(x) // x = m * 2**e, 0.5 <= m < 1
	if m < math.Sqrt2/2 {
		m, e = m*2, e-1
	}
	// ln m = 2 artanh(t), t = (m-1)/(m+1), |t| < 0.172: t**22/23 is below 1e-18.
	t := (m - 1) / (m + 1)
	t2 := float64(t * t)
	sum := 0.0
	for i := len(odd) - 1; i >= 0; i-- {
		sum = odd[i] + float64(t2*sum)
	}
	return float64(2*float64(t*sum)) + float64(float64(e)*math.Ln2)
}

var odd = [...]float64{1, 1. / 3, 1. / 5, 1. / 7, 1. / 9, 1. / 11, 1. / 13, 1. / 15, 1. / 17, 1. / 19, 1. / 21}

// CosPi is cos(pi*x) for x in [0, 1], with an error below 1e-15.
func CosPi(x float64) float64 {
	if x > 0.5 {
		return -CosPi(1 - x)
	}
	// Taylor; (pi/2)**26/26! is below 1e-21.
	t := float64(math.Pi * x)
	t2 := float64(t * t)
	y := 1.0
	for i := 24; i >= 2; i -= 2 {
		y = 1 - float64(float64(t2*y)/float64(i*(i-1)))
	}
	return y
}

// Power is b to the n by repeated squaring.
func Power(b float64, n uint64) float64 {
	p := 1.0
	for ; n > 0; n >>= 1 {
		if n&1 == 1 {
			p *= b
		}
		b *= b
	}
	return p
}
