package data

import (
	"fmt"
	"sync/atomic"
)

// glyphsVersion is part of the identity of drawn data: nodes whose programs draw
// differently must not train together. TestGlyphsGolden watches it.
const glyphsVersion = 1

// stream keeps training and held-out pictures of one seed apart: picture i of one
// stream has nothing in common with picture i of the other, and neither depends on how
// many pictures the other has.
type stream uint64

const (
	trainStream stream = 1
	testStream  stream = 2
)

// cachedPictures bounds the memory that drawn pictures are kept in (206 MB); pictures
// past it are drawn again at every use, which costs some 11 µs each.
const cachedPictures = 1 << 18

// glyphs is the built-in data: handwritten-looking digits drawn by the program. A
// picture is drawn when it is first asked for, and kept.
type glyphs struct {
	seed   uint64
	stream stream
	n      int
	grey   *greyTable

	// kept[i] is valid, and never written again, once state[i] is stateKept. The one
	// goroutine that moved state[i] from stateNone to stateFilling writes it.
	kept  []keptPicture
	state []atomic.Uint32
}

type keptPicture struct {
	pixels picture
	label  int8
}

const (
	stateNone uint32 = iota
	stateFilling
	stateKept
)

func newGlyphs(seed uint64, s stream, n int) *glyphs {
	cached := min(n, cachedPictures)
	return &glyphs{
		seed: seed, stream: s, n: n, grey: newGreyTable(),
		kept:  make([]keptPicture, cached),
		state: make([]atomic.Uint32, cached),
	}
}

func (g *glyphs) Len() int   { return g.n }
func (g *glyphs) Form() Form { return Form{Shape: []int{1, side, side}, Classes: len(digits)} }

func (g *glyphs) Digest() Digest {
	return digestOf(fmt.Sprintf("glyphs version %d, seed %d, stream %d, %d pictures, %s",
		glyphsVersion, g.seed, g.stream, g.n, normalisation))
}

func (g *glyphs) Sample(i int, into Batch) {
	if i < len(g.state) && g.state[i].Load() == stateKept {
		k := &g.kept[i]
		g.grey.expand(into.X, k.pixels[:])
		into.Labels[0] = int32(k.label)
		return
	}
	var p picture
	label := draw(g.seed, g.stream, uint64(i), &p)
	g.grey.expand(into.X, p[:])
	into.Labels[0] = label
	if i < len(g.state) && g.state[i].CompareAndSwap(stateNone, stateFilling) {
		g.kept[i] = keptPicture{p, int8(label)}
		g.state[i].Store(stateKept)
	}
}
