// Owndata trains on samples of its own: points of two spirals round each other, and which of the two each is of. Run it
// alone, or as a node of a cluster:
//
//	go run ./examples/owndata
//	go run ./examples/owndata NAME HOST:PORT SEED...
package main

import (
	"context"
	"fmt"
	"log"
	"math"
	"math/rand/v2"
	"os"

	"github.com/musterml/muster"
	"github.com/musterml/muster/trainer"
	"github.com/musterml/muster/trainer/data"
	"github.com/musterml/muster/trainer/nn"
)

// spirals are (n, 3): x, y and the spiral, 0 or 1.
type spirals [][3]float32

func draw(n int, seed uint64) spirals {
	r, points := rand.New(rand.NewPCG(seed, 0)), make(spirals, n)
	for i := range points {
		turn, noise := 0.25+1.5*r.Float64(), 0.04*r.NormFloat64()
		sin, cos := math.Sincos(2*math.Pi*turn + math.Pi*float64(i%2))
		points[i] = [3]float32{float32((turn + noise) * cos), float32((turn + noise) * sin), float32(i % 2)}
	}
	return points
}

func (s spirals) Len() int        { return len(s) }
func (s spirals) Form() data.Form { return data.Form{Shape: []int{2}, Classes: 2} }
func (s spirals) Sample(i int, into data.Batch) {
	copy(into.X, s[i][:2])
	into.Labels[0] = int32(s[i][2])
}

func job() (j trainer.Job, err error) {
	j = trainer.DefaultJob()
	j.Name, j.Out, j.Passes, j.Batch.Size, j.Optimizer.LR = "spirals", "runs/spirals", 40, 64, 0.005
	j.Model = trainer.Model{Layers: []nn.Layer{nn.Linear{Size: 64}, nn.ReLU{}, nn.Linear{Size: 64}, nn.ReLU{}, nn.Linear{}}}
	j.Data, err = data.Own(draw(2000, 1), draw(500, 2))
	return j, err
}

func main() {
	job, err := job()
	if err != nil {
		log.Fatal(err)
	}
	train := func() (muster.Result, error) { return muster.Train(context.Background(), job, nil) }
	if len(os.Args) > 3 {
		train = func() (muster.Result, error) {
			return muster.Join(context.Background(), job, muster.Node{Name: os.Args[1], Listen: os.Args[2], Seeds: os.Args[3:]}, nil)
		}
	}
	result, err := train()
	if err != nil {
		log.Fatal(err)
	}
	fmt.Printf("%.1f %% of the held-out points are right; the weights are in %s\n", 100*result.TestAccuracy, result.Out)
}
