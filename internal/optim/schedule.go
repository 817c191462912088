package optim

import (
	"fmt"
	"slices"

	"github.com/musterml/muster/internal/id"
	"github.com/musterml/muster/internal/samebits"
)

// The names of schedules.
const (
	Constant   = "constant"
	Stepwise   = "step"
	Cosine     = "cosine"
	Polynomial = "polynomial"
)

// Schedule says how the learning rate goes on from that of the configuration, LR. It first rises in Warmup equal
// steps, LR/Warmup at step 0 and LR at step Warmup-1; t below counts the steps from there on, T = Steps - Warmup.
//
//	constant    LR
//	step        LR * Factor^floor(t/Every)                       PyTorch's StepLR
//	cosine      Floor + (LR-Floor) * (1 + cos(pi*t/T))/2         PyTorch's CosineAnnealingLR
//	polynomial  Floor + (LR-Floor) * (1 - t/T)^Power             PyTorch's PolynomialLR, whose floor is 0
//
// From t = T on, the last two stay at Floor. The rate is a pure function of the step, with the same bits everywhere.
type Schedule struct {
	Name   string  // "" is constant
	Warmup id.Step // 0 is none
	Every  id.Step // step: at least 1
	Factor float64 // step: in (0, 1]; 0 means 0.1
	Power  float64 // polynomial: above 0; 0 means 1
	Floor  float64 // cosine, polynomial: in [0, LR]
	Steps  id.Step // of the whole run: cosine and polynomial must know
}

// faults names everything that is wrong, for a learning rate.
func (s *Schedule) faults(lr float64) (wrong []string) {
	known := []string{Constant, Stepwise, Cosine, Polynomial}
	fault := func(ok bool, format string, args ...any) {
		if !ok {
			wrong = append(wrong, fmt.Sprintf("schedule."+format, args...))
		}
	}
	if s.Name != "" && !slices.Contains(known, s.Name) {
		fault(false, "name is %q: use %s", s.Name, list(known))
		return wrong
	}
	only := func(has, given bool, name, whose string) {
		fault(has || !given, "%s is given, but only %s has it: remove it", name, whose)
	}
	only(s.Name == Stepwise, s.Every != 0, "every", Stepwise)
	only(s.Name == Stepwise, s.Factor != 0, "factor", Stepwise)
	only(s.Name == Polynomial, s.Power != 0, "power", Polynomial)
	only(s.ends(), s.Floor != 0, "floor", "cosine or polynomial")
	fault(s.Name != Stepwise || s.Every >= 1, "every is 0: set it to 1 step or more")
	fault(s.Factor >= 0 && s.Factor <= 1, "factor is %v: set it to a number in (0, 1]", s.Factor)
	fault(s.Power >= 0 && finite(s.Power), "power is %v: set it to a number above 0", s.Power)
	fault(s.Floor >= 0 && !(s.Floor > lr) && finite(s.Floor), "floor is %v: set it to a learning rate of at least 0 and at most lr", s.Floor)
	if s.ends() {
		fault(s.Steps > s.Warmup, "warmup is %d steps, but the run has %d: set it lower, %s needs some after it", s.Warmup, s.Steps, s.Name)
	}
	return wrong
}

// ends tells whether the rate depends on the end of the run.
func (s *Schedule) ends() bool { return s.Name == Cosine || s.Name == Polynomial }

// Rate is the learning rate of a step.
func (s *Schedule) Rate(lr float64, step id.Step) float64 {
	if step < s.Warmup {
		return float64(lr*float64(step+1)) / float64(s.Warmup)
	}
	t := step - s.Warmup
	switch s.Name {
	case Stepwise:
		factor := s.Factor
		if factor == 0 {
			factor = 0.1
		}
		return lr * samebits.Power(factor, uint64(t/s.Every))
	case Cosine:
		return s.above(lr, (1+samebits.CosPi(s.done(t)))/2)
	case Polynomial:
		return s.above(lr, rest(s.done(t), s.Power))
	}
	return lr
}

// done is which part of the schedule lies behind at t.
func (s *Schedule) done(t id.Step) float64 {
	return min(1, float64(t)/float64(s.Steps-s.Warmup))
}

// above is Floor and a part of what lies above it.
func (s *Schedule) above(lr, part float64) float64 {
	return s.Floor + float64((lr-s.Floor)*part)
}

// rest is (1-done)^power; a power of 0 means 1.
func rest(done, power float64) float64 {
	switch left := 1 - done; {
	case power == 0 || power == 1:
		return left
	case left == 0:
		return 0
	default:
		return samebits.Exp(-float64(power * samebits.Log(1/left)))
	}
}
