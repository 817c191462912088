// Custom trains a model of its own, a small residual network, on drawn digits. Run it alone, or as a node of a cluster:
//
//	go run ./examples/custom
//	go run ./examples/custom NAME HOST:PORT SEED...
package main

import (
	"context"
	"fmt"
	"log"
	"os"

	"github.com/musterml/muster"
	"github.com/musterml/muster/trainer"
	"github.com/musterml/muster/trainer/nn"
)

// model is a stem, and blocks of twice the channels and half the pixels each.
func model(channels, blocks int) []nn.Layer {
	layers := []nn.Layer{nn.Conv{Channels: channels, Kernel: 3, Pad: 1}, nn.ReLU{}}
	for range blocks {
		layers = append(layers, nn.Residual{Body: []nn.Layer{
			nn.Conv{Channels: channels, Kernel: 3, Pad: 1}, nn.SiLU{}, nn.Conv{Channels: channels, Kernel: 3, Pad: 1},
		}}, nn.ReLU{}, nn.Conv{Channels: 2 * channels, Kernel: 2, Stride: 2}, nn.ReLU{})
		channels *= 2
	}
	return append(layers, nn.Dropout{P: 0.1}, nn.Linear{})
}

// job is the built-in one, drawn digits, but for the model. A file is read by trainer.LoadJob.
func job() trainer.Job {
	j := trainer.DefaultJob()
	j.Name, j.Out, j.Passes = "custom", "runs/custom", 1
	j.Model.Name, j.Model.Layers = "", model(8, 2)
	return j
}

func main() {
	show := func(s muster.Step) { fmt.Printf("step %d, loss %.4f\n", s.Number, s.Loss) }
	train := func() (muster.Result, error) { return muster.Train(context.Background(), job(), show) }
	if len(os.Args) > 3 {
		train = func() (muster.Result, error) {
			return muster.Join(context.Background(), job(), muster.Node{Name: os.Args[1], Listen: os.Args[2], Seeds: os.Args[3:]}, show)
		}
	}
	result, err := train()
	if err != nil {
		log.Fatal(err)
	}
	fmt.Printf("%.2f %% of the held-out digits are right; the weights are in %s\n", 100*result.TestAccuracy, result.Out)
}
