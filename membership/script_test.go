package membership

import (
	"bufio"
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/musterml/muster/internal/id"
	pb "github.com/musterml/muster/proto"
)

// A transcript is a script for the director and what it does: a line that begins with
// "> " is a command, the indented lines after it are the actions that it causes, and all
// else is prose. go test ./membership -run Transcripts -update writes the actions anew.
//
//	director shards=N [fast] [trainers=N]  a new run; trainers: how many gossip knows
//	leader                       another server leads: a new director, the committed state
//	open LIFE [server|both] [data=D] [arithmetic=A]  a session; a life is a name and a digit
//	report LIFE [view=N] [frozen=N] [step=N] [holds] [broken] [suspects=NODE:WHY [by=NODE]]
//	            [metrics=A..B [parts=SHARD,SHARD] [more]]
//	            [done=DIGEST] [failed=WHY] [retired=WHY] [saved] [leads=GROUP/TERM]
//	close LIFE | close session=N the session ends (the newest of that life, or that one)
//	gone LIFE                    the process is known to be gone
//	commit [N]                   the first N of the proposals are agreed, or all
//	restored N                   the servers hold the state of step N
//	trainers N                   gossip knows so many trainers from now on
//	pause DURATION               time passes, and the director is not called
//	wait DURATION                time passes, with a tick every 20 ms
type script struct {
	t        *testing.T
	d        *director
	now      time.Time
	began    time.Time
	trainers int
	shards   int
	exact    bool
	sessions uint64
	newest   map[string]uint64 // by life
	nodes    map[id.Node]uint64
	pending  []*pb.Entry
	out      *bytes.Buffer
}

func runTranscript(t *testing.T, path string, update bool) {
	src, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	s := &script{t: t, out: &bytes.Buffer{}}
	lines := bufio.NewScanner(bytes.NewReader(src))
	for lines.Scan() {
		line := lines.Text()
		if strings.HasPrefix(line, "  ") {
			continue // what was expected
		}
		fmt.Fprintln(s.out, line)
		if cmd, ok := strings.CutPrefix(line, "> "); ok {
			s.command(strings.Fields(cmd))
		}
	}
	if update {
		if err := os.WriteFile(path, s.out.Bytes(), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	if got := s.out.Bytes(); !bytes.Equal(got, src) {
		t.Errorf("%s (rewrite it with -update, and look at what changes):\n%s", filepath.Base(path), firstDifference(string(src), string(got)))
	}
}

func firstDifference(want, got string) string {
	w, g := strings.Split(want, "\n"), strings.Split(got, "\n")
	for i := range g {
		if i >= len(w) || w[i] != g[i] {
			return fmt.Sprintf("line %d:\nwant %s\ngot  %s", i+1, strings.Join(w[min(i, len(w)):min(i+4, len(w))], "\n     "),
				strings.Join(g[i:min(i+4, len(g))], "\n     "))
		}
	}
	return "the transcript ends early"
}

// args are the words of a command after its first, "key=value" or "flag".
type args map[string]string

func parseArgs(words []string) args {
	a := args{}
	for _, w := range words {
		k, v, _ := strings.Cut(w, "=")
		a[k] = v
	}
	return a
}

func (a args) has(k string) bool { _, ok := a[k]; return ok }

func (s *script) number(text string) uint64 {
	n, err := strconv.ParseUint(text, 10, 64)
	if err != nil {
		s.t.Fatal(err)
	}
	return n
}

func (s *script) count(a args, k string) uint64 {
	if !a.has(k) {
		return 0
	}
	return s.number(a[k])
}

// node is the name in a life: "a" of "a2".
func node(life string) id.Node { return id.Node(strings.TrimRight(life, "0123456789")) }

func (s *script) command(words []string) {
	a := parseArgs(words[1:])
	switch words[0] {
	case "director":
		s.began = time.Unix(1e9, 0)
		s.now, s.newest, s.nodes, s.pending, s.sessions = s.began, map[string]uint64{}, map[id.Node]uint64{}, nil, 0
		s.shards, s.exact, s.trainers = int(s.count(a, "shards")), !a.has("fast"), int(s.count(a, "trainers"))
		s.d = newDirector(s.now, &pb.RunState{}, s.shards, s.exact, ServerQuota{}, defaultTiming())
	case "leader":
		s.pending = nil
		s.d = newDirector(s.now, s.d.state, s.shards, s.exact, ServerQuota{}, defaultTiming())
	case "trainers":
		s.trainers = int(s.number(words[1]))
	case "open":
		s.sessions++
		life := words[1]
		s.newest[life], s.nodes[node(life)] = s.sessions, s.sessions
		meta := &pb.NodeMeta{
			Incarnation: life, Addr: life + ":1", Server: a.has("server") || a.has("both"), Trainer: !a.has("server"),
			Arithmetic: a["arithmetic"], Data: []byte(a["data"]),
		}
		s.step(evOpened{node(life), s.sessions, meta})
	case "report":
		s.step(evReport{node(words[1]), s.newest[words[1]], s.report(a)})
	case "close":
		if a.has("session") {
			s.step(evClosed{node(words[1]), s.count(a, "session"), "the connection broke"})
			return
		}
		s.step(evClosed{node(words[1]), s.newest[words[1]], "the connection broke"})
	case "gone":
		s.step(evGone{node(words[1]), id.Incarnation(words[1]), "its process has ended"})
	case "commit":
		n := len(s.pending)
		if len(words) > 1 {
			n = int(s.number(words[1]))
		}
		for range n {
			s.commit()
		}
	case "restored":
		s.step(evRestored{id.Step(s.number(words[1]))})
	case "wait", "pause":
		d, err := time.ParseDuration(words[1])
		if err != nil {
			s.t.Fatal(err)
		}
		s.pass(d, words[0] == "wait")
	default:
		s.t.Fatalf("no command %q", words[0])
	}
}

func (s *script) commit() {
	if len(s.pending) == 0 {
		s.t.Fatal("nothing is proposed")
	}
	e := s.pending[0]
	s.pending = s.pending[1:]
	if err := apply(s.d.state, e); err != nil {
		s.t.Fatal(err)
	}
	s.step(evApplied{e})
}

func (s *script) pass(d time.Duration, ticks bool) {
	const tick = 20 * time.Millisecond
	end := s.now.Add(d)
	for ticks && s.now.Before(end) {
		s.now = s.now.Add(min(tick, end.Sub(s.now)))
		s.step(evTick{trainers: s.trainers})
	}
	s.now = end
}

func (s *script) report(a args) *pb.Report {
	r := &pb.Report{
		View: s.count(a, "view"), Frozen: s.count(a, "frozen"), Step: s.count(a, "step"), Holds: a.has("holds"),
		Broken: a.has("broken"), More: a.has("more"), Done: a.has("done"), Digest: a["done"], Failed: a["failed"], Retired: a["retired"], Saved: a.has("saved"),
	}
	if name, why, ok := strings.Cut(a["suspects"], ":"); ok {
		r.Suspects = []*pb.Suspicion{{Node: name, Why: why, By: a["by"]}}
	}
	if lo, hi, ok := strings.Cut(a["metrics"], ".."); ok {
		for m := s.number(lo); m <= s.number(hi); m++ {
			r.Metrics = append(r.Metrics, &pb.StepMetrics{Step: m, Parts: s.parts(a)})
		}
	}
	if group, term, ok := strings.Cut(a["leads"], "/"); ok {
		r.Leads = []*pb.Lead{{Group: group, Term: s.number(term)}}
	}
	return r
}

// parts are those of a step that a report has, where trainers are at different ones.
func (s *script) parts(a args) (all []*pb.PartMetrics) {
	if a.has("parts") {
		for _, l := range strings.Split(a["parts"], ",") {
			all = append(all, &pb.PartMetrics{Shard: uint32(s.number(l))})
		}
	}
	return all
}

// step gives the director an event and writes its actions down.
func (s *script) step(event any) {
	for _, action := range s.d.step(s.now, event) {
		at := ""
		if _, tick := event.(evTick); tick {
			at = fmt.Sprintf("%v: ", s.now.Sub(s.began))
		}
		for _, line := range s.describe(action) {
			fmt.Fprintf(s.out, "  %s%s\n", at, line)
		}
	}
}

func (s *script) describe(action any) []string {
	to := func(name id.Node, session uint64) string {
		if s.nodes[name] != session {
			return fmt.Sprintf("%s (session %d)", name, session)
		}
		return string(name)
	}
	switch a := action.(type) {
	case doSend:
		return []string{fmt.Sprintf("to %s: %s", to(a.to, a.session), describeDown(a.down))}
	case doHangUp:
		return []string{"hang up on " + to(a.to, a.session)}
	case doPropose:
		s.pending = append(s.pending, a.entry)
		return describeEntry(a.entry)
	case doRestore:
		return []string{"ask the servers for the newest step"}
	case doLeave:
		return []string{"leave"}
	}
	s.t.Fatalf("an action of type %T", action)
	return nil
}

func describeDown(d *pb.Down) string {
	switch m := d.M.(type) {
	case *pb.Down_View:
		return fmt.Sprintf("view %d", m.View.Number)
	case *pb.Down_Freeze:
		return fmt.Sprintf("freeze view %d", m.Freeze.View)
	case *pb.Down_Ack:
		return fmt.Sprintf("recorded below %d", m.Ack.Metrics)
	case *pb.Down_Finish:
		return "finish"
	case *pb.Down_Bye:
		return "bye"
	case *pb.Down_Refusal:
		return "refused: " + m.Refusal.Why
	}
	return fmt.Sprint(d)
}

func describeEntry(e *pb.Entry) []string {
	var lines []string
	if e.View != nil {
		v := viewFromProto(e.View)
		line := fmt.Sprintf("propose view %d from %d:", v.Number, v.From)
		for _, m := range v.Members {
			holder := ""
			if m.Holder {
				holder = " holds"
			}
			line += fmt.Sprintf(" %s%s %v", m.Incarnation, holder, slices.Collect(numbers(m.Shards)))
		}
		lines = append(lines, line)
	}
	if n := len(e.Metrics); n > 0 {
		unknown := ""
		if e.Metrics[0].Unknown {
			unknown = ", figures unknown"
		}
		lines = append(lines, fmt.Sprintf("propose steps %d to %d%s", e.Metrics[0].Step, e.Metrics[n-1].Step, unknown))
	}
	if f := e.Finish; f != nil {
		lines = append(lines, fmt.Sprintf("propose the end at step %d: weights %q, failed %q", f.Step, f.Digest, f.Failed))
	}
	for _, v := range e.Events {
		lines = append(lines, fmt.Sprintf("note %s: %s", v.Kind, v.Text))
	}
	return lines
}
