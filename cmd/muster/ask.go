package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"syscall"
	"time"

	"github.com/spf13/pflag"
	"google.golang.org/protobuf/proto"

	"github.com/musterml/muster/internal/node"
	"github.com/musterml/muster/internal/port"
	"github.com/musterml/muster/membership"
	pb "github.com/musterml/muster/proto"
)

// asker holds the flags of verbs that ask a running node.
type asker struct {
	common
	addr string
}

// askWithin is how long a node may take: it asks the coordinator's leader first.
const askWithin = 4 * time.Second

func (a *asker) flags(f *pflag.FlagSet) {
	f.StringVar(&a.addr, "addr", "127.0.0.1:7400", "`HOST:PORT` of any node of the cluster")
	f.StringVar(&a.cluster, "cluster", "", "`NAME` of the cluster; empty means whichever is there")
	f.StringVar(&a.keyFile, "key-file", "", "`FILE` with the cluster's secret, if it has one")
	f.BoolVar(&a.json, "json", false, "for machines: one JSON object")
}

// ask asks the node for the state of the run.
func (a *asker) ask(ctx context.Context) (*pb.Status, error) {
	if err := a.valid(); err != nil {
		return nil, err
	}
	st := &pb.Status{}
	if err := a.exchange(ctx, a.addr, node.StatusTopic, &pb.StatusRequest{}, st); err != nil {
		return nil, a.explain(err)
	}
	return st, nil
}

func (a *asker) valid() error {
	if _, _, err := net.SplitHostPort(a.addr); err != nil {
		return fmt.Errorf("--addr is %q: give host:port, for example 127.0.0.1:7400", a.addr)
	}
	return nil
}

// exchange asks the node at addr one thing.
func (a *asker) exchange(ctx context.Context, addr, topic string, request, answer proto.Message) error {
	key, err := a.key()
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, askWithin)
	defer cancel()
	conn, err := port.DialTool(ctx, port.ToolConfig{Cluster: a.cluster, Version: version, Key: key}, addr, port.Control, topic)
	if err != nil {
		return err
	}
	defer conn.Close()
	return membership.Ask(ctx, conn, request, answer)
}

// explain adds what a person can do about a node that does not answer.
func (a *asker) explain(err error) error {
	var dns *net.DNSError
	switch {
	case errors.Is(err, syscall.ECONNREFUSED):
		return fmt.Errorf("nothing listens at %s: start a node there, or name another with --addr", a.addr)
	case errors.As(err, &dns):
		return fmt.Errorf("%s: the host name is not known; correct --addr", a.addr)
	case errors.Is(err, os.ErrDeadlineExceeded), errors.Is(err, context.DeadlineExceeded):
		return fmt.Errorf("%s does not answer within %v: the process there may have stopped or the network is cut; ask another node with --addr", a.addr, askWithin)
	case errors.Is(err, port.ErrNotMuster):
		return fmt.Errorf("what listens at %s is not muster, or its key differs: correct --addr, or give its --key-file", a.addr)
	}
	return err
}
