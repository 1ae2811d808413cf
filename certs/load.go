package certs

import (
	"bytes"
	"crypto"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"time"
)

// generation is what the files held at one moment. It does not change.
type generation struct {
	stamp     stamp
	roots     []*x509.Certificate
	rootPEM   []byte
	caKey     crypto.Signer       // nil when the certificates come from outside
	chain     []*x509.Certificate // the server's first; empty when it must be issued
	serverKey crypto.Signer       // nil when it must be made
	revoked   revocations
	unusable  error // why revoked is not what the file holds, but what it held before; nil: it is

	open, mutual *tls.Config // mutual demands a certificate of the client
}

func (g *generation) server() *x509.Certificate {
	if len(g.chain) == 0 {
		return nil
	}
	return g.chain[0]
}

func (g *generation) rootPool() *x509.CertPool {
	pool := x509.NewCertPool()
	for _, root := range g.roots {
		pool.AddCert(root)
	}
	return pool
}

// load reads the files and checks that they belong together; it does not look at the dates. A revocation list that
// cannot be used is an error, unless before has one of the same authority: that one stays in force.
func (a *Authority) load(before *generation) (*generation, error) {
	g := &generation{stamp: a.stat()} // before reading: a change in between is seen at the next look
	var err error
	g.roots, g.rootPEM, err = readCertificates(a.caCert)
	if isMissing(err) && !a.outside {
		return nil, fmt.Errorf("%w in %s", ErrNoAuthority, a.dir)
	}
	if err != nil {
		return nil, err
	}
	if !a.outside {
		if err := a.loadAuthorityKey(g); err != nil {
			return nil, err
		}
	}
	if err := a.loadServer(g); err != nil {
		return nil, err
	}
	if err := a.loadRevocations(g); err != nil {
		if before == nil || !bytes.Equal(before.rootPEM, g.rootPEM) {
			return nil, err
		}
		g.revoked, g.unusable = before.revoked, err
	}
	return g, nil
}

func (a *Authority) loadAuthorityKey(g *generation) error {
	key, err := readKey(a.caKey)
	if isMissing(err) {
		return nil
	}
	if err != nil {
		return err
	}
	if err := checkAuthority(g.roots[0]); err != nil {
		return fmt.Errorf("certificate %s %w", a.caCert, err)
	}
	if !belongs(key, g.roots[0]) {
		return fmt.Errorf("key %s does not belong to %s: restore both from one backup or create a new authority", a.caKey, a.caCert)
	}
	g.caKey = key
	return nil
}

// loadServer fills in key and chain. With our own authority, what is missing can be issued: it stays empty.
func (a *Authority) loadServer(g *generation) error {
	key, err := readKey(a.serverKey)
	if err != nil && (g.caKey == nil || !isMissing(err)) {
		return err
	}
	g.serverKey = key
	chain, _, err := readCertificates(a.serverCert)
	if isMissing(err) && g.caKey != nil {
		return nil
	}
	if err != nil {
		return err
	}
	if err := verifyChain(chain, g.rootPool(), time.Time{}); err != nil {
		return fmt.Errorf("certificate %s %w (%s)", a.serverCert, err, a.caCert)
	}
	if key == nil || !belongs(key, chain[0]) {
		if g.caKey != nil {
			return nil // ours, so a certificate for the key that is there can be issued
		}
		return fmt.Errorf("key %s does not belong to %s", a.serverKey, a.serverCert)
	}
	g.chain = chain
	return nil
}

func belongs(key crypto.Signer, c *x509.Certificate) bool {
	pub, ok := key.Public().(interface{ Equal(crypto.PublicKey) bool })
	return ok && pub.Equal(c.PublicKey)
}

// checkValidity judges the dates of what cannot be renewed here. While the clock is not set it does not.
func (a *Authority) checkValidity(g *generation) error {
	now := a.now()
	if ClockUnsure(now, a.build) {
		return nil
	}
	if g.caKey != nil {
		if err := checkDates(g.roots[0], now); err != nil {
			return fmt.Errorf("certificate %s %w", a.caCert, err)
		}
		return nil
	}
	err := checkDates(g.server(), now)
	if err == nil {
		err = verifyChain(g.chain, g.rootPool(), now)
	}
	if err != nil {
		return fmt.Errorf("certificate %s %w", a.serverCert, err)
	}
	return nil
}
