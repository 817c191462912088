package main

import (
	"fmt"
	"strconv"
	"strings"

	"github.com/rs/zerolog"
	"github.com/spf13/pflag"

	"github.com/musterml/muster/trainer/device"
	"github.com/musterml/muster/trainer/device/cpu"
	"github.com/musterml/muster/trainer/device/cuda"
)

func deviceFlag(f *pflag.FlagSet, name *string) {
	f.StringVar(name, "device", "auto", "`DEVICE` that computes: cpu, cuda, cuda:N (the GPU of that number), or auto: a GPU where there is one")
}

// openDevice opens the device of that name. auto says in the log why it is no GPU, in a build that knows of them.
func openDevice(name string, log zerolog.Logger) (device.Device, error) {
	number, isNumbered := strings.CutPrefix(name, "cuda:")
	switch {
	case name == "cpu":
		return cpu.New()
	case name == "auto":
		if !cuda.Built {
			return cpu.New()
		}
		d, err := openGPU(0, log)
		if err != nil {
			log.Warn().Err(err).Msg("computing on the CPU")
			return cpu.New()
		}
		return d, nil
	case name == "cuda":
		return openGPU(0, log)
	case isNumbered:
		if n, err := strconv.Atoi(number); err == nil && n >= 0 {
			return openGPU(n, log)
		}
	}
	return nil, fmt.Errorf("--device is %q: use cpu, cuda, cuda:0 and so on, or auto", name)
}

func openGPU(number int, log zerolog.Logger) (device.Device, error) {
	d, err := cuda.Open(number, func(what string, why error) { log.Warn().Err(why).Int("gpu", number).Msg(what) })
	if err != nil {
		return nil, err // and no device that is a nil pointer
	}
	return d, nil
}
