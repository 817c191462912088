package node

import (
	"context"
	"encoding/json"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"time"

	"github.com/musterml/muster/internal/atomicfile"
	"github.com/musterml/muster/internal/port"
	pb "github.com/musterml/muster/proto"
)

// RecordTopic is where every node answers a pb.RecordRequest with its flight record.
const RecordTopic = "record"

// keepRecords is how many records of failures a node leaves in its output folder; the oldest go first.
const keepRecords = 8

func (n *Node) serveRecord(conn net.Conn, _ port.Peer) {
	defer conn.Close()
	if err := conn.SetDeadline(time.Now().Add(2 * time.Second)); err != nil {
		return
	}
	var req pb.RecordRequest
	if err := pb.ReadMessage(conn, &req, requestLimit); err != nil {
		return
	}
	b, err := n.recordJSON("asked for")
	if err != nil {
		return
	}
	_ = pb.WriteMessage(conn, &pb.RecordAnswer{Record: b})
}

func (n *Node) recordJSON(why string) ([]byte, error) {
	run := ""
	if n.founded() {
		run = n.founding.Run
	}
	return json.Marshal(n.flight.Record(n.cfg.Name, run, why))
}

// onBroken has the record of a failed ring written; the trainer does not wait for the disk.
func (n *Node) onBroken(cause error) {
	select {
	case n.broken <- cause:
	default: // the one before is not written yet, and will show this one, too
	}
}

// writeRecords writes a record into the output folder whenever the ring has failed. A disk that is full must not stop
// the run, so it only says so.
func (n *Node) writeRecords(ctx context.Context) {
	var written []string
	for count := 1; ; count++ {
		var cause error
		select {
		case <-ctx.Done():
			return
		case cause = <-n.broken:
		}
		path := filepath.Join(n.cfg.Out, fmt.Sprintf("flight-%s-%d.json", n.cfg.Name, count))
		b, err := n.recordJSON(cause.Error())
		if err == nil {
			err = atomicfile.WriteBytes(path, b)
		}
		if err != nil {
			n.cfg.Log.Warn().Err(err).Msg("the flight record cannot be written")
			continue
		}
		n.cfg.Log.Info().Str("file", path).Msg("flight record written; muster why --record FILE prints it")
		if written = append(written, path); len(written) > keepRecords {
			_ = os.Remove(written[0]) // one file too many does no harm
			written = written[1:]
		}
	}
}
