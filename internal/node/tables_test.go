package node

import (
	"bytes"
	"os"
	"path/filepath"
	"testing"

	"github.com/musterml/muster/trainer"
	"github.com/musterml/muster/trainer/data"
)

// Models with sparse tables end with the same weights and the same rows on any number of trainers and parameter shards, in both modes.
func TestSameBytesOfTables(t *testing.T) {
	for _, c := range []struct {
		model  trainer.Model
		tables map[string]trainer.Table
		runs   []trainer.Sync
	}{
		{trainer.Model{Name: "wide_deep", Options: map[string]any{"width": 4, "hidden": []int{8}}}, map[string]trainer.Table{
			"deep": {Optimizer: trainer.Optimizer{Name: "adam", LR: 0.01}, Admit: 2, Expire: 4, MaxRows: 2048},
			"wide": {Optimizer: trainer.Optimizer{Name: "ftrl", LR: 0.05}},
		}, []trainer.Sync{{Mode: trainer.ModeRing}, {Mode: trainer.ModeServer}}},
		{trainer.Model{Name: "dlrm", Options: map[string]any{"width": 4, "bottom": []int{8}, "top": []int{8}}}, nil, []trainer.Sync{{Mode: trainer.ModeServer}}},
	} {
		t.Run(c.model.Name, func(t *testing.T) {
			t.Parallel()
			var want []byte
			for _, sync := range c.runs {
				for i, nodes := range []int{1, 2, 4} {
					job := smallJob()
					job.Model, job.Tables, job.Sync.Mode = c.model, c.tables, sync.Mode
					job.Data = data.Source{Source: data.CTR, Train: 512, Test: 100, Seed: 2}
					job.Cluster.ParameterShards = 2 + i
					if err := job.Validate(); err != nil {
						t.Fatal(err)
					}
					for _, n := range runCluster(t, job, nodes) {
						rows, err := os.ReadFile(filepath.Join(n.cfg.Out, TablesFile))
						if err != nil {
							t.Fatal(err)
						}
						got := append(model(t, n), rows...)
						if want == nil {
							want = got
						}
						if !bytes.Equal(got, want) {
							t.Errorf("mode %s on %d trainers: %s has other weights or rows", sync.Mode, nodes, n.cfg.Name)
						}
						if auc := n.finish.GetTestAuc(); auc <= 0 || auc >= 1 {
							t.Errorf("the AUC is %v", auc)
						}
					}
				}
			}
		})
	}
}

// What cannot be is told before the run.
func TestTablesThatAreNone(t *testing.T) {
	job := smallJob()
	job.Model = trainer.Model{Name: "dlrm"}
	job.Data = data.Source{Source: data.CTR, Train: 512, Test: 100}
	job.Tables = map[string]trainer.Table{"deep": {}}
	spec, err := job.BuildModel(data.Form{Kind: data.Keyed, Shape: []int{13}, Fields: 26, Classes: 2})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := job.TableConfigs(spec); err == nil || err.Error() != "tables.deep: model dlrm has no such table; it has embedding" {
		t.Error(err)
	}
	job.Sync.Mode = trainer.ModeAsync
	job.Tables["deep"] = trainer.Table{Admit: -1, Optimizer: trainer.Optimizer{Name: "lamb", LR: 1}}
	if err := job.Validate(); err == nil || bytes.Count([]byte(err.Error()), []byte("tables")) < 3 {
		t.Error(err)
	}
}
