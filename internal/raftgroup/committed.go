package raftgroup

import (
	"slices"
	"sync"

	"github.com/hashicorp/raft"
)

// committed remembers the newest configuration that is known to be committed: the latest one,
// which Raft tells, acts before it is. It learns it where Raft applies one, and from
// snapshots, which hold none but committed ones.
type committed struct {
	raft.FSM

	mu      sync.Mutex
	index   uint64
	servers []raft.Server
}

// StoreConfiguration implements raft.ConfigurationStore.
func (c *committed) StoreConfiguration(index uint64, configuration raft.Configuration) {
	c.note(index, configuration)
	if store, ok := c.FSM.(raft.ConfigurationStore); ok {
		store.StoreConfiguration(index, configuration)
	}
}

func (c *committed) note(index uint64, configuration raft.Configuration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if index >= c.index {
		c.index, c.servers = index, slices.Clone(configuration.Servers)
	}
}

func (c *committed) is(configuration raft.Configuration) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return slices.Equal(c.servers, configuration.Servers)
}
