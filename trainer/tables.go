package trainer

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/musterml/muster/internal/id"
	"github.com/musterml/muster/internal/optim"
	"github.com/musterml/muster/ps/table"
	"github.com/musterml/muster/trainer/data"
	"github.com/musterml/muster/trainer/nn"
)

// Table is an entry of the section "tables": how a sparse table of the model learns, and which of its rows are kept; see
// package ps/table. A table that is not named has the defaults: adagrad with a rate of 0.05, and every row is kept.
type Table struct {
	Optimizer Optimizer `yaml:"optimizer,omitempty"`
	Admit     int       `yaml:"admit,omitempty"`    // steps that must see a key before it has a row; 0 is 1
	Expire    int       `yaml:"expire,omitempty"`   // steps without a key after which it is forgotten; 0: never
	MaxRows   int       `yaml:"max_rows,omitempty"` // keys kept, those seen longest ago go first; 0: all
}

// defaultTable is what a table is that the job says nothing of.
func defaultTable() Optimizer { return Optimizer{Name: "adagrad", LR: 0.05} }

// validateTables names everything that is wrong with the section; which tables there are is known with the model.
func (j Job) validateTables(steps id.Step) (faults []error) {
	fault := func(ok bool, format string, args ...any) {
		if !ok {
			faults = append(faults, fmt.Errorf(format, args...))
		}
	}
	if j.Data.Kind() == data.Keyed {
		fault(j.Sync.Mode == ModeRing || j.Sync.Mode == ModeServer, "sync.mode is %s, but data.source %s needs sparse tables, which take part in whole steps: use %s or %s", j.Sync.Mode, j.Data.Source, ModeRing, ModeServer)
	}
	for _, name := range slices.Sorted(maps.Keys(j.Tables)) {
		t := j.Tables[name]
		fault(j.Data.Kind() == data.Keyed, "tables.%s has no meaning with data.source %s, whose samples have no keys: remove it", name, j.Data.Source)
		fault(t.Admit >= 0, "tables.%s.admit is %d: set it to the number of steps that must see a key before it has a row", name, t.Admit)
		fault(t.Expire >= 0, "tables.%s.expire is %d: set it to a number of steps, or 0 for never", name, t.Expire)
		fault(t.MaxRows >= 0, "tables.%s.max_rows is %d: set it to a number of rows, or 0 for no limit", name, t.MaxRows)
		if t.Optimizer == (Optimizer{}) {
			continue
		}
		fault(t.Optimizer.ClipNorm == 0, "tables.%s.optimizer.clip_norm has no meaning: gradients of rows are not clipped; remove it", name)
		for _, err := range t.Optimizer.validate(ModeServer, steps) {
			faults = append(faults, fmt.Errorf("tables.%s.%w", name, err))
		}
	}
	return faults
}

// TableConfigs are the sparse tables of the job's model, in the model's order, as servers and clients take them; none where
// it has none.
func (j Job) TableConfigs(spec *nn.Spec) ([]table.Config, error) {
	var configs []table.Config
	var names []string
	for _, t := range spec.Tables() {
		names = append(names, t.Name)
		given := j.Tables[t.Name]
		if given.Optimizer == (Optimizer{}) {
			given.Optimizer = defaultTable()
		}
		opt, err := optim.New(given.Optimizer.config(j.Steps()))
		if err != nil {
			return nil, fmt.Errorf("tables.%s: %w", t.Name, err)
		}
		configs = append(configs, table.Config{
			Name: t.Name, Dim: t.Width, Optimizer: opt, Seed: j.Seed, Scale: float32(t.Scale),
			Admit: given.Admit, Expire: id.Step(given.Expire), MaxRows: given.MaxRows,
		})
	}
	for name := range j.Tables {
		if !slices.Contains(names, name) {
			return nil, fmt.Errorf("tables.%s: model %s has no such table; it has %s", name, spec.Name(), strings.Join(names, ", "))
		}
	}
	return configs, nil
}
