package raftgroup

import (
	"time"

	"github.com/hashicorp/raft"
)

// awayPatience is how long a message that failed may wait for its replica; after that raft counts another failure.
const awayPatience = time.Minute

// untilBack returns when a replica that could not be reached can be, or after awayPatience.
//
// After each failure in a row hashicorp/raft (v1.8.0, replicateTo) waits twice as long before it tries again, up to ten
// seconds: a replica that has been away for half a minute would lie idle for as long when it is back, and a group of three
// be without a spare vote. So what fails because nobody is there is one failure, however long nobody is there.
func (s *stream) untilBack(target raft.ServerAddress) {
	const often = 100 * time.Millisecond
	patience := time.After(awayPatience)
	for {
		conn, err := s.Dial(target, s.dial)
		if err == nil {
			_ = conn.Close() // nothing was said on it
			return
		}
		select {
		case <-time.After(often):
		case <-patience:
			return
		case <-s.ctx.Done():
			return
		}
	}
}
