// Package port is the one listening port of a node: a TCP listener and a UDP
// socket of the same number, shared by everything that nodes say to each other.
//
// # How a connection opens
//
//	dialing side                          accepting side
//	[TLS 1.3, when the cluster has a key]
//	protocol byte, frame(Hello)     →
//	                                ←     answer byte, frame(Welcome)
//	the bytes of the topic's own protocol, untouched
//
// The Hello says which wire version, cluster, job and topic are meant; whatever
// does not fit is refused in one sentence that both sides get to see. The first
// byte tells a TLS record (0x16), a muster protocol and garbage apart, so that
// a keyed and an unkeyed node can tell each other, in words, what is wrong.
//
// # What it promises
//
//   - Nothing blocks without a deadline: a silent, slow or chattering stranger
//     costs one goroutine for at most two seconds and one line in the log.
//   - A plain connection is handed out as the *net.TCPConn it is, with not one
//     byte read ahead, so that net.Buffers becomes writev.
//   - Close ends every connection whose handler still runs, and waits for them.
//
// # What it leaves out
//
// It neither reconnects nor pools, and UDP packets are handed out raw: gossip
// seals them with its own key (GossipKey).
//
// # The key
//
// All nodes of a cluster share one secret. HKDF turns it into one Ed25519 key,
// and that into one self-signed certificate, the same on every node. Both sides
// of a TLS 1.3 handshake present it and compare the other's public key with
// their own: whoever proves to hold the key holds the secret. Rejected: a
// certificate authority (files to make, copy and renew on every node for no
// gain while all nodes are equals) and TLS-PSK (not in Go's standard library).
package port
