package trainer

import (
	"fmt"
	"math"

	"github.com/musterml/muster/internal/id"
	"github.com/musterml/muster/internal/optim"
)

// Optimizer is the section "optimizer": the update rule, its constants (see optim.Config: what is not given has PyTorch's
// default), and what is done to the learning rate and to gradients.
type Optimizer struct {
	Name        string   `yaml:"name"`
	LR          float64  `yaml:"lr"`
	Momentum    float64  `yaml:"momentum,omitempty"`
	Beta1       float64  `yaml:"beta1,omitempty"`
	Beta2       float64  `yaml:"beta2,omitempty"`
	Alpha       float64  `yaml:"alpha,omitempty"`
	Beta        float64  `yaml:"beta,omitempty"`
	L1          float64  `yaml:"l1,omitempty"`
	L2          float64  `yaml:"l2,omitempty"`
	Epsilon     float64  `yaml:"epsilon,omitempty"`
	WeightDecay float64  `yaml:"weight_decay"`
	ClipNorm    float64  `yaml:"clip_norm,omitempty"` // the most that the norm of the whole gradient may be; 0: no limit
	Schedule    Schedule `yaml:"schedule,omitempty"`
}

// Schedule is the course of the learning rate over the steps of the run; see optim.Schedule. Cosine and polynomial end
// with the run's last step.
type Schedule struct {
	Name   string  `yaml:"name,omitempty"`   // constant (the default), step, cosine or polynomial
	Warmup int     `yaml:"warmup,omitempty"` // steps in which the rate rises to lr
	Every  int     `yaml:"every,omitempty"`  // step: steps between drops
	Factor float64 `yaml:"factor,omitempty"` // step: what the rate is multiplied by
	Power  float64 `yaml:"power,omitempty"`  // polynomial
	Floor  float64 `yaml:"floor,omitempty"`  // cosine, polynomial: the rate at the end
}

// defaultDecay is what AdamW has in PyTorch where nothing is given: without decay it would be Adam.
const defaultDecay = 0.01

// givenOptimizer is what of the section other defaults hang on.
type givenOptimizer struct {
	Name        string
	WeightDecay *float64 `yaml:"weight_decay"`
}

// adjust changes the defaults to those of what is given.
func (g *givenOptimizer) adjust(o *Optimizer) {
	if g != nil && g.Name == "adamw" && g.WeightDecay == nil {
		o.WeightDecay = defaultDecay
	}
}

// config is what package optim is told, for a run of so many steps.
func (o *Optimizer) config(steps id.Step) optim.Config {
	return optim.Config{
		Name: o.Name, LR: o.LR, Momentum: o.Momentum, Beta1: o.Beta1, Beta2: o.Beta2, Alpha: o.Alpha,
		Beta: o.Beta, L1: o.L1, L2: o.L2, Epsilon: o.Epsilon, WeightDecay: o.WeightDecay,
		Schedule: optim.Schedule{
			Name: o.Schedule.Name, Warmup: id.Step(o.Schedule.Warmup), Every: id.Step(o.Schedule.Every),
			Factor: o.Schedule.Factor, Power: o.Schedule.Power, Floor: o.Schedule.Floor, Steps: steps,
		},
	}
}

// Rate is the learning rate of a step, in a run of so many steps.
func (o Optimizer) Rate(at, steps id.Step) float64 {
	c := o.config(steps)
	return c.Schedule.Rate(c.LR, at)
}

// validate names everything that is wrong, for a mode and for a run of so many steps, 0 where that is not known yet.
func (o Optimizer) validate(mode string, steps id.Step) (faults []error) {
	fault := func(ok bool, format string, args ...any) {
		if !ok {
			faults = append(faults, fmt.Errorf("optimizer."+format, args...))
		}
	}
	fault(o.ClipNorm >= 0 && !math.IsInf(o.ClipNorm, 0), "clip_norm is %v: set it to a number above 0, or remove it for no limit", o.ClipNorm)
	fault(o.Schedule.Warmup >= 0, "schedule.warmup is %d steps: set it to 0 or more", o.Schedule.Warmup)
	fault(o.Schedule.Every >= 0, "schedule.every is %d steps: set it to 1 or more", o.Schedule.Every)
	o.Schedule.Warmup, o.Schedule.Every = max(o.Schedule.Warmup, 0), max(o.Schedule.Every, 0)
	if steps == 0 {
		steps = math.MaxInt64
	}
	for _, f := range o.config(steps).Faults() {
		fault(false, "%s", f)
	}
	fault(mode == ModeRing || mode == ModeLocal || !optim.WholeTensors(o.Name), "name is %s, which needs whole tensors, but in sync.mode %s servers hold parts of them: use sync.mode %s, or adamw",
		o.Name, mode, ModeRing)
	return faults
}

// NewOptimizer is the optimizer of the run's weights, on trainers and servers alike; in mode local it is the outer one. The number
// of samples must be known (Job.Samples) if the learning rate hangs on the number of steps.
func (j Job) NewOptimizer() (optim.Optimizer, error) {
	if j.Sync.Mode == ModeLocal {
		return optim.New(j.Sync.Outer.config())
	}
	return optim.New(j.Optimizer.config(j.Steps()))
}

func (o Outer) config() optim.Config {
	if o.Momentum == 0 {
		return optim.Config{Name: "sgd", LR: o.LR}
	}
	return optim.Config{Name: "nesterov", LR: o.LR, Momentum: o.Momentum}
}
