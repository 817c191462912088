package main

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/musterml/muster/internal/journal"
)

// rawDiskBlocks is how many blocks each writer of rawDisk writes.
const rawDiskBlocks = 32

// rawDisk is the bytes per second that the disk of a folder takes from several writers together, each of which appends
// blocks to a file of its own and waits for each to be durable: what servers could do that write every gradient once, and nothing else.
func rawDisk(dir string, writers, block int) (float64, error) {
	data := make([]byte, block)
	errs := make([]error, writers)
	var all sync.WaitGroup
	begin := time.Now()
	for i := range writers {
		path := filepath.Join(dir, fmt.Sprintf("raw-%d", i))
		defer os.Remove(path)
		all.Go(func() { errs[i] = appendDurably(path, data) })
	}
	all.Wait()
	return float64(writers*rawDiskBlocks*block) / time.Since(begin).Seconds(), errors.Join(errs...)
}

func appendDurably(path string, data []byte) error {
	f, err := journal.Disk{}.Create(path)
	for i := 0; i < rawDiskBlocks && err == nil; i++ {
		if _, err = f.Write(data); err == nil {
			err = f.Sync()
		}
	}
	if f != nil {
		err = errors.Join(err, f.Close())
	}
	return err
}

// diskWrites is how many bytes this process has had written to disks; 0 where the system does not say.
func diskWrites() int64 {
	b, _ := os.ReadFile("/proc/self/io")
	for line := range bytes.Lines(b) {
		if v, ok := strings.CutPrefix(string(line), "write_bytes:"); ok {
			n, _ := strconv.ParseInt(strings.TrimSpace(v), 10, 64)
			return n
		}
	}
	return 0
}
