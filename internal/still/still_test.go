package still

import (
	"testing"
	"time"
)

func TestMeter(t *testing.T) {
	var m Meter
	for range 1000 { // wakes late, but no later than a busy machine makes it
		m.add(tick + jitter)
	}
	if s := m.Share(); s != 0 {
		t.Errorf("well: %.2f", s)
	}
	for range 100 { // stopped for 0.2 s of each 0.3 s
		m.add(200 * time.Millisecond)
		for range 5 {
			m.add(tick)
		}
	}
	if s := m.Share(); s < 0.45 || s > 0.65 {
		t.Errorf("stopped for two thirds of the time: %.2f", s)
	}
	for range 750 {
		m.add(tick)
	}
	if s := m.Share(); s > 0.05 {
		t.Errorf("well for 15 s: %.2f", s)
	}
}
