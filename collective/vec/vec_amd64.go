package vec

import "golang.org/x/sys/cpu"

//go:generate sh -c "cd asm && go run . -out ../vec_amd64.s"

// available lists the sets of this processor that the operating system supports too, the best first.
func available() []*Set {
	var all []*Set
	if cpu.X86.HasAVX2 && cpu.X86.HasAVX512F {
		all = append(all, &Set{
			name: "avx512", lanes: 16, addInt32: addInt32AVX512, maxInt32: maxInt32AVX512, addFloat32: addFloat32AVX512,
			largest: largestAVX512, round: roundAVX512, addRounded: addRoundedAVX512, unscale: unscaleAVX512,
			addBF16: addBF16AVX512, encodeBF16: encodeBF16AVX512, decodeBF16: decodeBF16AVX512, sumBF16: sumBF16AVX512,
			addInt8: addInt8AVX512, decodeInt8: decodeInt8AVX512, encodeInt8: encodeInt8AVX512,
		})
	}
	if cpu.X86.HasAVX2 {
		all = append(all, &Set{
			name: "avx2", lanes: 8, addInt32: addInt32AVX2, maxInt32: maxInt32AVX2, addFloat32: addFloat32AVX2,
			largest: largestAVX2, round: roundAVX2, addRounded: addRoundedAVX2, unscale: unscaleAVX2,
			addBF16: addBF16AVX2, encodeBF16: encodeBF16AVX2, decodeBF16: decodeBF16AVX2, sumBF16: sumBF16AVX2,
			addInt8: addInt8AVX2, decodeInt8: decodeInt8AVX2, encodeInt8: encodeInt8AVX2,
		})
	}
	return append(all, &Set{name: "go"})
}

// The functions of vec_amd64.s. See type Set; the assembly checks nothing.

//go:noescape
func addInt32AVX512(dst, src *int32, n int)

//go:noescape
func addInt32AVX2(dst, src *int32, n int)

//go:noescape
func maxInt32AVX512(dst, src *int32, n int)

//go:noescape
func maxInt32AVX2(dst, src *int32, n int)

//go:noescape
func addFloat32AVX512(dst, src *float32, n int)

//go:noescape
func addFloat32AVX2(dst, src *float32, n int)

//go:noescape
func largestAVX512(x *float32, n int) uint32

//go:noescape
func largestAVX2(x *float32, n int) uint32

//go:noescape
func roundAVX512(dst *int32, x *float32, n int, scale1, scale2 float32)

//go:noescape
func addRoundedAVX512(dst, src *int32, x *float32, n int, scale1, scale2 float32)

//go:noescape
func roundAVX2(dst *int32, x *float32, n int, scale1, scale2 float32)

//go:noescape
func addRoundedAVX2(dst, src *int32, x *float32, n int, scale1, scale2 float32)

//go:noescape
func unscaleAVX512(dst *float32, sum *int32, n int, quantum float32)

//go:noescape
func unscaleAVX2(dst *float32, sum *int32, n int, quantum float32)

//go:noescape
func addBF16AVX512(dst, src *int32, lo, hi *float32, n int)

//go:noescape
func addBF16AVX2(dst, src *int32, lo, hi *float32, n int)

//go:noescape
func encodeBF16AVX512(dst *int32, lo, hi *float32, n int)

//go:noescape
func encodeBF16AVX2(dst *int32, lo, hi *float32, n int)

//go:noescape
func decodeBF16AVX512(lo, hi *float32, src *int32, n int)

//go:noescape
func sumBF16AVX512(lo, hi *float32, src *int32, n int)

//go:noescape
func decodeBF16AVX2(lo, hi *float32, src *int32, n int)

//go:noescape
func sumBF16AVX2(lo, hi *float32, src *int32, n int)

//go:noescape
func addInt8AVX512(dst *float32, src *int32, quarter, n int, scale float32)

//go:noescape
func decodeInt8AVX512(dst *float32, src *int32, quarter, n int, scale float32)

//go:noescape
func encodeInt8AVX512(dst *int32, x, rest *float32, quarter, n int, inverse, scale float32)

//go:noescape
func addInt8AVX2(dst *float32, src *int32, quarter, n int, scale float32)

//go:noescape
func decodeInt8AVX2(dst *float32, src *int32, quarter, n int, scale float32)

//go:noescape
func encodeInt8AVX2(dst *int32, x, rest *float32, quarter, n int, inverse, scale float32)
