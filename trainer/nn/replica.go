package nn

import (
	"fmt"

	"github.com/musterml/muster/trainer/data"
	"github.com/musterml/muster/trainer/device"
)

// Replica is one copy of the model's working memory on a device. It is used by one goroutine
// at a time; several replicas work side by side.
type Replica struct {
	// Scores, if not nil, is filled by Evaluate and Loss with what the last layer puts out for each label (Spec.Scored).
	Scores []float32

	// Progress, if not nil, is called by Gradients in the caller's goroutine: when the backward pass begins, with the number
	// of parameters, and whenever more of all parts' gradients is complete and in their slices, with the offset from which on it is: after
	// the layers that reach or cross one of Marks. The last call is with 0. A device that works beside the host computes on meanwhile.
	Progress func(complete int)
	Marks    []int // offsets, descending; nil: every layer counts

	// Fed, if not nil, has brought the values of the samples of the next call, which takes them from there, and sets it to nil.
	Fed *Feed

	spec   *Spec
	device device.Device
	stream device.Stream
	batch  int // the most samples per call

	w              device.Memory   // a port, as all that follow
	held           []float32       // see Hold
	given          bool            // the device has what is held
	kept           resident        // what the device keeps
	grads          []device.Memory // by part, or by shard where they stay
	x              device.Memory   // values, tokens, or the values of sparse entries
	starts, column device.Memory   // of sparse samples
	labels         device.Memory   // or targets
	rows           rowsRoom        // of tables
	scores         device.Memory   // a copy of the last layer's values; nil until it is asked for
	stats          device.Memory   // nil where the model has none
	states         []state         // by layer
	pass           pass            // the current one; here so that it is not allocated for each, as the following
	cut            []part
	totals         []device.Total // by part
	one            [1]Part
	layerDone      func(layer int)    // hands over what is complete, and
	told           func(complete int) // tells Progress; here so that they are not allocated for each pass
	handed         int                // the offset from which on gradients are flushed
	mark           int                // the first of Marks that is not reached
	stays          bool               // the pass's gradients stay on the device
}

// NewReplica allocates what calls with up to maxBatch samples in up to maxParts parts need.
func (s *Spec) NewReplica(dev device.Device, maxBatch, maxParts int) (*Replica, error) {
	if maxBatch < 1 || maxParts < 1 {
		return nil, fmt.Errorf("a replica for %d samples in %d parts per call: %w: at least 1 of each is needed", maxBatch, maxParts, ErrArgument)
	}
	dev = device.Next(dev)
	stream, err := dev.NewStream()
	if err != nil {
		return nil, fmt.Errorf("replica of model %s on %s: %w", s.name, dev.Name(), err)
	}
	r := &Replica{spec: s, device: dev, stream: stream, batch: maxBatch, grads: make([]device.Memory, maxParts), totals: make([]device.Total, maxParts)}
	r.layerDone, r.told = r.handOverLayer, r.progress
	if err := r.allocate(s.outputsOn(dev)); err != nil {
		_ = stream.Close() // the first error is the one to tell
		return nil, fmt.Errorf("replica of model %s on %s: %w", s.name, dev.Name(), err)
	}
	return r, nil
}

func (r *Replica) allocate(kept device.Kind) error {
	s := r.spec
	a := &allocator{stream: r.stream, kept: kept, batch: r.batch, parts: len(r.grads)}
	r.w = a.port(device.Float32, s.params)
	for i := range r.grads {
		r.grads[i] = a.port(device.Float32, s.params)
	}
	values, kind, labels := r.batch*s.Features(), device.Float32, device.Int32
	switch s.kind {
	case data.Tokens:
		kind = device.Int32
	case data.Sparse:
		values = r.batch * max(1, s.entries)
		r.starts, r.column = a.port(device.Int32, r.batch+1), a.port(device.Int32, values)
	}
	if s.classes == 0 {
		labels = device.Float32
	}
	r.x, r.labels = a.port(kind, values), a.port(labels, r.batch*s.targets)
	if len(s.tables) > 0 {
		r.rows.index = a.port(device.Int32, r.batch*s.fields)
		for _, t := range s.tables {
			r.rows.values = append(r.rows.values, a.port(device.Float32, r.batch*s.fields*t.Width))
			r.rows.grads = append(r.rows.grads, a.port(device.Float32, r.batch*s.fields*t.Width))
		}
	}
	if s.stats > 0 {
		r.stats = a.port(device.Float32, s.stats)
	}
	a.measure(s.layers, 0)
	r.states = a.chain(s.layers, 0, device.Buffer{})
	return a.err
}

// Close frees the replica's memory. The replica must not be used any more.
func (r *Replica) Close() error { return r.stream.Close() }

// Hold says that w, where it is given to the following calls, does not change between them, until Hold is called again: a device with memory
// of its own takes it once.
func (r *Replica) Hold(w []float32) { r.held, r.given = w, false }

// bindWeights has the port stand for w.
func (r *Replica) bindWeights(w []float32) {
	holds, how := len(w) > 0 && len(r.held) > 0 && &w[0] == &r.held[0], device.In
	if holds && r.given || r.kept.holds(w) {
		how = device.Again
	}
	r.stream.Bind(r.w, w, how)
	r.given = holds
}

// Loss runs the samples with the parameters w and compares with their labels, or targets.
func (r *Replica) Loss(w []float32, in data.Batch) (Result, error) {
	return r.loss(w, in, nil)
}

// Evaluate is Loss with the given statistics in batch norms, and not those of the samples: PyTorch's model.eval(). stats
// has Statistics numbers.
func (r *Replica) Evaluate(w, stats []float32, in data.Batch) (Result, error) {
	if err := r.checkStats(stats); err != nil {
		return Result{}, err
	}
	return r.loss(w, in, stats)
}

// Gradient is Gradients of one part, the whole batch.
func (r *Replica) Gradient(w []float32, in data.Batch, key device.DropoutKey, scale float32, grad []float32) (Result, error) {
	r.one[0] = Part{Samples: r.spec.labels(in) / r.spec.targets, Key: key, Grad: grad}
	err := r.Gradients(w, in, scale, r.one[:])
	return r.one[0].Result, err
}

// Part is some of the samples of a batch, and what becomes of them: the work of one logical shard.
type Part struct {
	Samples int               // how many; parts follow one another in the batch and cover it
	Key     device.DropoutKey // says what dropout drops; its Layer is of no account
	Grad    []float32         // (params) gets scale * d(sum of the part's losses)/dw; nil: that stays on the device,
	Place   int               // here
	Result  Result            // gets the outcome
}

// Gradients goes forward and back over a batch, and tells its parts apart: each gets the same bits as if it were a batch of its
// own, and there is less to do than for as many batches.
func (r *Replica) Gradients(w []float32, in data.Batch, scale float32, parts []Part) error {
	if err := r.checkParts(w, in, parts); err != nil {
		return err
	}
	s, p, x := r.spec, &r.pass, device.Whole(r.x)
	r.cut = r.cut[:0]
	first := 0
	for i := range parts {
		q := &parts[i]
		r.cut = append(r.cut, part{first: first, n: q.Samples, key: q.Key, grad: r.gradient(i, q)})
		first += q.Samples
	}
	r.begin(w, in, r.cut, true)
	y := p.forwardChain(s.layers, r.states, x)
	r.compare(y, r.states[len(r.states)-1].dy, scale)
	r.progress(s.params)
	r.handed, r.mark = s.params, 0
	p.backwardChain(s.layers, r.states, s.start, x, device.Buffer{}, r.layerDone) // nobody asks for the gradient of the data
	r.handOver(0)
	r.flushRows()
	if err := r.sync(); err != nil {
		return err
	}
	r.progress(0)
	for i := range parts {
		parts[i].Result = Result(r.totals[i])
	}
	return nil
}

// gradient is where that of a part goes: it stays there, or is handed over from there.
func (r *Replica) gradient(i int, q *Part) device.Buffer {
	r.stays = q.Grad == nil
	if r.stays {
		return r.kept.parts[q.Place]
	}
	r.stream.Bind(r.grads[i], q.Grad, device.Out)
	return device.Whole(r.grads[i])
}

// loss is Evaluate, and Loss where there are no statistics.
func (r *Replica) loss(w []float32, in data.Batch, stats []float32) (Result, error) {
	if err := r.check(w, in); err != nil {
		return Result{}, err
	}
	if r.Scores != nil && r.scores == nil {
		port, err := r.stream.Port(device.Float32, r.batch*r.spec.targets*r.spec.Scored())
		if err != nil {
			return Result{}, fmt.Errorf("model %s: %w", r.spec.name, err)
		}
		r.scores = port
	}
	r.begin(w, in, r.whole(in, device.DropoutKey{}), false)
	if len(stats) > 0 {
		r.stream.Bind(r.stats, stats, device.In)
		r.pass.given = device.Whole(r.stats)
	}
	y := r.pass.forwardChain(r.spec.layers, r.states, device.Whole(r.x))
	if r.Scores != nil {
		n := r.spec.labels(in) * r.spec.Scored()
		r.stream.Bind(r.scores, r.Scores[:n], device.Out)
		r.stream.Scale(device.Whole(r.scores), y, n, 1)
		r.stream.Flush(device.Whole(r.scores))
	}
	r.compare(y, device.Buffer{}, 0)
	if err := r.sync(); err != nil {
		return Result{}, err
	}
	return Result(r.totals[0]), nil
}

func (r *Replica) sync() error {
	if err := r.stream.Sync(); err != nil {
		r.given = false
		return fmt.Errorf("model %s: %w", r.spec.name, err)
	}
	return nil
}

// whole is a batch as one part, of which no gradient is asked for.
func (r *Replica) whole(in data.Batch, key device.DropoutKey) []part {
	r.cut = append(r.cut[:0], part{n: r.spec.labels(in) / r.spec.targets, key: key})
	return r.cut
}

func (r *Replica) progress(complete int) {
	if r.Progress != nil {
		r.Progress(complete)
	}
}

// handOverLayer is called when the backward pass of a layer has been asked for, and with it that of all layers behind it.
func (r *Replica) handOverLayer(layer int) {
	if layer == 0 || r.stays {
		return // the end of the pass comes next, or nobody waits for it
	}
	complete, before := r.spec.ends[layer-1], r.mark
	for r.mark < len(r.Marks) && complete <= r.Marks[r.mark] {
		r.mark++
	}
	if r.Marks == nil || r.mark > before {
		r.handOver(complete)
		r.stream.Tell(complete, r.told)
	}
}

// handOver sends the gradients from an offset on to the host, as far as they are not on their way already.
func (r *Replica) handOver(complete int) {
	if r.stays {
		return
	}
	for i := range r.cut {
		r.stream.Flush(device.Whole(r.grads[i]).Range(complete, r.handed-complete))
	}
	r.handed = complete
}

// begin makes a new pass, with the ports standing for the weights and the samples.
func (r *Replica) begin(w []float32, in data.Batch, parts []part, training bool) {
	r.pass = pass{Stream: r.stream, n: r.spec.labels(in) / r.spec.targets, parts: parts, w: device.Whole(r.w), training: training}
	r.bindWeights(w)
	switch r.spec.kind {
	case data.Dense, data.Keyed:
		r.bindValues(in.X)
	case data.Tokens:
		r.stream.BindInt32(r.x, in.Tokens)
	case data.Sparse:
		r.stream.BindInt32(r.starts, in.Starts)
		r.stream.BindInt32(r.column, in.Columns)
		r.stream.Bind(r.x, in.Values, device.In)
		r.pass.sparse = device.Sparse{Rows: r.pass.n, Cols: r.spec.in.c, Entries: len(in.Values),
			Starts: device.Whole(r.starts), Columns: device.Whole(r.column), Values: device.Whole(r.x)}
	}
	if len(r.spec.tables) > 0 {
		r.bindRows(in.Rows, training)
	}
	if r.spec.classes == 0 {
		r.stream.Bind(r.labels, in.Targets, device.In)
	} else {
		r.stream.BindInt32(r.labels, in.Labels)
	}
}

// compare is the losses of the parts of the outputs y and, unless dy is none, their gradients.
func (r *Replica) compare(y, dy device.Buffer, scale float32) {
	s := r.spec
	for i := range r.pass.parts {
		q, total := &r.pass.parts[i], &r.totals[i]
		n, size, labels := q.n*s.targets, s.targets*s.loss.outputs(s.classes), q.of(device.Whole(r.labels), s.targets)
		y, dy := q.of(y, size), q.of(dy, size)
		switch s.loss {
		case CrossEntropy:
			r.stream.SoftmaxCrossEntropy(device.SoftmaxCrossEntropy{N: n, Classes: s.classes, Logits: y, Labels: labels, DLogits: dy, Scale: scale, Total: total})
		case BinaryCrossEntropy:
			r.stream.BinaryCrossEntropy(device.BinaryCrossEntropy{N: n, Logits: y, Targets: labels, DLogits: dy, Scale: scale, Total: total})
		case SquaredError:
			r.stream.SquaredError(device.SquaredError{N: n, Y: y, Targets: labels, DY: dy, Scale: scale, Total: total})
		}
	}
}

// labels is how many labels or targets a batch has.
func (s *Spec) labels(in data.Batch) int {
	if s.classes == 0 {
		return len(in.Targets)
	}
	return len(in.Labels)
}

// checkParts is check, and that parts cover the batch.
func (r *Replica) checkParts(w []float32, in data.Batch, parts []Part) error {
	if err := r.check(w, in); err != nil {
		return err
	}
	s, n := r.spec, 0
	if len(parts) < 1 || len(parts) > len(r.totals) {
		return fmt.Errorf("model %s: %w: %d parts given, the replica takes 1 to %d", s.name, ErrArgument, len(parts), len(r.totals))
	}
	if len(s.tables) > 0 && (len(parts) != 1 || !s.gradsFit(in.Rows)) {
		return fmt.Errorf("model %s: %w: gradients of rows are for one part, and as large as the rows", s.name, ErrArgument)
	}
	for i := range parts {
		if fault := r.checkGrad(&parts[i], parts[0].Grad == nil); fault != "" {
			return fmt.Errorf("gradient of model %s: %w: %s", s.name, ErrArgument, fault)
		}
		if parts[i].Samples < 1 {
			return fmt.Errorf("model %s: %w: part %d has %d samples", s.name, ErrArgument, i, parts[i].Samples)
		}
		n += parts[i].Samples
	}
	if have := s.labels(in) / s.targets; n != have {
		return fmt.Errorf("model %s: %w: parts of %d samples together given, the batch has %d", s.name, ErrArgument, n, have)
	}
	return nil
}

// checkGrad says what is wrong with where the gradient of a part is to go.
func (r *Replica) checkGrad(q *Part, stays bool) (fault string) {
	switch {
	case stays != (q.Grad == nil):
		return "those of some parts are to stay on the device, of others not"
	case stays && (q.Place < 0 || q.Place >= len(r.kept.parts)):
		return fmt.Sprintf("the device has %d places for them, %d is none", len(r.kept.parts), q.Place)
	case !stays && len(q.Grad) != r.spec.params:
		return fmt.Sprintf("room for %d values given, the model has %d parameters", len(q.Grad), r.spec.params)
	}
	return ""
}

// check refuses arguments here, on the host, where labels and tokens can still be read.
func (r *Replica) check(w []float32, in data.Batch) error {
	s := r.spec
	wrong := func(kind error, format string, args ...any) error {
		return fmt.Errorf("model %s: %w: %s", s.name, kind, fmt.Sprintf(format, args...))
	}
	labels := s.labels(in)
	n := labels / s.targets
	switch {
	case len(w) != s.params:
		return wrong(ErrArgument, "%d parameters given, the model has %d", len(w), s.params)
	case n < 1 || n > r.batch:
		return wrong(ErrArgument, "%d samples given, the replica takes 1 to %d", n, r.batch)
	case labels%s.targets != 0:
		return wrong(ErrArgument, "%d labels given, each sample has %d", labels, s.targets)
	}
	switch s.kind {
	case data.Dense, data.Keyed:
		if len(in.X) != n*s.Features() {
			return wrong(ErrArgument, "%d values given, %d samples of %d values are needed", len(in.X), n, s.Features())
		}
	case data.Tokens:
		if len(in.Tokens) != n*s.Features() {
			return wrong(ErrArgument, "%d tokens given, %d samples of %d tokens are needed", len(in.Tokens), n, s.Features())
		}
	case data.Sparse: // starts and columns the device checks, which has to look at them anyway
		if len(in.Starts) != n+1 || len(in.Columns) != len(in.Values) {
			return wrong(ErrArgument, "%d starts, %d columns and %d values given for %d samples", len(in.Starts), len(in.Columns), len(in.Values), n)
		}
	}
	if len(s.tables) > 0 {
		if fault := s.checkRows(in.Rows, n); fault != "" {
			return wrong(ErrArgument, "%s", fault)
		}
	}
	for i, l := range in.Labels {
		if l < 0 || int(l) >= s.classes {
			return wrong(ErrLabel, "sample %d has label %d, the model has classes 0 to %d", i/s.targets, l, s.classes-1)
		}
	}
	for i, t := range in.Tokens {
		if t < 0 || int(t) >= s.vocab {
			return wrong(ErrLabel, "sample %d has token %d, the model has tokens 0 to %d", i/s.Features(), t, s.vocab-1)
		}
	}
	return nil
}
