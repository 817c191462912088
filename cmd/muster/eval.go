package main

import (
	"fmt"
	"math"
	"os"
	"path/filepath"
	"strings"

	"github.com/rs/zerolog"
	"github.com/spf13/cobra"

	"github.com/musterml/muster/internal/node"
	"github.com/musterml/muster/trainer"
	"github.com/musterml/muster/trainer/data"
	"github.com/musterml/muster/trainer/device"
	"github.com/musterml/muster/trainer/nn"
)

type evalOptions struct {
	common
	device string
}

func evalCommand() *cobra.Command {
	var o evalOptions
	c := &cobra.Command{
		Use:   "eval MODEL.safetensors [-f JOB]",
		Short: "Measure a model on a job's held-out data",
		Long: `Measure a model on a job's held-out data. Without -f the job is the job.yaml beside
the model. To measure it on other data, give a job that names them.`,
		Args: oneArg,
		RunE: func(c *cobra.Command, args []string) error { return eval(c, &o, args[0]) },
	}
	f := c.Flags()
	o.jobFlag(f)
	deviceFlag(f, &o.device)
	f.BoolVar(&o.json, "json", false, "for machines: one JSON object")
	return c
}

// jobOf is the job of a model: the one that -f names, or else the one beside it.
func (o *evalOptions) jobOf(model string) (trainer.Job, error) {
	if _, err := os.Stat(model); err != nil {
		return trainer.Job{}, fmt.Errorf("model: %w; give the path of a %s", err, node.ModelFile)
	}
	if o.job == "" {
		o.job = filepath.Join(filepath.Dir(model), node.JobFile)
		if _, err := os.Stat(o.job); err != nil {
			return trainer.Job{}, fmt.Errorf("there is no %s beside %s: name its job with -f", node.JobFile, model)
		}
	}
	return o.loadJob()
}

// sameData compares what a model was trained on, as its outputs tell, with what its job has now: by other data rows would be read otherwise.
func sameData(model string, train data.Dataset) error {
	b, err := os.ReadFile(filepath.Join(filepath.Dir(model), node.DataFile))
	if err != nil {
		return nil // a model by itself
	}
	if strings.TrimSpace(string(b)) != train.Digest().String() {
		return fmt.Errorf("the job's training data are not those that %s was trained on, which say how samples are read: give the same files, in a job that names them with -f where they lie elsewhere", model)
	}
	return nil
}

// trained is a model that was read.
type trained struct {
	spec    *nn.Spec
	weights []float32
	tables  *trainer.Tables // nil where it has none
	device  device.Device
}

// read reads a model for data of a form.
func (o *evalOptions) read(model string, job trainer.Job, form data.Form) (m trained, err error) {
	if m.spec, err = job.BuildModel(form); err != nil {
		return m, err
	}
	if m.weights, err = trainer.ReadModel(model, m.spec); err != nil {
		return m, err
	}
	if len(m.spec.Tables()) > 0 {
		if m.tables, err = trainer.ReadTables(filepath.Join(filepath.Dir(model), node.TablesFile), job, m.spec); err != nil {
			return m, err
		}
	}
	m.device, err = openDevice(o.device, zerolog.Nop())
	return m, err
}

func eval(c *cobra.Command, o *evalOptions, model string) error {
	beside := o.job == ""
	job, err := o.jobOf(model)
	if err != nil {
		return err
	}
	train, test, err := data.Open(c.Context(), job.Data, nil)
	if err != nil {
		return err
	}
	if beside {
		if err := sameData(model, train); err != nil {
			return err
		}
	}
	m, err := o.read(model, job, train.Form())
	if err != nil {
		return err
	}
	spec := m.spec
	r, err := trainer.Evaluate(c.Context(), job, spec, m.device, m.weights, m.tables, train, test)
	if err != nil {
		return err
	}
	loss, accuracy := trainer.Means(spec, r.Result, test.Len())
	fields := map[string]any{"model": model, "samples": test.Len(), "test_" + scoreKey(spec.Classes() == 0): accuracy, "test_loss": loss}
	labels, what := test.Len()*spec.Targets(), "samples"
	if spec.Kind() == data.Tokens {
		what = "characters"
	}
	p := newProgress(c.OutOrStdout(), o.json, job)
	if f := test.Form(); f.Regression() {
		fields["rmse"] = f.Unit * math.Sqrt(loss)
		p.say("evaluated", fields, "%s: R² %.2f %% on %d held-out samples, root mean square error %.6g, loss %.4f", model, 100*accuracy, labels, fields["rmse"], loss)
		return nil
	}
	text := aucText(r.AUC)
	if r.AUC > 0 {
		fields["test_auc"] = r.AUC
		if j, ok := test.(data.Judged); ok {
			fields["best_auc"] = j.BestAUC()
			text += fmt.Sprintf(" (the truth has %.4f)", fields["best_auc"])
		}
	}
	p.say("evaluated", fields, "%s: %d of %d held-out %s right, accuracy %.2f %%, loss %.4f%s", model, r.Correct, labels, what, 100*accuracy, loss, text)
	return nil
}
