package data

import (
	"crypto/sha256"
	"fmt"
	"math"
	"sync"
	"testing"
)

// hashPictures is the digest of some pictures and their labels.
func hashPictures(seed uint64, s stream, n int) string {
	h := sha256.New()
	for i := range n {
		var p picture
		label := draw(seed, s, uint64(i), &p)
		h.Write([]byte{byte(label)})
		h.Write(p[:])
	}
	return fmt.Sprintf("%x", h.Sum(nil))
}

// Whoever changes what is drawn raises glyphsVersion and this golden value with it, so
// that nodes with programs of different ages refuse each other. CI runs this on other
// architectures too: the bits must be the same there.
func TestGlyphsGolden(t *testing.T) {
	const want = "version 1: 5740ade677c6b1dc495979020a3edd6a75bfbea8641e9acdac107df1505d9016"
	got := fmt.Sprintf("version %d: %s", glyphsVersion, hashPictures(1, trainStream, 500))
	if got != want {
		t.Errorf("drawn pictures are %s\nwant %s", got, want)
	}
}

func TestGreyTableGolden(t *testing.T) {
	g := newGreyTable()
	for _, c := range []struct {
		grey int
		bits uint32
	}{{0, 0xbed93270}, {1, 0xbed2ae1f}, {128, 0x3f9a3d78}, {255, 0x4034933c}} {
		if got := math.Float32bits(g[c.grey]); got != c.bits {
			t.Errorf("grey %d is %#08x (%v), want %#08x", c.grey, got, g[c.grey], c.bits)
		}
	}
}

func TestGlyphsStatistics(t *testing.T) {
	const n = 3000
	var counts [10]int
	var sum, squares float64
	for i := range n {
		var p picture
		counts[draw(1, trainStream, uint64(i), &p)]++
		for _, v := range p {
			g := float64(v) / 255
			sum += g
			squares += g * g
		}
	}
	for d, c := range counts {
		if c < n/10-80 || c > n/10+80 { // five sigma
			t.Errorf("digit %d comes %d times in %d", d, c, n)
		}
	}
	mean := sum / (n * side * side)
	std := math.Sqrt(squares/(n*side*side) - mean*mean)
	t.Logf("mean %.4f, standard deviation %.4f", mean, std)
	if math.Abs(mean-greyMean) > 0.03 || math.Abs(std-greyStd) > 0.05 {
		t.Errorf("mean %.4f, standard deviation %.4f: too far from the constants of the normalisation", mean, std)
	}
}

// The picture of an index depends on neither the number of samples nor on who asks first.
func TestGlyphsArePure(t *testing.T) {
	const n = 200
	big := newGlyphs(1, trainStream, 10*n)
	small := newGlyphs(1, trainStream, n)
	want := make([]Batch, n)
	for i := range n {
		want[i] = NewBatch(big, 1)
		big.Sample(i, want[i])
	}
	var wg sync.WaitGroup
	for g := range 4 {
		wg.Go(func() {
			got := NewBatch(small, 1)
			for k := range 2 * n { // each sample twice: drawn, then kept
				i := (k*(2*g+1) + g) % n
				small.Sample(i, got)
				if got.Labels[0] != want[i].Labels[0] {
					t.Errorf("sample %d has label %d, want %d", i, got.Labels[0], want[i].Labels[0])
				}
				for j := range got.X {
					if got.X[j] != want[i].X[j] {
						t.Errorf("sample %d differs at pixel %d", i, j)
						return
					}
				}
			}
		})
	}
	wg.Wait()
}

func TestGlyphsPastTheCache(t *testing.T) {
	g := newGlyphs(1, trainStream, 10)
	g.state, g.kept = g.state[:4], g.kept[:4]
	a, b := NewBatch(g, 1), NewBatch(g, 1)
	g.Sample(7, a)
	g.Sample(7, b)
	if fmt.Sprint(a) != fmt.Sprint(b) {
		t.Error("a picture past the cache is not the same twice")
	}
}

func TestGlyphsStreamsAndSeedsDiffer(t *testing.T) {
	base := hashPictures(1, trainStream, 20)
	if hashPictures(1, testStream, 20) == base || hashPictures(2, trainStream, 20) == base {
		t.Error("streams or seeds give the same pictures")
	}
	// No held-out picture may be a training picture.
	seen := map[picture]bool{}
	for i := range uint64(2000) {
		for _, s := range []stream{trainStream, testStream} {
			var p picture
			draw(1, s, i, &p)
			if seen[p] {
				t.Fatalf("picture %d of stream %d was drawn before", i, s)
			}
			seen[p] = true
		}
	}
}

func TestGlyphsDigest(t *testing.T) {
	digest := func(s Source) Digest {
		train, test, err := Open(t.Context(), s, nil)
		if err != nil {
			t.Fatal(err)
		}
		return Identity(train, test)
	}
	base := Source{Source: Glyphs, Train: 100, Test: 10, Seed: 1}
	if first, again := digest(base), digest(base); first != again {
		t.Error("the same source has two digests")
	}
	for _, other := range []Source{{Source: Glyphs, Train: 101, Test: 10, Seed: 1}, {Source: Glyphs, Train: 100, Test: 11, Seed: 1}, {Source: Glyphs, Train: 100, Test: 10, Seed: 2}} {
		if digest(other) == digest(base) {
			t.Errorf("%+v has the digest of %+v", other, base)
		}
	}
}

// The points of a stroke must fit the array they are placed in.
func TestStrokesFit(t *testing.T) {
	for d, variants := range digits {
		if len(variants) == 0 {
			t.Errorf("digit %d has no outline", d)
		}
		for i, v := range variants {
			for j, s := range v {
				if len(s) < 2 || len(s) > maxPoints {
					t.Errorf("digit %d, variant %d, stroke %d has %d points", d, i, j, len(s))
				}
			}
		}
	}
}

func BenchmarkDraw(b *testing.B) {
	var p picture
	for i := range b.N {
		draw(1, trainStream, uint64(i), &p)
	}
}

func BenchmarkSampleKept(b *testing.B) {
	g := newGlyphs(1, trainStream, 1000)
	one := NewBatch(g, 1)
	for i := range b.N {
		g.Sample(i%1000, one)
	}
}
