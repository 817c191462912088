package node

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/musterml/muster/internal/id"
	"github.com/musterml/muster/internal/raftgroup"
	"github.com/musterml/muster/membership"
	"github.com/musterml/muster/trainer"
)

// A group whose voters have died in majority can never agree on anything again where their
// logs were in memory, because a later life does not vote in their place. Waiting for it
// would be waiting for ever, so the node ends and says why. With durability disk it waits:
// they can be started again.

// leaderlessFor is how long a node goes on without the coordinator when nobody is known
// to have died: a cut network may heal.
const leaderlessFor = 2 * time.Minute

// newsTravels is how long a node goes on believing that somebody has taken the place of one that died:
// the word of who votes comes from the leaders by way of the coordinator.
const newsTravels = 2 * time.Second

// graves remembers which lives of servers have ended. Safe for concurrent use.
type graves struct {
	mu   sync.Mutex
	dead map[id.Incarnation]bool
}

func (g *graves) add(inc id.Incarnation) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.dead == nil {
		g.dead = map[id.Incarnation]bool{}
	}
	g.dead[inc] = true
}

// majority returns the names of the dead when they are so many of the voters that the
// others cannot agree on anything.
func (g *graves) majority(voters []raftgroup.Replica) []string {
	g.mu.Lock()
	defer g.mu.Unlock()
	var names []string
	for _, v := range voters {
		if g.dead[membership.Process(v.Incarnation)] {
			names = append(names, string(v.Node))
		}
	}
	if len(voters)-len(names) >= len(voters)/2+1 {
		return nil
	}
	return names
}

// watchLoss ends the node when the run is lost.
func (n *Node) watchLoss(ctx context.Context) {
	tick := time.NewTicker(500 * time.Millisecond)
	defer tick.Stop()
	whole := time.Now()
	for {
		select {
		case <-ctx.Done():
			return
		case <-n.finished:
			return // servers leave because the run is over
		case <-tick.C:
			if n.cfg.Job.Cluster.Durability == trainer.DurabilityDisk {
				n.reportFatal(n.watchLogs())
			} else {
				err := n.lost()
				if err == nil {
					whole = time.Now()
				}
				if time.Since(whole) > newsTravels {
					n.reportFatal(err)
				}
			}
		}
	}
}

// watchLogs says why a run with durability disk can never go on, nil while it may.
func (n *Node) watchLogs() error {
	if n.shards == nil {
		return nil
	}
	if err := n.healed(); err != nil {
		n.cfg.Log.Warn().Err(err).Msg("the others could not be told what is healed here")
	}
	return n.lostLogs()
}

// lost says why the run can never go on, nil while it may.
func (n *Node) lost() error {
	for _, group := range n.groups() {
		voters := n.voters(group)
		if group == membership.CoordinatorGroup && n.coord() != nil {
			voters = n.coordinatorVoters()
		}
		if dead := n.graves.majority(voters); dead != nil {
			return lostError(dead, len(voters), keeps(group))
		}
	}
	if _, without := n.session.Leader(); without > leaderlessFor {
		return fmt.Errorf("the coordinator cannot be reached for %v; look at the network and at the servers %s",
			leaderlessFor, strings.Join(nodeNames(n.voters(membership.CoordinatorGroup)), ", "))
	}
	return nil
}

// keeps says what a group does.
func keeps(group string) string {
	if group == membership.CoordinatorGroup {
		return "that agree on the run"
	}
	return fmt.Sprintf("that keep %s of the parameters", group)
}

// coordinatorVoters are those of the coordinator, as this server's replica knows them.
func (n *Node) coordinatorVoters() []raftgroup.Replica {
	c := n.coord()
	if c == nil {
		return nil
	}
	voters, _, _ := c.Members()
	return voters
}

func lostError(dead []string, of int, which string) error {
	slices.Sort(dead)
	return fmt.Errorf("the run is lost: %s of the %d servers %s died, too many for the rest to agree; with durability memory the state is lost with them; start the run again, with more servers if more may die at once",
		strings.Join(dead, " and "), of, which)
}

func nodeNames(rs []raftgroup.Replica) []string {
	var names []string
	for _, r := range rs {
		names = append(names, string(r.Node))
	}
	return names
}
