package main

import (
	"slices"
	"strings"
	"testing"
	"time"
)

// killing is one kill, of one node or several at once, and what it cost.
type killing struct {
	mode   string
	victim victim
	nodes  []string
	step   int // the newest step known when it was killed
	at     time.Time
	next   time.Duration // from the kill to the next step that was done without the victim
	pause  time.Duration // the longest time without a step in the two seconds from the kill
}

// measureKills finds, in the run's own history, when it went on after each kill: the
// first step of the view without the victim, if that was a trainer, and else the next step.
func measureKills(t *testing.T, kills []killing, steps []time.Time, events []event) {
	for i := range kills {
		k := &kills[i]
		before, limit := k.at, k.at.Add(2*time.Second)
		for _, at := range steps {
			if at.After(k.at) {
				if k.next == 0 {
					k.next = at.Sub(k.at)
				}
				if before.Before(limit) {
					k.pause = max(k.pause, at.Sub(before))
				}
				before = at
			}
		}
		left := slices.Clone(k.nodes)
		for _, e := range events {
			n := slices.Index(left, e.Node)
			if n < 0 || e.Kind != "lost" || e.Time.Before(k.at) || !strings.HasPrefix(e.Text, "trainer ") {
				continue
			}
			left = slices.Delete(left, n, n+1)
			if from := viewAfter(events, e); from < len(steps) {
				k.next = max(k.next, steps[from].Sub(k.at))
			}
		}
		t.Logf("%s: killed %s (%s) after step %d: next step after %v, longest pause %v",
			k.mode, strings.Join(k.nodes, " and "), k.victim, k.step, k.next.Round(time.Millisecond), k.pause.Round(time.Millisecond))
	}
}

// viewAfter is the first step of the view that a loss led to.
func viewAfter(events []event, lost event) int {
	for _, e := range events {
		if e.Kind == "view" && !e.Time.Before(lost.Time) {
			return e.Step
		}
	}
	return 1 << 30
}

// report prints the least, the median and the most for each kind of victim.
func report(t *testing.T, all []killing) {
	t.Helper()
	print := func(what string, of func(killing) bool) {
		var next, pause []time.Duration
		for _, k := range all {
			if of(k) {
				next, pause = append(next, k.next.Round(time.Millisecond)), append(pause, k.pause.Round(time.Millisecond))
			}
		}
		if n := len(next); n > 0 {
			slices.Sort(next)
			slices.Sort(pause)
			t.Logf("%-36s %3d kills; to the next step: min %v, median %v, max %v; longest pause: median %v, max %v",
				what, n, next[0], next[n/2], next[n-1], pause[n/2], pause[n-1])
		}
	}
	for _, v := range []victim{aTrainer, aShardLeader, aCoordinator, allThree, twoAtOnce, allTrainers} {
		for _, mode := range []string{"ring", "server"} {
			print(string(v)+", "+mode, func(k killing) bool { return k.victim == v && k.mode == mode })
		}
	}
	print("all of which something was left", func(k killing) bool { return k.victim != allTrainers })
}
