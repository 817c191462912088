package raftgroup

import (
	"bytes"
	"sync"
	"testing"
	"time"
	"os"

	"github.com/rs/zerolog"
)

type lockedBuf struct {
	mu sync.Mutex
	bytes.Buffer
}

func (l *lockedBuf) Write(p []byte) (int, error) { l.mu.Lock(); defer l.mu.Unlock(); return l.Buffer.Write(p) }

func TestZZ(t *testing.T) {
	zerolog.TimeFieldFormat = "15:04:05.000000"
	for range 80 {
		buf := &lockedBuf{}
		all := founded(t, func(c *Config) {
			c.Log = zerolog.New(buf).Level(zerolog.TraceLevel).With().Timestamp().Str("me", string(c.Self.Node)).Logger()
		})
		took := failover(t, all, true)
		for _, r := range all {
			r.kill(t)
		}
		if took > 100*time.Millisecond {
			buf.mu.Lock()
			os.WriteFile("/tmp/slow.log", buf.Bytes(), 0o644)
			buf.mu.Unlock()
			t.Fatal(took)
		}
	}
}
