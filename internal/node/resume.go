package node

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/musterml/muster/internal/id"
	"github.com/musterml/muster/internal/raftgroup"
	"github.com/musterml/muster/membership"
	pb "github.com/musterml/muster/proto"
	"github.com/musterml/muster/ps"
	"github.com/musterml/muster/trainer"
)

// How a server with durability disk comes back. Its data folder says which run it is in
// and under which identity, and holds the logs of its Raft groups. As long as a group's log
// is whole its replica takes part as if it had only been slow; one whose log is damaged or
// gone is given up and comes back under another identity, to be filled by the others.

func (n *Node) durable() bool {
	return n.cfg.Server && n.cfg.Job.Cluster.Durability == trainer.DurabilityDisk
}

func (n *Node) raftDir() string { return filepath.Join(n.cfg.DataDir, "raft") }

// resumes says whether this node goes on with the run in its data folder.
func (n *Node) resumes() bool { return n.held != nil && n.held.Run != "" }

// resume gets back into the run of the data folder: with --resume always, and without if
// others are in it. It must not happen by mistake that a new run takes its place.
func (n *Node) resume(ctx context.Context, founder *membership.Founder) (*pb.Founding, error) {
	if n.cfg.Resume {
		found, err := n.held.founding()
		if err != nil {
			return nil, err
		}
		founder.Resume(found)
		for _, p := range n.gossip.Peers() {
			if p.Alive && p.Meta.Run != "" && p.Meta.Run != found.Run {
				return nil, fmt.Errorf("%s is in run %s, but the data folder %s holds run %s; join the others with another --data-dir, or end them first", p.Node, p.Meta.Run, n.cfg.DataDir, found.Run)
			}
		}
		return found, nil
	}
	ctx, cancel := context.WithTimeout(ctx, resumeWithin)
	defer cancel()
	for {
		if found := founder.Ask(ctx); found != nil && found.Run == n.held.Run {
			founder.Resume(found)
			return found, nil
		}
		if len(n.others()) > 0 {
			select {
			case <-time.After(100 * time.Millisecond):
				continue
			case <-ctx.Done():
			}
		}
		return nil, fmt.Errorf("data folder %s holds run %s, which is not finished, and no other node is in it; go on with it by --resume, or begin anew with another --data-dir", n.cfg.DataDir, n.held.Run)
	}
}

const resumeWithin = 3 * time.Second // for an answer of somebody who is in the run

// life is this server's identity in a Raft group, and whether it has taken part before.
func (n *Node) life(group string) (identity id.Incarnation, known bool) {
	since, known, _ := n.hosting.place(group)
	place := membership.Place{Node: n.cfg.Name, Since: since}
	if !n.durable() {
		return membership.Life(n.incarnation, place), false
	}
	n.holding.Lock()
	defer n.holding.Unlock()
	return membership.Life(n.held.identity(group), place), known && !slices.Contains(n.meta.Lost, group)
}

// locate is where a replica's node is now; its address in a group may be an old one.
func (n *Node) locate(r raftgroup.Replica) string {
	for _, p := range n.gossip.Peers() {
		if p.Node == r.Node && p.Alive && p.Meta.Server {
			return p.Meta.Addr
		}
	}
	return r.Addr
}

// startGroup starts this server's replica of a group. Where its log cannot be trusted it
// is started once more, under a new identity.
func (n *Node) startGroup(group string, start func() error) error {
	err := start()
	if err == nil || !n.durable() || !raftgroup.Untrustworthy(err) {
		return n.diskFull(err)
	}
	n.cfg.Log.Error().Err(err).Msgf("this server's own copy of %s cannot be trusted and is given up; the other servers fill it anew", group)
	fresh := id.Incarnation(random(8))
	if err := n.keep(func(r *held) { r.Healed[group] = fresh }); err != nil {
		return err
	}
	n.holding.Lock()
	if n.meta.Healed == nil {
		n.meta.Healed = map[string]string{}
	}
	n.meta.Healed[group] = string(fresh)
	n.meta.Lost = append(n.meta.Lost, group)
	n.lostBy[group] = err
	n.holding.Unlock()
	if err := n.tellMeta(); err != nil {
		return err
	}
	return n.diskFull(start())
}

// tellMeta has gossip spread what this node tells about itself.
func (n *Node) tellMeta() error {
	n.holding.Lock()
	defer n.holding.Unlock()
	return n.gossip.SetMeta(n.meta)
}

// healed takes the groups off the list of the lost in which this server votes again.
func (n *Node) healed() error {
	votes := func(rs []raftgroup.Replica, group string) bool {
		identity, _ := n.life(group)
		return slices.ContainsFunc(rs, func(r raftgroup.Replica) bool { return r.Incarnation == identity })
	}
	var again []string
	for _, s := range n.shards.Status() {
		if votes(s.Voters, s.Shard.String()) {
			again = append(again, s.Shard.String())
		}
	}
	if votes(n.coordinatorVoters(), membership.CoordinatorGroup) {
		again = append(again, membership.CoordinatorGroup)
	}
	n.holding.Lock()
	before := len(n.meta.Lost)
	n.meta.Lost = slices.DeleteFunc(n.meta.Lost, func(g string) bool { return slices.Contains(again, g) })
	changed := len(n.meta.Lost) < before
	n.holding.Unlock()
	if !changed {
		return nil
	}
	return n.tellMeta()
}

// lostLogs says why a run whose logs are on disks can never go on, nil while it may: so
// many servers of a group have lost theirs that the rest cannot agree.
func (n *Node) lostLogs() error {
	peers := n.gossip.Peers()
	for _, group := range n.groups() {
		servers := n.voters(group)
		var lost []string
		for _, p := range peers {
			if slices.Contains(p.Meta.Lost, group) && slices.ContainsFunc(servers, func(r raftgroup.Replica) bool { return r.Node == p.Node }) {
				lost = append(lost, string(p.Node))
			}
		}
		if len(servers)-len(lost) < len(servers)/2+1 {
			n.holding.Lock()
			why := n.lostBy[group]
			n.holding.Unlock()
			text := ""
			if why != nil {
				text = fmt.Sprintf(" (here: %v)", why)
			}
			return fmt.Errorf("the run is lost: %s of the %d servers of %s have lost their logs%s, too many for the rest to agree; begin anew from a checkpoint, with another --data-dir",
				strings.Join(lost, " and "), len(servers), group, text)
		}
	}
	if err := n.shards.Fault(); errors.Is(err, ps.ErrUnhealed) {
		return err
	}
	return nil
}
