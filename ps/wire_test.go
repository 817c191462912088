package ps

import (
	"errors"
	"math/rand/v2"
	"net"
	"os"
	"slices"
	"testing"
	"testing/synctest"
	"time"
)

// A transfer takes as long as its link needs; one that stands still ends after the patience of both sides.
func TestSlowTransfer(t *testing.T) {
	const patience = 500 * time.Millisecond
	data := make([]byte, 4<<20+5)
	for i := range data {
		data[i] = byte(rand.Uint32())
	}
	for _, stuck := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			from, link := net.Pipe()
			far, to := net.Pipe()
			go func() { // 64 KiB every 50 ms, a bit more than 1 MiB/s
				part := make([]byte, 64<<10)
				for passed := 0; ; {
					n, err := link.Read(part)
					if err != nil {
						return
					}
					if passed += n; stuck && passed > len(data)/2 {
						return
					}
					<-time.After(50 * time.Millisecond)
					if _, err := far.Write(part[:n]); err != nil {
						return
					}
				}
			}()
			sent := make(chan error)
			go func() {
				var out gather
				out.add(data)
				sent <- out.writeTo(from, []byte("head"), patience)
				_ = from.Close()
			}()
			start, head, got, in := time.Now(), make([]byte, 4), make([]byte, len(data)), intake{}
			err := readSteadily(to, head, patience)
			if err == nil {
				err = in.read(to, got, patience)
			}
			if err == nil {
				err = in.end(to, patience)
			}
			took := time.Since(start)
			if !stuck && (err != nil || string(head) != "head" || !slices.Equal(got, data) || took < 3*time.Second) {
				t.Errorf("after %v: %v", took, err)
			}
			if stuck && !errors.Is(err, os.ErrDeadlineExceeded) {
				t.Errorf("of a link that is stuck after %v: %v", took, err)
			}
			if err := <-sent; stuck != errors.Is(err, os.ErrDeadlineExceeded) {
				t.Errorf("sent, stuck %t: %v", stuck, err)
			}
			_ = to.Close()
		})
	}
}
