package main

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"time"

	"github.com/rs/zerolog"
	"github.com/spf13/pflag"
	"golang.org/x/term"

	"github.com/musterml/muster/internal/port"
	"github.com/musterml/muster/trainer"
)

// common holds the flags that several verbs share.
type common struct {
	job      string
	cluster  string
	keyFile  string
	logLevel string
	json     bool
}

func (c *common) jobFlag(f *pflag.FlagSet) {
	f.StringVarP(&c.job, "file", "f", "", "job `FILE` (YAML); without one, the built-in job")
}

func (c *common) clusterFlags(f *pflag.FlagSet) {
	f.StringVar(&c.cluster, "cluster", "muster", "`NAME` of the cluster; nodes of another are refused")
	f.StringVar(&c.keyFile, "key-file", "", "`FILE` with the cluster's secret, the same on every node; turns encryption on")
}

func (c *common) outputFlags(f *pflag.FlagSet) {
	f.BoolVar(&c.json, "json", false, "for machines: one JSON object a line")
	f.StringVar(&c.logLevel, "log-level", "warn", "least `LEVEL` of messages: debug, info, warn or error")
}

func (c *common) loadJob() (trainer.Job, error) {
	if c.job == "" {
		return trainer.DefaultJob(), nil
	}
	return trainer.LoadJob(c.job)
}

// key reads the secret from its file, so that it never stands in an argument.
func (c *common) key() ([]byte, error) {
	if c.keyFile == "" {
		return nil, nil
	}
	b, err := os.ReadFile(c.keyFile)
	if err != nil {
		return nil, fmt.Errorf("--key-file: %w", err)
	}
	b = bytes.TrimSpace(b)
	if len(b) < port.MinKey {
		return nil, fmt.Errorf("--key-file %s holds %d bytes; a secret needs at least %d, for example: head -c 32 /dev/urandom | base64 > %s",
			c.keyFile, len(b), port.MinKey, c.keyFile)
	}
	return b, nil
}

// logger writes for people on a terminal and JSON elsewhere.
func (c *common) logger(out io.Writer) (zerolog.Logger, error) {
	level, err := zerolog.ParseLevel(c.logLevel)
	if err != nil || c.logLevel == "" {
		return zerolog.Logger{}, fmt.Errorf("--log-level is %q: use debug, info, warn or error", c.logLevel)
	}
	if !c.json {
		out = zerolog.ConsoleWriter{Out: out, NoColor: !isTerminal(out), TimeFormat: "15:04:05.000"}
	}
	zerolog.TimeFieldFormat = time.RFC3339Nano
	return zerolog.New(out).Level(level).With().Timestamp().Logger(), nil
}

func isTerminal(w io.Writer) bool {
	f, ok := w.(*os.File)
	return ok && term.IsTerminal(int(f.Fd()))
}
