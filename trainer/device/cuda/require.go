package cuda

import "fmt"

// CUDA versions as drivers say them: 12040 is 12.4.
const (
	oldestDriver   = 12000 // takes machine code that CUDA 12 has compiled: driver 525
	compilesDriver = 12090 // compiles the embedded PTX, which NVRTC 12.9 has made: driver 575
)

// portable is the embedded PTX, which the driver compiles for architectures that have no object of their own.
const portable = "muster.ptx"

// unfit says what keeps a driver from running an object on a card of a compute capability; nil if nothing does.
func unfit(major, minor int, object string, driver int) error {
	switch {
	case major < 8:
		return fmt.Errorf("its compute capability is %d.%d: the kernels need 8.0 or newer (Ampere); compute on the CPU", major, minor)
	case driver < oldestDriver:
		return fmt.Errorf("the driver is of CUDA %s: install one of CUDA 12.0 or newer (driver 525)", version(driver))
	case object == portable && driver < compilesDriver:
		return fmt.Errorf("there is no machine code for sm_%d%d in this binary, and the driver, of CUDA %s, cannot compile its PTX: install one of CUDA %s or newer (driver 575)",
			major, minor, version(driver), version(compilesDriver))
	}
	return nil
}

func version(cuda int) string { return fmt.Sprintf("%d.%d", cuda/1000, cuda%1000/10) }
