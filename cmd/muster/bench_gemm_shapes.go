package main

import (
	"fmt"
	"math/rand/v2"
	"strconv"
	"strings"

	"github.com/musterml/muster/trainer/device"
)

// gemmShape is one product: C (m, n) of the form, k products an element.
type gemmShape struct {
	name    string // where it comes from: "square", "resnet18 4608-512 data"
	form    device.Trans
	m, n, k int
}

func (s gemmShape) flops() float64 { return 2 * float64(s.m) * float64(s.n) * float64(s.k) }

// parseShapes reads "squares,layers,1000,NT:128x512x784": without a form all three are meant.
func parseShapes(text string) ([]gemmShape, error) {
	var all []gemmShape
	for _, item := range strings.Split(text, ",") {
		switch item = strings.TrimSpace(item); item {
		case "squares":
			for _, n := range []int{64, 96, 128, 192, 256, 384, 512, 768, 1024, 1536, 2048} {
				all = append(all, threeForms(gemmShape{name: "square", m: n, n: n, k: n})...)
			}
		case "odd":
			for _, s := range [][3]int{{1, 1000, 1000}, {7, 127, 1000}, {31, 33, 127}, {100, 100, 100}, {127, 1000, 33}, {333, 777, 555}, {1000, 10, 1000}, {1000, 1000, 1000}} {
				all = append(all, threeForms(gemmShape{name: "odd", m: s[0], n: s[1], k: s[2]})...)
			}
		case "layers":
			all = append(all, layerShapes()...)
		default:
			if seed, random := strings.CutPrefix(item, "random="); random {
				n, err := strconv.ParseUint(seed, 10, 64)
				if err != nil {
					return nil, fmt.Errorf("%q: a seed is a number from 0 to 2^64-1", item)
				}
				all = append(all, randomShapes(n)...)
				continue
			}
			shapes, err := parseShape(item)
			if err != nil {
				return nil, err
			}
			all = append(all, shapes...)
		}
	}
	return all, nil
}

// randomShapes are 240 small products that no list has, most of them with few rows, columns or products an element: those
// cost more to begin and to end than large ones.
func randomShapes(seed uint64) (all []gemmShape) {
	r := rand.New(rand.NewPCG(seed, 0))
	for i := range 240 {
		s := gemmShape{name: "random", form: device.Trans(i / 6 % 3), m: 1 + r.IntN(300), n: 1 + r.IntN(300), k: 1 + r.IntN(300)}
		switch few := 1 + r.IntN(16); i % 6 {
		case 0:
			s.m = 1
		case 1:
			s.m = few
		case 2:
			s.n = few
		case 3:
			s.k = few
		}
		all = append(all, s)
	}
	return all
}

func threeForms(s gemmShape) []gemmShape {
	all := []gemmShape{s, s, s}
	for i := range all {
		all[i].form = device.Trans(i)
	}
	return all
}

func parseShape(item string) ([]gemmShape, error) {
	fault := fmt.Errorf(`%q is no product: use squares, odd, layers, random=SEED, a size like 1000, MxNxK, or with its form NN:MxNxK, NT:MxNxK, TN:MxNxK (sizes from 1 to 65536)`, item)
	form, sizes, formed := strings.Cut(item, ":")
	if !formed {
		sizes = item
	}
	fields := strings.Split(sizes, "x")
	if len(fields) == 1 {
		fields = []string{fields[0], fields[0], fields[0]}
	}
	if len(fields) != 3 {
		return nil, fault
	}
	var n [3]int
	for i, f := range fields {
		v, err := strconv.Atoi(f)
		if err != nil || v < 1 || v > 65536 {
			return nil, fault
		}
		n[i] = v
	}
	all := threeForms(gemmShape{name: "given", m: n[0], n: n[1], k: n[2]})
	if !formed {
		return all, nil
	}
	for _, s := range all {
		if s.form.String() == form {
			return []gemmShape{s}, nil
		}
	}
	return nil, fault
}

// layerShapes are the products of the four models that we compare ourselves with others by, at
// their batch sizes; those of convolutions as if the windows were written out as a matrix.
func layerShapes() []gemmShape {
	var all []gemmShape
	for _, l := range []struct {
		model         string
		rows, in, out int // rows: samples, tokens, or pixels of the output
	}{
		{"mlp", 128, 784, 512}, {"mlp", 128, 512, 256}, {"mlp", 128, 256, 10},
		{"lenet", 128 * 28 * 28, 9, 32}, {"lenet", 128 * 14 * 14, 288, 64}, {"lenet", 128, 3136, 128}, {"lenet", 128, 128, 10},
		{"resnet18", 64 * 32 * 32, 27, 64}, {"resnet18", 64 * 32 * 32, 576, 64},
		{"resnet18", 64 * 16 * 16, 576, 128}, {"resnet18", 64 * 16 * 16, 64, 128}, {"resnet18", 64 * 16 * 16, 1152, 128},
		{"resnet18", 64 * 8 * 8, 1152, 256}, {"resnet18", 64 * 8 * 8, 128, 256}, {"resnet18", 64 * 8 * 8, 2304, 256},
		{"resnet18", 64 * 4 * 4, 2304, 512}, {"resnet18", 64 * 4 * 4, 256, 512}, {"resnet18", 64 * 4 * 4, 4608, 512}, {"resnet18", 64, 512, 10},
		{"gpt", 16 * 128, 256, 768}, {"gpt", 16 * 128, 256, 256}, {"gpt", 16 * 128, 256, 1024}, {"gpt", 16 * 128, 1024, 256}, {"gpt", 16 * 128, 256, 4096},
	} {
		name := fmt.Sprintf("%s %d-%d ", l.model, l.in, l.out)
		all = append(all,
			gemmShape{name + "forward", device.NT, l.rows, l.out, l.in},
			gemmShape{name + "data", device.NN, l.rows, l.in, l.out},
			gemmShape{name + "weight", device.TN, l.out, l.in, l.rows})
	}
	// One head's scores, their gradients, and the values weighed by them.
	return append(all, gemmShape{"gpt head", device.NT, 128, 128, 32}, gemmShape{"gpt head", device.NN, 128, 32, 128}, gemmShape{"gpt head", device.TN, 128, 32, 128})
}
