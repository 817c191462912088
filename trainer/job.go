package trainer

import (
	"bytes"
	"cmp"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"time"
	"unicode"

	"github.com/goccy/go-yaml"

	"github.com/musterml/muster/internal/id"
	"github.com/musterml/muster/ps"
	"github.com/musterml/muster/trainer/data"
	"github.com/musterml/muster/trainer/device"
	"github.com/musterml/muster/trainer/nn"
)

// Job is what a run does, the same on every node. All fields have defaults, so that
// an empty file is a job; Parse reads one, Validate names every fault at once.
type Job struct {
	Name      string      `yaml:"name"`
	Seed      uint64      `yaml:"seed"` // of the initial weights and the order of samples
	Model     Model       `yaml:"model"`
	Data      data.Source `yaml:"data"`
	Batch     Batch       `yaml:"batch"`
	Optimizer Optimizer   `yaml:"optimizer"`

	// Weights is a safetensors file whose tensors the weights begin with, instead of those of the seed.
	Weights string `yaml:"weights,omitempty"`

	Precision device.Precision `yaml:"precision"` // of the factors of products, on devices that have it

	Tables map[string]Table `yaml:"tables,omitempty"` // sparse tables of the model, by name

	Passes  int     `yaml:"passes"` // over the training data
	Sync    Sync    `yaml:"sync"`
	Cluster Cluster `yaml:"cluster"`

	Checkpoint Checkpoint `yaml:"checkpoint"`

	Out string `yaml:"out"` // folder for the outputs, relative to the working directory

	// Samples is the number of samples of a pass, as the data turned out to hold them. It is no
	// part of the file, and 0 before the data has been read; then Data.Train may be known.
	Samples int `yaml:"-"`
}

// Model is the section "model": the name of a model of package nn with its options beside it, or a list of layers; and,
// optionally, the loss.
type Model nn.Model

// Batch is the samples of one step, over all trainers.
type Batch struct {
	Size          int `yaml:"size"`
	LogicalShards int `yaml:"logical_shards"` // equal slices of the batch; the most trainers that can work
}

// Cluster says who keeps the state.
type Cluster struct {
	Servers         int    `yaml:"servers"`          // nodes that found the run
	Replicas        int    `yaml:"replicas"`         // of each parameter shard
	ParameterShards int    `yaml:"parameter_shards"` // Raft groups that keep the parameters
	Durability      string `yaml:"durability"`
	// ReplaceAfter is how long a server may be away before another takes its places, if there is one to spare; 0 for ever.
	ReplaceAfter time.Duration `yaml:"replace_after"`
}

// givenCluster is what of the section other defaults hang on.
type givenCluster struct{ Servers, Replicas *int }

// adjust changes the defaults to those of what is given: a small cluster cannot have as many replicas as others have.
func (g *givenCluster) adjust(c *Cluster) {
	if g != nil && g.Servers != nil && g.Replicas == nil {
		c.Replicas = min(c.Replicas, max(*g.Servers, 1))
	}
}

// Checkpoint says when the state is written to a folder; see package checkpoint.
type Checkpoint struct {
	Every int    `yaml:"every"` // steps between two; 0 for none but those asked for
	Keep  int    `yaml:"keep"`  // the newest ones, older are removed
	Path  string `yaml:"path"`  // a folder; "" means checkpoints in the folder for the outputs
}

// Where the servers' Raft logs are (Cluster.Durability).
const (
	DurabilityMemory = "memory" // a run survives the loss of any minority of its servers
	DurabilityDisk   = "disk"   // and of all of them at once, when they are started again
)

// DefaultJob is the built-in job: LeNet on drawn digits.
func DefaultJob() Job {
	return Job{
		Name:       "digits",
		Seed:       1,
		Model:      Model{Name: "lenet"},
		Data:       data.DefaultSource(),
		Batch:      Batch{Size: 256, LogicalShards: 8},
		Optimizer:  Optimizer{Name: "adam", LR: 0.001},
		Precision:  device.FP32,
		Passes:     3,
		Sync:       Sync{Mode: ModeRing, Sum: SumExact, Wire: WireFloat32, Stripes: 1, CommitEvery: 20},
		Cluster:    Cluster{Servers: 3, Replicas: 3, ParameterShards: 4, Durability: DurabilityMemory, ReplaceAfter: 30 * time.Second},
		Checkpoint: Checkpoint{Keep: 3},
		Out:        "runs/digits",
	}
}

// LoadJob reads a job file and validates it.
func LoadJob(path string) (Job, error) {
	b, err := os.ReadFile(path)
	if err != nil {
		return Job{}, fmt.Errorf("job file: %w", err)
	}
	j, err := ParseJob(b)
	if err != nil {
		return Job{}, fmt.Errorf("job file %s: %w", path, err)
	}
	return j, nil
}

// ParseJob reads a job over the defaults. A key it does not know is an error, with its line.
func ParseJob(b []byte) (Job, error) {
	j := DefaultJob()
	var given struct {
		Name      *string
		Data      *data.Source
		Optimizer *givenOptimizer
		Sync      *givenSync
		Cluster   *givenCluster
	}
	var document any
	if err := yaml.Unmarshal(b, &document); err == nil {
		if document == nil {
			return j, nil // nothing but comments
		}
		if faults := misfits(reflect.TypeFor[Job](), document, ""); len(faults) > 0 {
			return Job{}, errors.Join(faults...)
		}
	}
	// A first, lenient look: some defaults hang on what is given.
	if err := yaml.Unmarshal(b, &given); err == nil {
		if given.Data != nil && given.Data.Source != "" && given.Data.Source != data.Glyphs {
			j.Data, j.Name = data.Source{}, given.Data.Source
			if given.Data.Source == data.Text {
				j.Data = data.DefaultText()
			}
		}
		if given.Name != nil {
			j.Name = *given.Name
		}
		j.Out = "runs/" + j.Name
		given.Optimizer.adjust(&j.Optimizer)
		given.Sync.adjust(&j.Sync)
		given.Cluster.adjust(&j.Cluster)
	}
	dec := yaml.NewDecoder(bytes.NewReader(b), yaml.Strict())
	if err := dec.Decode(&j); err != nil && !errors.Is(err, io.EOF) {
		said := strings.Map(printable, yaml.FormatError(err, false, true))
		if unknown := new(yaml.UnknownFieldError); errors.As(err, &unknown) {
			said += "\nthe fields that there are: docs/job.md"
		}
		if bytes.ContainsRune(b, '\t') {
			said += "\nthere is a tab in it: YAML is indented by spaces"
		}
		return Job{}, errors.New(said)
	}
	return j, j.Validate()
}

// printable keeps what a terminal may be shown of a file that may be anything.
func printable(r rune) rune {
	if r == '\n' || unicode.IsPrint(r) {
		return r
	}
	return '?'
}

// Validate names everything that is wrong with the job, each with its field and the
// remedy. It reads no data.
func (j Job) Validate() error {
	var faults []error
	fault := func(ok bool, format string, args ...any) {
		if !ok {
			faults = append(faults, fmt.Errorf(format, args...))
		}
	}
	oneOf := func(field, value string, known ...string) {
		fault(slices.Contains(known, value), "%s is %q: use %s", field, value, strings.Join(known, " or "))
	}
	fault(j.Name != "", "name is empty: give the job a name")
	fault(j.Passes >= 1, "passes is %d: set it to 1 or more", j.Passes)
	fault(j.Out != "", "out is empty: name the folder for the outputs")
	if _, err := nn.Model(j.Model).Expand(); err != nil {
		faults = append(faults, err)
	}
	oneOf("precision", string(j.Precision), string(device.FP32), string(device.TF32), string(device.BF16))
	faults = append(faults, j.Data.Validate()...)
	faults = append(faults, j.batches().Validate()...)
	fault(j.Batch.LogicalShards <= maxLogicalShards, "batch.logical_shards is %d: set it to %d or less; it is the most trainers that can work", j.Batch.LogicalShards, maxLogicalShards)
	var steps id.Step // what they would be is nothing to build on while something else is wrong
	if len(faults) == 0 {
		steps = j.ownSteps()
	}
	faults = append(faults, j.Optimizer.validate(j.Sync.Mode, steps)...)
	faults = append(faults, j.validateTables(steps)...)
	faults = append(faults, j.Sync.validate()...)
	c := j.Cluster
	fault(c.Servers >= 1 && c.Servers <= maxServers, "cluster.servers is %d: set it to 1 to %d; 3 survive the loss of one", c.Servers, maxServers)
	fault(c.Replicas >= 1 && c.Replicas <= c.Servers, "cluster.replicas is %d: set it to 1 to cluster.servers (%d)", c.Replicas, c.Servers)
	fault(c.ParameterShards >= 1 && c.ParameterShards <= maxParameterShards, "cluster.parameter_shards is %d: set it to 1 to %d", c.ParameterShards, maxParameterShards)
	fault(j.Checkpoint.Every >= 0, "checkpoint.every is %d: set it to a number of steps, or 0 for none", j.Checkpoint.Every)
	fault(j.Checkpoint.Keep >= 1, "checkpoint.keep is %d: set it to 1 or more", j.Checkpoint.Keep)
	fault(c.ReplaceAfter == 0 || c.ReplaceAfter >= minReplaceAfter, "cluster.replace_after is %v: set it to %v or more, or to 0s for never", c.ReplaceAfter, minReplaceAfter)
	oneOf("cluster.durability", c.Durability, DurabilityMemory, DurabilityDisk)
	return errors.Join(append(faults, j.validateSteady())...)
}

const (
	maxServers         = 99
	maxLogicalShards   = 4096
	maxParameterShards = 1024

	minReplaceAfter = time.Second // less than it takes to see that a server is away
)

func (j Job) batches() data.Batches {
	return data.Batches{Size: j.Batch.Size, LogicalShards: j.Batch.LogicalShards}
}

// Steps is the number of steps of the whole run, in mode local of its rounds; 0 before the number of samples is known.
func (j Job) Steps() id.Step { return j.rounds(j.ownSteps()) }

// ownSteps is how many batches the run takes: its steps, in mode local those of each logical shard.
func (j Job) ownSteps() id.Step { return j.batches().Steps(j.Passes, cmp.Or(j.Samples, j.Data.Train)) }

// rounds is how many steps of the run so many batches are.
func (j Job) rounds(batches id.Step) id.Step {
	each := id.Step(j.batchesPerStep())
	return (batches + each - 1) / each
}

func (j Job) batchesPerStep() int {
	if j.Sync.Mode == ModeLocal {
		return max(1, j.Sync.Steps)
	}
	return 1
}

// SamplesPerStep is how many samples a step of the run takes, of which only the last of mode local may take fewer.
func (j Job) SamplesPerStep() int { return j.Batch.Size * j.batchesPerStep() }

// BlockSize is the number of parameters in a block: 64 KiB, small enough that a block's
// common exponent suits all its gradients, large enough that its header costs nothing.
const BlockSize = 16384

// Layout is how the parameters of a model are cut into blocks and shards.
func (j Job) Layout(params int) ps.Layout {
	l := ps.Layout{Params: params, BlockSize: BlockSize, Shards: j.Cluster.ParameterShards}
	if j.Sync.arrives() {
		l.Parts = j.Batch.LogicalShards
	}
	return l
}

// On is the device as the job wants it, and whether it has the job's precision; one that has not computes in float32, which is
// no less exact. With exact sums no bit may hang on how the work is shared out, so sums within products have one order.
func (j Job) On(d device.Device) (chosen device.Device, has bool, err error) {
	return device.Choose(d, device.Products{Precision: j.Precision, AnyOrder: j.Sync.Sum != SumExact})
}

// BuildModel makes the job's model for samples of a form.
func (j Job) BuildModel(f data.Form) (*nn.Spec, error) { return nn.Build(nn.Model(j.Model), f) }

// YAML is the effective job, with every default in place.
func (j Job) YAML() ([]byte, error) {
	b, err := yaml.Marshal(j)
	if err != nil {
		return nil, fmt.Errorf("job: %w", err)
	}
	return b, nil
}

// Digest tells jobs apart: nodes of one run must have the same. Where the outputs and
// the data files lie is a node's own affair; what the files hold is compared when a
// trainer joins.
func (j Job) Digest() ([32]byte, error) {
	j.Out, j.Checkpoint.Path = "", ""
	j.Data.Images, j.Data.Labels, j.Data.TestImages, j.Data.TestLabels = "", "", "", ""
	j.Data.Path, j.Data.TestPath = "", ""
	if j.Weights != "" {
		j.Weights = "a file"
	}
	b, err := j.YAML()
	return sha256.Sum256(b), err
}

// Checkpoints is the folder for checkpoints of a node with a folder for outputs.
func (j Job) Checkpoints(out string) string {
	if j.Checkpoint.Path != "" {
		return j.Checkpoint.Path
	}
	return filepath.Join(out, "checkpoints")
}

// StateDigest tells apart jobs whose state at one step may differ: it covers what the
// state is a function of, and neither the cluster nor how long the job goes on. A
// checkpoint may be taken up by any job with the same one.
func (j Job) StateDigest() ([32]byte, error) {
	d := DefaultJob()
	j.Name, j.Passes, j.Cluster, j.Checkpoint = d.Name, d.Passes, d.Cluster, d.Checkpoint
	j.Sync.CommitEvery, j.Sync.Stripes = d.Sync.CommitEvery, 0 // 0: as in checkpoints from before there were stripes
	if s := j.Sync; s.Mode == ModeServer || s.Mode == ModeSSP && s.Staleness == 0 {
		j.Sync.Mode = d.Sync.Mode // the same bits
	}
	return j.Digest()
}
