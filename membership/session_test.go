package membership

import (
	"context"
	"errors"
	"net"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/rs/zerolog"

	"github.com/musterml/muster/internal/id"
	"github.com/musterml/muster/internal/port"
	pb "github.com/musterml/muster/proto"
)

// fakeTrainer does on a word of the coordinator what a trainer must, and no work.
type fakeTrainer struct {
	mu      sync.Mutex
	view    View
	frozen  id.View
	step    uint64
	refused string
}

func (f *fakeTrainer) report() *pb.Report {
	f.mu.Lock()
	defer f.mu.Unlock()
	return &pb.Report{View: uint64(f.view.Number), Frozen: uint64(f.frozen), Holds: f.view.Number > 0, Step: f.step}
}

func (f *fakeTrainer) seen() View {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.view
}

func (f *fakeTrainer) handlers() Handlers {
	set := func(change func()) {
		f.mu.Lock()
		defer f.mu.Unlock()
		change()
	}
	return Handlers{
		Freeze: func(v id.View) { set(func() { f.frozen = max(f.frozen, v) }) },
		View:   func(v View) { set(func() { f.view = v; f.step = uint64(v.From) }) },
		Ack:    func(id.Step) {}, Finish: func(*pb.Finish) {}, Bye: func() {},
		Refuse: func(why string) { set(func() { f.refused = why }) },
		Report: f.report, Roster: func(*pb.Roster) {}, HandOver: func(*pb.HandOver) {},
	}
}

// train opens a session of h with whichever of the servers leads.
func (h *host) train(servers []*host) (*Session, *fakeTrainer) {
	f := &fakeTrainer{}
	s := NewSession(SessionConfig{Port: h.port, Self: h.meta, Handlers: f.handlers(), Log: zerolog.Nop(), Servers: func() []string {
		var addrs []string
		for _, s := range servers {
			addrs = append(addrs, s.port.Addr())
		}
		return addrs
	}})
	h.life.wg.Go(func() { s.Run(h.life.ctx) })
	return s, f
}

func others(hosts []*host, without *host) []*host {
	return slices.DeleteFunc(slices.Clone(hosts), func(h *host) bool { return h == without })
}

// The whole way: a view is agreed, the leader dies, sessions find the next one, the view
// changes, and the history tells everything once.
func TestSessionsOutliveTheLeader(t *testing.T) {
	t.Parallel()
	hosts := cluster(t, 3)
	first := leader(t, hosts)
	w1, w2 := newHost(t, "w1", false), newHost(t, "w2", false)
	w1.join(first)
	s1, f1 := w1.train(hosts)
	eventually(t, "a view of w1 alone", func() bool { return len(f1.seen().Members) == 1 })
	rest := others(hosts, first)
	first.kill()
	for _, h := range rest {
		h.coordinator.Gone(first.name, id.Incarnation(first.meta.Incarnation))
	}
	second := leader(t, rest)
	eventually(t, "the session with the new leader", func() bool { addr, _ := s1.Leader(); return addr == second.port.Addr() })
	w2.join(second)
	_, f2 := w2.train(hosts)
	eventually(t, "a view of two", func() bool { return len(f1.seen().Members) == 2 && len(f2.seen().Members) == 2 })
	if v := f2.seen(); v.Rank("w1", "w1-1") != 0 || !v.Members[0].Holder || v.Members[1].Holder {
		t.Errorf("the view is %+v", v)
	}
	st, err := second.coordinator.Status(t.Context(), true)
	if err != nil {
		t.Fatal(err)
	}
	count := map[string]int{}
	for _, e := range st.Events {
		count[e.Kind+" "+e.Node]++
	}
	for _, once := range []string{"founded ", "joined w1", "joined w2"} {
		if count[once] != 1 {
			t.Errorf("%q is noted %d times: %v", once, count[once], st.Events)
		}
	}
	for _, h := range others(rest, second) {
		if _, err := h.coordinator.Status(t.Context(), false); !errors.Is(err, ErrNotLeader) {
			t.Errorf("a follower's status gives %v", err)
		}
	}
}

func (h *host) openSession(t *testing.T, to *host) net.Conn {
	t.Helper()
	conn, err := h.port.Dial(t.Context(), to.port.Addr(), port.Control, sessionTopic)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	if err := pb.WriteMessage(conn, &pb.Up{M: &pb.Up_Open{Open: h.meta}}); err != nil {
		t.Fatal(err)
	}
	return conn
}

// hear reads until a message fits or the connection ends.
func hear(conn net.Conn, fits func(*pb.Down) bool) error {
	for {
		if err := conn.SetReadDeadline(time.Now().Add(10 * time.Second)); err != nil {
			return err
		}
		var down pb.Down
		if err := pb.ReadMessage(conn, &down, answerLimit); err != nil {
			return err
		}
		if fits(&down) {
			return nil
		}
	}
}

func seated(t *testing.T, lead *host, name id.Node) bool {
	st, err := lead.coordinator.Status(t.Context(), false)
	if err != nil {
		t.Fatal(err)
	}
	return slices.ContainsFunc(st.Nodes, func(n *pb.NodeStatus) bool { return n.Node == string(name) && n.Connected })
}

func TestFollowersRedirectAndLeadersHangUp(t *testing.T) {
	t.Parallel()
	hosts := cluster(t, 3)
	lead := leader(t, hosts)
	w := newHost(t, "w", false)
	follower := others(hosts, lead)[0]
	eventually(t, "the follower to know the leader", func() bool {
		var to string
		conn := w.openSession(t, follower)
		err := hear(conn, func(d *pb.Down) bool { to = d.GetRedirect().GetLeader(); return d.GetRedirect() != nil })
		return err == nil && to == lead.port.Addr()
	})

	silent := w.openSession(t, lead)
	eventually(t, "a seat", func() bool { return seated(t, lead, "w") })
	if err := hear(silent, func(*pb.Down) bool { return false }); errors.Is(err, context.DeadlineExceeded) {
		t.Error("a silent session is not closed")
	}
	eventually(t, "the seat to be taken away", func() bool { return !seated(t, lead, "w") })

	older := w.openSession(t, lead)
	eventually(t, "a seat", func() bool { return seated(t, lead, "w") })
	newer := w.openSession(t, lead)
	if err := hear(older, func(*pb.Down) bool { return false }); err == nil {
		t.Error("a session that a newer one replaced is not closed")
	}
	if err := hear(newer, func(d *pb.Down) bool { return d.GetHearing() != nil }); err != nil {
		t.Errorf("the newer session: %v", err)
	}

	for _, garbage := range [][]byte{{255, 255, 255, 255}, {3, 0, 0, 0, 1, 2, 3}, {0, 0, 0, 0}} {
		conn, err := w.port.Dial(t.Context(), lead.port.Addr(), port.Control, sessionTopic)
		if err != nil {
			t.Fatal(err)
		}
		_, _ = conn.Write(garbage)
		if err := hear(conn, func(*pb.Down) bool { return false }); err == nil {
			t.Error("garbage opens a session")
		}
		conn.Close()
	}
	if leader(t, hosts) != lead {
		t.Error("the leader did not survive")
	}
}

// A server that takes sessions and says nothing is left after a while, for another.
func TestASilentServerIsLeft(t *testing.T) {
	t.Parallel()
	w, mute := newHost(t, "w", false), newHost(t, "mute", true)
	var sessions atomic.Int32
	mute.port.Handle(port.Control, sessionTopic, func(conn net.Conn, _ port.Peer) {
		defer conn.Close()
		sessions.Add(1)
		for {
			if pb.ReadMessage(conn, &pb.Up{}, controlLimit) != nil {
				return
			}
		}
	})
	s, _ := w.train([]*host{mute})
	eventually(t, "a second attempt", func() bool { return sessions.Load() >= 2 })
	if addr, without := s.Leader(); addr != "" || without <= 0 {
		t.Errorf("a server that says nothing is the leader: %q", addr)
	}
}

// A server that comes back in a new life takes the place of the old one, and learns the state.
func TestAServerComesBackInANewLife(t *testing.T) {
	t.Parallel()
	hosts := cluster(t, 3)
	lead := leader(t, hosts)
	old := others(hosts, lead)[0]
	addr := old.port.Addr()
	old.kill()
	again := newLife(t, old.name, id.Incarnation(old.name)+"-2", true, addr)
	again.join(lead)
	again.serve(lead.coordinator.cfg.Founding)
	eventually(t, "the new life to have a vote", func() bool {
		voters, _, _ := lead.coordinator.Members()
		return len(voters) == 3 && holds(voters, again.replica())
	})
	eventually(t, "the new life to know the run", func() bool { return again.coordinator.State().Founding.GetRun() == "run" })
}

// A leader that lost the lead and has it again knows what was agreed meanwhile.
func TestLeadershipComesBack(t *testing.T) {
	t.Parallel()
	hosts := cluster(t, 3)
	first := leader(t, hosts)
	w1, w2 := newHost(t, "w1", false), newHost(t, "w2", false)
	_, f1 := w1.train(hosts)
	eventually(t, "a view", func() bool { return f1.seen().Number == 1 })
	second := others(hosts, first)[0]
	hand := func(from, to *host) {
		r := to.replica()
		eventually(t, "the lead to be handed over", func() bool {
			return from.coordinator.group.Raft().LeadershipTransferToServer(r.ServerID(), r.ServerAddress()).Error() == nil
		})
		eventually(t, "the new reign", func() bool { return leader(t, hosts) == to })
	}
	hand(first, second)
	_, f2 := w2.train(hosts)
	eventually(t, "a view of two", func() bool { return len(f2.seen().Members) == 2 && f2.seen().Number == f1.seen().Number })
	hand(second, first)
	number := f1.seen().Number
	w2.kill()
	eventually(t, "the next view", func() bool { return f1.seen().Number > number && len(f1.seen().Members) == 1 })
	if v := first.coordinator.State().View; id.View(v.GetNumber()) != f1.seen().Number {
		t.Errorf("the trainer is in %v, the group agreed on %v", f1.seen(), v)
	}
}

// A leader without a majority ends its reign, and everything can be stopped.
func TestStopLeavesNothingBehind(t *testing.T) {
	before := runtime.NumGoroutine()
	hosts := cluster(t, 3)
	lead := leader(t, hosts)
	w := newHost(t, "w", false)
	s, f := w.train(hosts)
	eventually(t, "a view", func() bool { return f.seen().Number == 1 })
	for _, h := range others(hosts, lead) {
		h.kill()
	}
	eventually(t, "the reign to end", func() bool {
		_, err := lead.coordinator.Status(t.Context(), false)
		_, without := s.Leader()
		return errors.Is(err, ErrNotLeader) && without > 0
	})
	w.kill()
	lead.kill()
	eventually(t, "all goroutines to end", func() bool { return runtime.NumGoroutine() <= before+2 })
}
