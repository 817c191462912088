package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/musterml/muster/membership"
)

// TestDrainOutlivesItsCoordinator drains one server after the other, MUSTER_DRAIN_KILLS times, and each time kills the
// leader of the coordinator as soon as the order is known. The next one has to end what was begun.
func TestDrainOutlivesItsCoordinator(t *testing.T) {
	rounds := 0
	if _, err := fmt.Sscan(os.Getenv("MUSTER_DRAIN_KILLS"), &rounds); err != nil {
		t.Skip("set MUSTER_DRAIN_KILLS to a number: make soak-drain")
	}
	c := newCluster(t, jobText{mode: "server", train: 1024, passes: 100_000, servers: 3, replicas: 3, paramShards: 2}.String())
	names := []string{"a", "b", "c", "d"}
	now := map[string]*process{}
	for _, name := range names {
		now[name] = c.start(nodeSpec{name: name, roles: serverOnly})
	}
	trainer := c.start(nodeSpec{name: "t", roles: trainerOnly})
	c.until("some steps", func() bool { return trainer.lastStep() >= 5 })
	for i := range rounds {
		drained, killed := "", ""
		c.untilServers("all is healthy", func(v *serversJSON) bool {
			drained, killed = "", v.leader(membership.CoordinatorGroup)
			for _, name := range append(names[i%4:], names[:i%4]...) {
				if s := v.server(name); name != killed && s.State == "serving" {
					drained = name
				} else if s.State == "" {
					return false
				}
			}
			return killed != "" && drained != ""
		})
		begin := time.Now()
		if err := c.startDrain(drained, trainer.addr); err != nil {
			t.Fatal(err)
		}
		now[killed].kill()
		now[killed] = c.again(now[killed])
		c.untilServers(drained+" keeps nothing", func(v *serversJSON) bool {
			return v.server(drained).State == "drained" && v.server(drained).Groups == 0
		})
		step := trainer.lastStep()
		c.until("steps go on", func() bool { return trainer.lastStep() > step+3 })
		t.Logf("%s drained in %v, though %s, which led the coordinator, was killed", drained, time.Since(begin).Round(10*time.Millisecond), killed)
		if _, said, err := runMuster(t, nil, "servers", "undrain", drained, "--addr", trainer.addr); err != nil {
			t.Fatalf("undrain: %v: %s", err, said)
		}
	}
}

// syncAllTheTime writes to the disk of a folder, a little and durably, until it is told to stop; then it says how long that took at
// most.
func syncAllTheTime(t *testing.T, dir string) (stop func() time.Duration) {
	t.Helper()
	file, err := os.Create(filepath.Join(dir, "syncs"))
	if err != nil {
		t.Fatal(err)
	}
	end, ended := make(chan struct{}), make(chan time.Duration)
	go func() {
		worst, data := time.Duration(0), make([]byte, 64<<10)
		tick := time.NewTicker(20 * time.Millisecond)
		defer tick.Stop()
		for {
			select {
			case <-tick.C:
				begin := time.Now()
				if _, err := file.Write(data); errors.Join(err, file.Sync()) != nil {
					t.Errorf("write to the disk beside the servers: %v", err)
				}
				worst = max(worst, time.Since(begin))
			case <-end:
				_ = file.Close()
				ended <- worst
				return
			}
		}
	}()
	return func() time.Duration {
		close(end)
		return <-ended
	}
}
