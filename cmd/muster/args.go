package main

import (
	"errors"
	"fmt"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

// noArgs refuses what a verb does not take.
func noArgs(c *cobra.Command, args []string) error {
	if len(args) == 0 {
		return nil
	}
	return fmt.Errorf("%s: %s takes nothing but flags; %s --help lists them", args[0], c.CommandPath(), c.CommandPath())
}

// jobByFlag is noArgs for verbs that take a job file, which many would give so.
func jobByFlag(c *cobra.Command, args []string) error {
	if len(args) == 0 {
		return nil
	}
	return fmt.Errorf("%s: a job file is given with -f: %s -f %s", args[0], c.CommandPath(), args[0])
}

// oneArg is for verbs whose usage names one thing.
func oneArg(c *cobra.Command, args []string) error {
	if len(args) == 1 {
		return nil
	}
	return fmt.Errorf("%d arguments given, one is needed: %s", len(args), c.UseLine())
}

// listVerbs is what a verb does that only has others under it; without it cobra would take an unknown one for a wish for help.
func listVerbs(c *cobra.Command, _ []string) error { return c.Help() }

// badFlag says where the flags are listed, and of a value what is expected.
func badFlag(c *cobra.Command, err error) error {
	var bad *pflag.InvalidValueError
	if errors.As(err, &bad) {
		kind := map[string]string{"int": "a whole number", "uint64": "a whole number from 0 up", "float64": "a number", "bool": "true or false", "duration": "a time such as 30s"}
		if is, ok := kind[bad.GetFlag().Value.Type()]; ok {
			return fmt.Errorf("--%s is %q: give it %s", bad.GetFlag().Name, bad.GetValue(), is)
		}
	}
	return fmt.Errorf("%w; %s --help lists the flags", err, c.CommandPath())
}
