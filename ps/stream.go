package ps

// stream is what is known of a source's side channel to here. A source begins payloads in the
// order of their numbers and sends them side by side, so what it has passed over will not come by itself.
type stream struct {
	open   int            // connections
	begun  uint64         // the highest number
	coming map[uint64]int // begun, neither whole nor dropped: on how many connections
}

func (t *payloads) opened(source uint64) {
	t.mu.Lock()
	defer t.mu.Unlock()
	s := t.streams[source]
	if s == nil {
		s = &stream{coming: map[uint64]int{}}
		t.streams[source] = s
	}
	s.open++
}

func (t *payloads) closed(source uint64) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if s := t.streams[source]; s != nil {
		if s.open--; s.open == 0 {
			delete(t.streams, source)
		}
	}
	t.notify()
}

// begins and ends frame what comes of a payload on one connection.
func (t *payloads) begins(id payloadID) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if s := t.streams[id.source]; s != nil {
		s.begun = max(s.begun, id.seq)
		s.coming[id.seq]++
	}
	t.notify()
}

func (t *payloads) ends(id payloadID) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if s := t.streams[id.source]; s != nil {
		if s.coming[id.seq]--; s.coming[id.seq] == 0 {
			delete(s.coming, id.seq)
		}
	}
	t.notify()
}

// coming says that a stream is open on which the payload can still arrive by itself.
func (t *payloads) coming(id payloadID) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	s := t.streams[id.source]
	return s != nil && (s.begun < id.seq || s.coming[id.seq] > 0)
}

// moved notes a sign of progress on any stream; received counts them.
func (t *payloads) moved() {
	t.mu.Lock()
	t.progress++
	t.mu.Unlock()
}

func (t *payloads) received() uint64 {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.progress
}
