package node

import (
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"hash/crc32"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"strings"

	"google.golang.org/protobuf/proto"

	"github.com/musterml/muster/internal/atomicfile"
	"github.com/musterml/muster/internal/floats"
	"github.com/musterml/muster/internal/id"
	pb "github.com/musterml/muster/proto"
)

// HeldFile is where a server with durability disk writes which run its folder holds.
const HeldFile = "run.json"

// held is what a server must know of a run before it can read its logs: a line of
// JSON and one with the checksum of the first.
type held struct {
	Run      string                    `json:"run"`
	Job      string                    `json:"job"`      // digest
	Founding []byte                    `json:"founding"` // pb.Founding
	Identity id.Incarnation            `json:"identity"` // of this server's replicas
	Healed   map[string]id.Incarnation `json:"healed"`   // by group: the identity there, where the log of the first was damaged
	Placed   map[string]uint64         `json:"placed"`   // by group: the place that this server fills; null before it has begun those of the founding
	Known    bool                      `json:"known"`    // all replicas have begun, so a folder that is not there is lost
	Finished bool                      `json:"finished"`
}

const checksumLine = "crc32c %08x\n"

// readHeld reads what a data folder holds; nil when there is none.
func readHeld(dir string) (*held, error) {
	path := filepath.Join(dir, HeldFile)
	b, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("data folder: %w", err)
	}
	line, sum, _ := strings.Cut(string(b), "\n")
	var r held
	if sum != fmt.Sprintf(checksumLine, crc32.Checksum([]byte(line), floats.Castagnoli)) || json.Unmarshal([]byte(line), &r) != nil {
		return nil, fmt.Errorf("data folder: %s is damaged, so it is not known what run the folder holds; remove the folder %s, and this server is filled anew by the others", path, dir)
	}
	return &r, nil
}

func (r *held) write(dir string) error {
	line, err := json.Marshal(r)
	if err != nil {
		return err
	}
	text := fmt.Appendf(line, "\n"+checksumLine, crc32.Checksum(line, floats.Castagnoli))
	return atomicfile.WriteBytes(filepath.Join(dir, HeldFile), text)
}

// identity is this server's name in a Raft group.
func (r *held) identity(group string) id.Incarnation {
	if healed := r.Healed[group]; healed != "" {
		return healed
	}
	return r.Identity
}

// founding is that of the run.
func (r *held) founding() (*pb.Founding, error) {
	var f pb.Founding
	if err := proto.Unmarshal(r.Founding, &f); err != nil {
		return nil, fmt.Errorf("data folder: %s holds no founding: %w", HeldFile, err)
	}
	return &f, nil
}

// openHeld reads what the data folder holds and decides whether this node may go on
// with it. That of a run that is over is removed, with all that belongs to it.
func (n *Node) openHeld() error {
	if !n.durable() {
		return nil
	}
	r, err := readHeld(n.cfg.DataDir)
	if err != nil {
		return err
	}
	if r != nil && r.Finished {
		if n.cfg.Resume {
			return fmt.Errorf("data folder %s: run %s is finished, there is nothing to resume; start without --resume to train the job again", n.cfg.DataDir, r.Run)
		}
		if err := errors.Join(os.RemoveAll(n.raftDir()), os.Remove(filepath.Join(n.cfg.DataDir, HeldFile))); err != nil {
			return fmt.Errorf("data folder: %w", err)
		}
		r = nil
	}
	if r == nil {
		n.held = &held{Identity: id.Incarnation(random(8))}
		return nil
	}
	digest, err := n.cfg.Job.Digest()
	if err != nil {
		return err
	}
	if r.Job != hex.EncodeToString(digest[:]) {
		return fmt.Errorf("data folder %s holds run %s of another job; give the job that it was started with, or another --data-dir", n.cfg.DataDir, r.Run)
	}
	n.held = r
	return nil
}

// keep writes it anew; with other logs in its place the folder would be of no use.
func (n *Node) keep(change func(*held)) error {
	n.holding.Lock()
	defer n.holding.Unlock()
	next := *n.held
	next.Healed = map[string]id.Incarnation{}
	for group, identity := range n.held.Healed {
		next.Healed[group] = identity
	}
	next.Placed = maps.Clone(n.held.Placed)
	change(&next)
	if err := next.write(n.cfg.DataDir); err != nil {
		return n.diskFull(err)
	}
	*n.held = next
	return nil
}

// founded writes down that this server is in the run, before it stores anything of it.
func (n *Node) holdFounding() error {
	if !n.durable() || n.held.Run != "" {
		return nil
	}
	b, err := proto.Marshal(n.founding)
	if err != nil {
		return err
	}
	return n.keep(func(r *held) {
		r.Run, r.Job, r.Founding = n.founding.Run, hex.EncodeToString(n.founding.Job), b
	})
}
