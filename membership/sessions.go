package membership

import (
	"context"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"github.com/musterml/muster/internal/id"
	"github.com/musterml/muster/internal/port"
	"github.com/musterml/muster/internal/raftgroup"
	pb "github.com/musterml/muster/proto"
)

// serverSession is the coordinator's end of a node's session.
type serverSession struct {
	number uint64
	conn   net.Conn
	out    chan *pb.Down
}

// sessionOpened carries a new session into the director's loop.
type sessionOpened struct {
	evOpened
	session *serverSession
}

// send queues a message; nil ends the session once what is queued is written. A node that does
// not read has its session closed.
func (s *serverSession) send(m *pb.Down) {
	select {
	case s.out <- m:
	default:
		s.conn.Close()
	}
}

// sessionNumbers tells sessions of this process apart.
type sessionNumbers struct{ last atomic.Uint64 }

// serveSession holds the session of one node for as long as this server leads.
func (c *Coordinator) serveSession(conn net.Conn, from port.Peer) {
	defer conn.Close()
	c.mu.Lock()
	r := c.reign
	c.mu.Unlock()
	if r == nil {
		leader, _ := c.group.Leader()
		if leader.Node == c.cfg.Self.Node {
			leader.Addr = "" // elected, but not ready yet
		}
		_ = writeDown(conn, &pb.Down{M: &pb.Down_Redirect{Redirect: &pb.Redirect{Leader: leader.Addr}}})
		return
	}
	stop := context.AfterFunc(r.ctx, func() { conn.Close() })
	defer stop()
	var up pb.Up
	if err := serve(conn, &up); err != nil || up.GetOpen() == nil {
		return
	}
	s := &serverSession{number: c.numbers.last.Add(1), conn: conn, out: make(chan *pb.Down, 256)}
	done := make(chan struct{})
	var writer sync.WaitGroup
	writer.Go(func() { s.write(done) })
	defer writer.Wait()
	defer close(done)
	name := from.Node
	if !r.post(sessionOpened{evOpened{name, s.number, up.GetOpen()}, s}) {
		return
	}
	err := s.read(r, name)
	r.post(evClosed{name, s.number, "its session ended: " + err.Error()})
}

// read passes the node's reports on until the session ends.
func (s *serverSession) read(r *reign, name id.Node) error {
	for {
		if err := s.conn.SetReadDeadline(time.Now().Add(serverSilence)); err != nil {
			return err
		}
		up := &pb.Up{}
		if err := pb.ReadMessage(s.conn, up, controlLimit); err != nil {
			return err
		}
		if up.GetReport() != nil {
			r.post(evReport{name, s.number, up.GetReport()})
		}
	}
}

// write sends what is queued, and a sign of life when nothing is.
func (s *serverSession) write(done <-chan struct{}) {
	tick := time.NewTicker(reportInterval)
	defer tick.Stop()
	hearing := &pb.Down{M: &pb.Down_Hearing{Hearing: &pb.Hearing{}}}
	for {
		m := hearing
		select {
		case <-done:
			return
		case m = <-s.out:
		case <-tick.C:
		}
		if m == nil {
			s.conn.Close()
			return
		}
		if err := writeDown(s.conn, m); err != nil {
			s.conn.Close() // ends the reader, too
			return
		}
	}
}

func writeDown(conn net.Conn, m *pb.Down) error {
	if err := conn.SetWriteDeadline(time.Now().Add(serverSilence)); err != nil {
		return err
	}
	return pb.WriteMessage(conn, m)
}

// appliedTopic is where one life of a server tells how far its replica has come.
func appliedTopic(inc id.Incarnation) string { return "applied/" + string(inc) }

// serveApplied answers the leader that wants to promote this replica.
func (c *Coordinator) serveApplied(conn net.Conn, _ port.Peer) {
	defer conn.Close()
	var req pb.Applied
	if err := serve(conn, &req); err != nil {
		return
	}
	_ = pb.WriteMessage(conn, &pb.Applied{Index: c.group.Raft().AppliedIndex()})
}

// applied asks a replica how far it has come.
func (c *Coordinator) applied(ctx context.Context) func(raftgroup.Replica) (uint64, error) {
	return func(r raftgroup.Replica) (uint64, error) {
		var reply pb.Applied
		err := exchange(ctx, c.cfg.Port, r.Addr, appliedTopic(r.Incarnation), &pb.Applied{}, &reply)
		return reply.Index, err
	}
}
