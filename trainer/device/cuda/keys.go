package cuda

import (
	"encoding/binary"

	"github.com/musterml/muster/trainer/device"
)

// keys are the seeds and steps of dropout since the last Sync, in a small memory of the GPU: they differ from step to step, and
// the arguments of kernels must not, see graph.go.
type keys struct {
	at     pointer
	staged []byte // pinned
	used   int
}

const (
	mostKeys = 256
	keyBytes = 16
)

func (s *stream) makeKeys() (err error) {
	if s.keys.at, err = s.d.gpu.alloc(mostKeys * keyBytes); err == nil {
		s.keys.staged, err = s.d.gpu.pinned(mostKeys * keyBytes)
	}
	return err
}

// key is where a kernel finds the seed and the step of k.
func (s *stream) key(k device.DropoutKey) pointer {
	var words [keyBytes]byte
	binary.LittleEndian.PutUint64(words[:], k.Seed)
	binary.LittleEndian.PutUint64(words[8:], k.Step)
	b := &s.keys
	if b.used > 0 && string(b.staged[(b.used-1)*keyBytes:b.used*keyBytes]) == string(words[:]) {
		return b.at + pointer((b.used-1)*keyBytes)
	}
	if b.used == mostKeys {
		s.issue()
		s.asked(s.q.sync())
		b.used = 0
	}
	place := b.staged[b.used*keyBytes : (b.used+1)*keyBytes]
	copy(place, words[:])
	at := b.at + pointer(b.used*keyBytes)
	b.used++
	if s.err == nil { // before all calls that are kept back: none of them knows the place
		s.asked(s.q.write(at, place))
	}
	return at
}
