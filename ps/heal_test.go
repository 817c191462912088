package ps

import (
	"os"
	"testing"

	"github.com/musterml/muster/internal/id"
)

// damage flips a bit of a file; within the first payload of a log when it is called so.
func damage(t *testing.T, path string, offset int64) {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	b[offset] ^= 4
	if err := os.WriteFile(path, b, 0o644); err != nil {
		t.Fatal(err)
	}
}

const inFirstPayload = 2000 // byte of a log, which begins with the state put at step 0

// A payload that one disk has damaged is told with file and place, and healed by the
// others, on the disk as well; a tail that a crash tore is cut. Nothing is lost.
func TestDamagedPayloadIsHealed(t *testing.T) {
	if testing.Short() {
		t.Skip("starts processes")
	}
	f := newFamily(t)
	f.logLimit = 1 << 20 // also what a busy machine pushes twice stays in the log
	f.startAll()
	f.begin()
	f.steps(4)
	f.killAll()
	for shard := range id.ParamShard(f.layout.Shards) {
		damage(t, f.segments("a", shard)[0], inFirstPayload)
		torn := f.segments("b", shard)
		last, err := os.OpenFile(torn[len(torn)-1], os.O_APPEND|os.O_WRONLY, 0)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := last.Write(make([]byte, 100)); err != nil {
			t.Fatal(err)
		}
		_ = last.Close()
	}
	f.startAll()
	f.check()
	f.steps(4)
	if !f.says("a", f.segments("a", 0)[0]+" is damaged at byte") || !f.says("a", "healed the payload") {
		t.Error("a does not say what was damaged and that it is healed")
	}
	if !f.says("b", "cut 100 bytes at byte") {
		t.Error("b does not say that a tail was torn")
	}
	// What was healed is on the disk again: now the others may be damaged.
	f.killAll()
	for shard := range id.ParamShard(f.layout.Shards) {
		damage(t, f.segments("b", shard)[0], inFirstPayload)
		damage(t, f.segments("c", shard)[0], inFirstPayload)
	}
	f.startAll()
	f.steps(4)
	f.check()
}

// Where no disk has a payload whole the servers say so and stop, instead of going on with
// something else.
func TestDamagedEverywhere(t *testing.T) {
	if testing.Short() {
		t.Skip("starts processes")
	}
	f := newFamily(t)
	f.startAll()
	f.begin()
	f.steps(4)
	f.killAll()
	for _, r := range f.all {
		damage(t, f.segments(r.Node, 1)[0], inFirstPayload)
	}
	f.startAll()
	eventually(t, "a server says that its shard is lost", func() bool {
		return f.says("a", ErrUnhealed.Error()) || f.says("b", ErrUnhealed.Error()) || f.says("c", ErrUnhealed.Error())
	})
}
