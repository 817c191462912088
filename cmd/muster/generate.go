package main

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"math"
	"math/rand/v2"
	"slices"

	"github.com/spf13/cobra"

	"github.com/musterml/muster/trainer"
	"github.com/musterml/muster/trainer/data"
)

type generateOptions struct {
	evalOptions
	prompt      string
	length      int
	temperature float64
	seed        uint64
}

func generateCommand() *cobra.Command {
	var o generateOptions
	c := &cobra.Command{
		Use:   "generate MODEL.safetensors [-f JOB]",
		Short: "Have a model of text go on with a text",
		Long: `Have a model of text go on with a text, character by character, each drawn with the probability that
the model gives it. The job is job.yaml beside the model or that of -f; its text is read for the
characters that it has. The same seed gives the same text.`,
		Example: `  muster generate runs/shakespeare/model.safetensors --prompt "ROMEO:"`,
		Args:    oneArg,
		RunE:    func(c *cobra.Command, args []string) error { return generate(c, &o, args[0]) },
	}
	f := c.Flags()
	o.jobFlag(f)
	deviceFlag(f, &o.device)
	f.StringVar(&o.prompt, "prompt", "\n", "`TEXT` to go on with")
	f.IntVar(&o.length, "length", 500, "`CHARACTERS` to write")
	f.Float64Var(&o.temperature, "temperature", 0.8, "below 1 likely characters become more likely; 0: always the likeliest")
	f.Uint64Var(&o.seed, "seed", 1, "`NUMBER` that the draws hang on")
	return c
}

func generate(c *cobra.Command, o *generateOptions, model string) (err error) {
	if o.length < 0 || !(o.temperature >= 0) || math.IsInf(o.temperature, 0) {
		return fmt.Errorf("--length is %d and --temperature %v: give numbers of 0 or more", o.length, o.temperature)
	}
	job, err := o.jobOf(model)
	if err != nil {
		return err
	}
	train, _, err := data.Open(c.Context(), job.Data, nil)
	if err != nil {
		return err
	}
	written, ok := train.(data.Written)
	if !ok {
		return fmt.Errorf("the job's data.source is %s: only models of %s can write", job.Data.Source, data.Text)
	}
	text, err := tokensOf(o.prompt, written.Characters())
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
	g, err := trainer.NewGenerator(m.spec, m.device, m.weights, train)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, g.Close()) }()
	out := bufio.NewWriter(c.OutOrStdout())
	fmt.Fprint(out, o.prompt)
	rng := rand.New(rand.NewPCG(o.seed, 0))
	for range o.length {
		next, err := g.Next(text, o.temperature, rng)
		if err == nil {
			err = c.Context().Err()
		}
		if err != nil {
			return err
		}
		text = append(text, next)
		fmt.Fprint(out, string(written.Characters()[next]))
		if err := out.Flush(); err != nil { // people like to see it come
			return err
		}
	}
	_, err = io.WriteString(c.OutOrStdout(), "\n")
	return err
}

// tokensOf is a text as the model sees it.
func tokensOf(prompt string, characters []rune) (tokens []int32, err error) {
	for _, r := range prompt {
		at, known := slices.BinarySearch(characters, r)
		if !known {
			return nil, fmt.Errorf("--prompt has the character %q, which the text that the model was trained on has not", r)
		}
		tokens = append(tokens, int32(at))
	}
	if len(tokens) == 0 {
		return nil, errors.New("--prompt is empty: give at least one character to go on with")
	}
	return tokens, nil
}
