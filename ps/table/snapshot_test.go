package table

import (
	"bytes"
	"errors"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/musterml/muster/internal/id"
)

func throughSnapshot(t *testing.T, s *Store) *Store {
	t.Helper()
	layer, rest := written(t, s.Snapshot(0, func(do func()) { do() }))
	return restored(t, s, layer, rest)
}

func written(t *testing.T, n *Snapshot) (layer, rest []byte) {
	t.Helper()
	var l, r bytes.Buffer
	if err := errors.Join(n.WriteLayer(&l), n.WriteRest(&r)); err != nil {
		t.Fatal(err)
	}
	n.Close()
	return l.Bytes(), r.Bytes()
}

func restored(t *testing.T, s *Store, pieces ...[]byte) *Store {
	t.Helper()
	n, err := s.Restore(bytes.NewReader(bytes.Join(pieces, nil)))
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// sameStore compares all states that can be read.
func sameStore(t *testing.T, got, want *Store) {
	t.Helper()
	if got.Step() != want.Step() || got.Oldest() != want.Oldest() {
		t.Fatalf("%v back to %v, must be %v back to %v", got.Step(), got.Oldest(), want.Step(), want.Oldest())
	}
	for step := want.Oldest(); step <= want.Step(); step++ {
		g, err := got.AppendSlots(nil, step, 0, 0, Slots)
		if err != nil {
			t.Fatal(err)
		}
		if w, _ := want.AppendSlots(nil, step, 0, 0, Slots); !bytes.Equal(g, w) {
			t.Fatalf("the state at %v differs", step)
		}
	}
}

// Layers over each other are the state, in whichever steps they were written, while others go on or not; one that is left out is missed.
func TestLayers(t *testing.T) {
	for _, name := range []string{"adagrad", "everything", "limit"} {
		c := testConfigs(t)[name]
		s, _ := New([]Config{c}, 0, 1, 2)
		r := rand.New(rand.NewPCG(4, 4))
		one := func() {
			keep := max(s.Step(), 2) - 2
			if err := s.Push(s.Step(), keep, randomParts(r, 2, c.Dim, 300)); err != nil {
				t.Fatal(err)
			}
		}
		var layers [][]byte
		below := id.Step(0)
		for range 6 {
			for range 1 + r.IntN(8) {
				one()
			}
			still := throughSnapshot(t, s)
			n := s.Snapshot(below, func(do func()) { one(); do() })
			below = n.Step()
			layer, rest := written(t, n)
			layers = append(layers, layer)
			sameStore(t, restored(t, s, append(slices.Clone(layers), rest)...), still)
			if len(layers) > 2 {
				if _, err := s.Restore(bytes.NewReader(bytes.Join([][]byte{layers[0], layer, rest}, nil))); !errors.Is(err, ErrBad) {
					t.Errorf("without a layer in between: %v", err)
				}
				if _, err := s.Restore(bytes.NewReader(bytes.Join([][]byte{layers[0], rest}, nil))); !errors.Is(err, ErrBad) {
					t.Errorf("without the newest layer: %v", err)
				}
			}
		}
		if len(s.snapshots) > 0 {
			t.Error("a snapshot is not forgotten")
		}
	}
}

// A snapshot that is written while steps go on is of the moment at which it was begun.
func TestSnapshotOfAMoment(t *testing.T) {
	c := testConfigs(t)["everything"]
	s, _ := New([]Config{c}, 0, 1, 2)
	r := rand.New(rand.NewPCG(3, 3))
	for step := range id.Step(20) {
		if err := s.Push(step, step, randomParts(r, 2, c.Dim, 100)); err != nil {
			t.Fatal(err)
		}
	}
	half := randomParts(r, 2, c.Dim, 100)
	if err := s.Push(20, 20, half[:1]); err != nil {
		t.Fatal(err)
	}
	still := throughSnapshot(t, s)
	step, next := id.Step(20), half[1:]
	layer, rest := written(t, s.Snapshot(0, func(do func()) {
		if err := s.Push(step, step, next); err != nil {
			t.Fatal(err)
		}
		step++
		next = randomParts(r, 2, c.Dim, 100)
		do()
	}))
	sameStore(t, restored(t, s, layer, rest), still)
	if n := len(s.undos); n > 1 {
		t.Errorf("%d steps are kept after it", n)
	}
}

// Layers of changes, loaded into any number of shards, make the same state.
func TestLayersAndLoad(t *testing.T) {
	c := testConfigs(t)["everything"]
	s, _ := New([]Config{c}, 0, 1, 2)
	r := rand.New(rand.NewPCG(5, 5))
	var layers [][]byte
	last := id.Step(0)
	for step := range id.Step(40) {
		if err := s.Push(step, step, randomParts(r, 2, c.Dim, 150)); err != nil {
			t.Fatal(err)
		}
		if step == 15 || step == 31 || step >= 38 {
			b, err := s.AppendSlots(nil, step+1, last, 0, Slots)
			if err != nil {
				t.Fatal(err)
			}
			layers, last = append(layers, b), step+1
		}
	}
	want, _ := s.AppendSlots(nil, 40, 0, 0, Slots)
	folded, _ := New([]Config{c}, 0, 1, 1)
	for _, b := range layers {
		if err := folded.Overlay(b, nil); err != nil {
			t.Fatal(err)
		}
	}
	folded.Settle(40)
	if got, _ := folded.AppendSlots(nil, 40, 0, 0, Slots); !bytes.Equal(got, want) {
		t.Fatalf("layers of %d bytes make other rows", len(layers[1]))
	}
	if len(layers[3]) >= len(want) {
		t.Errorf("changes have %d bytes, everything %d", len(layers[3]), len(want))
	}
	for _, shards := range []int{1, 2, 5} {
		var got []byte
		stores := make([]*Store, shards)
		for i := range stores {
			stores[i], _ = New([]Config{c}, i, shards, 3)
		}
		for slot := 0; slot < Slots; slot += 64 {
			for i, st := range stores {
				piece, _ := folded.AppendShard(nil, 40, slot, slot+64, i, shards)
				for range 2 {
					if err := st.Load(40, slot, slot+64, piece); err != nil {
						t.Fatal(err)
					}
				}
			}
		}
		for slot := range Slots {
			got, _ = stores[slot%shards].AppendSlots(got, 40, 0, slot, slot+1)
		}
		if !bytes.Equal(got, want) {
			t.Fatalf("%d shards have other rows", shards)
		}
	}
}
