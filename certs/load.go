package certs

import (
	"crypto"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"slices"
	"time"
)

// signer is a certificate of an authority with its key.
type signer struct {
	cert *x509.Certificate
	key  crypto.Signer
}

// generation is what the files held at one moment. It does not change.
type generation struct {
	stamp     stamp
	roots     []*x509.Certificate // our own authorities' first
	own       []signer            // our own authorities, the oldest first; empty when the certificates come from outside
	caKey     crypto.Signer       // of own[0]; nil when there is none
	pending   crypto.Signer       // the key of a roll-over that was interrupted
	chain     []*x509.Certificate // the server's first; empty when it must be issued
	serverKey crypto.Signer       // nil when it must be made
	rsa       rsaIdentity
	ids       identities
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

// sameRoots reports whether both trust the same authorities.
func (g *generation) sameRoots(other *generation) bool {
	return slices.EqualFunc(g.roots, other.roots, (*x509.Certificate).Equal)
}

// load reads the files and checks that they belong together; it does not look at the dates. A revocation list that
// cannot be used is an error, unless before has one of the same authority: that one stays in force.
func (a *Authority) load(before *generation) (*generation, error) {
	g := &generation{stamp: a.stat()} // before reading: a change in between is seen at the next look
	var err error
	g.roots, err = readRoots(a.caCert)
	if isMissing(err) && !a.outside {
		return nil, fmt.Errorf("%w in %s", ErrNoAuthority, a.dir)
	}
	if err != nil {
		return nil, fmt.Errorf("certificate %s %w", a.caCert, explain(err))
	}
	if !a.outside {
		if err := a.loadAuthorityKeys(g); err != nil {
			return nil, err
		}
	}
	if err := a.loadServer(g); err != nil {
		return nil, err
	}
	if err := a.loadRSA(g); err != nil {
		return nil, err
	}
	if err := a.loadRevocations(g); err != nil {
		if before == nil || !before.sameRoots(g) {
			return nil, err
		}
		g.revoked, g.unusable = before.revoked, err
	}
	return g, nil
}

// loadAuthorityKeys finds the certificates of our keys in ca.crt.
func (a *Authority) loadAuthorityKeys(g *generation) error {
	var rest = g.roots
	for n := 1; n <= maxAuthorities; n++ {
		path := a.authorityKey(n)
		key, err := readKey(path)
		if isMissing(err) {
			break
		}
		if err != nil {
			return err
		}
		mine := slices.IndexFunc(rest, func(c *x509.Certificate) bool { return belongs(key, c) })
		if mine < 0 && n > 1 {
			g.pending = key
			break
		}
		if err := checkAuthority(rest[max(mine, 0)]); err != nil {
			return fmt.Errorf("certificate %s %w", a.caCert, err)
		}
		if mine < 0 {
			return fmt.Errorf("key %s does not belong to %s: restore both from one backup or create a new authority", path, a.caCert)
		}
		g.own = append(g.own, signer{rest[mine], key})
		rest = slices.Delete(slices.Clone(rest), mine, mine+1)
	}
	if len(g.own) == 0 {
		return nil
	}
	g.caKey = g.own[0].key
	g.roots = nil
	for _, s := range g.own {
		g.roots = append(g.roots, s.cert)
	}
	g.roots = append(g.roots, rest...)
	return nil
}

// loadServer fills in key and chain. With our own authority, what is missing can be issued: it stays empty.
func (a *Authority) loadServer(g *generation) error {
	key, err := readKey(a.serverKey)
	if err != nil && (g.caKey == nil || !isMissing(err)) {
		return err
	}
	g.serverKey = key
	chain, err := readServerCertificates(a.serverCert)
	if isMissing(err) && g.caKey != nil {
		return nil
	}
	if err != nil {
		return err
	}
	if g.caKey == nil {
		chain = serverChain(chain, g.roots, key)
	}
	fits := key != nil && belongs(key, chain[0])
	if err := verifyChain(chain, g.rootPool(), time.Time{}); err != nil {
		if gap := a.gap(chain, g.roots); g.caKey == nil && fits && errors.Is(err, errStranger) && gap != nil {
			return gap
		}
		return fmt.Errorf("certificate %s %w (%s)", a.serverCert, err, a.caCert)
	}
	if !fits {
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

// unsure reports whether the clock cannot be right: it stands before the build date, or before our own authority was made.
func (a *Authority) unsure(g *generation, now time.Time) bool {
	return ClockUnsure(now, a.build) || a.doubt() != "" || g != nil && g.caKey != nil && now.Before(g.own[0].cert.NotBefore)
}

// checkClock returns ErrClock when nothing can be signed now. A nil g is a directory without an authority.
func (a *Authority) checkClock(g *generation, now time.Time) error {
	shows := "it shows " + now.UTC().Format(time.RFC3339)
	doubt := a.doubt()
	switch {
	case ClockUnsure(now, a.build):
		return fmt.Errorf("%w: %s and the program was built on %s", ErrClock, shows, a.build.UTC().Format(time.DateOnly))
	case doubt != "":
		return fmt.Errorf("%w: %s and is not to be trusted: %s", ErrClock, shows, doubt)
	case g == nil || g.caKey == nil:
		return nil
	case now.Before(g.own[0].cert.NotBefore):
		return fmt.Errorf("%w: %s and %s was made on %s", ErrClock, shows, a.caCert, g.own[0].cert.NotBefore.UTC().Format(time.DateOnly))
	case checkDates(g.serverSigner(now).cert, now) != nil:
		return fmt.Errorf("%w, or %s ended on %s: %s", ErrClock, a.caCert, g.serverSigner(now).cert.NotAfter.UTC().Format(time.DateOnly), shows)
	}
	return nil
}
