package main

import (
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/rs/zerolog"
	"github.com/spf13/pflag"

	"github.com/musterml/muster/trainer/device"
	"github.com/musterml/muster/trainer/device/cpu"
	"github.com/musterml/muster/trainer/device/cuda"
)

func deviceFlag(f *pflag.FlagSet, name *string) {
	f.StringVar(name, "device", "auto", "`DEVICE` that computes: cpu, cuda (all GPUs of this machine), cuda:0,2 (those of these numbers), or auto: the GPUs where there are any")
}

// openDevice opens the device of that name. auto says in the log why it is no GPU, in a build that knows of them.
func openDevice(name string, log zerolog.Logger) (device.Device, error) {
	list, isListed := strings.CutPrefix(name, "cuda:")
	switch {
	case name == "cpu", name == "auto" && !cuda.Built:
		return cpu.New()
	case name == "auto":
		d, err := openGPUs(nil, log)
		if err != nil {
			log.Warn().Err(err).Msg("computing on the CPU")
			return cpu.New()
		}
		return d, nil
	case name == "cuda":
		return openGPUs(nil, log)
	case isListed:
		if numbers, ok := gpuNumbers(list); ok {
			return openGPUs(numbers, log)
		}
	}
	return nil, fmt.Errorf("--device is %q: use cpu, cuda, cuda:0, cuda:0,1 and so on, or auto", name)
}

// gpuNumbers reads "0,2": numbers, each once.
func gpuNumbers(list string) (numbers []int, ok bool) {
	for _, word := range strings.Split(list, ",") {
		n, err := strconv.Atoi(word)
		if err != nil || n < 0 || slices.Contains(numbers, n) {
			return nil, false
		}
		numbers = append(numbers, n)
	}
	return numbers, true
}

// openGPUs makes one device of GPUs; of all where none is named.
func openGPUs(numbers []int, log zerolog.Logger) (device.Device, error) {
	if numbers == nil {
		n, err := cuda.Count()
		if err != nil {
			return nil, err
		}
		for i := range n {
			numbers = append(numbers, i)
		}
	}
	cards, err := cuda.OpenAll(numbers, func(n int, what string, why error) { log.Warn().Err(why).Int("gpu", n).Msg(what) })
	if err != nil {
		return nil, err
	}
	all := make([]device.Device, len(cards))
	for i, c := range cards {
		all[i] = c
	}
	return device.Several(all...)
}
