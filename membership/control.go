package membership

import (
	"context"
	"fmt"
	"net"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/musterml/muster/internal/port"
	pb "github.com/musterml/muster/proto"
)

// exchange sends one control message to a node and reads its answer, within pledgeWithin.
func exchange(ctx context.Context, p *port.Port, addr, topic string, request, reply proto.Message) error {
	ctx, cancel := context.WithTimeout(ctx, pledgeWithin)
	defer cancel()
	conn, err := p.Dial(ctx, addr, port.Control, topic)
	if err != nil {
		return err
	}
	defer conn.Close()
	return Ask(ctx, conn, request, reply)
}

// Ask sends one control message on conn and reads the answer, until ctx ends.
func Ask(ctx context.Context, conn net.Conn, request, reply proto.Message) error {
	if deadline, ok := ctx.Deadline(); ok {
		if err := conn.SetDeadline(deadline); err != nil {
			return err
		}
	}
	if err := pb.WriteMessage(conn, request); err != nil {
		return err
	}
	return pb.ReadMessage(conn, reply, answerLimit)
}

// serve reads the one request of a control connection.
func serve(conn net.Conn, request proto.Message) error {
	if err := conn.SetDeadline(time.Now().Add(pledgeWithin)); err != nil {
		return err
	}
	if err := pb.ReadMessage(conn, request, controlLimit); err != nil {
		return fmt.Errorf("control request from %s: %w", conn.RemoteAddr(), err)
	}
	return nil
}

const (
	controlLimit = 1 << 20 // bytes of a request
	answerLimit  = 1 << 30 // bytes of an answer: a whole history may be long
)
