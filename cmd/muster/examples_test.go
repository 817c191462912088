package main

import (
	"path/filepath"
	"reflect"
	"testing"

	"github.com/musterml/muster/trainer"
)

func TestExamplesAreJobs(t *testing.T) {
	files, err := filepath.Glob("../../examples/*.yaml")
	if err != nil || len(files) == 0 {
		t.Fatalf("no examples: %v", err)
	}
	for _, f := range files {
		job, err := trainer.LoadJob(f)
		if err != nil {
			t.Error(err)
		}
		if filepath.Base(f) == "digits.yaml" && !reflect.DeepEqual(job, trainer.DefaultJob()) {
			t.Errorf("%s says that it is the built-in job, but is %+v", f, job)
		}
	}
}
