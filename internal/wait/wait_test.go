package wait

import (
	"testing"
	"testing/synctest"
	"time"
)

func TestSnapshotTellsWhatIsWaitedForAndWhatIsUsual(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var r Registry
		if got := r.Snapshot(); len(got) != 0 {
			t.Fatalf("an empty registry tells of %v", got)
		}
		end := r.Begin("the all-reduce", "step 1", "ring")
		<-time.After(100 * time.Millisecond)
		end()
		end() // a second time does nothing
		began := time.Now()
		r.Work("computing", "step 2")
		<-time.After(time.Second)
		on := "b"
		end = r.Follow("the all-reduce", "step 2", "ring", func() (string, string, bool) { return "for it to begin", on, on != "" })
		got := r.Snapshot()
		want := []Wait{
			{What: "computing", Of: "step 2", Work: true, Since: began},
			{What: "the all-reduce", Of: "step 2", Detail: "for it to begin", On: "b", Since: began.Add(time.Second), Usual: 100 * time.Millisecond},
		}
		if len(got) != 2 || got[0] != want[0] || got[1] != want[1] {
			t.Errorf("got %+v, want %+v", got, want)
		}
		on = ""
		if got := r.Snapshot()[1]; got.On != "ring" || got.Detail != "" {
			t.Errorf("with nothing to tell: %+v", got)
		}
		<-time.After(1100 * time.Millisecond)
		end()
		r.Begin("the all-reduce", "step 3", "ring")
		if got := r.Snapshot()[1].Usual; got != 200*time.Millisecond {
			t.Errorf("usual is %v after 0.1 s and 1.1 s", got)
		}
	})
}
