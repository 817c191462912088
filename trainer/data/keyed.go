package data

// Data of advertising and recommendation: a sample is some numbers, and a key for each of many columns of categories, of
// which there may be millions. Models have a row of a sparse table for each key (package ps/table).

// keyed is samples of numbers and keys, with two classes.
type keyed struct {
	numbers []float32 // (n, form.Shape[0])
	keys    []uint64  // (n, form.Fields)
	labels  []int32   // (n)
	form    Form
	digest  Digest

	missing, distinct int // for people: values that were missing, and different keys
}

func (k *keyed) Len() int       { return len(k.labels) }
func (k *keyed) Form() Form     { return k.form }
func (k *keyed) Digest() Digest { return k.digest }

func (k *keyed) Sample(i int, into Batch) {
	c, f := k.form.Shape[0], k.form.Fields
	copy(into.X, k.numbers[i*c:(i+1)*c])
	copy(into.Keys, k.keys[i*f:(i+1)*f])
	into.Labels[0] = k.labels[i]
}

// seal makes a Dataset of rows that are complete.
func (k *keyed) seal(form Form) {
	k.form = form
	d := newDigester("keyed, %d rows of %+v\n", len(k.labels), form)
	d.floats(k.numbers)
	for _, key := range k.keys {
		d.uint32(uint32(key))
		d.uint32(uint32(key >> 32))
	}
	d.ints(k.labels)
	k.digest = d.sum()
}

// keyOf is the key of a category, by its column and by what stands for it there.
func keyOf(column int, category uint64) uint64 { return key(uint64(column)+1, category) }

// absent stands for the category of a value that is missing.
const absent = 1 << 63

// logarithm is near log2(1+x) for x >= 0: exact at powers of two and linear between them, so it is the same on every
// machine. It brings counts, whose magnitudes differ by thousands, to numbers that a linear layer can take.
func logarithm(x uint64) float32 {
	x++
	e := 0
	for v := x; v > 1; v >>= 1 {
		e++
	}
	return float32(e) + float32(float64(x-1<<e)/float64(uint64(1)<<e))
}

// Judged is a held-out set of which it is known how well anybody can do.
type Judged interface {
	// BestAUC is the area under the ROC curve of the truth by which the labels of the set were drawn.
	BestAUC() float64
}
