package node

import (
	"bytes"
	"testing"

	"github.com/musterml/muster/trainer"
	"github.com/musterml/muster/trainer/nn"
)

// Dropout and batch norm, in a list of layers: the same bytes and the same held-out figures on any cluster.
func TestSameBytesOfLayersOnAnyCluster(t *testing.T) {
	job := smallJob()
	job.Model = trainer.Model{Layers: []nn.Layer{
		nn.Conv{Channels: 6, Kernel: 3, Stride: 2, Pad: 1}, nn.BatchNorm{}, nn.ReLU{},
		nn.Residual{Body: []nn.Layer{nn.Conv{Channels: 6, Kernel: 3, Pad: 1}, nn.BatchNorm{}, nn.ReLU{}, nn.Dropout{P: 0.2}}},
		nn.MaxPool{Size: 2}, nn.Linear{Size: 20}, nn.Tanh{}, nn.Dropout{P: 0.3}, nn.Linear{},
	}}
	var want []byte
	var loss float64
	for _, c := range []struct {
		mode  string
		nodes int
	}{{trainer.ModeRing, 1}, {trainer.ModeRing, 3}, {trainer.ModeServer, 2}} {
		job.Sync.Mode = c.mode
		for _, n := range runCluster(t, job, c.nodes) {
			got := model(t, n)
			if want == nil {
				want, loss = got, n.finish.TestLoss
			}
			if !bytes.Equal(got, want) || n.finish.TestLoss != loss {
				t.Errorf("mode %s on %d trainers: %s has other weights, or a held-out loss of %v and not %v", c.mode, c.nodes, n.cfg.Name, n.finish.TestLoss, loss)
			}
		}
	}
}
