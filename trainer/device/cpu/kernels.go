package cpu

import "unsafe"

// tile is what the innermost kernels compute: for row r < rows and column j < width
//
//	c[r*ldc + j] = max(floor, init[r*ldi + j] + sum over p < kc of a[ro[r]+ko[p]] * b[p*ldb + j])
//
// the sum one chain in the order of p. All strides and offsets count elements. The assembly
// knows the offsets of the fields (asm/main.go; checked below).
type tile struct {
	kc    int      // at least 1
	a     *float32 //
	ko    *int32   // [kc]
	b     *float32 //
	ldb   int      //
	c     *float32 // may be init
	ldc   int      //
	init  *float32 // nil: zero
	ldi   int      // 0: the same values for every row
	ro    *int32   // [rows]
	rows  int      // mr, or at an edge 1 to mr
	width int      // nr, or at an edge 1 to nr
	floor float32  // 0 is a ReLU, -Inf does nothing; NaN passes either
	tiles int      // how many below each other, at least 1: the kernel counts them down, and moves c, init and ro to the last
}

// The assembly's idea of the struct above, checked when this compiles.
var _ = [1]struct{}{}[unsafe.Offsetof(tile{}.ko)-16|
	unsafe.Offsetof(tile{}.ldb)-32|unsafe.Offsetof(tile{}.ldc)-48|
	unsafe.Offsetof(tile{}.ldi)-64|unsafe.Offsetof(tile{}.ro)-72|unsafe.Offsetof(tile{}.rows)-80|
	unsafe.Offsetof(tile{}.width)-88|unsafe.Offsetof(tile{}.floor)-96|unsafe.Offsetof(tile{}.tiles)-104|
	(unsafe.Sizeof(int(0))-8)] // 64-bit processors only

// strip is some rows of a product computed from the operands as they lie, B either as it is multiplied or stored transposed:
// for row r < rows and column j < n
//
//	c[r*ldc + j] = max(floor, init[r*ldi + j] + sum over p < kc of a[r*ars + p*aks] * b[p*ldb + j])	direct
//	c[r*ldc + j] = max(floor, init[r*ldi + j] + sum over p < kc of a[r*ars + p*aks] * b[j*ldb + p])	turned
//
// the sum one chain in the order of p. The assembly knows the offsets of the fields (asm/strip.go; checked below).
type strip struct {
	kc       int // at least 1
	rows     int // 1 to what the kernel does
	n        int // at least 1
	a        *float32
	ars, aks int
	b        *float32
	ldb      int
	c        *float32 // may be init
	ldc      int
	init     *float32 // nil: zero
	ldi      int      // 0: the same values for every row
	floor    float32  // as in tile
	strips   int      // how many below each other, at least 1: the kernel counts them down, and moves a, c and init to the last
}

var _ = [1]struct{}{}[unsafe.Offsetof(strip{}.n)-16|unsafe.Offsetof(strip{}.ars)-32|unsafe.Offsetof(strip{}.b)-48|
	unsafe.Offsetof(strip{}.c)-64|unsafe.Offsetof(strip{}.init)-80|unsafe.Offsetof(strip{}.floor)-96|unsafe.Offsetof(strip{}.strips)-104]

// kernels is one instruction set. All of one class give the same bits.
type kernels struct {
	name, class string
	mr, nr      int         // size of a tile
	multiply    func(*tile) // of mr rows and nr columns
	edge        func(*tile) // of fewer; unless masked, b has nr columns all the same
	masked      bool
	direct      func(*strip) // nil: there is none, as of turned
	flat, tall  int          // rows of its strips at most; of those of no more columns than lanes
	turned      func(*strip)
	turnedRows  int
	// pack writes dst[i*ds + j/nr*step + j%nr] = src[i*ld + j] for i < rows, j < n, and prefetches rows that far ahead.
	pack func(dst *float32, ds, step int, src *float32, ld, rows, n, ahead int)
	// transpose writes dst[to[j]+i] = src[i*ld + j] for i < rows, j < n, and prefetches what lies ahead of that; rows is at most turns.
	transpose func(dst *float32, to *int32, src *float32, ld, rows, n, ahead int)
	turns     int // elements of a register, too
	// The rest works on n elements side by side, n a multiple of lanes; nil: there is none.
	lanes int
	// max4 is y = max(floor, a, b, c, d) element by element, index its place.
	max4 func(y *float32, index *uint8, a, b, c, d *float32, n int, floor float32)
	// spread4 gives dy to the one of a, b, c, d that index names, unless y <= floor; zero to the others.
	spread4 func(a, b, c, d, dy, y *float32, index *uint8, n int, floor float32)
	// sumRows is out[j] = sum over i < rows of x[i*ld + j]; mask is dx = 0 where y <= 0, else dy.
	sumRows func(out, x *float32, ld, rows, n int)
	mask    func(dx, dy, y *float32, n int)
	// dropout does blocks of dropoutBlock elements, n in all; see device.Dropout.
	dropout func(y, x *float32, n int, counter *[4]uint32, keys *[2 * philoxRounds]uint32, limit uint32, scale float32)
	rowKernels
}

// directRows is how many rows a strip of so many columns has at most, where B is read as it lies.
func (k *kernels) directRows(n int) int {
	if n <= k.turns {
		return k.tall
	}
	return k.flat
}

// wide is how many registers of columns such a strip takes at a time, as asm/direct.go has it.
func (k *kernels) wide(rows int) int {
	if rows > k.flat {
		return 1
	}
	return (2*k.turns - 2) / (rows + 1)
}

var portable = kernels{name: "go", class: classGo, mr: 4, nr: 4, multiply: multiplyGo, edge: multiplyEdgeGo, pack: packGo, transpose: transposeGo, turns: 4}

// at is p[i].
func at(p *float32, i int) *float32 {
	return (*float32)(unsafe.Add(unsafe.Pointer(p), i*4))
}

// multiplyGo is the 4x4 kernel in plain Go.
func multiplyGo(t *tile) {
	for tileGo(t); t.down(); tileGo(t) {
	}
}

// down moves on to the tile below, unless that was the last.
func (t *tile) down() bool {
	if t.tiles--; t.tiles == 0 {
		return false
	}
	t.ro = (*int32)(unsafe.Add(unsafe.Pointer(t.ro), t.rows*4))
	t.c = at(t.c, t.rows*t.ldc)
	if t.init != nil {
		t.init = at(t.init, t.rows*t.ldi)
	}
	return true
}

// start is what the sums of row r begin with.
func (t *tile) start(r int) *[4]float32 {
	if t.init == nil {
		return &[4]float32{}
	}
	return (*[4]float32)(unsafe.Pointer(at(t.init, r*t.ldi)))
}

func tileGo(t *tile) {
	ro := unsafe.Slice(t.ro, 4)
	ko := unsafe.Slice(t.ko, t.kc)
	for r := 0; r < 4; r += 2 { // two rows at a time: eight sums fit the registers everywhere
		a0, a1 := at(t.a, int(ro[r])), at(t.a, int(ro[r+1]))
		i0, i1 := t.start(r), t.start(r+1)
		s00, s01, s02, s03 := i0[0], i0[1], i0[2], i0[3]
		s10, s11, s12, s13 := i1[0], i1[1], i1[2], i1[3]
		for p, k := range ko {
			b := (*[4]float32)(unsafe.Pointer(at(t.b, p*t.ldb)))
			x, y := *at(a0, int(k)), *at(a1, int(k))
			// The conversions keep a compiler from fusing, see the package's comment.
			s00 += float32(x * b[0])
			s01 += float32(x * b[1])
			s02 += float32(x * b[2])
			s03 += float32(x * b[3])
			s10 += float32(y * b[0])
			s11 += float32(y * b[1])
			s12 += float32(y * b[2])
			s13 += float32(y * b[3])
		}
		f := t.floor
		*(*[4]float32)(unsafe.Pointer(at(t.c, r*t.ldc))) = [4]float32{atLeast(f, s00), atLeast(f, s01), atLeast(f, s02), atLeast(f, s03)}
		*(*[4]float32)(unsafe.Pointer(at(t.c, (r+1)*t.ldc))) = [4]float32{atLeast(f, s10), atLeast(f, s11), atLeast(f, s12), atLeast(f, s13)}
	}
}

// multiplyEdgeGo computes in a tile of its own, where rows that are missing repeat the last one.
func multiplyEdgeGo(t *tile) {
	for tileEdgeGo(t); t.down(); tileEdgeGo(t) {
	}
}

func tileEdgeGo(t *tile) {
	var c [16]float32
	var ro [4]int32
	for r := range ro {
		ro[r] = *(*int32)(unsafe.Add(unsafe.Pointer(t.ro), 4*min(r, t.rows-1)))
	}
	if t.init != nil {
		for r := range t.rows {
			copy(c[4*r:], unsafe.Slice(at(t.init, r*t.ldi), t.width))
		}
	}
	whole := *t
	whole.c, whole.ldc, whole.init, whole.ldi, whole.ro = &c[0], 4, &c[0], 4, &ro[0]
	tileGo(&whole)
	for r := range t.rows {
		copy(unsafe.Slice(at(t.c, r*t.ldc), t.width), c[4*r:])
	}
}

func packGo(dst *float32, ds, step int, src *float32, ld, rows, n, _ int) {
	for i := range rows {
		for j := 0; j < n; j += 4 {
			w := min(4, n-j)
			copy(unsafe.Slice(at(dst, i*ds+j/4*step), w), unsafe.Slice(at(src, i*ld+j), w))
		}
	}
}

func transposeGo(dst *float32, to *int32, src *float32, ld, rows, n, _ int) {
	for j, d := range unsafe.Slice(to, n) {
		for i := range rows {
			*at(dst, int(d)+i) = *at(src, i*ld+j)
		}
	}
}

// atLeast is max(floor, x), with NaN and -0 passing as they do in the assembly.
func atLeast(floor, x float32) float32 {
	if x < floor {
		return floor
	}
	return x
}
