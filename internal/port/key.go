package port

import (
	"context"
	"crypto/ed25519"
	"crypto/hkdf"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"fmt"
	"math/big"
	"net"
	"time"
)

// GossipKey derives the 32-byte key that seals gossip packets; nil for no key.
func GossipKey(key []byte) []byte {
	if key == nil {
		return nil
	}
	derived, err := derive(key, "muster gossip v1", 32)
	if err != nil {
		return nil // 32 bytes of SHA-256 HKDF never fail outside a misused FIPS mode
	}
	return derived
}

func derive(key []byte, purpose string, size int) ([]byte, error) {
	return hkdf.Key(sha256.New, key, nil, purpose, size)
}

// identity is what the shared key makes of a node: the one certificate of the
// cluster and the public key that every peer must present.
type identity struct {
	public ed25519.PublicKey
	config *tls.Config
}

// newIdentity is a pure function of the key; nil for no key.
func newIdentity(key []byte) (*identity, error) {
	if key == nil {
		return nil, nil
	}
	seed, err := derive(key, "muster tls identity v1", ed25519.SeedSize)
	if err != nil {
		return nil, fmt.Errorf("key: %w", err)
	}
	private := ed25519.NewKeyFromSeed(seed)
	public, ok := private.Public().(ed25519.PublicKey)
	if !ok {
		return nil, errors.New("key: no Ed25519 public key")
	}
	// Dates and serial are fixed: the certificate is the same on every node, and
	// a wrong clock locks nobody out.
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1),
		Subject:      pkix.Name{CommonName: "muster"},
		NotBefore:    time.Date(2020, 1, 1, 0, 0, 0, 0, time.UTC),
		NotAfter:     time.Date(9999, 12, 31, 23, 59, 59, 0, time.UTC),
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, public, private)
	if err != nil {
		return nil, fmt.Errorf("key: %w", err)
	}
	return &identity{public: public, config: &tls.Config{
		Certificates: []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: private}},
		MinVersion:   tls.VersionTLS13,
		// Chains and host names mean nothing here; check compares the key itself.
		InsecureSkipVerify:     true,
		ClientAuth:             tls.RequireAnyClientCert,
		SessionTicketsDisabled: true, // a resumed session would skip the proof of the key
	}}, nil
}

// errKeyDiffers is returned by secure when the TLS peer holds another key.
var errKeyDiffers = errors.New(keyDiffers)

// secure runs the handshake and compares the peer's key with our own. The
// comparison comes after the handshake, not in a verify callback, so that the
// accepting side, too, learns that it was the key and not just "bad certificate".
func (i *identity) secure(ctx context.Context, conn *tls.Conn) (net.Conn, error) {
	if err := conn.HandshakeContext(ctx); err != nil {
		return nil, err
	}
	certs := conn.ConnectionState().PeerCertificates
	if len(certs) == 0 {
		return nil, errKeyDiffers
	}
	if public, ok := certs[0].PublicKey.(ed25519.PublicKey); !ok || !public.Equal(i.public) {
		return nil, errKeyDiffers
	}
	return conn, nil
}

// unread gives back the byte that was read to tell TLS from the rest.
type unread struct {
	net.Conn
	first []byte
}

func (u *unread) Read(b []byte) (int, error) {
	if len(u.first) == 0 {
		return u.Conn.Read(b)
	}
	n := copy(b, u.first)
	u.first = u.first[n:]
	return n, nil
}
