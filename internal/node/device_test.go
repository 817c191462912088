package node

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/rs/zerolog"

	"github.com/musterml/muster/trainer"
	"github.com/musterml/muster/trainer/device"
	"github.com/musterml/muster/trainer/device/cpu"
	"github.com/musterml/muster/trainer/device/devicetest"
)

// mortal is a device that fails when it has been waited for so many times, as a GPU that has broken down does: for good.
type mortal struct {
	device.Device
	left *atomic.Int64
}

type mortalStream struct {
	device.Stream
	left *atomic.Int64
}

var errBroken = errors.New("an illegal memory access; the last that began was kernel conv_large (n 32, c 3)")

func newMortal(t *testing.T, life int64) device.Device {
	d, err := cpu.New()
	if err != nil {
		t.Fatal(err)
	}
	m := mortal{d, new(atomic.Int64)}
	m.left.Store(life)
	return m
}

func (m mortal) NewStream() (device.Stream, error) {
	s, err := m.Device.NewStream()
	return mortalStream{s, m.left}, err
}

func (s mortalStream) Sync() error {
	err := s.Stream.Sync()
	if s.left.Add(-1) < 0 {
		return fmt.Errorf("%w: %w", device.ErrFailed, errBroken)
	}
	return err
}

// A trainer whose device fails says why and leaves the view; its node stays as a server, and the run ends as if it had always had
// one trainer less.
func TestRunOutlivesADevice(t *testing.T) {
	job := smallJob()
	want := model(t, runCluster(t, job, 1)[0])
	all, errs := endClusterOn(t, job, 3, func(i int) device.Device {
		if i == 1 {
			return newMortal(t, 20)
		}
		return nil
	})
	for i, err := range errs {
		if err != nil {
			t.Fatalf("node %d: %v", i, err)
		}
		if !bytes.Equal(model(t, all[i]), want) {
			t.Errorf("node %d ends with other weights than without the fault", i)
		}
	}
	events, err := os.ReadFile(filepath.Join(all[0].cfg.Out, EventsFile))
	if lost := `"kind":"lost","node":"node-1"`; err != nil || !strings.Contains(string(events), lost) || !strings.Contains(string(events), errBroken.Error()) {
		t.Errorf("the history does not say that a device was lost, and why (%v):\n%s", err, events)
	}
	if err := all[1].retired; !errors.Is(err, errBroken) || !strings.Contains(err.Error(), "node node-1: ") {
		t.Errorf("the node says of its trainer: %v", err)
	}
}

// Trainers whose cards keep the state end with the bytes of those whose processors do, however many there are, and where one's card fails with the
// state on it.
func TestSameBytesWhereCardsKeepTheState(t *testing.T) {
	job := smallJob()
	job.Optimizer = trainer.Optimizer{Name: "adamw", LR: 0.003, WeightDecay: 0.1, ClipNorm: 0.1}
	want := runCluster(t, job, 2)[0]
	for _, c := range []struct {
		cards []int // of each node; 0 is none
		life  int64 // of node 1's
	}{{[]int{1}, 0}, {[]int{1, 1}, 0}, {[]int{1, 1, 1}, 25}, {[]int{3, 2}, 0}, {[]int{2, 1, 0}, 25}} {
		all, errs := endClusterOn(t, job, len(c.cards), func(i int) device.Device {
			host, err := cpu.New()
			if err != nil || c.cards[i] == 0 {
				return host
			}
			life := int64(0)
			if i == 1 {
				life = c.life
			}
			var cards []device.Device
			for range c.cards[i] {
				cards = append(cards, devicetest.NewApart(host, life))
			}
			d, err := device.Several(cards...)
			if err != nil {
				t.Fatal(err)
			}
			return d
		})
		for i, err := range errs {
			if err != nil {
				t.Fatalf("node %d of %v: %v", i, c.cards, err)
			}
			if !bytes.Equal(model(t, all[i]), model(t, want)) || !slices.Equal(gradNorms(t, all[i]), gradNorms(t, want)) {
				t.Errorf("node %d of %v ends with other weights, or tells of other norms", i, c.cards)
			}
		}
		if c.life > 0 && !errors.Is(all[1].retired, devicetest.ErrBroken) {
			t.Errorf("no card has failed: %v", all[1].retired)
		}
	}
}

// Where no trainer is left and none can come, the process ends and says why.
func TestEmbeddedRunEndsWithItsLastDevice(t *testing.T) {
	job := smallJob()
	job.Out = filepath.Join(t.TempDir(), "out")
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	_, err := RunEmbedded(ctx, Config{Job: job, Device: newMortal(t, 30), Version: "test", Log: zerolog.Nop()}, 2)
	if !errors.Is(err, errBroken) {
		t.Errorf("the run ended with %v", err)
	}
}
