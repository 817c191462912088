package cuda

import (
	"reflect"
	"unsafe"

	"github.com/musterml/muster/trainer/device"
)

// How sums, and gradients of ReLUs, get into the call before theirs (second.go is the same of functions and products): where that is still kept back and has just
// written what they take in its place, it does their work too, while it has each element in a register. The bits are those of the operations by themselves.

// before is the arguments of the call before the next, to be changed, if it is still kept back and of that kind.
func before[A any](s *stream) *A {
	if s.err != nil || s.issued == len(s.calls) {
		return nil
	}
	if c := &s.calls[len(s.calls)-1]; c.kind == reflect.TypeFor[A]() {
		return (*A)(unsafe.Pointer(&c.args))
	}
	return nil
}

// adds has the norm, or the gradient of a norm, before this sum add it up, where the sum takes the place of what that has written.
func (s *stream) adds(sum addArgs) bool {
	if sum.y != sum.a || sum.b == sum.a {
		return false
	}
	if a := before[batchNormArgs](s); a != nil && a.y == sum.y && a.rows*a.cols == sum.n && a.plus == 0 && a.act == int64(device.Identity) {
		a.plus, a.act = sum.b, sum.act
		return true
	}
	if a := before[layerNormBackwardArgs](s); a != nil && a.dx == sum.y && a.rows*a.cols == sum.n && a.plus == 0 && sum.act == int64(device.Identity) {
		a.plus = sum.b
		return true
	}
	return false
}

// masks has the sum before make itself the gradient of a ReLU's input, where it is that of the output y.
func (s *stream) masks(dx, dy, y pointer, n int) bool {
	a := before[addArgs](s)
	if a == nil || a.y != dx || dy != dx || y == dx || a.n != int64(n) || a.mask != 0 {
		return false
	}
	a.mask = y
	return true
}

// takesSum has layer norm make the sum before it that it is of.
func (s *stream) takesSum(norm *layerNormArgs) {
	sum := before[addArgs](s)
	if sum == nil || sum.y != norm.x || sum.n != norm.rows*norm.cols || sum.act != int64(device.Identity) || sum.mask != 0 {
		return
	}
	norm.a, norm.b = sum.a, sum.b
	s.calls = s.calls[:len(s.calls)-1]
}
