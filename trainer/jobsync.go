package trainer

import (
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"

	"github.com/musterml/muster/collective"
)

// The ways to keep the trainers' weights one (Sync.Mode), to add gradients (Sync.Sum) and what travels (Sync.Wire);
// docs/modes.md compares the modes.
const (
	ModeRing   = "ring"   // all-reduce of gradients, an optimizer in every trainer
	ModeServer = "server" // reduce-scatter, optimizers on the servers, all-gather of weights
	ModeSSP    = "ssp"    // each trainer pushes and pulls by itself, a bounded number of steps ahead of the slowest
	ModeAsync  = "async"  // the same without a bound
	ModeLocal  = "local"  // many steps of each logical shard by itself, then one of all together

	SumExact = "exact" // integer sums: the same bits on any number of trainers
	SumFast  = "fast"  // float32 sums: the same bits only on the same trainers

	WireFloat32 = "float32" // what travels (Sync.Wire) with fast sums: the gradients as they are
	WireBF16    = "bf16"    // half the bytes, rounded to nearest
	WireInt8    = "int8"    // a quarter of the bytes, rounded, with error feedback
)

// Sync says how trainers work together.
type Sync struct {
	Mode        string `yaml:"mode"`
	Sum         string `yaml:"sum"`
	Wire        string `yaml:"wire"`                // what travels in mode ring between trainers, in others to and from servers, with fast sums
	Stripes     int    `yaml:"stripes,omitempty"`   // connections between neighbours in the ring
	CommitEvery int    `yaml:"commit_every"`        // steps between commits to the servers in mode ring
	Staleness   int    `yaml:"staleness,omitempty"` // ssp: steps that a trainer may be ahead of the slowest; 0 is mode server
	Steps       int    `yaml:"steps,omitempty"`     // local: steps of a round
	Outer       Outer  `yaml:"outer,omitempty"`     // local
}

// Outer is the optimizer of mode local's rounds, on the servers: Nesterov's momentum, plain descent without. What it takes for
// a gradient is how far the logical shards have moved in a round, on average.
type Outer struct {
	LR       float64 `yaml:"lr"`
	Momentum float64 `yaml:"momentum"`
}

// defaultOuter is what Douillard et al., "DiLoCo", 2023, found best. SparkNet's averaging is lr 1 and momentum 0.
func defaultOuter() Outer { return Outer{LR: 0.7, Momentum: 0.9} }

// givenSync is what of the section other defaults hang on.
type givenSync struct {
	Mode      string
	Sum       *string
	Staleness int
	Outer     *Outer
}

// adjust changes the defaults to those of what is given.
func (g *givenSync) adjust(s *Sync) {
	if g == nil {
		return
	}
	if g.Sum == nil && (Sync{Mode: g.Mode, Staleness: g.Staleness}).arrives() {
		s.Sum = SumFast
	}
	if g.Mode == ModeLocal {
		s.Outer = defaultOuter()
	}
}

// arrives tells that gradients are applied as they arrive, each trainer's by itself, so that trainers are at different
// steps and form no ring. Without staleness there is nothing that a trainer may be ahead of: that is mode server.
func (s Sync) arrives() bool { return s.Mode == ModeAsync || s.Mode == ModeSSP && s.Staleness > 0 }

// ahead is the most steps that a trainer may be ahead of the slowest, where gradients are applied as they arrive.
func (s Sync) ahead() int {
	if s.Mode == ModeAsync {
		return math.MaxInt
	}
	return s.Staleness
}

// Steady tells that there is a state of the whole model at every step.
func (s Sync) Steady() bool { return !s.arrives() }

// validate names everything that is wrong.
func (s Sync) validate() (faults []error) {
	fault := func(ok bool, format string, args ...any) {
		if !ok {
			faults = append(faults, fmt.Errorf("sync."+format, args...))
		}
	}
	oneOf := func(field, value string, known ...string) {
		fault(slices.Contains(known, value), "%s is %q: use %s", field, value, strings.Join(known, " or "))
	}
	oneOf("mode", s.Mode, ModeRing, ModeServer, ModeSSP, ModeAsync, ModeLocal)
	oneOf("sum", s.Sum, SumExact, SumFast)
	oneOf("wire", s.Wire, WireFloat32, WireBF16, WireInt8)
	fault(s.Wire != WireInt8 || s.Mode == ModeRing, "wire is int8, but sync.mode is %s: set sync.mode to ring, or sync.wire to bf16 or float32", s.Mode)
	if s.Wire == WireBF16 || s.Wire == WireInt8 {
		fault(s.Sum != SumExact, "wire is %s, which rounds, but sync.sum is exact: set sync.sum to fast, or sync.wire to float32", s.Wire)
	}
	fault(s.Sum != SumExact || !s.arrives(), "sum is exact, but in sync.mode %s gradients are applied in the order in which they arrive: set sync.sum to fast", s.Mode)
	fault(s.Stripes >= 1 && s.Stripes <= collective.MaxStripes, "stripes is %d: set it to 1 to %d connections between neighbours", s.Stripes, collective.MaxStripes)
	fault(s.CommitEvery >= 1, "commit_every is %d: set it to 1 step or more", s.CommitEvery)
	fault(s.Staleness >= 0, "staleness is %d: set it to 0 steps or more", s.Staleness)
	fault(s.Staleness == 0 || s.Mode == ModeSSP, "staleness is %d, but only sync.mode ssp has a bound: remove it, or set sync.mode to ssp", s.Staleness)
	if s.Mode != ModeLocal {
		fault(s.Steps == 0, "steps is %d, but only sync.mode local has rounds: remove it, or set sync.mode to local", s.Steps)
		fault(s.Outer == Outer{}, "outer is given, but only sync.mode local has rounds: remove it, or set sync.mode to local")
		return faults
	}
	fault(s.Steps >= 1, "steps is %d: set it to the steps of a round, 1 or more", s.Steps)
	fault(s.Outer.LR > 0 && !math.IsInf(s.Outer.LR, 0), "outer.lr is %v: set it to a number above 0; 1 with outer.momentum 0 is averaging", s.Outer.LR)
	fault(s.Outer.Momentum >= 0 && s.Outer.Momentum < 1, "outer.momentum is %v: set it to a number in [0, 1)", s.Outer.Momentum)
	return faults
}

// validateSteady names what needs a state of the whole model at a step that a mode does not have.
func (j Job) validateSteady() error {
	if j.Sync.Steady() || j.Checkpoint.Every == 0 {
		return nil
	}
	return errors.New("checkpoint.every is " + fmt.Sprint(j.Checkpoint.Every) + ", but in sync.mode " + j.Sync.Mode +
		" the model is at no moment at one step: remove it, or use sync.mode ring, server or local")
}
