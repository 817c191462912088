package cpu

import "golang.org/x/sys/cpu"

//go:generate sh -c "cd asm && go run . -out ../kernels_amd64.s"

var kernelsAVX512 = kernels{
	name: "avx512", class: classFMA, mr: 8, nr: 32, lanes: 16,
	multiply: multiplyAVX512, edge: multiplyEdgeAVX512, pack: packAVX512, transpose: transposeAVX512, turns: 16, masked: true,
	direct: directAVX512, flat: 8, tall: 12, turned: turnedAVX512, turnedRows: 12,
	max4: max4AVX512, spread4: spread4AVX512, sumRows: sumRowsAVX512, mask: maskAVX512, rowKernels: rowsAVX512,
	dropout: dropoutAVX512,
}

var kernelsAVX2 = kernels{
	name: "avx2", class: classFMA, mr: 6, nr: 16, lanes: 8,
	multiply: multiplyAVX2, edge: multiplyEdgeAVX2, pack: packAVX2, transpose: transposeAVX2, turns: 8,
	direct: directAVX2, flat: 6, tall: 12, turned: turnedAVX2, turnedRows: 5,
	max4: max4AVX2, spread4: spread4AVX2, sumRows: sumRowsAVX2, mask: maskAVX2, rowKernels: rowsAVX2,
	dropout: dropoutAVX2,
}

// available lists the instruction sets of this processor that the operating system supports
// too, the best first.
func available() []*kernels {
	var all []*kernels
	avx2 := cpu.X86.HasAVX2 && cpu.X86.HasFMA
	if avx2 && cpu.X86.HasAVX512F {
		all = append(all, &kernelsAVX512)
	}
	if avx2 {
		all = append(all, &kernelsAVX2)
	}
	return append(all, &portable)
}

// The functions of kernels_amd64.s. See type kernels; the assembly checks nothing.

//go:noescape
func multiplyAVX512(t *tile)

//go:noescape
func multiplyEdgeAVX512(t *tile)

//go:noescape
func directAVX512(t *strip)

//go:noescape
func directAVX2(t *strip)

//go:noescape
func turnedAVX512(t *strip)

//go:noescape
func turnedAVX2(t *strip)

//go:noescape
func packAVX512(dst *float32, ds int, step int, src *float32, ld int, rows int, n int, ahead int)

//go:noescape
func multiplyAVX2(t *tile)

//go:noescape
func multiplyEdgeAVX2(t *tile)

//go:noescape
func packAVX2(dst *float32, ds int, step int, src *float32, ld int, rows int, n int, ahead int)

//go:noescape
func transposeAVX512(dst *float32, to *int32, src *float32, ld int, rows int, n int, ahead int)

//go:noescape
func transposeAVX2(dst *float32, to *int32, src *float32, ld int, rows int, n int, ahead int)

//go:noescape
func sumRowsAVX512(out *float32, x *float32, ld int, rows int, n int)

//go:noescape
func sumRowsAVX2(out *float32, x *float32, ld int, rows int, n int)

//go:noescape
func maskAVX512(dx *float32, dy *float32, y *float32, n int)

//go:noescape
func maskAVX2(dx *float32, dy *float32, y *float32, n int)

//go:noescape
func max4AVX512(y *float32, index *uint8, a *float32, b *float32, c *float32, d *float32, n int, floor float32)

//go:noescape
func max4AVX2(y *float32, index *uint8, a *float32, b *float32, c *float32, d *float32, n int, floor float32)

//go:noescape
func spread4AVX512(a *float32, b *float32, c *float32, d *float32, dy *float32, y *float32, index *uint8, n int, floor float32)

//go:noescape
func spread4AVX2(a *float32, b *float32, c *float32, d *float32, dy *float32, y *float32, index *uint8, n int, floor float32)

//go:noescape
func dropoutAVX512(y *float32, x *float32, n int, counter *[4]uint32, keys *[20]uint32, limit uint32, scale float32)

//go:noescape
func dropoutAVX2(y *float32, x *float32, n int, counter *[4]uint32, keys *[20]uint32, limit uint32, scale float32)
