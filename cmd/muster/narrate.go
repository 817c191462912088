package main

import (
	"context"
	"time"

	"github.com/musterml/muster/internal/why"
)

const (
	quietFor  = 3 * time.Second  // without a step before a person is told why
	retellTop = 30 * time.Second // the longest pause between two explanations
)

// narrate tells why nothing happens, whenever nothing does: a node never waits without
// a word. It asks its own node, as "muster why" would.
func (o *nodeOptions) narrate(ctx context.Context, addr string, p *progress) {
	ask := asker{common: o.common, addr: addr}
	pause := quietFor
	for {
		select {
		case <-ctx.Done():
			return
		case <-time.After(pause):
		}
		if p.quiet() < quietFor {
			pause = quietFor
			continue
		}
		st, err := ask.ask(ctx)
		if err != nil {
			continue
		}
		a := why.Explain(st)
		if !a.Late {
			continue
		}
		text := a.Summary
		if a.Remedy != "" {
			text += "; to do: " + a.Remedy
		}
		p.say("waiting", map[string]any{"why": a.Summary, "remedy": a.Remedy, "node": a.Node}, "%s", text)
		pause = min(2*pause, retellTop)
	}
}
