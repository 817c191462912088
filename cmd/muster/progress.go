package main

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"sync"
	"time"

	"golang.org/x/term"

	"github.com/musterml/muster/internal/id"
	"github.com/musterml/muster/membership"
	pb "github.com/musterml/muster/proto"
	"github.com/musterml/muster/trainer"
	"github.com/musterml/muster/trainer/data"
)

// progress shows a run as it goes: one line that renews itself on a terminal, a line
// every few seconds elsewhere, a JSON object for every step with --json.
type progress struct {
	out      io.Writer
	terminal bool
	json     bool
	steps    uint64
	batch    int
	every    time.Duration // between lines when not on a terminal

	mu       sync.Mutex
	next     uint64    // the first step not yet shown; several trainers of a process tell of the same ones
	stepped  time.Time // when the last step was done; at first, when the process began
	recent   []mark    // the steps of the last seconds, at least two if there were two
	shown    time.Time
	accuracy float64 // of recent batches, smoothed
	loss     float64
	score    string // what accuracies are called
	test     string
	viewed   id.View // the newest view told
}

// mark is a moment at which a number of steps was done.
type mark struct {
	at   time.Time
	done uint64
}

// window is how far back the rate looks.
const window = 5 * time.Second

func newProgress(out io.Writer, json bool, job trainer.Job) *progress {
	return &progress{
		out: out, terminal: isTerminal(out) && !json, json: json,
		stepped: time.Now(), batch: job.SamplesPerStep(), every: 2 * time.Second,
	}
}

// of is told how many steps the run has.
func (p *progress) of(steps id.Step) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.steps = uint64(steps)
}

// reading shows how far the reading of the data is.
func (p *progress) reading(r data.Progress) {
	far := fmt.Sprintf("%d MB", r.Read/1e6)
	if r.Size > 0 {
		far = fmt.Sprintf("%d %% of %d MB", 100*r.Read/r.Size, r.Size/1e6)
	}
	p.say("reading", map[string]any{"path": r.Path, "read": r.Read, "size": r.Size}, "reading %s: %s", r.Path, far)
}

// step shows a step that is done.
func (p *progress) step(m *pb.StepMetrics) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if m.Step < p.next {
		return
	}
	now := time.Now()
	if p.recent == nil {
		p.loss, p.accuracy = m.Loss, m.Accuracy
	}
	p.next, p.stepped, p.score = m.Step+1, now, scoreName(m.Regression)
	if m.Step < p.steps {
		p.recent = append(p.recent, mark{now, p.next})
		for len(p.recent) > 2 && now.Sub(p.recent[0].at) > window {
			p.recent = p.recent[1:]
		}
	}
	if m.Evaluated {
		p.test = fmt.Sprintf("  held-out %.2f %%%s", 100*m.TestAccuracy, aucText(m.TestAuc))
	}
	if m.Step < p.steps {
		p.loss += 0.2 * (m.Loss - p.loss)
		p.accuracy += 0.2 * (m.Accuracy - p.accuracy)
	}
	if p.json {
		p.object(m)
		return
	}
	due := p.every
	if p.terminal {
		due = 100 * time.Millisecond
	}
	if now.Sub(p.shown) >= due || m.Evaluated {
		p.shown = now
		p.line()
	}
}

// rate is the samples per second of late and the time that is left at that rate; 0
// before it can be told.
func (p *progress) rate() (perSecond float64, left time.Duration) {
	if len(p.recent) < 2 {
		return 0, 0
	}
	first, last := p.recent[0], p.recent[len(p.recent)-1]
	perStep := last.at.Sub(first.at) / time.Duration(last.done-first.done)
	return float64(p.batch) / max(perStep, 1).Seconds(), perStep * time.Duration(p.steps-last.done)
}

func (p *progress) line() {
	text := fmt.Sprintf("step %d/%d  loss %.4f  %s %.2f %%", min(p.next, p.steps), p.steps, p.loss, p.score, 100*p.accuracy)
	if r, left := p.rate(); r > 0 {
		text += fmt.Sprintf("  %.0f samples/s  %v left", r, left.Round(time.Second))
	}
	text += p.test
	if p.terminal {
		fmt.Fprintf(p.out, "\r\x1b[K%s", p.fit(text))
		return
	}
	fmt.Fprintln(p.out, text)
}

// fit cuts a line to the terminal's width: one that wraps cannot renew itself.
func (p *progress) fit(text string) string {
	f, ok := p.out.(*os.File)
	if !ok {
		return text
	}
	width, _, err := term.GetSize(int(f.Fd()))
	if err != nil || len(text) < width {
		return text
	}
	return text[:max(width-1, 0)]
}

// scoreName is what the share is called that tells how well a model does.
func scoreName(regression bool) string {
	if regression {
		return "R²"
	}
	return "accuracy"
}

// scoreKey is the same in JSON.
func scoreKey(regression bool) string {
	if regression {
		return "r_squared"
	}
	return "accuracy"
}

// aucText is the area under the ROC curve, where there is one.
func aucText(auc float64) string {
	if auc == 0 {
		return ""
	}
	return fmt.Sprintf(", AUC %.4f", auc)
}

func (p *progress) object(m *pb.StepMetrics) {
	o := map[string]any{"step": m.Step, "steps": p.steps}
	if m.Step < p.steps {
		o["loss"], o[scoreKey(m.Regression)] = m.Loss, m.Accuracy
	}
	if m.Evaluated {
		o["test_loss"], o["test_"+scoreKey(m.Regression)] = m.TestLoss, m.TestAccuracy
		if m.TestAuc > 0 {
			o["test_auc"] = m.TestAuc
		}
	}
	if r, left := p.rate(); r > 0 {
		o["samples_per_second"], o["seconds_left"] = r, left.Seconds()
	}
	p.emit("step", o)
}

// emit writes one object a line, its event first, as people who read it look for that.
func (p *progress) emit(event string, fields map[string]any) {
	b, err := json.Marshal(fields)
	if err == nil {
		fmt.Fprintf(p.out, "{\"event\":%q,%s\n", event, b[1:])
	}
}

// quiet is how long no step has been done.
func (p *progress) quiet() time.Duration {
	p.mu.Lock()
	defer p.mu.Unlock()
	return time.Since(p.stepped)
}

// say shows a line of its own.
func (p *progress) say(event string, fields map[string]any, format string, args ...any) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.json {
		p.emit(event, fields)
		return
	}
	if p.terminal {
		fmt.Fprint(p.out, "\r\x1b[K")
	}
	fmt.Fprintf(p.out, format+"\n", args...)
}

// view tells of a change of membership.
func (p *progress) view(v membership.View) {
	p.mu.Lock()
	known := v.Number <= p.viewed // a new leader of the coordinator tells it again
	p.viewed = max(p.viewed, v.Number)
	p.mu.Unlock()
	if known {
		return
	}
	var names []string
	for _, m := range v.Members {
		names = append(names, string(m.Node))
	}
	p.say("view", map[string]any{"view": v.Number, "from": v.From, "trainers": names, "reason": v.Reason},
		"view %d from step %d: trainers %v (%s)", uint64(v.Number), uint64(v.From), names, v.Reason)
}

// end closes the line that renews itself.
func (p *progress) end() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.terminal && p.recent != nil {
		fmt.Fprintln(p.out)
	}
}
