package cuda

import (
	"cmp"
	"errors"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/musterml/muster/internal/huge"
	"github.com/musterml/muster/internal/optim"
	"github.com/musterml/muster/trainer/data"
	"github.com/musterml/muster/trainer/device"
	"github.com/musterml/muster/trainer/nn"
)

// What a step asks of a GPU, counted: kernels, operations, and bytes between processors and memory, each operand of a kernel once. It computes nothing.
// With the rates that docs/gpu.md names it says how long a step takes at least. go test -v -run TestTraffic prints it by kernel.

// counter is a gpu that does nothing.
type counter struct {
	gpu
	next pointer
	copied
}

type copied struct{ in, out int }

func (c *counter) name() string         { return "counted" }
func (c *counter) architecture() string { return "none" }
func (c *counter) processors() int      { return 132 } // as a H200
func (c *counter) library() string      { return "" }
func (c *counter) alloc(bytes int) (pointer, error) {
	c.next += pointer(ceil(bytes, 256) * 256)
	return c.next, nil
}
func (c *counter) free(pointer) error               { return nil }
func (c *counter) pinned(bytes int) ([]byte, error) { return make([]byte, bytes), nil }
func (c *counter) unpin([]byte) error               { return nil }
func (c *counter) lock([]byte) error                { return nil }
func (c *counter) unlock([]byte) error              { return nil }
func (c *counter) address([]byte) pointer           { return 1 << 40 }
func (c *counter) newQueue() (queue, error)         { return &counterQueue{c: c}, nil }
func (c *counter) newEvent() (event, error)         { return counterEvent{}, nil }

type counterQueue struct {
	queue
	c *counter
}

func (q *counterQueue) write(_ pointer, src []byte) error      { q.c.in += len(src); return nil }
func (q *counterQueue) read(dst []byte, _ pointer) error       { q.c.out += len(dst); return nil }
func (q *counterQueue) fetch(pointer, gpu, pointer, int) error { return nil }
func (q *counterQueue) zero(pointer, int) error                { return nil }
func (q *counterQueue) launch(kernel string, _ [3]int, threads, shared int, args []uint64) error {
	return launchable(kernel, threads, shared, len(args))
}
func (q *counterQueue) record(event) error                    { return nil }
func (q *counterQueue) after(event) error                     { return nil }
func (q *counterQueue) sync() error                           { return nil }
func (q *counterQueue) close() error                          { return nil }
func (q *counterQueue) capture(f func() error) (graph, error) { return counterEvent{}, f() }
func (q *counterQueue) replay(graph) error                    { return nil }

type counterEvent struct{}

func (counterEvent) wait() error  { return nil }
func (counterEvent) close() error { return nil }

// work is what calls do.
type work struct {
	calls        int
	bytes, flops float64
}

// least is how long it takes at the rates of a H200 that docs/gpu.md names.
func (w work) least() float64 { return 1e3 * max(w.bytes/4.0e12, w.flops/790e12) } // ms

func (w work) String() string {
	return fmt.Sprintf("%4d calls, %7.2f GB, %6.3f TFLOP: at least %6.2f ms", w.calls, w.bytes/1e9, w.flops/1e12, w.least())
}

func (w *work) add(v work) {
	w.calls, w.bytes, w.flops = w.calls+v.calls, w.bytes+v.bytes, w.flops+v.flops
}

// count is what a call does.
func count(t *testing.T, c *call) work {
	w := work{calls: 1}
	if c.kernel == "" {
		w.bytes = float64(c.bytes)
		return w
	}
	args := numbers(c)
	of := func(names ...string) float64 {
		p := 1.0
		for _, name := range names {
			v, ok := args[name]
			if !ok {
				t.Fatalf("%v has no argument %s", c, name)
			}
			p *= float64(v)
		}
		return p
	}
	is := func(operand string) float64 { return float64(min(1, args[operand])) }
	factor := 4.0
	if strings.Contains(c.kernel, "_bf16") {
		factor = 2
	}
	base := c.kernel
	for _, part := range []string{"_tf32", "_bf16", "_large", "_medium", "_small", "_64", "_128"} {
		base = strings.Replace(base, part, "", -1)
	}
	kept := 4.0 // bytes of an output
	if args["half"] != 0 || strings.HasSuffix(c.kernel, "_bf16") {
		kept = 2
	}
	outs := func(n float64) float64 { // results of a product
		switch {
		case args["partial"] != 0:
			return 4 * n * float64(c.grid[2])
		case args["before"] != 0:
			return 3 * kept * n
		case args["to"] != 0:
			return 2 * kept * n
		}
		return kept * n
	}
	switch base {
	case "matmul_nn", "matmul_nt", "matmul_tn":
		w.bytes, w.flops = factor*(of("m", "k")+of("k", "n"))+outs(of("m", "n")), 2*of("m", "n", "k")
	case "conv", "conv_backward_data", "conv_backward_weight":
		x, y, weights := of("n", "h", "wide", "c"), of("n", "oh", "ow", "outs"), of("outs", "c", "kh", "kw")
		w.flops = 2 * y * of("c", "kh", "kw")
		switch base {
		case "conv":
			w.bytes = factor*(x+weights) + outs(y)
		case "conv_backward_data":
			classes := float64(args["stride"] * args["stride"]) // of pixels, a launch for each
			w.bytes, w.flops = factor*(y+weights/classes)+outs(x)/classes, w.flops/classes
		default:
			w.bytes = factor*(x+y) + outs(weights)
		}
	case "round":
		w.bytes = kept*of("rows", "cols") + 4*of("rows", "words")
	case "gemm_parts":
		w.bytes = 4*of("m", "n", "parts") + outs(of("m", "n"))
	case "attention", "attention_backward_query", "attention_backward_key":
		n := of("n", "t", "heads", "width")
		products := n * of("t")
		if args["causal"] != 0 {
			products /= 2
		}
		per := map[string][2]float64{"attention": {4, 4}, "attention_backward_query": {6, 6}, "attention_backward_key": {6, 8}}[base]
		w.bytes, w.flops = kept*per[0]*n, per[1]*products
	case "softmax_cross_entropy":
		w.bytes = kept * (2*of("n", "classes") + of("n", "pitch")) // a row is too long to stay in a cache
	case "layer_norm", "batch_norm":
		w.bytes = (2 + is("plus") + is("a") + is("b")) * kept * of("rows", "cols")
	case "layer_norm_backward", "batch_norm_backward":
		w.bytes = (3 + is("plus")) * kept * of("rows", "cols")
	case "norm_sums":
		w.bytes = 2 * kept * of("rows", "cols")
	case "moment_parts", "sum_rows_parts":
		w.bytes = kept * of("rows", "cols")
	case "moment", "sum_parts", "norm_totals", "total_loss":
	case "relu_backward", "add", "apply_backward":
		w.bytes = (3 + is("mask")) * kept * of("n")
	case "apply", "scale", "dropout":
		w.bytes = 2 * kept * of("n")
	case "embedding":
		w.bytes = (4 + kept) * of("n", "t", "width")
	case "positions_backward":
		w.bytes = kept * of("n", "t", "width")
	case "rows_backward":
		w.bytes = (4 + kept) * of("n", "fields", "width")
	case "transpose_images", "transpose_images_to":
		w.bytes = (4 + kept) * of("n", "c", "pixels")
	case "max_pool":
		w.bytes = kept*of("n", "h", "w", "c") + (kept+1)*of("n", "oh", "ow", "c")
	case "max_pool_backward":
		w.bytes = kept*of("n", "h", "w", "c") + (2*kept+1)*of("n", "oh", "ow", "c")
	case "global_average_pool", "global_average_pool_backward":
		w.bytes = kept * of("n", "pixels", "c")
	case "magnitudes":
		w.bytes = 4 * of("n", "parts")
	case "exact_sum":
		w.bytes = 4 * (of("n", "parts") + of("n"))
	case "squares":
		w.bytes = 4 * of("n")
	case "update":
		w.bytes = 4 * of("n") * float64(3+2*optim.Kind(args["kind"]).Slots())
	default:
		t.Fatalf("nobody has said what %v does", c)
	}
	return w
}

// numbers are the arguments of a kernel by name.
func numbers(c *call) map[string]int64 {
	all := map[string]int64{}
	var find func(kind reflect.Type, at uintptr)
	find = func(kind reflect.Type, at uintptr) {
		for i := range kind.NumField() {
			switch f := kind.Field(i); f.Type.Kind() {
			case reflect.Struct:
				find(f.Type, at+f.Offset)
			case reflect.Int64, reflect.Uint64:
				all[f.Name] = int64(c.args[(at+f.Offset)/8])
			}
		}
	}
	find(c.kind, 0)
	return all
}

// watched is a device whose streams say what they were asked for in a step.
type watched struct {
	*Device
	calls *[]call
}

func (w watched) NewStream() (device.Stream, error) {
	s, err := w.Device.NewStream()
	return watchedStream{s.(*stream), w.calls}, err
}

type watchedStream struct {
	*stream
	calls *[]call
}

func (s watchedStream) Sync() error {
	*s.calls = append(*s.calls, s.stream.calls...)
	return s.stream.Sync()
}

// countUpdate counts what else a step asks of a GPU, with AdamW and a limit of the gradient's norm, where a trainer is alone and the card keeps all.
func countUpdate(t *testing.T, r *nn.Replica, w []float32, g *counter, calls *[]call) {
	const block = 16384
	n := len(w)
	slots, blocks := [][]float32{huge.Float32s(n), huge.Float32s(n)}, ceil(n, block)
	if err := errors.Join(r.KeepState(2), r.KeepGradients(1, block, 1), r.Take(w, slots)); err != nil {
		t.Fatal(err)
	}
	r.UseGradients(1)
	g.copied, *calls = copied{}, nil
	err := errors.Join(r.Magnitudes(make([]float32, blocks)), nn.AddUp([]*nn.Replica{r}, make([]int32, blocks), 30, make([]float64, blocks)),
		r.Update(optim.Rule{Kind: optim.Adam}, nil, 0.5))
	if err != nil {
		t.Fatal(err)
	}
	var all work
	for i := range *calls {
		all.add(count(t, &(*calls)[i]))
	}
	t.Logf("%-40s %v; copies: %.1f MB in, %.1f MB out", "sum, clip and update", all, float64(g.in)/1e6, float64(g.out)/1e6)
	if most := 60 * float64(n); all.bytes > most {
		t.Errorf("the sum and the update move %v bytes, %v were to be expected", all.bytes, most)
	}
}

func TestTraffic(t *testing.T) {
	images := data.Form{Shape: []int{3, 224, 224}, Classes: 1000}
	tokens := data.Form{Shape: []int{1024}, Classes: 50257, Kind: data.Tokens}
	for _, c := range []struct {
		model nn.Model
		form  data.Form
		batch int
		most  work // calls, bytes and operations
	}{
		{nn.Model{Name: "resnet50"}, images, 128, work{690, 52e9, 3.2e12}},
		{nn.Model{Name: "gpt", Options: map[string]any{"width": 768, "heads": 12, "layers": 12}}, tokens, 16, work{540, 49e9, 14e12}},
	} {
		t.Run(c.model.Name, func(t *testing.T) {
			spec, err := nn.Build(c.model, c.form)
			if err != nil {
				t.Fatal(err)
			}
			g, calls := &counter{}, []call(nil)
			d := newDevice(g, nil)
			d.precision = device.BF16
			in := data.Batch{Labels: make([]int32, c.batch*spec.Targets())}
			if spec.Kind() == data.Tokens {
				in.Tokens = make([]int32, c.batch*spec.Features())
			} else {
				in.X = huge.Float32s(c.batch * spec.Features())
			}
			w, grad := huge.Float32s(spec.Params()), huge.Float32s(spec.Params())
			for _, x := range [][]float32{in.X, w, grad} {
				defer d.Lock(x)()
			}
			r, err := spec.NewReplica(watched{d, &calls}, c.batch, 1)
			if err != nil {
				t.Fatal(err)
			}
			defer r.Close()
			r.Marks = []int{0} // all gradients at the end
			if _, err := r.Gradient(w, in, device.DropoutKey{}, 1, grad); err != nil {
				t.Fatal(err)
			}
			defer countUpdate(t, r, w, g, &calls)
			var all work
			least := 0.0
			kernels, launched := map[string]work{}, map[string]*call{}
			for i := range calls {
				v := count(t, &calls[i])
				all.add(v)
				least += v.least()
				k := kernels[calls[i].kernel]
				k.add(v)
				kernels[calls[i].kernel], launched[calls[i].kernel] = k, &calls[i]
			}
			for _, name := range slices.SortedFunc(maps.Keys(kernels), func(a, b string) int { return cmp.Compare(kernels[b].least(), kernels[a].least()) }) {
				t.Logf("%-40s %v; %s", cmp.Or(name, "zeros"), kernels[name], residents(launched[name]))
			}
			t.Logf("%-40s %v; each by itself %.2f ms; copies: %.1f MB in, %.1f MB out; %.1f GB of memory", "all", all, least, float64(g.in)/1e6, float64(g.out)/1e6, float64(g.next)/1e9)
			if all.calls > c.most.calls || all.bytes > c.most.bytes || all.flops > c.most.flops {
				t.Errorf("a step is %v, at most %v was to be expected", all, c.most)
			}
		})
	}
}
