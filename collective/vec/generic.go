package vec

import "math"

// The plain Go. The loops go eight at a time over arrays, which spares the bounds checks.

func addInt32(dst, src []int32) {
	src = src[:len(dst)]
	for len(dst) >= 8 {
		d, s := (*[8]int32)(dst), (*[8]int32)(src)
		d[0] += s[0]
		d[1] += s[1]
		d[2] += s[2]
		d[3] += s[3]
		d[4] += s[4]
		d[5] += s[5]
		d[6] += s[6]
		d[7] += s[7]
		dst, src = dst[8:], src[8:]
	}
	for i, v := range src {
		dst[i] += v
	}
}

func addFloat32(dst, src []float32) {
	src = src[:len(dst)]
	for len(dst) >= 8 {
		d, s := (*[8]float32)(dst), (*[8]float32)(src)
		d[0] += s[0]
		d[1] += s[1]
		d[2] += s[2]
		d[3] += s[3]
		d[4] += s[4]
		d[5] += s[5]
		d[6] += s[6]
		d[7] += s[7]
		dst, src = dst[8:], src[8:]
	}
	for i, v := range src {
		dst[i] += v
	}
}

func maxInt32(dst, src []int32) {
	src = src[:len(dst)]
	for len(dst) >= 4 {
		d, s := (*[4]int32)(dst), (*[4]int32)(src)
		d[0] = max(d[0], s[0])
		d[1] = max(d[1], s[1])
		d[2] = max(d[2], s[2])
		d[3] = max(d[3], s[3])
		dst, src = dst[4:], src[4:]
	}
	for i, v := range src {
		dst[i] = max(dst[i], v)
	}
}

// largest keeps four maxima at a time, so that one need not wait for the other.
func largest(x []float32) uint32 {
	var m0, m1, m2, m3 uint32
	for len(x) >= 8 {
		v := (*[8]float32)(x)
		m0 = max(m0, math.Float32bits(v[0])<<1)
		m1 = max(m1, math.Float32bits(v[1])<<1)
		m2 = max(m2, math.Float32bits(v[2])<<1)
		m3 = max(m3, math.Float32bits(v[3])<<1)
		m0 = max(m0, math.Float32bits(v[4])<<1)
		m1 = max(m1, math.Float32bits(v[5])<<1)
		m2 = max(m2, math.Float32bits(v[6])<<1)
		m3 = max(m3, math.Float32bits(v[7])<<1)
		x = x[8:]
	}
	for _, v := range x {
		m0 = max(m0, math.Float32bits(v)<<1)
	}
	return max(m0, m1, m2, m3) >> 1
}

// roundMagic: adding 1.5 * 2^52 to a float64 of magnitude below 2^51 leaves its nearest integer (ties to even) in the
// low bits of the pattern, in two's complement.
const roundMagic = 3 << 51

// round is exact but for the rounding that is meant: the product has 24 bits and a power of two, far from float64's
// limits, so a fused multiply-add gives the same.
func round(x float32, scale float64) int32 {
	return int32(math.Float64bits(float64(float64(x)*scale) + roundMagic))
}

func rounded(dst []int32, x []float32, scale float64) {
	dst = dst[:len(x)]
	for len(x) >= 4 {
		d, g := (*[4]int32)(dst), (*[4]float32)(x)
		d[0] = round(g[0], scale)
		d[1] = round(g[1], scale)
		d[2] = round(g[2], scale)
		d[3] = round(g[3], scale)
		dst, x = dst[4:], x[4:]
	}
	for i, g := range x {
		dst[i] = round(g, scale)
	}
}

func addRounded(dst, src []int32, x []float32, scale float64) {
	dst, src = dst[:len(x)], src[:len(x)]
	for len(x) >= 4 {
		d, s, g := (*[4]int32)(dst), (*[4]int32)(src), (*[4]float32)(x)
		d[0] = s[0] + round(g[0], scale)
		d[1] = s[1] + round(g[1], scale)
		d[2] = s[2] + round(g[2], scale)
		d[3] = s[3] + round(g[3], scale)
		dst, src, x = dst[4:], src[4:], x[4:]
	}
	for i, g := range x {
		dst[i] = src[i] + round(g, scale)
	}
}

func unscale(dst []float32, sum []int32, quantum float64) {
	dst = dst[:len(sum)]
	for len(sum) >= 4 {
		d, s := (*[4]float32)(dst), (*[4]int32)(sum)
		d[0] = float32(float64(s[0]) * quantum)
		d[1] = float32(float64(s[1]) * quantum)
		d[2] = float32(float64(s[2]) * quantum)
		d[3] = float32(float64(s[3]) * quantum)
		dst, sum = dst[4:], sum[4:]
	}
	for i, s := range sum {
		dst[i] = float32(float64(s) * quantum)
	}
}
