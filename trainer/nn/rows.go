package nn

import (
	"cmp"
	"slices"

	"github.com/musterml/muster/trainer/data"
	"github.com/musterml/muster/trainer/device"
)

// Table is a sparse table that a model takes rows of, one for each key of a sample.
type Table struct {
	Name  string
	Width int
	Scale float64 // initial values are uniform in (-Scale, Scale)
}

// Tables lists the tables in the order of data.Rows.
func (s *Spec) Tables() []Table { return append([]Table(nil), s.tables...) }

// Fields is the number of keys of a sample.
func (s *Spec) Fields() int { return s.fields }

// rowsRoom is the ports for rows, of a model that takes any.
type rowsRoom struct {
	index         device.Memory
	values, grads []device.Memory // by table
}

// bindRows has the ports stand for the rows of a batch.
func (r *Replica) bindRows(rows *data.Rows, training bool) {
	p := &r.pass
	p.keys, p.fields = len(rows.Keys), r.spec.fields
	r.stream.BindInt32(r.rows.index, rows.Index)
	p.index = device.Whole(r.rows.index)
	for i, v := range rows.Values {
		r.stream.Bind(r.rows.values[i], v, device.In)
		if training {
			r.stream.Bind(r.rows.grads[i], rows.Grads[i], device.Out)
		}
	}
	p.rows = &r.rows
}

// flushRows sends the gradients of rows to their host slices.
func (r *Replica) flushRows() {
	for _, m := range r.rows.grads {
		r.stream.Flush(device.Whole(m))
	}
}

// checkRows refuses rows that are not those of n samples.
func (s *Spec) checkRows(rows *data.Rows, n int) (fault string) {
	switch {
	case rows == nil:
		return "no rows of tables given"
	case len(rows.Keys) == 0 || len(rows.Index) != n*s.fields || len(rows.Values) != len(s.tables):
		return "rows that are not those of the samples"
	}
	for i, t := range s.tables {
		if len(rows.Values[i]) != len(rows.Keys)*t.Width {
			return "rows of table " + t.Name + " that have another width"
		}
	}
	return ""
}

// gradsFit tells whether there is room for the gradients of rows.
func (s *Spec) gradsFit(rows *data.Rows) bool {
	return slices.EqualFunc(rows.Grads, rows.Values, func(g, v []float32) bool { return len(g) == len(v) })
}

// rowsOf is the rows of a table in a pass.
func (p *pass) rowsOf(table, width int) device.Rows {
	return device.Rows{N: p.n, Fields: p.fields, Width: width, Rows: p.keys, Index: p.index, Values: device.Whole(p.rows.values[table])}
}

// table declares that a layer takes rows; ok is false where it cannot.
func (b *builder) table(name string, width int, scale float64) (number int, ok bool) {
	if !b.needs("vectors", vector) {
		return 0, false
	}
	if b.spec.fields == 0 {
		b.fail("it takes rows of tables by keys, which the data does not have: use data.source criteo or ctr")
		return 0, false
	}
	if width*b.spec.fields > maxSize {
		b.fail("%d rows of %d values for each sample are too many", b.spec.fields, width)
		return 0, false
	}
	b.claim(name)
	b.spec.tables = append(b.spec.tables, Table{Name: name, Width: width, Scale: scale})
	return len(b.spec.tables) - 1, b.err == nil
}

// rowsScale is the range of initial values of embeddings; a sum of weights begins with zeros.
const rowsScale = 0.05

func (l ConcatRows) build(b *builder, name string) {
	if table, ok := b.table(cmp.Or(l.Name, name), l.Width, rowsScale); ok {
		b.add(&concatRows{to: shape{c: b.now.c + b.spec.fields*l.Width, h: 1, w: 1}, in: b.now.c, table: table, width: l.Width})
	}
}

func (l PoolRows) build(b *builder, name string) {
	width := l.Width
	if width == 0 {
		width = b.outputs
	}
	if table, ok := b.table(cmp.Or(l.Name, name), width, 0); ok {
		b.add(&poolRows{to: shape{c: width, h: 1, w: 1}, in: b.now.c, table: table})
	}
}

func (l InteractRows) build(b *builder, name string) {
	width := b.now.c
	if table, ok := b.table(cmp.Or(l.Name, name), width, rowsScale); ok {
		f := b.spec.fields
		b.add(&interactRows{to: shape{c: width + (f+1)*f/2, h: 1, w: 1}, width: width, table: table})
	}
}

// concatRows is x and behind it the rows of the sample's keys.
type concatRows struct {
	to               shape
	in, table, width int
}

func (l *concatRows) out() shape { return l.to }

func (l *concatRows) forward(p *pass, st *state, x device.Buffer) {
	p.ConcatRows(device.ConcatRows{Rows: p.rowsOf(l.table, l.width), C: l.in, X: x, Y: st.y})
}

func (l *concatRows) backward(p *pass, st *state, _, dx device.Buffer) {
	p.ConcatRowsBackward(device.ConcatRowsBackward{Rows: p.rowsOf(l.table, l.width), C: l.in, DX: dx, DValues: device.Whole(p.rows.grads[l.table]), DY: st.dy})
}

// poolRows is the sum of the rows of the sample's keys; x is not looked at.
type poolRows struct {
	to        shape
	in, table int
}

func (l *poolRows) out() shape { return l.to }

func (l *poolRows) forward(p *pass, st *state, _ device.Buffer) {
	p.PoolRows(device.PoolRows{Rows: p.rowsOf(l.table, l.to.c), Y: st.y})
}

func (l *poolRows) backward(p *pass, st *state, x, dx device.Buffer) {
	p.PoolRowsBackward(device.PoolRowsBackward{Rows: p.rowsOf(l.table, l.to.c), DValues: device.Whole(p.rows.grads[l.table]), DY: st.dy})
	if !dx.IsNone() {
		p.Scale(dx, x, p.n*l.in, 0)
	}
}

// interactRows is x and behind it the products of all pairs of x and the rows.
type interactRows struct {
	to           shape
	width, table int
}

func (l *interactRows) out() shape { return l.to }

func (l *interactRows) forward(p *pass, st *state, x device.Buffer) {
	p.InteractRows(device.InteractRows{Rows: p.rowsOf(l.table, l.width), X: x, Y: st.y})
}

func (l *interactRows) backward(p *pass, st *state, x, dx device.Buffer) {
	p.InteractRowsBackward(device.InteractRowsBackward{Rows: p.rowsOf(l.table, l.width), X: x, DX: dx, DValues: device.Whole(p.rows.grads[l.table]), DY: st.dy})
}

// wideDeep is the model of Cheng et al., "Wide & deep learning for recommender systems", 2016: a weight for each category and
// for each number, added to a multilayer perceptron over the numbers and an embedding of each category.
func wideDeep(o *options) []Layer {
	deep := []Layer{ConcatRows{Width: o.size("width", 16), Name: "deep"}}
	for _, n := range o.sizes("hidden", []int{256, 128, 64}, -1) {
		deep = append(deep, Linear{Size: n}, ReLU{})
	}
	wide := Residual{Body: []Layer{Linear{Name: "numbers"}}, Shortcut: []Layer{PoolRows{Name: "wide"}}, Name: "linear"}
	return []Layer{Residual{Body: append(deep, Linear{}), Shortcut: []Layer{wide}, Name: "both"}}
}

// dlrm is the model of Naumov et al., "Deep learning recommendation model for personalization and recommendation
// systems", 2019.
func dlrm(o *options) (list []Layer) {
	for _, n := range o.sizes("bottom", []int{128, 64}, -1) {
		list = append(list, Linear{Size: n}, ReLU{})
	}
	list = append(list, Linear{Size: o.size("width", 16)}, ReLU{}, InteractRows{Name: "embedding"})
	for _, n := range o.sizes("top", []int{256, 128}, -1) {
		list = append(list, Linear{Size: n}, ReLU{})
	}
	return append(list, Linear{})
}
