package logadapt

import (
	"fmt"
	"io"
	"log"
	"strings"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/rs/zerolog"
)

// warnPeriod is how often the same warning of a library is shown.
const warnPeriod = 10 * time.Second

// HCLog returns an hclog.Logger that writes to out.
func HCLog(out zerolog.Logger) hclog.Logger {
	return &hc{out: out, warned: NewThrottle(warnPeriod, time.Now)}
}

// hc is immutable but for its throttle, which all its descendants share.
type hc struct {
	out    zerolog.Logger
	warned *Throttle
	name   string
	args   []any
}

func (h *hc) Log(level hclog.Level, msg string, args ...any) {
	to := h.level(level, msg)
	if to < h.out.GetLevel() {
		return
	}
	event := h.out.WithLevel(to)
	if h.name != "" {
		event = event.Str("from", h.name)
	}
	fields(fields(event, h.args), args).Msg(msg)
}

// level maps hclog's levels to ours, one down: what a library warns of (a peer that
// does not answer, an election) is muster's daily business, which muster tells itself in
// its own words; its errors become warnings. The throttle's key is the message alone,
// which in hclog is constant: "failed to heartbeat to" counts for all peers.
func (h *hc) level(level hclog.Level, msg string) zerolog.Level {
	switch {
	case level >= hclog.Off:
		return zerolog.Disabled
	case level >= hclog.Error && !isTalk(msg):
		if h.out.GetLevel() <= zerolog.WarnLevel && h.warned.Allow(msg) {
			return zerolog.WarnLevel
		}
		return zerolog.DebugLevel
	case level >= hclog.Warn:
		if h.out.GetLevel() <= zerolog.InfoLevel && h.warned.Allow(msg) {
			return zerolog.InfoLevel
		}
		return zerolog.DebugLevel
	case level == hclog.Info:
		return zerolog.DebugLevel
	}
	return zerolog.TraceLevel
}

// isTalk knows raft's errors that only say that a peer cannot be talked to.
func isTalk(msg string) bool {
	for _, talk := range []string{
		"failed to appendEntries to", "failed to heartbeat to", "failed to contact", "failed to pipeline appendEntries",
		"failed to make requestVote RPC", "failed to make requestPreVote RPC", "failed to decode incoming command",
		"failed to flush response", "failed to send snapshot to", "peer has newer term, stopping replication",
		"failed to get previous log",
	} {
		if strings.HasPrefix(msg, talk) {
			return true
		}
	}
	return false
}

// fields adds hclog's alternating keys and values.
func fields(event *zerolog.Event, args []any) *zerolog.Event {
	for len(args) > 0 {
		if len(args) == 1 {
			return event.Interface("extra", args[0])
		}
		key, value := fmt.Sprint(args[0]), args[1]
		args = args[2:]
		switch v := value.(type) {
		case hclog.Format:
			if len(v) > 0 {
				event = event.Str(key, fmt.Sprintf(fmt.Sprint(v[0]), v[1:]...))
			}
		case error:
			event = event.AnErr(key, v)
		case time.Duration:
			event = event.Stringer(key, v)
		case fmt.Stringer:
			event = event.Stringer(key, v)
		default:
			event = event.Interface(key, v)
		}
	}
	return event
}

func (h *hc) Trace(msg string, args ...any) { h.Log(hclog.Trace, msg, args...) }
func (h *hc) Debug(msg string, args ...any) { h.Log(hclog.Debug, msg, args...) }
func (h *hc) Info(msg string, args ...any)  { h.Log(hclog.Info, msg, args...) }
func (h *hc) Warn(msg string, args ...any)  { h.Log(hclog.Warn, msg, args...) }
func (h *hc) Error(msg string, args ...any) { h.Log(hclog.Error, msg, args...) }

func (h *hc) IsTrace() bool { return h.out.GetLevel() <= zerolog.TraceLevel }
func (h *hc) IsDebug() bool { return h.out.GetLevel() <= zerolog.TraceLevel }
func (h *hc) IsInfo() bool  { return h.out.GetLevel() <= zerolog.DebugLevel }
func (h *hc) IsWarn() bool  { return h.out.GetLevel() <= zerolog.InfoLevel }
func (h *hc) IsError() bool { return h.out.GetLevel() <= zerolog.WarnLevel }

func (h *hc) ImpliedArgs() []any { return h.args }
func (h *hc) Name() string       { return h.name }

func (h *hc) With(args ...any) hclog.Logger {
	with := *h
	with.args = append(append([]any(nil), h.args...), args...)
	return &with
}

func (h *hc) Named(name string) hclog.Logger {
	if h.name != "" {
		name = h.name + "." + name
	}
	return h.ResetNamed(name)
}

func (h *hc) ResetNamed(name string) hclog.Logger {
	named := *h
	named.name = name
	return &named
}

// SetLevel does nothing: the level is that of the zerolog.Logger.
func (h *hc) SetLevel(hclog.Level) {}

func (h *hc) GetLevel() hclog.Level {
	switch level := h.out.GetLevel(); {
	case level <= zerolog.TraceLevel:
		return hclog.Debug
	case level <= zerolog.DebugLevel:
		return hclog.Info
	case level <= zerolog.InfoLevel:
		return hclog.Warn
	case level <= zerolog.WarnLevel:
		return hclog.Error
	}
	return hclog.Off
}

func (h *hc) StandardLogger(*hclog.StandardLoggerOptions) *log.Logger {
	return Std(h.out)
}

func (h *hc) StandardWriter(*hclog.StandardLoggerOptions) io.Writer {
	return &prefixed{out: h.out, warned: h.warned}
}
