package node

import (
	"context"
	"errors"
	"net"
	"os"
	"time"

	"github.com/musterml/muster/internal/port"
	"github.com/musterml/muster/membership"
	pb "github.com/musterml/muster/proto"
)

// StatusTopic is where every node answers a pb.StatusRequest with a pb.Status.
const StatusTopic = "status"

const (
	statusWithin   = 800 * time.Millisecond
	askWithin      = 400 * time.Millisecond // one try at the leader, which may have stopped
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
	// A leader that has just gone has a successor soon.
	for err != nil && !req.Local && ctx.Err() == nil && n.founded() {
		select {
		case <-ctx.Done():
		case <-time.After(20 * time.Millisecond):
			st, err = n.clusterStatus(ctx, req)
		}
	}
	if err != nil {
		st = n.localStatus(err)
	}
	n.mu.Lock()
	job := n.cfg.Job
	n.mu.Unlock()
	st.Cluster, st.Job, st.Steps, st.AnsweredBy = n.cfg.Cluster, job.Name, uint64(job.Steps()), string(n.cfg.Name)
	st.ServersWanted, st.ParameterShards = uint32(job.Cluster.Servers), uint32(job.Cluster.ParameterShards)
	st.Replicas = uint32(job.Cluster.Replicas)
	st.LogicalShards, st.Batch = uint32(job.Batch.LogicalShards), uint32(job.SamplesPerStep())
	return st
}

// localStatus is what this node knows without the coordinator, which gave err.
func (n *Node) localStatus(err error) *pb.Status {
	st := &pb.Status{Time: time.Now().UnixNano(), Error: err.Error()}
	silent := errors.Is(err, context.DeadlineExceeded) || errors.Is(err, os.ErrDeadlineExceeded)
	n.mu.Lock()
	session := n.session
	n.mu.Unlock()
	if session != nil { // the founding was written before
		leader, without := session.Leader()
		st.Run, st.Servers, st.Leaderless = n.founding.Run, n.founding.Servers, int64(without)
		for _, p := range n.gossip.Peers() {
			if p.Meta.Addr == leader && silent {
				st.Coordinator = string(p.Node)
			}
		}
	}
	membership.AddGossip(st, n.gossip.Peers())
	for _, x := range st.Nodes {
		if x.Node == string(n.cfg.Name) {
			x.Waits = membership.Waits(n.waits.Snapshot())
		}
	}
	return st
}

func (n *Node) founded() bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.session != nil
}

var errNoLeader = errors.New("the coordinator has no leader that this node knows of")

func (n *Node) clusterStatus(ctx context.Context, req *pb.StatusRequest) (*pb.Status, error) {
	n.mu.Lock() // start may still be under way
	coordinator, session := n.coordinator, n.session
	n.mu.Unlock()
	if coordinator != nil {
		if st, err := coordinator.Status(ctx, req.History); err == nil {
			return st, nil
		}
	}
	if req.Local {
		return nil, membership.ErrNotLeader
	}
	if session == nil {
		return nil, errors.New("the run is not founded yet")
	}
	addr, _ := session.Leader()
	if addr == "" || addr == n.port.Addr() {
		return nil, errNoLeader
	}
	if !req.History {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, askWithin)
		defer cancel()
	}
	conn, err := n.port.Dial(ctx, addr, port.Control, StatusTopic)
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	st := &pb.Status{}
	if err := membership.Ask(ctx, conn, &pb.StatusRequest{History: req.History, Local: true}, st); err != nil {
		return nil, err
	}
	if st.Error != "" {
		return nil, errors.New(st.Error)
	}
	return st, nil
}
