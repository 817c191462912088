package raftgroup

import (
	"errors"
	"fmt"
	"net"
	"strings"

	"github.com/hashicorp/raft"
	"github.com/musterml/muster/internal/id"
	"github.com/musterml/muster/internal/port"
)

// Replica is one life of a node in a group.
type Replica struct {
	Node        id.Node
	Incarnation id.Incarnation
	Addr        string // host:port of the node's port
}

// Member is a replica in a group's configuration.
type Member struct {
	Replica
	Voter bool
}

// ServerID is "node/incarnation".
func (r Replica) ServerID() raft.ServerID {
	return raft.ServerID(string(r.Node) + "/" + string(r.Incarnation))
}

// ServerAddress is "node/incarnation@host:port".
func (r Replica) ServerAddress() raft.ServerAddress {
	return raft.ServerAddress(string(r.ServerID()) + "@" + r.Addr)
}

func (r Replica) String() string { return string(r.ServerAddress()) }

// ParseID is the inverse of ServerID; the replica has no address.
func ParseID(server string) (Replica, error) {
	node, incarnation, ok := strings.Cut(server, "/")
	if !ok {
		return Replica{}, fmt.Errorf("raft server %q is not node/incarnation", server)
	}
	return Replica{Node: id.Node(node), Incarnation: id.Incarnation(incarnation)}, nil
}

// parseAddress is the inverse of ServerAddress.
func parseAddress(address raft.ServerAddress) (Replica, error) {
	who, addr, ok := strings.Cut(string(address), "@")
	r, err := ParseID(who)
	if !ok || err != nil {
		return Replica{}, fmt.Errorf("raft address %q is not node/incarnation@host:port", address)
	}
	r.Addr = addr
	return r, nil
}

func (r Replica) validate() error {
	var errs []error
	if err := port.ValidName(string(r.Node)); err != nil {
		errs = append(errs, fmt.Errorf("node: %w", err))
	}
	if err := port.ValidName(string(r.Incarnation)); err != nil {
		errs = append(errs, fmt.Errorf("incarnation: %w", err))
	}
	if _, _, err := net.SplitHostPort(r.Addr); err != nil {
		errs = append(errs, fmt.Errorf("addr: %q is not host:port", r.Addr))
	}
	return errors.Join(errs...)
}

// topic is where the port hands over what is meant for this life.
func topic(group string, r Replica) string { return group + "/" + string(r.ServerID()) }
