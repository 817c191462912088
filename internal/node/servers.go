package node

import (
	"context"
	"net"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/musterml/muster/internal/id"
	"github.com/musterml/muster/internal/port"
	"github.com/musterml/muster/membership"
	pb "github.com/musterml/muster/proto"
)

// ServersTopic is where every node answers a pb.ServersRequest with a pb.ServersAnswer.
const ServersTopic = "servers"

// DrainTopic is where every node answers a pb.DrainRequest with a pb.DrainAnswer.
const DrainTopic = "drain"

const (
	oneServerWithin = time.Second            // one question to one server
	auditWithin     = 700 * time.Millisecond // of it, to compute digests
)

func (n *Node) serveServers(conn net.Conn, _ port.Peer) {
	defer conn.Close()
	ctx, cancel := context.WithTimeout(context.Background(), statusWithin+2*oneServerWithin)
	defer cancel()
	if err := conn.SetDeadline(time.Now().Add(2 * (statusWithin + 2*oneServerWithin))); err != nil {
		return
	}
	var req pb.ServersRequest
	if err := pb.ReadMessage(conn, &req, requestLimit); err != nil {
		return
	}
	answer := &pb.ServersAnswer{}
	if req.Local {
		answer.Replicas = n.replicaReports(ctx, &req)
	} else {
		n.collect(ctx, answer)
	}
	_ = pb.WriteMessage(conn, answer)
}

// collect asks every server twice: for an audit of the shards it leads, and then, when it
// is known where in the logs those are, for what it keeps.
func (n *Node) collect(ctx context.Context, answer *pb.ServersAnswer) {
	answer.Status = n.status(ctx, &pb.StatusRequest{})
	answer.Error = answer.Status.Error
	if !n.founded() {
		return
	}
	first, _ := n.askServers(ctx, &pb.ServersRequest{Local: true, Audit: true})
	marks := map[string]*pb.Mark{}
	for _, r := range first {
		m := marks[r.Group]
		if m == nil {
			m = &pb.Mark{Group: r.Group}
			marks[r.Group] = m
		}
		m.Audit = max(m.Audit, r.Audit)
	}
	second := &pb.ServersRequest{Local: true}
	for _, m := range marks {
		second.Marks = append(second.Marks, m)
	}
	answer.Replicas, answer.Silent = n.askServers(ctx, second)
	n.addLags(ctx, answer)
	slices.SortFunc(answer.Replicas, func(a, b *pb.ReplicaReport) int { return strings.Compare(a.Group+"/"+a.Node, b.Group+"/"+b.Node) })
	slices.Sort(answer.Silent)
}

// addLags has each leader that has replicas behind it tell by how many bytes.
func (n *Node) addLags(ctx context.Context, answer *pb.ServersAnswer) {
	request := &pb.ServersRequest{Local: true}
	behind := map[string][]*pb.ReplicaReport{}
	for _, leader := range answer.Replicas {
		if leader.Role != "leader" {
			continue
		}
		m := &pb.Mark{Group: leader.Group}
		for _, r := range answer.Replicas {
			if r.Group == leader.Group && r.Applied < leader.Commit {
				m.Applied = append(m.Applied, r.Applied)
				behind[r.Group] = append(behind[r.Group], r)
			}
		}
		if len(m.Applied) > 0 {
			request.Marks = append(request.Marks, m)
		}
	}
	if len(request.Marks) == 0 {
		return
	}
	told, _ := n.askServers(ctx, request)
	for _, t := range told {
		for i, r := range behind[t.Group] {
			if t.Role == "leader" && i < len(t.Behind) {
				r.Behind = []int64{t.Behind[i]}
			}
		}
	}
}

// askServers asks all servers of the run at once. silent are those that did not answer.
func (n *Node) askServers(ctx context.Context, req *pb.ServersRequest) (replicas []*pb.ReplicaReport, silent []string) {
	var mu sync.Mutex
	var all sync.WaitGroup
	for _, p := range n.gossip.Peers() {
		if !p.Meta.Server || !p.Alive || p.Meta.Run != n.founding.Run {
			continue
		}
		all.Go(func() {
			answer, err := n.askServer(ctx, p, req)
			mu.Lock()
			defer mu.Unlock()
			if err != nil {
				silent = append(silent, string(p.Node))
				return
			}
			replicas = append(replicas, answer.Replicas...)
		})
	}
	all.Wait()
	return replicas, silent
}

func (n *Node) askServer(ctx context.Context, p membership.Peer, req *pb.ServersRequest) (*pb.ServersAnswer, error) {
	ctx, cancel := context.WithTimeout(ctx, oneServerWithin)
	defer cancel()
	if p.Node == n.cfg.Name {
		return &pb.ServersAnswer{Replicas: n.replicaReports(ctx, req)}, nil
	}
	conn, err := n.port.Dial(ctx, p.Meta.Addr, port.Control, ServersTopic)
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	answer := &pb.ServersAnswer{}
	return answer, membership.Ask(ctx, conn, req, answer)
}

// replicaReports is what this server keeps.
func (n *Node) replicaReports(ctx context.Context, req *pb.ServersRequest) []*pb.ReplicaReport {
	var reports []*pb.ReplicaReport
	if r := n.coordinatorReport(); r != nil {
		reports = append(reports, r)
	}
	if n.shards == nil {
		return reports
	}
	proposed := map[id.ParamShard]uint64{}
	if req.Audit {
		proposed = n.shards.Audit()
	}
	ctx, cancel := context.WithTimeout(ctx, auditWithin)
	defer cancel()
	marks := map[string]*pb.Mark{}
	for _, m := range req.Marks {
		marks[m.Group] = m
		if shard, is := shardOf(m.Group); is && m.Audit > 0 {
			n.shards.AwaitAudit(ctx, shard, m.Audit)
		}
	}
	for _, s := range n.shards.Status() {
		r := &pb.ReplicaReport{
			Group: s.Shard.String(), Node: string(n.cfg.Name), Identity: string(s.Identity), Role: s.Role, Term: s.Term,
			Applied: s.Applied, Commit: s.Commit, Bytes: s.Bytes + s.LogBytes, Audit: proposed[s.Shard], Fault: s.Fault,
		}
		if k := len(s.Steps); k > 0 {
			r.Step, r.Holds = uint64(s.Steps[k-1]), true
		}
		if m := marks[r.Group]; m != nil {
			if a := n.shards.AwaitAudit(ctx, s.Shard, m.Audit); a.Index > 0 {
				r.Audit, r.AuditStep, r.Digest = a.Index, uint64(a.Step), a.Sum[:]
			}
			for _, applied := range m.Applied {
				r.Behind = append(r.Behind, n.shards.Behind(s.Shard, applied))
			}
		}
		reports = append(reports, r)
	}
	return reports
}

func (n *Node) coordinatorReport() *pb.ReplicaReport {
	c := n.coord()
	if c == nil {
		return nil
	}
	r := &pb.ReplicaReport{
		Group: membership.CoordinatorGroup, Node: string(n.cfg.Name), Identity: string(n.self(membership.CoordinatorGroup).Incarnation),
		Role: "follower", Step: uint64(c.Recorded()), Holds: true,
	}
	var leads bool
	if r.Term, leads = c.Leads(); leads {
		r.Role = "leader"
	} else if _, known := c.Leader(); !known {
		r.Role = "candidate"
	}
	r.Applied, r.Commit = c.Log()
	return r
}

// serveDrain has the coordinator drain a server, if it is led here, and says where it is led
// otherwise.
func (n *Node) serveDrain(conn net.Conn, _ port.Peer) {
	defer conn.Close()
	ctx, cancel := context.WithTimeout(context.Background(), statusWithin)
	defer cancel()
	if err := conn.SetDeadline(time.Now().Add(2 * statusWithin)); err != nil {
		return
	}
	var req pb.DrainRequest
	if err := pb.ReadMessage(conn, &req, requestLimit); err != nil {
		return
	}
	if c := n.coord(); c != nil {
		if why, err := c.Drain(ctx, id.Node(req.Node), req.Undo); err == nil {
			_ = pb.WriteMessage(conn, &pb.DrainAnswer{Error: why})
			return
		}
	}
	answer := &pb.DrainAnswer{Error: errNoLeader.Error() + "; ask again"}
	if n.founded() {
		answer.Leader, _ = n.session.Leader()
	}
	if answer.Leader == n.port.Addr() {
		answer.Leader = ""
	}
	_ = pb.WriteMessage(conn, answer)
}
