package trainer

import (
	"context"
	"fmt"

	"github.com/musterml/muster/internal/id"
	"github.com/musterml/muster/internal/safetensors"
	"github.com/musterml/muster/ps/table"
	"github.com/musterml/muster/trainer/nn"
)

// A model's sparse tables lie in a safetensors file beside its weights: of table T the keys, ascending, as T.keys (uint64)
// and their rows, in the same order, as T.rows (keys x values). Keys that have no row are not in it: they
// read as zeros where the job's table has admit above 1, else as their initial values.

// WriteTables writes the rows of a store to a file, as a whole or not at all. The same rows give the same bytes.
func WriteTables(path string, spec *nn.Spec, all *table.Store) error {
	var tensors []safetensors.Tensor
	for i, t := range spec.Tables() {
		keys, rows := []uint64{}, []float32{}
		all.Each(i, func(key uint64, values []float32) {
			keys, rows = append(keys, key), append(rows, values...)
		})
		tensors = append(tensors,
			safetensors.Tensor{Name: t.Name + ".keys", Shape: []int{len(keys)}, Keys: keys},
			safetensors.Tensor{Name: t.Name + ".rows", Shape: []int{len(keys), t.Width}, Data: rows})
	}
	return safetensors.WriteFile(path, tensors, metadata(spec))
}

// Tables are a model's sparse tables, read from a file.
type Tables struct {
	configs []table.Config
	rows    []map[uint64][]float32
}

// ReadTables reads the tables of a job's model.
func ReadTables(path string, job Job, spec *nn.Spec) (*Tables, error) {
	configs, err := job.TableConfigs(spec)
	if err != nil {
		return nil, err
	}
	f, err := safetensors.ReadFile(path)
	if err != nil {
		return nil, err
	}
	t := &Tables{configs: configs}
	for _, c := range configs {
		keys, ok1 := f.Tensor(c.Name + ".keys")
		rows, ok2 := f.Tensor(c.Name + ".rows")
		if !ok1 || !ok2 || len(rows.Data) != len(keys.Keys)*c.Dim {
			return nil, fmt.Errorf("%s has no table %s with rows of %d values, which model %s needs; give the job it was trained with", path, c.Name, c.Dim, spec.Name())
		}
		all := make(map[uint64][]float32, len(keys.Keys))
		for i, k := range keys.Keys {
			all[k] = rows.Data[i*c.Dim : (i+1)*c.Dim]
		}
		t.rows = append(t.rows, all)
	}
	return t, nil
}

// PullRows implements rowSource; there is one state.
func (t *Tables) PullRows(_ context.Context, _, _ id.Step, tables []table.Rows) error {
	for i := range tables {
		c := &t.configs[i]
		for j, k := range tables[i].Keys {
			to := tables[i].Values[j*c.Dim : (j+1)*c.Dim]
			if row, ok := t.rows[i][k]; ok {
				copy(to, row)
			} else {
				c.Unseen(i, k, to)
			}
		}
	}
	return nil
}
