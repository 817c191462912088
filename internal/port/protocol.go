package port

import (
	"fmt"

	"github.com/musterml/muster/internal/id"
)

// Protocol is the first byte of a connection. The values are no ASCII, so that
// a browser or another chatty client is recognised, and differ from a TLS
// record's first byte.
type Protocol byte

const (
	Gossip  Protocol = 0xA1 // memberlist's TCP exchange
	Raft    Protocol = 0xA2 // messages of the Raft groups
	Params  Protocol = 0xA3 // parameter servers: clients and payloads
	Ring    Protocol = 0xA4 // collectives between trainers
	Control Protocol = 0xA5 // status, why, reports to the coordinator; open to tools
)

const (
	tlsRecord  = 0x16 // first byte of a TLS client's first record
	answerByte = 0xA0 // first byte of the answer to a Hello
	// wireVersion changes whenever two versions of muster could misunderstand
	// each other on any connection behind this port.
	wireVersion = 1
	// maxHello bounds both opening messages; names and topics are short.
	maxHello = 16 << 10
)

func (p Protocol) known() bool { return p >= Gossip && p <= Control }

func (p Protocol) String() string {
	switch p {
	case Gossip:
		return "gossip"
	case Raft:
		return "raft"
	case Params:
		return "params"
	case Ring:
		return "ring"
	case Control:
		return "control"
	}
	return fmt.Sprintf("protocol 0x%02x", byte(p))
}

// Peer is who dialed, as its Hello says. With a key it is at least one of us;
// without, it is whoever reaches the port.
type Peer struct {
	Node  id.Node
	Addr  string // where the peer itself listens; "" for a tool
	Topic string // as dialed, also under a handler of every topic
	Tool  bool   // not a node: status, why and the like
}
