package trainer

import (
	"math"
	"testing"
	"time"

	"github.com/musterml/muster/collective"
)

func TestWay(t *testing.T) {
	var w way
	now, sent := time.Unix(0, 0), collective.Way{}
	pass := func(n int, busy time.Duration, rate float64) {
		for range n {
			now, sent.Rate = now.Add(100*time.Millisecond), rate
			sent.Busy += busy
			w.add(sent, now)
		}
	}
	check := func(when string, busy, rate float64) {
		t.Helper()
		if got := w.busy / w.weight; math.Abs(got-busy) > 0.05 || math.Abs(w.rate-rate) > 0.05*rate {
			t.Errorf("%s: busy %.2f, %.3g bytes/s; want %.2f, %.3g", when, got, w.rate, busy, rate)
		}
	}
	pass(10, 40*time.Millisecond, 1e8)
	check("from the beginning on", 0.4, 1e8)
	pass(600, 90*time.Millisecond, 1e7)
	check("a minute later", 0.9, 1e7)
	pass(10, 0, 5e9)
	check("what is not in use says nothing of the rate", 0.9*math.Exp(-1/wayWindow.Seconds()), 1e7)
}
