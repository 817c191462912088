package node

import (
	"context"
	"errors"
	"net"
	"time"

	"github.com/musterml/muster/internal/port"
	"github.com/musterml/muster/membership"
	pb "github.com/musterml/muster/proto"
)

// StatusTopic is where every node answers a pb.StatusRequest with a pb.Status.
const StatusTopic = "status"

const (
	statusWithin   = 2 * time.Second
	requestLimit   = 1 << 16
	historyTimeout = 10 * time.Second
)

func (n *Node) serveStatus(conn net.Conn, _ port.Peer) {
	defer conn.Close()
	ctx, cancel := context.WithTimeout(context.Background(), statusWithin)
	defer cancel()
	if err := conn.SetDeadline(time.Now().Add(2 * statusWithin)); err != nil {
		return
	}
	var req pb.StatusRequest
	if err := pb.ReadMessage(conn, &req, requestLimit); err != nil {
		return
	}
	_ = pb.WriteMessage(conn, n.status(ctx, &req))
}

// status is the run as the coordinator's leader sees it, asked for if it is another
// node, or, without one, what this node knows by itself.
func (n *Node) status(ctx context.Context, req *pb.StatusRequest) *pb.Status {
	st, err := n.clusterStatus(ctx, req)
	if err != nil {
		st = &pb.Status{Error: err.Error()}
		for _, p := range n.gossip.Peers() {
			state := "dead"
			if p.Alive {
				state = "alive"
			}
			st.Nodes = append(st.Nodes, &pb.NodeStatus{Node: string(p.Node), Addr: p.Meta.Addr, Server: p.Meta.Server, Trainer: p.Meta.Trainer, State: state})
		}
	}
	st.Cluster, st.Job, st.Steps = n.cfg.Cluster, n.cfg.Job.Name, uint64(n.cfg.Job.Steps())
	st.AnsweredBy, st.Time = string(n.cfg.Name), time.Now().UnixNano()
	st.Waits = membership.Waits(n.waits.Snapshot())
	return st
}

var errNoLeader = errors.New("the coordinator has no leader that this node knows of")

func (n *Node) clusterStatus(ctx context.Context, req *pb.StatusRequest) (*pb.Status, error) {
	if req.Local {
		return nil, errors.New("this node's own view only")
	}
	n.mu.Lock() // start may still be under way
	coordinator, session := n.coordinator, n.session
	n.mu.Unlock()
	if coordinator != nil {
		if st, err := coordinator.Status(ctx, req.History); err == nil {
			return st, nil
		}
	}
	if session == nil {
		return nil, errors.New("the run is not founded yet")
	}
	addr, _ := session.Leader()
	if addr == "" || addr == n.port.Addr() {
		return nil, errNoLeader
	}
	conn, err := n.port.Dial(ctx, addr, port.Control, StatusTopic)
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	st := &pb.Status{}
	if err := membership.Ask(ctx, conn, &pb.StatusRequest{History: req.History}, st); err != nil {
		return nil, err
	}
	if st.Error != "" {
		return nil, errors.New(st.Error)
	}
	return st, nil
}
