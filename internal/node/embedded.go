package node

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"

	"github.com/musterml/muster/internal/id"
	"github.com/musterml/muster/trainer"
)

// RunEmbedded runs a whole cluster in this process, of as many nodes as asked for, each server and trainer. Of cfg it
// takes the job, the version, the log and the callbacks, of which OnEvent is that of the first node. Where the job wants more
// servers than there are nodes, it gets as many as there are: durability is not what a single
// process is for, and the weights do not depend on it. With durability disk the logs are in the folder state of the
// outputs, so that a process that was killed can be resumed, by as many nodes; it is removed when the run is over.
func RunEmbedded(ctx context.Context, cfg Config, nodes int) (Result, error) {
	cfg.Job.Cluster.Servers = min(cfg.Job.Cluster.Servers, nodes)
	cfg.Job.Cluster.Replicas = min(cfg.Job.Cluster.Replicas, cfg.Job.Cluster.Servers)
	dir, err := os.MkdirTemp("", "muster-train-")
	if err != nil {
		return Result{}, err
	}
	defer os.RemoveAll(dir)
	logs := dir
	if cfg.Job.Cluster.Durability == trainer.DurabilityDisk {
		logs = filepath.Join(cfg.Job.Out, "state")
	}
	cfg.Job.Checkpoint.Path = cfg.Job.Checkpoints(cfg.Job.Out) // one for all nodes
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	results, errs := make([]Result, nodes), make([]error, nodes)
	seed := make(chan string, 1)
	var running sync.WaitGroup
	var training atomic.Int64
	training.Store(int64(nodes))
	for i := range nodes {
		cfg := cfg
		cfg.OnRetired = func(err error) {
			if training.Add(-1) == 0 { // and none can come
				cancel(fmt.Errorf("no trainer is left: %w", err))
			}
		}
		cfg.Name, cfg.Listen, cfg.Server, cfg.Trainer = id.Node(fmt.Sprintf("node-%d", i)), "127.0.0.1:0", true, true
		cfg.DataDir, cfg.Out, cfg.Cluster = filepath.Join(logs, fmt.Sprint(i)), cfg.Job.Out, filepath.Base(dir)
		cfg.Log = cfg.Log.With().Int("node", i).Logger()
		if i == 0 {
			cfg.OnListen = func(addr string) { seed <- addr }
		} else {
			cfg.Out, cfg.OnEvent = filepath.Join(dir, "out", fmt.Sprint(i)), nil
		}
		running.Go(func() {
			if i > 0 {
				select {
				case addr := <-seed:
					seed <- addr
					cfg.Join = []string{addr}
				case <-ctx.Done():
					return
				}
			}
			if results[i], errs[i] = Run(ctx, cfg); errs[i] != nil {
				cancel(nil) // one that cannot go on ends the others
			}
		})
	}
	running.Wait()
	err = firstCause(errs)
	if err == nil && logs != dir {
		err = os.RemoveAll(logs)
	}
	return results[0], err
}

// firstCause leaves out the errors of nodes that were only told to end.
func firstCause(errs []error) error {
	for _, err := range errs {
		if err != nil && !errors.Is(err, context.Canceled) {
			return err
		}
	}
	return errors.Join(errs...)
}
