package certs

import (
	"crypto/x509"
	"fmt"
	"slices"
	"time"
)

// Fingerprints are those of our own authorities, the oldest first, or of all that clients are given when the certificates come
// from outside.
func (a *Authority) Fingerprints() []string {
	g := a.current.Load()
	var list []string
	for _, c := range g.issuersOrRoots() {
		list = append(list, fingerprint(c))
	}
	return list
}

func (g *generation) issuersOrRoots() []*x509.Certificate {
	if len(g.own) > 0 {
		return g.issuers()
	}
	return g.roots
}

// Outside reports whether a path of the options points out of the directory: then the certificates are somebody else's.
func (a *Authority) Outside() bool { return a.outside }

// AuthoritiesPEM are the certificates of Fingerprints, for Restore.
func (a *Authority) AuthoritiesPEM() []byte { return encodeCert(a.current.Load().issuersOrRoots()...) }

// Restore writes ca.crt again, which was lost, from the certificates that were remembered elsewhere (AuthoritiesPEM). It does
// so only where they belong to the key of the authority or, when that is lost too, to the server's certificate; else it
// returns ErrNoAuthority and writes nothing.
func Restore(o Options, authorities []byte) error {
	a, err := newAuthority(o)
	if err != nil {
		return err
	}
	if a.outside || exists(a.caCert) {
		return fmt.Errorf("restore %s: %w", a.caCert, ErrExists)
	}
	roots, err := parseRoots(authorities)
	if err != nil {
		return fmt.Errorf("restore %s: what was remembered %w", a.caCert, err)
	}
	if !a.fits(roots) {
		return fmt.Errorf("%w in %s", ErrNoAuthority, a.dir)
	}
	if err := writeFiles(file{a.caCert, encodeCert(roots...), 0o644}); err != nil {
		return err
	}
	a.log.Warn("ca.crt was lost and is restored from what the database remembers", "path", a.caCert, "fingerprint", fingerprint(roots[0]))
	return nil
}

func (a *Authority) fits(roots []*x509.Certificate) bool {
	key, err := readKey(a.caKey)
	if err == nil {
		return slices.ContainsFunc(roots, func(c *x509.Certificate) bool { return belongs(key, c) })
	}
	if !isMissing(err) {
		return false
	}
	chain, err := readServerCertificates(a.serverCert)
	g := generation{roots: roots}
	return err == nil && exists(a.serverKey) && verifyChain(chain, g.rootPool(), time.Time{}) == nil
}

// Follow returns what a client of this box trusts that was told to trust roots: those, and as long as the authorities of today are
// among them those that follow. The result changes with every roll-over.
func (a *Authority) Follow(roots *x509.CertPool) func() *x509.CertPool {
	today := a.current.Load().roots
	return func() *x509.CertPool {
		g := a.current.Load()
		same := slices.ContainsFunc(g.roots, func(c *x509.Certificate) bool { return slices.ContainsFunc(today, c.Equal) })
		if !same {
			return roots
		}
		return g.rootPool()
	}
}

// Rollover is what people should know while one authority follows another.
type Rollover struct {
	Since    time.Time `json:"since"`    // the next authority is handed out
	Switch   time.Time `json:"switch"`   // the server's certificate is issued by it
	OldEnds  time.Time `json:"old_ends"` // who trusts the old one alone is outside
	Old, New string    `json:"-"`        // fingerprints
}

// Rollover tells about the roll-over that is going on; false when there is none.
func (a *Authority) Rollover() (Rollover, bool) {
	g, now := a.current.Load(), a.now()
	var valid []*x509.Certificate
	for _, s := range g.own {
		if checkDates(s.cert, now) == nil {
			valid = append(valid, s.cert)
		}
	}
	if len(valid) < 2 {
		return Rollover{}, false
	}
	old, next := valid[0], valid[len(valid)-1] // their dates are whole seconds, cut off
	return Rollover{Since: next.NotBefore.Add(backdate + time.Second), Switch: old.NotAfter.Add(-switchBefore), OldEnds: old.NotAfter,
		Old: fingerprint(old), New: fingerprint(next)}, true
}

// RollOver makes the authority that follows now, years before it is due, for instance because the key may be known to others.
func (a *Authority) RollOver() error {
	a.mu.Lock()
	defer a.mu.Unlock()
	now := a.now()
	err := a.exclusively(func() error {
		g, err := a.load(nil)
		if err == nil && g.caKey == nil {
			err = a.noKey()
		}
		if err == nil {
			err = a.checkClock(g, now)
		}
		if err == nil && g.otherSigner(g.serverSigner(now), now) != nil {
			err = fmt.Errorf("%w: one authority follows another already", ErrExists)
		}
		if err == nil {
			err = a.makeNext(g, now)
		}
		return err
	})
	var g *generation
	if err == nil {
		g, err = a.look(nil)
	}
	if err != nil {
		return fmt.Errorf("roll the certificate authority over: %w", err)
	}
	a.use(g)
	return nil
}

// TimeWithin returns now when the server's certificate and its authority are valid then, and else a time at which they are.
func (a *Authority) TimeWithin(now time.Time) time.Time {
	g := a.current.Load()
	if checkDates(g.server(), now) == nil && verifyChain(g.chain, g.rootPool(), now) == nil {
		return now
	}
	return g.server().NotBefore
}
