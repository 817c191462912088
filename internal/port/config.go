package port

import (
	"errors"
	"fmt"
	"net"
	"strings"
	"time"
	"unicode"

	"github.com/musterml/muster/internal/id"
	"github.com/rs/zerolog"
)

// Config says what a node is and where it listens.
type Config struct {
	// Listen is host:port. Port 0 picks a number that is free for TCP and UDP.
	Listen string
	// Advertise is the host:port (or host) at which others reach this node.
	// Empty means the listener's address or, where that is unspecified (0.0.0.0),
	// the address of the route to the first seed.
	Advertise string
	// Seeds are the host:port of nodes to join, used to choose and to check the
	// advertised address; nothing is sent to them from here.
	Seeds []string

	Node    id.Node
	Cluster string // name; nodes of different clusters refuse each other
	Version string // of muster, for messages to people
	// Job is the job's digest; nodes of different jobs refuse each other. Zero
	// stands for no job: only Control is open to such a node elsewhere.
	Job [32]byte
	// Key is the cluster's secret, of at least MinKey bytes; nil for plain TCP.
	Key []byte
	Log zerolog.Logger

	handshake time.Duration           // 0: handshakeTimeout; tests shorten it
	wrap      func(listener) listener // nil: as it is; tests make it fail
}

const (
	// MinKey is the least number of bytes of a key.
	MinKey = 16
	// maxName bounds names, which appear in topics, logs and gossip metadata.
	maxName = 128
	// handshakeTimeout is what a stranger may cost at most.
	handshakeTimeout = 2 * time.Second
	// dialTimeout ends a Dial whose context has no earlier deadline.
	dialTimeout = 5 * time.Second
)

// validate reports everything that is wrong at once, each naming its field.
func (c *Config) validate() error {
	var errs []error
	if _, _, err := net.SplitHostPort(c.Listen); err != nil {
		errs = append(errs, fmt.Errorf("listen: %q is not host:port", c.Listen))
	}
	if err := ValidName(string(c.Node)); err != nil {
		errs = append(errs, fmt.Errorf("node: %w", err))
	}
	if err := ValidName(c.Cluster); err != nil {
		errs = append(errs, fmt.Errorf("cluster: %w", err))
	}
	for _, seed := range c.Seeds {
		if _, _, err := net.SplitHostPort(seed); err != nil {
			errs = append(errs, fmt.Errorf("seeds: %q is not host:port", seed))
		}
	}
	if err := validKey(c.Key); err != nil {
		errs = append(errs, err)
	}
	if c.handshake == 0 {
		c.handshake = handshakeTimeout
	}
	if c.wrap == nil {
		c.wrap = func(l listener) listener { return l }
	}
	return errors.Join(errs...)
}

// ValidName reports whether name may stand for a node or a cluster. '/' and '@'
// separate the parts of topics and of Raft identities and may not be in a name.
func ValidName(name string) error {
	switch {
	case name == "":
		return errors.New("the name is empty")
	case len(name) > maxName:
		return fmt.Errorf("the name %q... is longer than %d bytes", name[:maxName], maxName)
	case strings.ContainsFunc(name, func(r rune) bool {
		return r == '/' || r == '@' || unicode.IsSpace(r) || !unicode.IsPrint(r)
	}):
		return fmt.Errorf("the name %q may not contain '/', '@', blanks or unprintable characters", name)
	}
	return nil
}

func validKey(key []byte) error {
	if key != nil && len(key) < MinKey {
		return fmt.Errorf("key: %d bytes are too few, use at least %d random ones", len(key), MinKey)
	}
	return nil
}
