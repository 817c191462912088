package membership

import (
	"bufio"
	"net"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/musterml/muster/internal/id"
)

// ears are lifelines of server a, without a network, and what they tell.
type ears struct {
	*Lifelines
	mu   sync.Mutex
	told []string
}

func newEars() *ears {
	e := &ears{}
	e.Lifelines = &Lifelines{self: "a", server: true, deaf: map[id.Node][]id.Node{}, onSilent: func(deaf func(who, to id.Node) bool) {
		var words []string
		for _, who := range []id.Node{"a", "b", "c"} {
			for _, to := range []id.Node{"a", "b", "c"} {
				if deaf(who, to) {
					words = append(words, string(who)+"/"+string(to))
				}
			}
		}
		e.mu.Lock()
		defer e.mu.Unlock()
		if text := strings.Join(words, " "); len(e.told) == 0 || e.told[len(e.told)-1] != text {
			e.told = append(e.told, text)
		}
	}}
	return e
}

func (e *ears) expect(t *testing.T, want ...string) {
	t.Helper()
	e.mu.Lock()
	defer e.mu.Unlock()
	if !slices.Equal(e.told, want) {
		t.Errorf("told of %q, want %q", e.told, want)
	}
}

// A server that answers late is heard, one that stops is told of in time, and one whose connection breaks is no
// matter of silence; what others hear is passed on while they are heard themselves.
func TestHeartbeat(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := newEars()
		near, far := net.Pipe()
		var wg sync.WaitGroup
		wg.Go(func() { e.beat(near, "b") })
		lines := bufio.NewReader(far)
		answer := func(after time.Duration, names string) {
			t.Helper()
			if _, err := lines.ReadString('\n'); err != nil {
				t.Fatal(err)
			}
			<-time.After(after)
			if _, err := far.Write([]byte(names + "\n")); err != nil {
				t.Fatal(err)
			}
			synctest.Wait()
		}
		for range 20 {
			answer(silence*beatEvery-time.Millisecond, "")
		}
		e.expect(t)
		answer(0, "c")
		e.expect(t, "b/c")
		if e.isDeaf("a", "b") {
			t.Error("b is heard")
		}

		began := time.Now()
		if _, err := lines.ReadString('\n'); err != nil {
			t.Fatal(err)
		}
		<-time.After(400 * time.Millisecond)
		synctest.Wait()
		e.expect(t, "b/c", "a/b") // what b said counts no more
		if _, err := far.Write([]byte("c\n")); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		e.expect(t, "b/c", "a/b", "b/c")
		if e.isDeaf("a", "b") || !e.isDeaf("b", "c") {
			t.Errorf("b is back after %v", time.Since(began))
		}
		far.Close()
		wg.Wait()
		if e.isDeaf("b", "c") {
			t.Error("the last word of a server counts that is gone")
		}
	})
}

// The other end says whom it does not hear.
func TestHeartbeatAnswer(t *testing.T) {
	e := newEars()
	near, far := net.Pipe()
	var wg sync.WaitGroup
	wg.Go(func() { e.answer(far) })
	lines := bufio.NewScanner(near)
	for _, want := range []string{"", "b", "b c", "c"} {
		switch want {
		case "b":
			e.hearsNot("b")
			e.hearsNot("b")
		case "b c":
			e.hearsNot("c")
		case "c":
			e.hears("b", nil)
		}
		if _, err := near.Write([]byte("\n")); err != nil {
			t.Fatal(err)
		}
		if !lines.Scan() || lines.Text() != want {
			t.Errorf("answered %q, want %q", lines.Text(), want)
		}
	}
	near.Close()
	wg.Wait()
}
