package data

import "math"

// moments gathers the mean and the variance of numbers as they come (B. P. Welford,
// Technometrics 4, 1962). The conversions keep a compiler from fusing a product with a sum, so
// the same numbers in the same order have the same moments, to the bit, on every machine.
type moments struct {
	n        int
	mean, m2 float64
}

func (m *moments) add(x float64) {
	m.n++
	d := x - m.mean
	m.mean += float64(d / float64(m.n))
	m.m2 += float64(d * (x - m.mean))
}

// scale standardises numbers: (x - Mean) / Deviation.
type scale struct{ mean, deviation float64 }

// scale is that of the numbers; of equal ones the deviation is taken for 1.
func (m *moments) scale() scale {
	s := scale{mean: m.mean, deviation: 1}
	if m.n > 0 {
		if d := math.Sqrt(m.m2 / float64(m.n)); d > 0 && !math.IsInf(d, 0) {
			s.deviation = d
		}
	}
	return s
}

func (s scale) of(x float64) float32 { return float32((x - s.mean) / s.deviation) }
