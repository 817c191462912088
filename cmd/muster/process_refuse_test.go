package main

import (
	"net"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/musterml/muster/internal/port"
	pb "github.com/musterml/muster/proto"
)

// newcomer is a node that must not get in.
type newcomer struct {
	what   string
	spec   func(c *cluster) nodeSpec
	says   []string // all in the sentence that it ends with
	logged string   // in the log of a node of the cluster; "" where that cannot know
}

const (
	aKey       = "a key for tests: 0123456789abcdef\n"
	anotherKey = "another key for tests: 0123456789\n"
)

var otherJob = func(c *cluster) string {
	j := killJob
	j.passes++
	return c.writeFile("other-job.yaml", j.String())
}

var newcomers = []newcomer{
	{"another job", func(c *cluster) nodeSpec { return nodeSpec{job: otherJob(c)} },
		[]string{"runs job", "use the same job file on every node"}, "use the same job file on every node"},
	{"another cluster name", func(*cluster) nodeSpec { return nodeSpec{cluster: "elsewhere"} },
		[]string{`"elsewhere"`, `"test"`, "use the same cluster name on every node"}, "use the same cluster name on every node"},
	{"another key", func(c *cluster) nodeSpec { return nodeSpec{key: c.writeFile("other-key", anotherKey)} },
		[]string{"its key differs", "use the same --key-file on every node"}, "its key differs; use the same --key-file on every node"},
	{"a key where the cluster has none, or none where it has one", func(c *cluster) nodeSpec {
		if c.key == "" {
			return nodeSpec{key: c.writeFile("a-key", aKey)}
		}
		return nodeSpec{key: "none"}
	}, []string{"key", "use the same --key-file on every node"}, "use the same --key-file on every node"},
	{"a name that is taken", func(*cluster) nodeSpec { return nodeSpec{name: "b"} },
		[]string{`the name "b" is taken`, "--name"}, `"b" is taken`},
	{"a data folder in use", func(c *cluster) nodeSpec { return nodeSpec{dataDir: c.nodes[0].spec.dataDir} },
		[]string{"is in use by another node", "--data-dir"}, ""},
	{"a taken port", func(c *cluster) nodeSpec { return nodeSpec{addr: c.nodes[0].addr} },
		[]string{"is taken", "choose another port"}, ""},
	{"an output folder that is a file", func(c *cluster) nodeSpec { return nodeSpec{out: c.writeFile("file", "") + "/out"} },
		[]string{"output folder", "--out"}, ""},
	{"a data folder that is a file", func(c *cluster) nodeSpec { return nodeSpec{dataDir: c.writeFile("file2", "") + "/data"} },
		[]string{"data folder", "--data-dir"}, ""},
}

// TestRefused starts nodes that do not belong to a running cluster. Each must end with
// one clear sentence, the cluster must say the same in its log and go on unharmed.
func TestRefused(t *testing.T) {
	if testing.Short() {
		t.Skip("starts processes")
	}
	for _, secured := range []bool{false, true} {
		t.Run(map[bool]string{false: "without a key", true: "with a key"}[secured], func(t *testing.T) {
			c := newCluster(t, killJob.ring().String())
			if secured {
				c.key = c.writeFile("key", aKey)
			}
			a := c.start(nodeSpec{name: "a"})
			c.start(nodeSpec{name: "b"})
			c.start(nodeSpec{name: "c"})
			c.until("some steps", func() bool { return a.lastStep() >= 5 })
			var came []*process
			for _, n := range newcomers {
				if secured || n.what != "another key" {
					came = append(came, c.startStranger(n))
				}
			}
			if !secured {
				c.refuseVersion(a)
			}
			for i, p := range came {
				n := newcomers[slices.IndexFunc(newcomers, func(n newcomer) bool { return n.what == p.spec.stranger })]
				c.checkRefused(n, came[i])
			}
			if a.ended() {
				t.Error("the run was over before all were refused")
			}
			c.finish()
			c.checkOutputs(killJob.ring())
		})
	}
}

func (j jobText) ring() jobText {
	j.mode = "ring"
	return j
}

func (c *cluster) startStranger(n newcomer) *process {
	s := n.spec(c)
	s.stranger = n.what
	folder := strings.ReplaceAll("stranger "+n.what, " ", "-")
	if s.name == "" {
		s.name = folder[:min(len(folder), 40)]
	}
	if s.out == "" {
		s.out = c.dir + "/" + folder + "-out"
	}
	if s.dataDir == "" {
		s.dataDir = c.dir + "/" + folder + "-data"
	}
	return c.start(s)
}

func (c *cluster) checkRefused(n newcomer, p *process) {
	c.t.Helper()
	if err := p.wait(c.t, 30*time.Second); err == nil {
		c.t.Errorf("%s: it ended well", n.what)
	}
	said := p.complaint()
	c.t.Logf("%s: %s", n.what, said)
	for _, s := range n.says {
		if !strings.Contains(said, s) {
			c.t.Errorf("%s: it does not say %q but %q", n.what, s, said)
		}
	}
	if strings.Contains(said, "\n") {
		c.t.Errorf("%s: it says more than a sentence: %q", n.what, said)
	}
	if n.logged != "" && !c.within(5*time.Second, func() bool { return c.logged(n.logged) }) {
		c.t.Errorf("%s: no node of the cluster logs %q", n.what, n.logged)
	}
}

// logged says whether a node of the cluster has a sentence in its log.
func (c *cluster) logged(sentence string) bool {
	quoted := strings.ReplaceAll(sentence, `"`, `\"`) // as in a JSON line
	return slices.ContainsFunc(c.nodes, func(p *process) bool {
		return p.spec.stranger == "" && strings.Contains(p.text(), quoted)
	})
}

// refuseVersion greets a node as another version of muster would.
func (c *cluster) refuseVersion(p *process) {
	t := c.t
	t.Helper()
	conn, err := net.Dial("tcp", p.addr)
	if err != nil {
		t.Error(err)
		return
	}
	defer conn.Close()
	hello := &pb.Hello{WireVersion: 99, Version: "v9.9", Cluster: "test", Node: "from-the-future", Addr: "127.0.0.1:1", Topic: "session"}
	frame, err := pb.AppendMessage([]byte{byte(port.Control)}, hello)
	if err != nil {
		t.Error(err)
		return
	}
	_ = conn.SetDeadline(time.Now().Add(10 * time.Second))
	if _, err := conn.Write(frame); err != nil {
		t.Error(err)
		return
	}
	var first [1]byte
	var welcome pb.Welcome
	if _, err := conn.Read(first[:]); err != nil {
		t.Error(err)
		return
	}
	if err := pb.ReadMessage(conn, &welcome, 1<<16); err != nil {
		t.Error(err)
		return
	}
	t.Logf("another version: %s", welcome.Reason)
	const remedy = "install the same muster on every node"
	if welcome.Refusal != pb.Welcome_MISMATCH || !strings.Contains(welcome.Reason, remedy) {
		t.Errorf("another version is answered %v: %s", welcome.Refusal, welcome.Reason)
	}
	if !c.within(5*time.Second, func() bool { return strings.Contains(p.text(), remedy) }) {
		t.Errorf("%s does not log %q", p.name, remedy)
	}
}
