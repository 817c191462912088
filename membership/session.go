package membership

import (
	"context"
	"fmt"
	"net"
	"sync"
	"time"

	"github.com/rs/zerolog"

	"github.com/musterml/muster/internal/id"
	"github.com/musterml/muster/internal/port"
	pb "github.com/musterml/muster/proto"
)

const (
	sessionTopic   = "session"
	reportInterval = 100 * time.Millisecond
	sessionRetry   = 20 * time.Millisecond
)

// Handlers are what a node does on a word of the coordinator. They are called one at
// a time and must not block for long.
type Handlers struct {
	Freeze func(id.View)    // take no further step in any view up to this one
	View   func(View)       // the agreed membership; it may leave this node out
	Ack    func(id.Step)    // every step below this one is in the run's history
	Finish func(*pb.Finish) // the run is over
	Bye    func()           // everybody has what they need
	Roster func(*pb.Roster) // which servers keep what
	// HandOver has another replica lead a group that this node leads.
	HandOver func(*pb.HandOver)
	Refuse   func(why string)  // this node cannot take part
	Report   func() *pb.Report // what to tell; called often
}

// SessionConfig says how a node keeps its session.
type SessionConfig struct {
	Port     *port.Port
	Self     *pb.NodeMeta
	Servers  func() []string // addresses of the servers, any order
	Handlers Handlers
	Log      zerolog.Logger
}

// Session is a node's line to the coordinator's leader. Every node of a run holds
// one, finds the new leader when the old one goes, and reports on it on every change
// and every 100 ms.
type Session struct {
	cfg    SessionConfig
	notify chan struct{}

	mu     sync.Mutex
	leader string
	since  time.Time // without a leader since; zero while there is one
}

// NewSession makes a session; Run keeps it.
func NewSession(cfg SessionConfig) *Session {
	return &Session{cfg: cfg, notify: make(chan struct{}, 1), since: time.Now()}
}

// Notify has the next report sent now.
func (s *Session) Notify() {
	select {
	case s.notify <- struct{}{}:
	default:
	}
}

// Leader returns the address of the coordinator's leader, and how long there has been none.
func (s *Session) Leader() (addr string, without time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.since.IsZero() {
		return s.leader, 0
	}
	return "", time.Since(s.since)
}

func (s *Session) setLeader(addr string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.leader = addr
	switch {
	case addr != "":
		s.since = time.Time{}
	case s.since.IsZero():
		s.since = time.Now()
	}
}

// Run keeps a session with whoever leads, until ctx ends.
func (s *Session) Run(ctx context.Context) {
	hint := ""
	for ctx.Err() == nil {
		servers := s.cfg.Servers()
		if hint != "" {
			servers = append([]string{hint}, servers...)
		}
		hint = ""
		for _, addr := range servers {
			redirect, err := s.hold(ctx, addr)
			s.setLeader("")
			if ctx.Err() != nil {
				return
			}
			s.cfg.Log.Debug().Str("server", addr).Str("redirect", redirect).Err(err).Msg("no session")
			if redirect != "" && redirect != addr {
				hint = redirect
				break
			}
		}
		select {
		case <-ctx.Done():
		case <-time.After(sessionRetry):
		}
	}
}

// hold keeps one session with the server at addr until it ends; it returns the
// leader's address when that server is not the one.
func (s *Session) hold(ctx context.Context, addr string) (redirect string, err error) {
	dial, cancel := context.WithTimeout(ctx, 300*time.Millisecond)
	conn, err := s.cfg.Port.Dial(dial, addr, port.Control, sessionTopic)
	cancel()
	if err != nil {
		return "", err
	}
	stop := context.AfterFunc(ctx, func() { conn.Close() })
	defer stop()
	var writer sync.WaitGroup
	done := make(chan struct{})
	defer writer.Wait()
	defer close(done)
	defer conn.Close()

	if err := writeWithin(conn, &pb.Up{M: &pb.Up_Open{Open: s.cfg.Self}}); err != nil {
		return "", err
	}
	writer.Go(func() { s.report(conn, done) })
	for {
		var down pb.Down
		if err := conn.SetReadDeadline(time.Now().Add(leaderSilence)); err != nil {
			return "", err
		}
		if err := pb.ReadMessage(conn, &down, answerLimit); err != nil {
			return "", err
		}
		if r := down.GetRedirect(); r != nil {
			return r.Leader, nil
		}
		s.setLeader(addr)
		s.handle(&down)
	}
}

func (s *Session) handle(down *pb.Down) {
	h := &s.cfg.Handlers
	switch m := down.M.(type) {
	case *pb.Down_Freeze:
		h.Freeze(id.View(m.Freeze.View))
	case *pb.Down_View:
		h.View(viewFromProto(m.View))
	case *pb.Down_Ack:
		h.Ack(id.Step(m.Ack.Metrics))
	case *pb.Down_Finish:
		h.Finish(m.Finish)
	case *pb.Down_Bye:
		h.Bye()
	case *pb.Down_Refusal:
		h.Refuse(m.Refusal.Why)
	case *pb.Down_Roster:
		h.Roster(m.Roster)
	case *pb.Down_HandOver:
		h.HandOver(m.HandOver)
	case *pb.Down_Hearing:
		return // a sign of life asks for no answer
	}
	s.Notify()
}

// report sends reports until done, or until the connection takes no more.
func (s *Session) report(conn net.Conn, done <-chan struct{}) {
	tick := time.NewTicker(reportInterval)
	defer tick.Stop()
	for {
		if err := writeWithin(conn, &pb.Up{M: &pb.Up_Report{Report: s.cfg.Handlers.Report()}}); err != nil {
			conn.Close() // ends the reader, too
			return
		}
		select {
		case <-done:
			return
		case <-s.notify:
		case <-tick.C:
		}
	}
}

// writeWithin writes a control message, but does not wait for ever on a peer that
// has stopped reading.
func writeWithin(conn net.Conn, m *pb.Up) error {
	if err := conn.SetWriteDeadline(time.Now().Add(serverSilence)); err != nil {
		return fmt.Errorf("session: %w", err)
	}
	return pb.WriteMessage(conn, m)
}

// leaderSilence is how long a node stays with a leader that says nothing. It greets every
// 100 ms; to ask the servers anew costs little, to stay with a frozen one a stopped run.
const leaderSilence = 800 * time.Millisecond

// serverSilence is how long a session lives without a word from the other side; the
// leader greets every 100 ms.
const serverSilence = 1500 * time.Millisecond
