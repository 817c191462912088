package main

import (
	"bufio"
	"encoding/csv"
	"errors"
	"io"
	"math"
	"slices"
	"strconv"

	"github.com/spf13/cobra"

	"github.com/musterml/muster/trainer"
	"github.com/musterml/muster/trainer/data"
	"github.com/musterml/muster/trainer/nn"
)

func predictCommand() *cobra.Command {
	var o evalOptions
	var path string
	c := &cobra.Command{
		Use:   "predict MODEL.safetensors --data FILE [-f JOB]",
		Short: "Say what a model makes of rows whose answers are not known",
		Long: `Say what a model makes of rows whose answers are not known: for each row of FILE a line of CSV,
in the same order, with the class and its probability, or the number. FILE is what the job's data are:
CSV (without the label, columns in any order), LIBSVM (the label counts for nothing) or IDX pictures,
plain, gzip or bzip2. The job, job.yaml beside the model or that of -f, says what its columns mean; its
training data are read for how they were standardised.`,
		Example: `  muster predict runs/wine/model.safetensors --data new.csv > answers.csv`,
		Args:    oneArg,
		RunE:    func(c *cobra.Command, args []string) error { return predict(c, &o, args[0], path) },
	}
	f := c.Flags()
	o.jobFlag(f)
	deviceFlag(f, &o.device)
	f.StringVar(&path, "data", "", "`FILE` of rows, or a pattern such as part-*")
	return c
}

func predict(c *cobra.Command, o *evalOptions, model, path string) error {
	if path == "" {
		return errors.New("--data is missing: give the path of a file of rows")
	}
	job, err := o.jobOf(model)
	if err != nil {
		return err
	}
	train, rows, err := data.OpenRows(c.Context(), job.Data, path, nil)
	if err != nil {
		return err
	}
	if err := sameData(model, train); err != nil {
		return err
	}
	m, err := o.read(model, job, train.Form())
	if err != nil {
		return err
	}
	scores, err := trainer.Predict(c.Context(), job, m.spec, m.device, m.weights, m.tables, train, rows)
	if err != nil {
		return err
	}
	return writeAnswers(c.OutOrStdout(), m.spec, rows, scores)
}

// writeAnswers writes a line for each row.
func writeAnswers(to io.Writer, spec *nn.Spec, rows data.Answered, scores []float32) error {
	buffer := bufio.NewWriter(to)
	w := csv.NewWriter(buffer)
	line := []string{"prediction", "probability"}
	if spec.Classes() == 0 {
		line = line[:1]
	}
	_ = w.Write(line) // an error comes again with Flush
	for of := range slices.Chunk(scores, spec.Scored()) {
		if spec.Classes() == 0 {
			line[0] = strconv.FormatFloat(rows.Number(of[0]), 'g', 7, 64)
		} else {
			k, p := likeliest(of)
			line[0], line[1] = rows.Class(k), strconv.FormatFloat(p, 'f', 4, 64)
		}
		_ = w.Write(line)
	}
	w.Flush()
	return errors.Join(w.Error(), buffer.Flush())
}

// likeliest is the class that a model finds most likely, and how likely: by a softmax over its scores, or the sigmoid of a single one, which is
// that of the second of two classes.
func likeliest(scores []float32) (class int, p float64) {
	if len(scores) == 1 {
		if p = 1 / (1 + math.Exp(-float64(scores[0]))); p >= 0.5 {
			return 1, p
		}
		return 0, 1 - p
	}
	top, sum := slices.Max(scores), 0.0
	for _, s := range scores {
		sum += math.Exp(float64(s) - float64(top))
	}
	return slices.Index(scores, top), 1 / sum
}
