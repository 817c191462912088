// Package crash lets a test end a real process at a named point of the code, as a power
// cut would: MUSTER_CRASH=POINT:N has the process kill itself with SIGKILL when it comes
// to the point for the Nth time. Without that variable a point costs one comparison.
package crash

import (
	"os"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
)

// Env is the variable that arms a point.
const Env = "MUSTER_CRASH"

type trigger struct {
	point string
	left  atomic.Int64
}

var armed = parse(os.Getenv(Env))

func parse(s string) *trigger {
	point, count, _ := strings.Cut(s, ":")
	if point == "" {
		return nil
	}
	n, err := strconv.Atoi(count)
	if err != nil {
		n = 1
	}
	t := &trigger{point: point}
	t.left.Store(int64(n))
	return t
}

// At ends the process here, if it is told to.
func At(point string) {
	if armed == nil || armed.point != point || armed.left.Add(-1) != 0 {
		return
	}
	_ = syscall.Kill(os.Getpid(), syscall.SIGKILL)
	select {} // the signal is on its way
}
