package ps

import (
	"runtime"
	"testing"
	"time"

	"github.com/musterml/muster/internal/id"
	"github.com/musterml/muster/internal/optim"
)

// BenchmarkPush is the rate of committed gradient bytes: one trainer, three replicas in
// this process, momentum SGD applied on each, requests of 1 MiB. The peer's figure beside
// it is the trial behind docs/architecture, section 4: 1,050-1,200 MB/s for payloads that
// were never received from a client nor answered, 16 in flight; 150 MB/s with payloads
// inside the log entries.
func BenchmarkPush(b *testing.B) {
	for _, shards := range []int{1, 2} {
		b.Run(map[int]string{1: "1shard", 2: "2shards"}[shards], func(b *testing.B) {
			l := Layout{Params: 8 << 20, BlockSize: 64 << 10, Shards: shards}
			conf := optim.Config{Name: "sgd", LR: 0.01, Momentum: 0.9}
			c := newTestCluster(b, 3, l, conf, nil)
			client := c.client(func(c *ClientConfig) { c.MaxRequest = 1 << 20; c.Lanes = 4 })
			ctx := testContext(b, 10*time.Minute)
			blocks := id.Block(l.Blocks())
			o := newOracle(b, conf, l.Params)
			if err := client.Put(ctx, 0, 0, 0, blocks, o.state()); err != nil {
				b.Fatal(err)
			}
			g, w := gradient(1, l.Params), make([]float32, l.Params)
			step := id.Step(0)
			push := func() {
				if err := client.Push(ctx, step, 0, blocks, g, w); err != nil {
					b.Fatal(err)
				}
				step++
			}
			for range 30 { // buffers are made until the log has been cut a few times
				push()
			}
			b.SetBytes(int64(4 * l.Params))
			var before, after runtime.MemStats
			runtime.ReadMemStats(&before)
			for b.Loop() {
				push()
			}
			runtime.ReadMemStats(&after)
			requests := float64(b.N) * float64(4*l.Params) / (1 << 20)
			b.ReportMetric(float64(after.TotalAlloc-before.TotalAlloc)/requests, "B/request")
		})
	}
}
