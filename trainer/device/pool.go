package device

import "fmt"

// PoolShape is the geometry of a pooling over Size x Size windows, Stride apart; windows
// that would reach over the border are left out (PyTorch's floor mode).
type PoolShape struct {
	N, C, H, W   int
	Size, Stride int
	Pad          int // on each side, of MaxPool alone: the windows reach over the border, where nothing counts
}

// OutH is the height of the output.
func (s PoolShape) OutH() int { return (s.H+2*s.Pad-s.Size)/s.Stride + 1 }

// OutW is the width of the output.
func (s PoolShape) OutW() int { return (s.W+2*s.Pad-s.Size)/s.Stride + 1 }

// Validate tells what is wrong with the geometry.
func (s PoolShape) Validate() error {
	switch {
	case s.N < 1 || s.C < 1 || s.Size < 1 || s.Stride < 1:
		return fmt.Errorf("pooling %+v: sizes and stride must be at least 1", s)
	case s.Size > 15:
		return fmt.Errorf("pooling %+v: windows larger than 15 are not supported", s)
	case s.Pad < 0 || 2*s.Pad > s.Size:
		return fmt.Errorf("pooling %+v: the padding must be at least 0 and at most half of the window", s)
	case s.H+2*s.Pad < s.Size || s.W+2*s.Pad < s.Size:
		return fmt.Errorf("pooling %+v: the window is larger than the image", s)
	}
	return nil
}

// MaxPool is y (N, OutH, OutW, C) = act(max over each window of x (N, H, W, C)). Index (Uint8,
// like y) gets the place of the maximum in its window, row-major, the first one of equals.
//
// ReLU and a maximum commute, values and gradients alike, so a ReLU before a pooling is
// best done here, on fewer elements.
type MaxPool struct {
	Shape PoolShape
	Y, X  Buffer
	Index Buffer
	Act   Activation
}

// MaxPoolBackward is dx (N, H, W, C), overwritten, from dy, y and index as MaxPool left them.
// Where windows overlap, contributions are added in the order of the windows.
type MaxPoolBackward struct {
	Shape     PoolShape
	DX, DY, Y Buffer
	Index     Buffer
	Act       Activation
}

// AveragePool is y (N, OutH, OutW, C) = the mean over each window of x (N, H, W, C): PyTorch's
// nn.AvgPool2d(Size, Stride). Order: within a window by row and column, in one chain; the sum is then multiplied by
// 1/(Size*Size), rounded to float32.
type AveragePool struct {
	Shape PoolShape
	Y, X  Buffer
}

// AveragePoolBackward is dx (N, H, W, C), overwritten, from dy (N, OutH, OutW, C). Order: contributions of windows that
// overlap are added in the order of the windows; the sum is then multiplied by 1/(Size*Size), rounded to float32.
type AveragePoolBackward struct {
	Shape  PoolShape
	DX, DY Buffer
}
