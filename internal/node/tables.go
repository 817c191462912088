package node

import (
	"bufio"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"github.com/musterml/muster/internal/atomicfile"
	"github.com/musterml/muster/internal/checkpoint"
	"github.com/musterml/muster/internal/id"
	pb "github.com/musterml/muster/proto"
	"github.com/musterml/muster/ps"
	"github.com/musterml/muster/ps/table"
	"github.com/musterml/muster/trainer"
)

// A run's sparse tables in files: in the outputs the rows of the last step, and in a checkpoint everything that is known of
// keys, in layers. The first layer is a whole state, each of the others what has changed since the one before; those of an
// earlier checkpoint are linked, not written again, so every checkpoint is whole by itself.

// TablesFile is the sparse tables among the outputs, of models that have some.
const TablesFile = "tables.safetensors"

// scanSlots is how many slots are read from the servers at once.
const scanSlots = 32

// eachScan reads the tables in the state at a step, or what has changed since another, piece by piece.
func eachScan(ctx context.Context, c *ps.Client, step, since id.Step, do func(piece []byte) error) error {
	for slot := 0; slot < table.Slots; slot += scanSlots {
		piece, err := c.ScanRows(ctx, step, since, slot, slot+scanSlots)
		if err == nil {
			err = do(piece)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// writeTables writes the tables of the final state among the outputs.
func (n *Node) writeTables(ctx context.Context, step id.Step, path string) error {
	configs, err := n.cfg.Job.TableConfigs(n.spec)
	if err != nil || len(configs) == 0 {
		return err
	}
	end := n.waits.Begin("the final rows of tables", "", "servers")
	defer end()
	ctx, cancel := context.WithTimeout(ctx, checkpointWithin)
	defer cancel()
	all, err := table.New(configs, 0, 1, 1)
	if err != nil {
		return err
	}
	err = eachScan(ctx, n.client, step, 0, func(piece []byte) error { return all.Overlay(piece, nil) })
	if err != nil {
		return fmt.Errorf("the final rows of tables cannot be had: %w", err)
	}
	all.Settle(step)
	return trainer.WriteTables(path, n.spec, all)
}

// maxLayers is when a checkpoint begins with a whole state again; it does so, too, when changes are half of all bytes.
const maxLayers = 16

// saveTables writes the tables at a step into a checkpoint's folder.
func (s *saver) saveTables(ctx context.Context, step id.Step, dir string) ([]checkpoint.File, error) {
	layers, since := s.earlierLayers(step, dir)
	f, err := writeLayer(filepath.Join(dir, fmt.Sprintf("tables-%03d.rows", len(layers))), func(w io.Writer) error {
		return eachScan(ctx, s.client, step, since, func(piece []byte) error {
			_, err := w.Write(piece)
			return err
		})
	})
	return append(layers, f), err
}

// earlierLayers links those of the newest checkpoint before, if changes to it are to be written.
func (s *saver) earlierLayers(step id.Step, dir string) (layers []checkpoint.File, since id.Step) {
	digest, err := s.n.stateDigest()
	if err != nil {
		return nil, 0
	}
	all, err := checkpoint.List(s.n.checkpoints())
	if err != nil {
		return nil, 0
	}
	for _, c := range all {
		if c.Err != nil || c.Digest != digest || c.Run != s.n.founding.Run || c.Step >= step || len(c.Tables) == 0 {
			continue
		}
		changes := int64(0)
		for _, f := range c.Tables[1:] {
			changes += f.Bytes
		}
		if len(c.Tables) >= maxLayers || 2*changes > c.Tables[0].Bytes {
			return nil, 0
		}
		for _, f := range c.Tables {
			if os.Link(filepath.Join(c.Path, f.Name), filepath.Join(dir, f.Name)) != nil {
				for _, f := range c.Tables { // the disk takes no links: everything is written
					_ = os.Remove(filepath.Join(dir, f.Name))
				}
				return nil, 0
			}
		}
		return c.Tables, c.Step
	}
	return nil, 0
}

func writeLayer(path string, write func(io.Writer) error) (checkpoint.File, error) {
	h, size := sha256.New(), int64(0)
	err := atomicfile.Write(path, func(out io.Writer) error {
		w := bufio.NewWriterSize(out, 1<<18)
		err := write(writerFunc(func(b []byte) (int, error) {
			_, _ = h.Write(b)
			size += int64(len(b))
			return w.Write(b)
		}))
		if err != nil {
			return err
		}
		return w.Flush()
	})
	return checkpoint.File{Name: filepath.Base(path), Bytes: size, SHA256: hex.EncodeToString(h.Sum(nil))}, err
}

type writerFunc func([]byte) (int, error)

func (f writerFunc) Write(b []byte) (int, error) { return f(b) }

// loadTables gives the servers the tables of the checkpoint that the run begins with.
func (n *Node) loadTables(ctx context.Context) error {
	configs, err := n.cfg.Job.TableConfigs(n.spec)
	if err != nil || len(configs) == 0 {
		return err
	}
	all, err := table.New(configs, 0, 1, 1)
	if err != nil {
		return err
	}
	if len(n.begin.Tables) == 0 {
		return fmt.Errorf("%s holds no sparse tables, which the job's model has", n.begin.Path)
	}
	for _, f := range n.begin.Tables { // their checksums were compared when the checkpoint was chosen
		b, err := os.ReadFile(filepath.Join(n.begin.Path, f.Name))
		if err == nil {
			err = all.Overlay(b, nil)
		}
		if err != nil {
			return fmt.Errorf("%s: %w", f.Name, err)
		}
	}
	all.Settle(n.begin.Step)
	if n.client.LoadRows(ctx, all) != nil {
		return nil // only ended, or the run is past it
	}
	return nil
}

// tableStatus is what this node knows of the tables: of the shards that it leads.
func (n *Node) tableStatus(shards []ps.ShardStatus) []*pb.TableStatus {
	var all []*pb.TableStatus
	for _, s := range shards {
		if s.Role != "leader" {
			continue
		}
		for i, t := range s.Tables {
			if i == len(all) {
				all = append(all, &pb.TableStatus{Name: n.spec.Tables()[i].Name})
			}
			a := all[i]
			a.Keys += uint64(t.Keys)
			a.Rows += uint64(t.Rows)
			a.Bytes += uint64(t.Bytes)
			a.Admitted += t.Admitted
			a.Expired += t.Expired
			a.Evicted += t.Evicted
		}
	}
	return all
}
