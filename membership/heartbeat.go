package membership

import (
	"bufio"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/musterml/muster/internal/id"
)

// Between servers a lifeline has a heartbeat: an empty line now and then, which the other end answers with
// a line that names the servers that it does not hear itself. So every server knows who hears whom, and can tell a
// silent leader that is to be replaced from a connection of its own that fails: for the first a majority of the
// leader's group says the same (raftgroup.LeaderSilent).
//
// Raft has heartbeats, too, but waits longer, at random, and then again for its pre-vote, because its messages are
// answered by the replica's one goroutine among other things. These are answered by a goroutine that waits for
// nothing else, so that a short silence means something also on busy machines.

const (
	beatEvery = 25 * time.Millisecond
	// silence is after how many more beats an answer is missed: 300 ms, of which a process that gets its turn of a processor
	// late needs a part (173 ms, at most, of 57,600 answers while two cores had seven processes at work); the rest of half
	// a second is for the election. It is counted in beats, so that a pause of this process or of the whole machine,
	// in which an answer cannot be seen, is one.
	silence = 12
)

// beat asks a server for a sign of life until the connection ends.
func (l *Lifelines) beat(conn io.ReadWriter, to id.Node) {
	done, answers := make(chan struct{}), make(chan string)
	defer close(done)
	defer l.hears(to, nil)
	go func() { // ends with the connection, which the caller closes
		defer close(answers)
		for lines := bufio.NewScanner(conn); lines.Scan(); {
			select {
			case answers <- lines.Text():
			case <-done:
				return
			}
		}
	}()
	tick := time.NewTicker(beatEvery)
	defer tick.Stop()
	asked, missed := false, 0
	for {
		select {
		case <-tick.C:
			if asked {
				if missed++; missed == silence {
					l.hearsNot(to)
				}
				continue
			}
			if _, err := io.WriteString(conn, "\n"); err != nil {
				return
			}
			asked, missed = true, 0
		case line, open := <-answers:
			if !open {
				return
			}
			l.hears(to, strings.Fields(line))
			asked = false
		}
	}
}

// answer answers the heartbeat of another server until the connection ends.
func (l *Lifelines) answer(conn io.ReadWriter) {
	for lines := bufio.NewScanner(conn); lines.Scan(); {
		l.mu.Lock()
		var names []string
		for _, node := range l.deaf[l.self] {
			names = append(names, string(node))
		}
		l.mu.Unlock()
		if _, err := io.WriteString(conn, strings.Join(names, " ")+"\n"); err != nil {
			return
		}
	}
}

// hears notes that a server is heard, and whom it says that it does not hear.
func (l *Lifelines) hears(from id.Node, names []string) {
	l.mu.Lock()
	l.deaf[l.self] = slices.DeleteFunc(l.deaf[l.self], func(n id.Node) bool { return n == from })
	delete(l.deaf, from)
	for _, name := range names {
		l.deaf[from] = append(l.deaf[from], id.Node(name))
	}
	l.mu.Unlock()
	if len(names) > 0 {
		l.onSilent(l.isDeaf)
	}
}

// hearsNot notes that a server is silent. What it said last of others counts no more.
func (l *Lifelines) hearsNot(of id.Node) {
	l.mu.Lock()
	delete(l.deaf, of)
	if !slices.Contains(l.deaf[l.self], of) {
		l.deaf[l.self] = append(l.deaf[l.self], of)
	}
	l.mu.Unlock()
	l.onSilent(l.isDeaf)
}

// isDeaf says that one server does not hear another, by its own newest word.
func (l *Lifelines) isDeaf(who, to id.Node) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return slices.Contains(l.deaf[who], to)
}
