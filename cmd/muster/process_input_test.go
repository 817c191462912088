package main

import (
	"encoding/binary"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/musterml/muster/internal/node"
)

// TestBadInput gives the program what it cannot use. It must say in words what is wrong
// and what to do, and end with a status that is not 0.
func TestBadInput(t *testing.T) {
	if testing.Short() {
		t.Skip("starts processes")
	}
	dir := t.TempDir()
	write := func(name string, b []byte) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, b, 0o644); err != nil {
			t.Fatal(err)
		}
		return path
	}
	images := binary.BigEndian.AppendUint32(binary.BigEndian.AppendUint32(binary.BigEndian.AppendUint32(
		binary.BigEndian.AppendUint32(nil, 0x803), 100), 28), 28)
	labels := append(binary.BigEndian.AppendUint32(binary.BigEndian.AppendUint32(nil, 0x801), 100), make([]byte, 100)...)
	truncated := write("truncated-images", append(images, make([]byte, 50*28*28)...))
	whole := write("labels", labels)
	idx := func(images, labels string) string {
		return "data: {source: idx, train: 80, test: 20, images: " + images + ", labels: " + labels + "}\nbatch: {size: 8}\n"
	}
	for _, c := range []struct {
		what string
		job  []byte
		args []string
		says []string
	}{
		{"truncated images", []byte(idx(truncated, whole)), nil, []string{"data.images", truncated, "truncated", "fetch the file again"}},
		{"images that are not there", []byte(idx(filepath.Join(dir, "none"), whole)), nil, []string{"data.images", "none", "no such file"}},
		{"labels for images", []byte(idx(whole, whole)), nil, []string{"data.images", "labels", "swapped"}},
		{"a job with several faults", []byte("passes: 0\nbatch: {size: 0}\nsync: {mode: ping}\ncluster: {servers: 0, durability: paper}\noptimizer: {name: magic}\n"), nil,
			[]string{"passes is 0", "batch.size", `sync.mode is "ping"`, "cluster.servers is 0", `cluster.durability is "paper"`, "optimizer"}},
		{"a job with an unknown key", []byte("pases: 3\n"), nil, []string{"pases", "unknown"}},
		{"a job that is no YAML", []byte("passes: [3\n"), nil, []string{"job file"}},
		{"a job of random bytes", []byte("\x00\xff\x17\x80\x00\x01"), nil, []string{"job file"}},
		{"no such job", nil, []string{"train", "-f", filepath.Join(dir, "no-job.yaml")}, []string{"job file", "no such file"}},
		{"a job without its flag", nil, []string{"train", "job.yaml"}, []string{"muster train -f job.yaml"}},
		{"a flag that is none", nil, []string{"train", "--passes", "1"}, []string{"--passes", "muster train --help"}},
		{"a flag of another kind", nil, []string{"train", "--nodes", "many"}, []string{`--nodes is "many"`, "whole number"}},
		{"too much", nil, []string{"status", "now"}, []string{"now", "muster status --help"}},
		{"too little", nil, []string{"eval"}, []string{"MODEL.safetensors"}},
		{"a verb that is none, under another", nil, []string{"bench", "rings"}, []string{`"rings"`}},
		{"an output folder that is a file", []byte("passes: 1\n"), []string{"train", "--out", whole + "/out", "-f"}, []string{"output folder", "--out"}},
		{"no such key", nil, []string{"node", "--key-file", filepath.Join(dir, "no-key")}, []string{"--key-file", "no such file"}},
		{"a key that is too short", nil, []string{"node", "--key-file", write("short", []byte("short\n"))}, []string{"at least 16"}},
		{"a role that is none", nil, []string{"node", "--roles", "boss"}, []string{"boss", "server,trainer"}},
		{"an address that is none", nil, []string{"node", "--listen", "nowhere", "--name", "x", "--data-dir", dir + "/x", "--out", dir + "/o"}, []string{"listen", "host:port"}},
		{"a port that is none", nil, []string{"node", "--listen", "127.0.0.1:74000", "--name", "x", "--data-dir", dir + "/x", "--out", dir + "/o"}, []string{"listen", "65535"}},
		{"an address of another host", nil, []string{"node", "--listen", "192.0.2.1:7400", "--name", "x", "--data-dir", dir + "/x", "--out", dir + "/o"}, []string{"not an address of this host"}},
		{"a name with a slash", nil, []string{"node", "--name", "a/b", "--data-dir", dir + "/x", "--out", dir + "/o", "--listen", "127.0.0.1:0"}, []string{"may not contain '/'"}},
	} {
		t.Run(c.what, func(t *testing.T) {
			args := c.args
			if c.job != nil {
				job := write("job.yaml", c.job)
				if args == nil {
					args = []string{"train", "--out", filepath.Join(dir, "out"), "-f"}
				}
				args = append(args, job)
			}
			_, said, err := runMuster(t, nil, args...)
			if err == nil {
				t.Error("it ended well")
			}
			t.Log(strings.TrimSpace(said))
			for _, s := range c.says {
				if !strings.Contains(said, s) {
					t.Errorf("it does not say %q", s)
				}
			}
			if strings.Contains(said, "goroutine ") {
				t.Error("it panicked")
			}
		})
	}
}

// TestFullDisk gives one node folders on a disk that is full. It must say so, and the
// others must not suffer.
func TestFullDisk(t *testing.T) {
	if testing.Short() {
		t.Skip("starts processes")
	}
	for _, full := range []struct {
		what string
		node nodeSpec
		says []string
	}{
		{"for the outputs of a trainer", nodeSpec{roles: trainerOnly, out: "full"}, []string{"no space left", "choose another folder"}},
		{"for the data of a server", nodeSpec{roles: serverOnly, dataDir: "full"}, []string{"no space left", "--data-dir"}},
	} {
		t.Run(full.what, func(t *testing.T) {
			job := jobText{mode: "ring", train: 1024, passes: 4, servers: 3, replicas: 3, paramShards: 2, commitEvery: 5}
			c := newCluster(t, job.String())
			disk := c.tmpfs("size=64k")
			s := full.node
			s.name, s.stranger = "d", full.what
			for _, path := range []*string{&s.out, &s.dataDir} {
				if *path == "full" {
					*path = disk
				}
			}
			if s.dataDir == disk {
				s.name = "b" // one of the three that found the run
				fill(t, disk)
			}
			for _, name := range []string{"a", "b", "c"} {
				if name != s.name {
					c.start(nodeSpec{name: name})
				}
			}
			d := c.start(s)
			if s.roles == serverOnly {
				_ = d.wait(t, patience)
				c.start(nodeSpec{name: "e"}) // the run needs a third server
			}
			c.finish()
			c.checkOutputs(job)
			if d.err == nil {
				t.Error("the node with the full disk ended well")
			}
			t.Log(d.complaint())
			for _, word := range full.says {
				if !strings.Contains(d.complaint(), word) {
					t.Errorf("it does not say %q but %q", word, d.complaint())
				}
			}
			if _, err := os.Stat(filepath.Join(disk, node.ModelFile)); err == nil {
				t.Error("there is a model on the full disk")
			}
		})
	}
}

// tmpfs mounts a small disk, where this is allowed.
func (c *cluster) tmpfs(options string) (path string) {
	c.t.Helper()
	path = filepath.Join(c.dir, "disk")
	if err := os.Mkdir(path, 0o755); err != nil {
		c.t.Fatal(err)
	}
	if err := syscall.Mount("tmpfs", path, "tmpfs", 0, options); err != nil {
		c.t.Skipf("a small disk cannot be mounted here (%v): run this test as root", err)
	}
	c.t.Cleanup(func() {
		if err := syscall.Unmount(path, syscall.MNT_DETACH); err != nil {
			c.t.Errorf("unmounting %s: %v", path, err)
		}
	})
	return path
}

// fill leaves no byte free.
func fill(t *testing.T, disk string) {
	t.Helper()
	f, err := os.Create(filepath.Join(disk, "ballast"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for err == nil {
		_, err = f.Write(make([]byte, 512))
	}
}
