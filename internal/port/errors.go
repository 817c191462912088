package port

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"

	pb "github.com/musterml/muster/proto"
)

// ErrNoTopic is returned by Dial when the other side has no handler for the
// protocol and topic, which is normal while nodes start: try again.
var ErrNoTopic = errors.New("topic not handled there (yet)")

// ErrNotMuster is returned by Dial when something answers that is no muster port.
var ErrNotMuster = errors.New("what answers there is not muster")

// Refused is returned by Dial when the two sides do not belong together. It
// will not get better by trying again: a person has to change one of them.
type Refused struct {
	Addr   string // that was dialed
	Reason string // one sentence; the other side has the same in its log
}

func (r *Refused) Error() string { return r.Addr + " refused: " + r.Reason }

// The sentences about keys are needed on both sides apart, because where keys
// differ no side can be told by the other.
const (
	keyDiffers     = "its key differs; use the same --key-file on every node"
	acceptorNoKey  = "it has no key, but this side has one; use the same --key-file on every node"
	dialerNoKeyFmt = "%s has a key, %s has none; use the same --key-file on every node"
)

// mismatch says in one sentence, fit for both sides, why the sender of h does
// not belong here; "" when it does. Tools may leave cluster and job open.
func (p *Port) mismatch(proto Protocol, h *pb.Hello) string {
	them, us := h.GetNode(), string(p.cfg.Node)
	if h.GetWireVersion() != wireVersion {
		return fmt.Sprintf("%s speaks wire version %d (muster %s), %s speaks %d (muster %s); install the same muster on every node",
			them, h.GetWireVersion(), h.GetVersion(), us, wireVersion, p.cfg.Version)
	}
	tool := h.GetAddr() == ""
	if h.GetCluster() != p.cfg.Cluster && (!tool || h.GetCluster() != "") {
		return fmt.Sprintf("%s is in cluster %q, %s in cluster %q; use the same cluster name on every node",
			them, h.GetCluster(), us, p.cfg.Cluster)
	}
	job := jobOf(h)
	if job == p.cfg.Job && !tool {
		return ""
	}
	if job == (jobDigest{}) {
		if proto == Control {
			return ""
		}
		return fmt.Sprintf("%s has no job, and without one only control is open to it, not %s on %s", them, proto, us)
	}
	if job != p.cfg.Job {
		return fmt.Sprintf("%s runs job %s, %s runs job %s; use the same job file on every node, and in Go programs the same data",
			them, job, us, jobDigest(p.cfg.Job))
	}
	return ""
}

// jobDigest prints as its first bytes: enough to compare by eye.
type jobDigest [32]byte

func (d jobDigest) String() string {
	if d == (jobDigest{}) {
		return "none"
	}
	return hex.EncodeToString(d[:6])
}

// jobOf reads the Hello's digest. One of another size comes from another version
// of muster; hashed, it equals no job of ours.
func jobOf(h *pb.Hello) (d jobDigest) {
	job := h.GetJob()
	if len(job) != len(d) && len(job) != 0 {
		return sha256.Sum256(job)
	}
	copy(d[:], job)
	return d
}
