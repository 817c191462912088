package logadapt

import (
	"bytes"
	"log"
	"time"

	"github.com/rs/zerolog"
)

// Std returns a *log.Logger that writes to out at the level of the lines'
// prefixes, as memberlist sets them: "[WARN] memberlist: ...".
func Std(out zerolog.Logger) *log.Logger {
	return log.New(&prefixed{out: out, warned: NewThrottle(warnPeriod, time.Now)}, "", 0)
}

type prefixed struct {
	out    zerolog.Logger
	warned *Throttle
}

// Write takes one line, as log.Logger writes them.
func (p *prefixed) Write(line []byte) (int, error) {
	level, text := zerolog.DebugLevel, bytes.TrimSpace(line)
	if name, rest, ok := bytes.Cut(text, []byte("]")); ok && bytes.HasPrefix(name, []byte("[")) {
		if l, known := p.level(string(name[1:]), rest); known {
			level, text = l, bytes.TrimSpace(rest)
		}
	}
	p.out.WithLevel(level).Msg(string(text))
	return len(line), nil
}

func (p *prefixed) level(name string, text []byte) (zerolog.Level, bool) {
	switch name {
	case "TRACE", "DEBUG":
		return zerolog.TraceLevel, true
	case "INFO":
		return zerolog.DebugLevel, true
	case "ERR", "ERROR", "WARN": // of a peer that does not answer, mostly; see HCLog
		if p.warned.Allow(string(text)) {
			return zerolog.InfoLevel, true
		}
		return zerolog.DebugLevel, true
	}
	return zerolog.NoLevel, false
}
