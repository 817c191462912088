package data

// sparse is rows of features most of which are 0.
type sparse struct {
	form    Form
	starts  []int64 // (n+1): row i has the entries [starts[i], starts[i+1])
	columns []int32
	values  []float32
	divided int // features that were divided by their largest magnitude
	answers
	digest Digest
}

// answers are what a model shall find, of n rows: classes or standardised numbers.
type answers struct {
	labels  []int32   // (n), or nil
	targets []float32 // (n), or nil
	names   []string  // of the classes, by number
	scale   scale     // of the targets
}

// give fills the one answer of a Batch.
func (a answers) give(i int, into Batch) {
	if a.labels != nil {
		into.Labels[0] = a.labels[i]
	} else {
		into.Targets[0] = a.targets[i]
	}
}

// none adds a row without an answer.
func (a *answers) none(f Form) {
	if f.Regression() {
		a.targets = append(a.targets, 0)
	} else {
		a.labels = append(a.labels, 0)
	}
}

// Class implements Answered.
func (a answers) Class(k int) string { return a.names[k] }

// Number implements Answered.
func (a answers) Number(target float32) float64 {
	return a.scale.mean + float64(a.scale.deviation*float64(target))
}

func (d *digester) answers(a answers) {
	d.ints(a.labels)
	d.floats(a.targets)
}

func (s *sparse) Len() int       { return len(s.starts) - 1 }
func (s *sparse) Form() Form     { return s.form }
func (s *sparse) Digest() Digest { return s.digest }

func (s *sparse) Sample(i int, into Batch) {
	from, to := s.starts[i], s.starts[i+1]
	into.SetEntries(s.columns[from:to], s.values[from:to])
	s.give(i, into)
}

// most is the number of entries in the longest row.
func (s *sparse) most() int {
	most := int64(0)
	for i := range s.Len() {
		most = max(most, s.starts[i+1]-s.starts[i])
	}
	return int(most)
}

// seal makes a Dataset of rows that are complete. The digest is of what is trained on, not
// of the files.
func (s *sparse) seal(form Form) {
	s.form = form
	form.Entries = 0 // hangs on the rows that are read beside these
	d := newDigester("sparse, %d rows of %+v, classes %q, targets less %v\n", s.Len(), form, s.names, s.scale.mean)
	for _, at := range s.starts {
		d.uint32(uint32(at))
		d.uint32(uint32(at >> 32))
	}
	d.ints(s.columns)
	d.floats(s.values)
	d.answers(s.answers)
	s.digest = d.sum()
}
