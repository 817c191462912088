package device

// Locker is a Device with memory of its own, for which the host's has to be locked in its place if contents are to come and go without
// another copy on the way.
type Locker interface {
	// Lock locks host until unlock, if that can be; where not, all goes as without. All streams must be closed before unlock. Any goroutine
	// may call it.
	Lock(host []float32) (unlock func())
}

// Lock locks host for d until unlock, where d is a Locker. It is for slices that are bound again and again: weights, gradients.
func Lock(d Device, host []float32) (unlock func()) {
	if l, ok := d.(Locker); ok {
		return l.Lock(host)
	}
	return func() {}
}
