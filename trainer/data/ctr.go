package data

import "fmt"

// ctr is clicks on advertisements that the program draws, in the form of Criteo's data: 13 counts and 26 columns of
// categories, of any number of samples. What makes a click is planted and known: each category and each count has a weight,
// some pairs of columns have a product of two small vectors for each pair of categories, and noise is added; the sum
// above a bound is a click. All of it is integers, so every machine draws the same.
//
// Column f has 2^(bits+1)-1 categories with bits from 3 to 17, some 630,000 over all, of which the b-th power of two of
// categories is drawn as often as any other: the frequency of a category falls about as one over its number.
type ctr struct {
	seed   uint64
	stream stream
	n      int
}

// ctrVersion is part of the identity of drawn data, as glyphsVersion is.
const ctrVersion = 1

const (
	ctrNumbers = 13
	ctrFields  = 26
)

// ctrPairs are the columns whose categories act together.
var ctrPairs = [...][2]int{{0, 1}, {2, 5}, {3, 10}, {4, 14}, {6, 20}, {8, 15}, {9, 17}, {12, 23}}

func newCTR(seed uint64, s stream, n int) *ctr { return &ctr{seed: seed, stream: s, n: n} }

func (c *ctr) Len() int   { return c.n }
func (c *ctr) Form() Form { return criteoForm() }

func (c *ctr) Digest() Digest {
	return digestOf(fmt.Sprintf("ctr version %d, seed %d, stream %d, %d samples", ctrVersion, c.seed, c.stream, c.n))
}

// ctrBits is the logarithm of the number of categories of a column.
func ctrBits(field int) int64 { return int64(3 + 7*field%15) }

// ctrRow is a sample as it would stand in a file.
type ctrRow struct {
	label    int32
	counts   [ctrNumbers]uint64
	missing  [ctrNumbers]bool
	category [ctrFields]uint64
}

// draw makes sample i and returns what its label was decided by, without the noise.
func (c *ctr) draw(i int, row *ctrRow) (score int64) {
	r := random(key(c.seed, uint64(c.stream), uint64(i)))
	for j := range row.counts {
		b := r.below(3 + int64(j))
		row.counts[j] = uint64(1)<<b - 1 + uint64(r.below(int64(1)<<b))
		row.missing[j] = r.chance(10)
		if !row.missing[j] {
			score += (int64(logarithm(row.counts[j])*16) - 24) * ctrWeight(c.seed, 1000+j, 0, 1, 5)
		}
	}
	for f := range row.category {
		b := r.below(ctrBits(f) + 1)
		row.category[f] = uint64(1)<<b - 1 + uint64(r.below(int64(1)<<b))
		score += ctrWeight(c.seed, f, row.category[f], 0, 300)
	}
	for p, pair := range ctrPairs {
		for k := range 3 {
			score += ctrWeight(c.seed, 2000+p, row.category[pair[0]], k, 18) * ctrWeight(c.seed, 3000+p, row.category[pair[1]], k, 18)
		}
	}
	noise := int64(0)
	for range 4 {
		noise += r.span(-550, 550)
	}
	row.label = 0
	if score+noise > ctrBound {
		row.label = 1
	}
	return score
}

// ctrBound makes about a quarter of the samples clicks.
const ctrBound = 750

// ctrWeight is one of the numbers of the truth, bell-shaped in [-amp, amp].
func ctrWeight(seed uint64, what int, category uint64, k int, amp int64) int64 {
	r := random(key(seed, 1<<40+uint64(what), category, uint64(k)))
	return r.bell(amp)
}

func (c *ctr) Sample(i int, into Batch) {
	var row ctrRow
	c.draw(i, &row)
	for j, v := range row.counts {
		into.X[j] = 0
		if !row.missing[j] {
			into.X[j] = (logarithm(v) - 2) / 4
		}
	}
	for f, v := range row.category {
		into.Keys[f] = keyOf(f, v)
	}
	into.Labels[0] = row.label
}

// BestAUC implements Judged.
func (c *ctr) BestAUC() float64 {
	scores, labels := make([]float32, c.n), make([]int32, c.n)
	var row ctrRow
	for i := range scores {
		scores[i] = float32(c.draw(i, &row))
		labels[i] = row.label
	}
	return AUC(scores, labels)
}

// CTRLine appends a drawn sample, of those that a job of data.source ctr trains on, as a line in Criteo's format.
func CTRLine(dst []byte, seed uint64, i int) []byte {
	var row ctrRow
	newCTR(seed, trainStream, i+1).draw(i, &row)
	dst = fmt.Append(dst, row.label)
	for j, v := range row.counts {
		dst = append(dst, '\t')
		if !row.missing[j] {
			dst = fmt.Append(dst, v)
		}
	}
	for _, v := range row.category {
		dst = fmt.Appendf(dst, "\t%08x", v)
	}
	return append(dst, '\n')
}
