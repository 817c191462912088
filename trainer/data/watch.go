package data

import (
	"context"
	"io"
	"time"
)

// Progress is how far the reading of a file is.
type Progress struct {
	Path string
	Read int64 // bytes of the file as it is stored
	Size int64 // 0 if unknown
}

// watch is what the reading of files heeds: that it may be called off, and that somebody wants
// to know how far it is.
type watch struct {
	ctx   context.Context
	tell  func(Progress) // or nil
	every time.Duration
	told  time.Time // or begun
}

// tellEvery is the time between two calls of tell, so that those who wait for less hear nothing.
const tellEvery = 3 * time.Second

// watched is a file under watch. It looks at the clock once for each of the large reads that
// buffers make.
type watched struct {
	io.Reader
	watch *watch
	at    Progress
}

func (w *watched) Read(p []byte) (int, error) {
	if err := context.Cause(w.watch.ctx); err != nil {
		return 0, err
	}
	n, err := w.Reader.Read(p)
	w.at.Read += int64(n)
	if now := time.Now(); w.watch.tell != nil && now.Sub(w.watch.told) >= w.watch.every {
		w.watch.told = now
		w.watch.tell(w.at)
	}
	return n, err
}
