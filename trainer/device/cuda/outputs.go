package cuda

import "github.com/musterml/muster/trainer/device"

// Outputs of layers, and gradients of outputs, are kept in bf16 where factors are rounded to that. So a product reads them as they are, and everything else moves half
// as many bytes. Operations compute in float32 as ever, and round what they write.

var _ device.Keeper = (*Device)(nil)

// Outputs implements device.Keeper.
func (d *Device) Outputs() device.Kind {
	if d.precision == device.BF16 {
		return device.BFloat16
	}
	return device.Float32
}

// outputs are an operation's operands that are of that kind, or all of them float32.
type outputs struct {
	s    *stream
	op   string
	kind device.Kind
}

// outputs are of the kind of one of them.
func (s *stream) outputs(op string, as device.Buffer) outputs {
	o := outputs{s, op, device.Float32}
	if m := as.Mem; m != nil && m.Kind() == device.BFloat16 {
		o.kind = device.BFloat16
	}
	return o
}

func (o outputs) at(name string, b device.Buffer, n int) pointer {
	return o.s.want(o.op, name, b, n, o.kind)
}

// factor is at of what only rounded asks for.
func (o outputs) factor(name string, b device.Buffer, n int) pointer {
	return o.s.place(o.op, name, b, n, o.kind)
}

// result is at of what is written and not read.
func (o outputs) result(name string, b device.Buffer, n int) pointer {
	x := o.s.place(o.op, name, b, n, o.kind)
	if x != 0 {
		o.s.overwrites(x, o.size()*n)
	}
	return x
}

func (o outputs) optional(name string, b device.Buffer, n int) pointer {
	if b.IsNone() {
		return 0
	}
	return o.at(name, b, n)
}

func (o outputs) size() int { return sizeOf(o.kind) }

// half is an argument of kernels that take both kinds.
func (o outputs) half() int64 { return flag(o.kind == device.BFloat16) }

// kernel is the one of a name for operands of the kind.
func (o outputs) kernel(name string) string {
	if o.kind == device.BFloat16 {
		return o.s.name(name, "_bf16", "")
	}
	return name
}
