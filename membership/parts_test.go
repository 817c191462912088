package membership

import (
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	pb "github.com/musterml/muster/proto"
)

// recordedBy feeds a new director reports and returns what it proposes to record.
func recordedBy(shards int, reports ...[]*pb.StepMetrics) (got []*pb.StepMetrics) {
	d := newDirector(time.Unix(0, 0), &pb.RunState{}, shards, false, ServerQuota{}, defaultTiming())
	for _, r := range reports {
		d.actions = nil
		d.record(r)
		for _, a := range d.actions {
			got = append(got, a.(doPropose).entry.Metrics...)
		}
	}
	return got
}

func partOf(step uint64, parts ...*pb.PartMetrics) *pb.StepMetrics {
	return &pb.StepMetrics{Step: step, Time: int64(step), Parts: parts}
}

// Steps are recorded in order, each when all its parts are there, however often and in whatever order they are reported.
func TestPartsAddUp(t *testing.T) {
	a := func(step uint64) *pb.StepMetrics {
		return partOf(step, &pb.PartMetrics{Shard: 0, Loss: 0.25, Accuracy: 0.5, Staleness: 3})
	}
	b := func(step uint64) *pb.StepMetrics {
		return partOf(step, &pb.PartMetrics{Shard: 1, Loss: 0.5, Accuracy: 0.25, Staleness: 1})
	}
	got := recordedBy(2, []*pb.StepMetrics{a(0), a(1), a(2)}, []*pb.StepMetrics{a(0), a(1), a(2)}, []*pb.StepMetrics{b(1)}, []*pb.StepMetrics{b(0), b(1)},
		[]*pb.StepMetrics{a(0), b(2)})
	if len(got) != 3 {
		t.Fatalf("%d steps recorded, want 3", len(got))
	}
	for i, m := range got {
		want := &pb.StepMetrics{Step: uint64(i), Time: int64(i), Loss: 0.75, Accuracy: 0.75, Staleness: &pb.Staleness{Min: 1, Mean: 2, Max: 3}}
		if !proto.Equal(m, want) {
			t.Errorf("got %v, want %v", m, want)
		}
	}
}

// What is lost counts only as long as nobody knows better; a step of which a part is lost for good is done all the same.
func TestLostParts(t *testing.T) {
	known := partOf(0, &pb.PartMetrics{Shard: 0, Loss: 1})
	lost := partOf(0, &pb.PartMetrics{Shard: 0, Lost: true})
	other := partOf(0, &pb.PartMetrics{Shard: 1, Loss: 2})
	foreign := partOf(0, &pb.PartMetrics{Shard: 9, Loss: 2})
	for _, order := range [][]*pb.StepMetrics{{known, lost, other}, {lost, known, other}} {
		if got := recordedBy(2, order); len(got) != 1 || got[0].Unknown || got[0].Loss != 3 {
			t.Errorf("recorded %v", got)
		}
	}
	if got := recordedBy(2, []*pb.StepMetrics{lost, foreign}, []*pb.StepMetrics{other}); len(got) != 1 || !got[0].Unknown || got[0].Loss != 0 {
		t.Errorf("recorded %v", got)
	}
}
