package device

// Keeper is a Device that keeps what layers put out, and gradients of that, in a kind of its own choice: its operations take such memories for the operands
// of which they say so, all of one kind.
type Keeper interface {
	Outputs() Kind
}

// Outputs is the kind in which d keeps what layers put out: Float32 where it does not say otherwise.
func Outputs(d Device) Kind {
	if k, ok := d.(Keeper); ok {
		return k.Outputs()
	}
	return Float32
}
