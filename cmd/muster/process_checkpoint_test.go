package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/musterml/muster/internal/checkpoint"
)

// TestCheckpointElsewhere kills a whole cluster that keeps its state in memory and goes on
// from its newest checkpoint on another: other numbers of servers, shards, replicas and
// trainers, and the other mode. The newest one is damaged, so it is the one before.
func TestCheckpointElsewhere(t *testing.T) {
	if testing.Short() {
		t.Skip("starts processes")
	}
	for _, c := range []struct {
		from, to string
		tables   bool
	}{{"ring", "server", false}, {"server", "ring", false}, {"server", "ring", true}} {
		t.Run(fmt.Sprintf("%s to %s%s", c.from, c.to, map[bool]string{true: " with tables"}[c.tables]), func(t *testing.T) {
			from, to := c.from, c.to
			job := jobText{tables: c.tables, mode: from, train: 1024, passes: 6, servers: 3, replicas: 3, paramShards: 4, commitEvery: 7}
			c := newCluster(t, "")
			folder := filepath.Join(c.dir, "checkpoints")
			job.checkpoints = fmt.Sprintf("checkpoint: {every: 10, keep: 3, path: %s}\n", folder)
			c.job = c.writeFile("first.yaml", job.String())
			a := c.start(nodeSpec{name: "a"})
			c.start(nodeSpec{name: "b"})
			c.start(nodeSpec{name: "c", roles: serverOnly})
			c.until("four checkpoints", func() bool {
				all, _ := checkpoint.List(folder)
				return len(all) > 0 && all[0].Err == nil && all[0].Step >= 40
			})
			c.killAll()
			all, err := checkpoint.List(folder)
			if err != nil || len(all) < 2 || len(all) > 4 {
				t.Fatalf("%d checkpoints: %v", len(all), err)
			}
			flipBit(t, filepath.Join(all[0].Path, all[0].Files[0].Name), -100)
			t.Logf("killed after step %d; the checkpoint of %v is damaged, that of %v is not", a.lastStep(), all[0].Step, all[1].Step)

			second := job
			second.mode, second.servers, second.replicas, second.paramShards, second.commitEvery = to, 1, 1, 2, 4
			c.job = c.writeFile("second.yaml", second.String())
			d := c.start(nodeSpec{name: "d", resume: true, join: []string{}})
			for _, name := range []string{"e", "f"} {
				c.start(nodeSpec{name: name, roles: trainerOnly, join: []string{d.addr}, resume: true})
			}
			c.finish()
			c.checkOutputs(job)
			if got := firstStep([]*process{d}); got < int(all[1].Step) {
				t.Errorf("it went on at step %d, the checkpoint is of %v", got, all[1].Step)
			}
			if !strings.Contains(d.text(), "SHA-256") {
				t.Error("it does not say that the newest checkpoint is damaged")
			}
		})
	}
}

// flipBit damages a file at an offset; a negative one counts from its end.
func flipBit(t *testing.T, path string, offset int64) {
	t.Helper()
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if offset < 0 {
		info, err := f.Stat()
		if err != nil {
			t.Fatal(err)
		}
		offset += info.Size()
	}
	var b [1]byte
	if _, err := f.ReadAt(b[:], offset); err != nil {
		t.Fatal(err)
	}
	b[0] ^= 0x10
	if _, err := f.WriteAt(b[:], offset); err != nil {
		t.Fatal(err)
	}
}

// TestCheckpointVerbs asks a running cluster for a checkpoint and looks at it.
func TestCheckpointVerbs(t *testing.T) {
	if testing.Short() {
		t.Skip("starts processes")
	}
	for _, mode := range []string{"ring", "server"} {
		t.Run(mode, func(t *testing.T) {
			job := jobText{mode: mode, train: 1024, passes: 12, servers: 3, replicas: 3, paramShards: 3, commitEvery: 5}
			c := newCluster(t, "")
			folder := filepath.Join(c.dir, "checkpoints")
			job.checkpoints = fmt.Sprintf("checkpoint: {path: %s}\n", folder)
			c.job = c.writeFile("job.yaml", job.String())
			a := c.start(nodeSpec{name: "a"})
			c.start(nodeSpec{name: "b"})
			c.start(nodeSpec{name: "c"})
			d := c.start(nodeSpec{name: "d", roles: trainerOnly})
			c.until("some steps", func() bool { return a.lastStep() >= 10 && d.lastStep() >= 10 })
			out, said, err := runMuster(t, nil, "checkpoint", "save", "--addr", d.addr)
			if err != nil {
				t.Fatalf("save: %v: %s", err, said)
			}
			t.Log(strings.TrimSpace(out))
			all, err := checkpoint.List(folder)
			if err != nil || len(all) != 1 || all[0].Err != nil {
				t.Fatalf("%v, %v", all, err)
			}
			if out, said, err = runMuster(t, nil, "checkpoint", "list", "--path", folder); err != nil || !strings.Contains(out, "small") {
				t.Errorf("list: %v: %s%s", err, out, said)
			}
			if out, said, err = runMuster(t, nil, "checkpoint", "show", all[0].Path); err != nil || !strings.Contains(out, `"slots": 2`) {
				t.Errorf("show: %v: %s%s", err, out, said)
			}
			other := job
			other.train += 64
			otherJob := c.writeFile("other.yaml", other.String())
			for _, args := range [][]string{
				{"checkpoint", "restore", all[0].Path, "-f", otherJob},
				{"train", "--resume", "-f", otherJob, "--out", filepath.Join(c.dir, "train")},
			} {
				_, said, err = runMuster(t, nil, args...)
				if err == nil || !strings.Contains(said, "is of another job") || strings.Count(said, "\n") != 1 {
					t.Errorf("%v with another job: %v: %s", args, err, said)
				}
			}
			elsewhere := filepath.Join(c.dir, "elsewhere")
			if out, said, err = runMuster(t, nil, "checkpoint", "restore", all[0].Path, "-f", c.job, "--path", elsewhere); err != nil {
				t.Errorf("restore: %v: %s%s", err, out, said)
			}
			if err := os.Remove(filepath.Join(all[0].Path, checkpoint.ManifestFile)); err != nil {
				t.Fatal(err)
			}
			_, said, err = runMuster(t, nil, "checkpoint", "show", all[0].Path)
			if err == nil || !strings.Contains(said, "never finished") {
				t.Errorf("without a manifest: %v: %s", err, said)
			}
			c.finish()
			c.checkOutputs(job)
		})
	}
}
