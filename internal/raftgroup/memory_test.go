package raftgroup

import (
	"io"
	"testing"

	"github.com/hashicorp/raft"
)

// A snapshot is seen when it is whole, until a newer one is; one that was given up never is.
func TestMemorySnapshots(t *testing.T) {
	m := &memorySnapshots{}
	begin := func(index uint64, text string) raft.SnapshotSink {
		t.Helper()
		s, err := m.Create(1, index, 2, raft.Configuration{Servers: []raft.Server{{ID: "a"}}}, 1, nil)
		if err == nil {
			_, err = io.WriteString(s, text)
		}
		if err != nil {
			t.Fatal(err)
		}
		return s
	}
	newest := func() (index uint64, text string) {
		t.Helper()
		list, err := m.List()
		if err != nil || len(list) == 0 {
			return 0, ""
		}
		meta, r, err := m.Open(list[0].ID)
		if err != nil {
			t.Fatal(err)
		}
		b, err := io.ReadAll(r)
		if err != nil || meta.Size != int64(len(b)) || len(meta.Configuration.Servers) != 1 {
			t.Fatalf("%+v, %v", meta, err)
		}
		return meta.Index, string(b)
	}
	one, two, gone := begin(10, "one"), begin(20, "two"), begin(30, "gone")
	if err := gone.Cancel(); err != nil {
		t.Fatal(err)
	}
	if i, _ := newest(); i != 0 {
		t.Errorf("snapshot %d is seen before it is whole", i)
	}
	for _, s := range []raft.SnapshotSink{two, one} { // the older one is late
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
		if i, text := newest(); i != 20 || text != "two" {
			t.Errorf("the newest is %d, %q", i, text)
		}
	}
	if _, _, err := m.Open(one.ID()); err == nil {
		t.Error("a snapshot that was replaced can be opened")
	}
}
