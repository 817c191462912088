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

// parseAddress is the inverse of ServerAddress.
func parseAddress(address raft.ServerAddress) (Replica, error) {
	who, addr, ok := strings.Cut(string(address), "@")
	node, incarnation, ok2 := strings.Cut(who, "/")
	if !ok || !ok2 {
		return Replica{}, fmt.Errorf("raft address %q is not node/incarnation@host:port", address)
	}
	return Replica{Node: id.Node(node), Incarnation: id.Incarnation(incarnation), Addr: addr}, nil
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
