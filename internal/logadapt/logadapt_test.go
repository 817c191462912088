package logadapt

import (
	"bytes"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/rs/zerolog"
)

func TestHCLog(t *testing.T) {
	var out bytes.Buffer
	log := HCLog(zerolog.New(&out).Level(zerolog.TraceLevel)).Named("raft").Named("net").With("peer", "b")
	log.Trace("t")
	log.Debug("d", "odd")
	log.Info("i", "error", errors.New("broken"), "took", 2*time.Second, "n", 7)
	log.Warn("w", "text", hclog.Fmt("%d of %d", 1, 3))
	log.Error("e")
	log.Warn("w")
	log.StandardLogger(nil).Println("[ERR] e2")
	want := `{"level":"trace","from":"raft.net","peer":"b","message":"t"}
{"level":"trace","from":"raft.net","peer":"b","extra":"odd","message":"d"}
{"level":"debug","from":"raft.net","peer":"b","error":"broken","took":"2s","n":7,"message":"i"}
{"level":"info","from":"raft.net","peer":"b","text":"1 of 3","message":"w"}
{"level":"warn","from":"raft.net","peer":"b","message":"e"}
{"level":"debug","from":"raft.net","peer":"b","message":"w"}
{"level":"info","message":"e2"}
`
	if got := out.String(); got != want {
		t.Errorf("got\n%swant\n%s", got, want)
	}
}

func TestHCLogLevels(t *testing.T) {
	for level, want := range map[zerolog.Level]string{
		zerolog.TraceLevel: "debug", zerolog.DebugLevel: "info", zerolog.InfoLevel: "warn",
		zerolog.WarnLevel: "error", zerolog.ErrorLevel: "off",
	} {
		var out bytes.Buffer
		log := HCLog(zerolog.New(&out).Level(level))
		log.SetLevel(hclog.Trace) // has no say
		if got := log.GetLevel().String(); got != want {
			t.Errorf("%s: level %s, want %s", level, got, want)
		}
		for l, says := range map[hclog.Level]bool{
			hclog.Trace: log.IsTrace(), hclog.Info: log.IsInfo(), hclog.Warn: log.IsWarn(), hclog.Error: log.IsError(),
		} {
			out.Reset()
			log.Log(l, "x "+l.String())
			if spoke := out.Len() > 0; spoke != says {
				t.Errorf("%s: Is%s is %t, but speaking is %t", level, l, says, spoke)
			}
		}
	}
}

func TestStd(t *testing.T) {
	var out bytes.Buffer
	log := Std(zerolog.New(&out).Level(zerolog.TraceLevel))
	log.Println("[WARN] memberlist: a")
	log.Println("[WARN] memberlist: a")
	log.Printf("[ERR] memberlist: %s", "b")
	log.Print("[INFO] memberlist: c")
	log.Print("[DEBUG] memberlist: d")
	log.Print("[other] e")
	log.Print("f")
	want := []string{
		`{"level":"info","message":"memberlist: a"}`,
		`{"level":"debug","message":"memberlist: a"}`,
		`{"level":"info","message":"memberlist: b"}`,
		`{"level":"debug","message":"memberlist: c"}`,
		`{"level":"trace","message":"memberlist: d"}`,
		`{"level":"debug","message":"[other] e"}`,
		`{"level":"debug","message":"f"}`,
	}
	if got := strings.Split(strings.TrimSpace(out.String()), "\n"); strings.Join(got, "\n") != strings.Join(want, "\n") {
		t.Errorf("got\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}

func TestThrottle(t *testing.T) {
	now := time.Unix(0, 0)
	th := NewThrottle(time.Minute, func() time.Time { return now })
	if !th.Allow("a") || th.Allow("a") || !th.Allow("b") {
		t.Error("not once for each key")
	}
	now = now.Add(time.Minute)
	if !th.Allow("a") {
		t.Error("silent after its period")
	}
	for i := range 2 * maxKeys {
		th.Allow(fmt.Sprint(i))
	}
	if len(th.last) > maxKeys {
		t.Errorf("%d keys kept, the limit is %d", len(th.last), maxKeys)
	}
	if th.Allow("one more") {
		t.Error("an unbounded number of keys may speak")
	}
	now = now.Add(time.Minute)
	if !th.Allow("one more") {
		t.Error("silent after the others' period")
	}
}
