package cpu

import (
	"fmt"
	"os"
	"runtime"
	"strings"

	"github.com/musterml/muster/trainer/device"
)

// Variable is the environment variable that overrides the choice of the instruction set.
const Variable = "MUSTER_CPU"

// The classes of results. The number goes up whenever the order or the kind of a rounding
// changes, so that nodes of two versions do not believe they agree.
const (
	classFMA = "cpu-fma-2"
	classGo  = "cpu-go-2"
)

// Device is this machine's processor.
type Device struct{ k *kernels }

var _ device.Device = (*Device)(nil)

// New chooses the best instruction set that the processor has, or the one that the
// environment variable MUSTER_CPU names.
func New() (*Device, error) {
	name := os.Getenv(Variable)
	d, err := NewFor(name)
	if err != nil && name != "" {
		return nil, fmt.Errorf("environment variable %s: %w", Variable, err)
	}
	return d, err
}

// NewFor uses the named instruction set: "avx512", "avx2" or "go"; "" means the best.
func NewFor(name string) (*Device, error) {
	all := available()
	if name == "" {
		return &Device{k: all[0]}, nil
	}
	for _, k := range all {
		if k.name == name {
			return &Device{k: k}, nil
		}
	}
	switch name {
	case "avx512", "avx2":
		return nil, fmt.Errorf("instruction set %q: this processor does not have it; available: %s", name, strings.Join(InstructionSets(), ", "))
	}
	return nil, fmt.Errorf("instruction set %q is unknown; available: %s", name, strings.Join(InstructionSets(), ", "))
}

// InstructionSets lists what NewFor accepts on this machine, the best first.
func InstructionSets() []string {
	var names []string
	for _, k := range available() {
		names = append(names, k.name)
	}
	return names
}

// Name implements device.Device.
func (d *Device) Name() string { return "cpu " + d.k.name }

// Arithmetic implements device.Device: nodes with the same string give the same bits.
func (d *Device) Arithmetic() string { return d.k.class }

// Streams implements device.Device: one for each processor that Go may use.
func (d *Device) Streams() int { return runtime.GOMAXPROCS(0) }

// NewStream implements device.Device.
func (d *Device) NewStream() (device.Stream, error) { return newStream(d.k), nil }
