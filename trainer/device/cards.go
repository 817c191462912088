package device

// Card is a processor with memory of its own.
type Card struct {
	Name         string
	Used, Memory int64 // bytes: what this process has taken, and all there is
}

// Carded is a Device of such processors.
type Carded interface {
	// Cards asks no driver, so it answers also when a card does not.
	Cards() []Card
}

// Cards are those of d; none of one that computes in the host's memory.
func Cards(d Device) []Card {
	if c, ok := d.(Carded); ok {
		return c.Cards()
	}
	return nil
}
