package nn

import (
	"fmt"
	"math"
)

// Init fills w with initial values, a pure function of the seed: PyTorch's default distributions, see
// type Start.
func (s *Spec) Init(w []float32, seed uint64) error {
	if len(w) != s.params {
		return fmt.Errorf("initial values of model %s: %w: room for %d given, the model has %d parameters", s.name, ErrArgument, len(w), s.params)
	}
	for i, t := range s.tensors {
		t.init(w[t.Offset:t.Offset+t.Len()], mix(mix(seed)^uint64(i)*0x9e3779b97f4a7c15))
	}
	return nil
}

func (t Tensor) init(w []float32, key uint64) {
	bound := 1 / math.Sqrt(float64(t.FanIn))
	for j := range w {
		switch t.Start {
		case Uniform:
			w[j] = uniform(key, uint64(j), bound)
		case Zeros:
			w[j] = 0
		case Ones:
			w[j] = 1
		case Normal:
			w[j] = normal(key, uint64(j))
		}
	}
}

// normal is value i of the sequence key names: the sum of twelve uniform numbers of 21 bits, less its mean. It
// needs no logarithm and no cosine, whose last bits differ between machines.
func normal(key, i uint64) float32 {
	sum := int64(-6 * (1<<21 - 1))
	for j := range uint64(4) {
		bits := mix(key + (4*i+j)*0x9e3779b97f4a7c15)
		sum += int64(bits&(1<<21-1) + bits>>21&(1<<21-1) + bits>>42&(1<<21-1))
	}
	return float32(float64(sum) / (1 << 21))
}

// uniform is value i of the sequence key names, in [-bound, bound). 24 random bits: every
// value of that grid is a float32 before the multiplication.
func uniform(key, i uint64, bound float64) float32 {
	bits := mix(key+i*0x9e3779b97f4a7c15) >> 40
	u := float64(bits)/(1<<23) - 1 // exact
	return float32(float64(u * bound))
}

// mix is the finalizer of SplitMix64 (Steele, Lea, Flood: Fast splittable pseudorandom number
// generators, OOPSLA 2014): every bit of the input changes every bit of the output.
func mix(z uint64) uint64 {
	z += 0x9e3779b97f4a7c15
	z = (z ^ z>>30) * 0xbf58476d1ce4e5b9
	z = (z ^ z>>27) * 0x94d049bb133111eb
	return z ^ z>>31
}
