package cpu

func available() []*kernels { return []*kernels{&portable} }
