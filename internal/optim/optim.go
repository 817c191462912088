package optim

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/musterml/muster/internal/id"
)

// Config names an optimizer and its constants. A zero value of a constant that must not be zero means the default
// given here, which is PyTorch's; a constant that the optimizer does not have must be zero.
type Config struct {
	Name        string  // one of Names
	LR          float64 // learning rate, > 0: what the schedule starts from
	Momentum    float64 // sgd, rmsprop: 0 is none; momentum, nesterov: 0.9; in [0, 1)
	Beta1       float64 // adam, adamw, lamb: 0.9; in (0, 1)
	Beta2       float64 // adam, adamw, lamb: 0.999; in (0, 1)
	Alpha       float64 // rmsprop: 0.99; in (0, 1)
	Beta        float64 // ftrl: 1; > 0
	L1, L2      float64 // ftrl: >= 0
	Epsilon     float64 // adam, adamw, rmsprop: 1e-8; adagrad: 1e-10; lamb: 1e-6; > 0
	WeightDecay float64 // all but ftrl: times the weight; added to the gradient, but adamw and lamb keep it apart; >= 0
	Schedule    Schedule
}

// Optimizer updates a range of parameters. It holds no state of its own and may be
// used by many goroutines.
type Optimizer interface {
	// Slots is the number of float32 values kept for each parameter besides itself.
	// Slots start as zeros at step 0.
	Slots() int

	// WholeTensors tells that a range of parameters must be one whole tensor, because its elements are not
	// updated each for itself.
	WholeTensors() bool

	// Rule is the arithmetic of the update that goes from the state at step to the state at step+1.
	Rule(step id.Step) Rule

	// Share is the arithmetic of an update by the gradient of a share, in (0, 1], of a step's samples, where the others' come
	// in updates of their own: the learning rate is multiplied by the share, so that a step moves the
	// weights as far in parts as it would in one. Of ftrl it is not, because its state is made with one rate for ever.
	Share(step id.Step, share float64) Rule

	// Since is Rule for slots that were zeros at an earlier step, begun, instead of at step 0.
	Since(step, begun id.Step) Rule

	// Update goes from the state at step to the state at step+1 in place.
	// w, grad and every slot have the same length.
	Update(step id.Step, w, grad []float32, slots [][]float32)

	// UpdateTo is Update with the new state written to dstW and dstSlots; w and slots
	// are only read. A destination is its source or does not overlap it.
	UpdateTo(step id.Step, dstW []float32, dstSlots [][]float32, w, grad []float32, slots [][]float32)
}

// ErrConfig is returned by New when the configuration names no optimizer or holds a
// constant out of range.
var ErrConfig = errors.New("optim: bad configuration")

// definition is one optimizer.
type definition struct {
	name     string
	has      []string // its constants, besides the learning rate
	defaults Config   // of those that must not be zero
	kind     func(c *Config) Kind
	rule     func(c *Config, lr float64, step id.Step) Rule
}

func always(k Kind) func(*Config) Kind { return func(*Config) Kind { return k } }

// definitions holds every optimizer, sorted by name.
func definitions() []definition {
	moments := []string{"beta1", "beta2", "epsilon", "weight_decay"}
	return []definition{
		{"adagrad", []string{"epsilon", "weight_decay"}, Config{Epsilon: 1e-10}, always(Adagrad), scaled},
		{"adam", moments, Config{Beta1: 0.9, Beta2: 0.999, Epsilon: 1e-8}, always(Adam), adam},
		{"adamw", moments, Config{Beta1: 0.9, Beta2: 0.999, Epsilon: 1e-8}, always(Adam), adamW},
		{"ftrl", []string{"beta", "l1", "l2"}, Config{Beta: 1}, always(FTRL), ftrl},
		{"lamb", moments, Config{Beta1: 0.9, Beta2: 0.999, Epsilon: 1e-6}, always(LAMB), lamb},
		{"momentum", []string{"momentum", "weight_decay"}, Config{Momentum: 0.9}, always(Momentum), descent},
		{"nesterov", []string{"momentum", "weight_decay"}, Config{Momentum: 0.9}, always(Nesterov), descent},
		{"rmsprop", []string{"alpha", "epsilon", "momentum", "weight_decay"}, Config{Alpha: 0.99, Epsilon: 1e-8}, withMomentum(RMSProp, RMSPropMomentum), scaled},
		{"sgd", []string{"momentum", "weight_decay"}, Config{}, withMomentum(SGD, Momentum), descent},
	}
}

func withMomentum(without, with Kind) func(*Config) Kind {
	return func(c *Config) Kind {
		if c.Momentum == 0 {
			return without
		}
		return with
	}
}

// Names are the known optimizers, sorted.
func Names() []string {
	var names []string
	for _, d := range definitions() {
		names = append(names, d.name)
	}
	return names
}

// constant is a field of a configuration and what it may be.
type constant struct {
	name string
	at   *float64
	ok   bool // within what it may be
	must string
}

// constants looks at all fields but the learning rate; what is zero it sets to its default.
func constants(c, defaults *Config) []constant {
	var all []constant
	add := func(name string, at, fallback *float64, must string, ok func(v float64) bool) {
		if *at == 0 {
			*at = *fallback
		}
		all = append(all, constant{name, at, ok(*at), must})
	}
	within := func(v float64) bool { return v > 0 && v < 1 }
	positive := func(v float64) bool { return v > 0 && finite(v) }
	notNegative := func(v float64) bool { return v >= 0 && finite(v) }
	add("momentum", &c.Momentum, &defaults.Momentum, "a number in [0, 1)", func(v float64) bool { return v >= 0 && v < 1 })
	add("beta1", &c.Beta1, &defaults.Beta1, "a number in (0, 1)", within)
	add("beta2", &c.Beta2, &defaults.Beta2, "a number in (0, 1)", within)
	add("alpha", &c.Alpha, &defaults.Alpha, "a number in (0, 1)", within)
	add("beta", &c.Beta, &defaults.Beta, "a number above 0", positive)
	add("l1", &c.L1, &defaults.L1, "a number, at least 0", notNegative)
	add("l2", &c.L2, &defaults.L2, "a number, at least 0", notNegative)
	add("epsilon", &c.Epsilon, &defaults.Epsilon, "a number above 0", positive)
	add("weight_decay", &c.WeightDecay, &defaults.WeightDecay, "a number, at least 0", notNegative)
	return all
}

func finite(v float64) bool { return v-v == 0 }

// complete puts every default in place and names what is wrong.
func (c *Config) complete() (d definition, faults []string) {
	fault := func(format string, args ...any) { faults = append(faults, fmt.Sprintf(format, args...)) }
	all := definitions()
	i := slices.IndexFunc(all, func(d definition) bool { return d.name == c.Name })
	if i < 0 {
		fault("name is %q: use %s", c.Name, list(Names()))
	}
	if !(c.LR > 0) || !finite(c.LR) {
		fault("lr is %v: set it to a number above 0", c.LR)
	}
	faults = append(faults, c.Schedule.faults(c.LR)...)
	if i < 0 {
		return d, faults
	}
	d = all[i]
	for _, k := range constants(c, &d.defaults) {
		switch {
		case !slices.Contains(d.has, k.name):
			if *k.at != 0 {
				fault("%s is %v, but %s has none: remove it", k.name, *k.at, c.Name)
			}
		case !k.ok:
			fault("%s is %v: set it to %s", k.name, *k.at, k.must)
		}
	}
	return d, faults
}

// list is "a, b or c".
func list(names []string) string {
	last := len(names) - 1
	return strings.Join(names[:last], ", ") + " or " + names[last]
}

// Faults names everything that is wrong, each with its field, as job files have them, and the remedy.
func (c Config) Faults() []string {
	_, faults := c.complete()
	return faults
}

// WholeTensors tells that the optimizer of a name does not update each element for itself.
func WholeTensors(name string) bool { return name == "lamb" }

// New checks the whole configuration and returns its optimizer; the error names every
// field that is wrong.
func New(c Config) (Optimizer, error) {
	d, faults := c.complete()
	if len(faults) > 0 {
		return nil, fmt.Errorf("%w: %s", ErrConfig, strings.Join(faults, "; "))
	}
	return &optimizer{definition: d, c: c}, nil
}

// optimizer is the one Optimizer.
type optimizer struct {
	definition
	c Config
}

func (o *optimizer) Slots() int { return o.kind(&o.c).Slots() }

func (o *optimizer) WholeTensors() bool { return WholeTensors(o.c.Name) }

func (o *optimizer) Rule(step id.Step) Rule { return o.scaled(step, 0, 1) }

func (o *optimizer) Since(step, begun id.Step) Rule { return o.scaled(step, begun, 1) }

func (o *optimizer) Share(step id.Step, share float64) Rule {
	if o.kind(&o.c) == FTRL {
		share = 1
	}
	return o.scaled(step, 0, share)
}

// scaled is the rule with a share of the step's rate, for slots as old as begun says.
func (o *optimizer) scaled(step, begun id.Step, share float64) Rule {
	r := o.rule(&o.c, share*o.c.Schedule.Rate(o.c.LR, step), step-begun)
	r.Kind = o.kind(&o.c)
	return r
}

func (o *optimizer) Update(step id.Step, w, grad []float32, slots [][]float32) {
	o.UpdateTo(step, w, slots, w, grad, slots)
}

func (o *optimizer) UpdateTo(step id.Step, dstW []float32, dstSlots [][]float32, w, grad []float32, slots [][]float32) {
	r := o.Rule(step)
	r.Apply(dstW, dstSlots, w, grad, slots)
}
