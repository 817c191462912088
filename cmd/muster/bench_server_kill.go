package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/musterml/muster/internal/id"
)

// measureKills kills a leader again and again under full load. The time to the next commit is from the signal to the end
// of the silence that follows, in the slowest of the shards that the dead server led. What it answered before it died, and
// what of that was on its way, is no commit of the next leader's, so the silence is the longest that began before the
// process had ended, or at once after that.
func (o *benchServer) measureKills(ctx context.Context, l *lineup, row *serverRow) error {
	if err := each(l.trainers, func(p *benchProcess) error { return p.ask("load", nil) }); err != nil {
		return err
	}
	var times []float64
	for kill := range o.kills {
		if err := l.await(ctx); err != nil {
			return err
		}
		t, err := l.counts()
		if err != nil {
			return err
		}
		victim := t.leader[kill%o.shards]
		if victim == nil {
			return fmt.Errorf("shard %d has lost its leader by itself", kill%o.shards)
		}
		at := time.Now()
		if err := victim.cmd.Process.Kill(); err != nil {
			return err
		}
		_ = victim.cmd.Wait() // it says that it was killed
		ended := time.Now().Add(onItsWay)
		i := slices.Index(l.servers, victim)
		if l.servers[i], err = l.start(victim.role, victim.addr, kill+2); err != nil {
			return err
		}
		if err := errors.Join(l.introduce(l.servers[i]), l.await(ctx)); err != nil {
			return err
		}
		worst := 0.0
		for shard, leader := range t.leader {
			if leader != victim {
				continue
			}
			err := each(l.trainers[:1], func(p *benchProcess) error {
				var ms float64
				err := p.ask(fmt.Sprintf("silence %d %d %d", shard, at.UnixNano(), ended.UnixNano()), &ms)
				worst = max(worst, ms)
				return err
			})
			if err != nil {
				return err
			}
		}
		times = append(times, worst)
	}
	sorted := slices.Sorted(slices.Values(times))
	row.Kills, row.MedMs = len(times), digits(median(times), 1)
	row.P90Ms, row.WorstMs = digits(sorted[9*len(sorted)/10], 1), digits(sorted[len(sorted)-1], 1)
	return nil
}

// onItsWay is how long the last answer of a dead server may take to be read.
const onItsWay = 50 * time.Millisecond

// load pushes without end, lanesPerShard blocks of each shard at a time, and notes when each was acknowledged.
func (t *benchTrainer) load(ctx context.Context) error {
	for shard := range t.o.shards {
		for _, blocks := range benchLanes(t.o, []int{shard}) {
			blocks = slices.DeleteFunc(blocks, func(b id.Block) bool { return b < t.first || b >= t.last })
			if len(blocks) > 0 {
				go t.pushAll(ctx, shard, blocks) // ends with the process
			}
		}
	}
	return nil
}

func (t *benchTrainer) pushAll(ctx context.Context, shard int, blocks []id.Block) {
	size := t.o.layout().BlockSize
	for {
		for _, b := range blocks {
			lo := int(b-t.first) * size
			err := t.client.Push(ctx, t.steps[b], b, b+1, t.grad[lo:lo+size], t.w[lo:lo+size])
			t.steps[b]++
			if err == nil {
				err = t.check(b, t.steps[b])
			}
			t.mu.Lock()
			t.acks[shard] = append(t.acks[shard], time.Now())
			t.fail = errors.Join(t.fail, err)
			t.mu.Unlock()
			if err != nil {
				return
			}
		}
	}
}

// silence tells how long after a moment, in milliseconds, the longest pause between two acknowledgements of a shard
// ended, of those that began before a second moment.
func (t *benchTrainer) silence(arg string) (float64, error) {
	var shard int
	var killed, ended int64
	if _, err := fmt.Sscan(arg, &shard, &killed, &ended); err != nil {
		return 0, err
	}
	for begin := time.Now(); time.Since(begin) < 10*time.Second; time.Sleep(10 * time.Millisecond) {
		t.mu.Lock()
		acks, fail := t.acks[shard], t.fail
		t.mu.Unlock()
		last, longest, end := killed, int64(0), killed
		for _, ack := range acks {
			at := ack.UnixNano()
			if at <= killed {
				continue
			}
			if last > ended {
				return float64(end-killed) / 1e6, fail
			}
			if at-last > longest {
				longest, end = at-last, at
			}
			last = at
		}
		if fail != nil {
			return 0, fail
		}
	}
	return 0, fmt.Errorf("shard %d commits no more after a kill", shard)
}
