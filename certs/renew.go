package certs

import (
	"context"
	"crypto"
	"crypto/x509"
	"fmt"
	"time"
)

// checkEvery is how often Run looks: rare enough to let a Pi sleep, soon enough for a new address.
const checkEvery = time.Minute

// Run keeps the served certificates fresh until ctx ends: it renews our own at two thirds of their life and
// when this host has a name or address that they do not cover, makes the authority that follows ours (rollover.go) and a second
// certificate for clients that know RSA alone, takes over files that another process
// changed, and warns 60, 30 and 7 days before something expires that it cannot renew. Faults are logged,
// and the certificates and the revocation list in use stay in use. It calls changed after others have come into use. It
// returns nil.
func (a *Authority) Run(ctx context.Context, changed func()) error {
	tick := time.NewTicker(checkEvery)
	defer tick.Stop()
	for {
		before := a.current.Load()
		a.makeRSAKey(ctx)
		if a.check(); a.current.Load() != before {
			changed()
		}
		a.rsa.over()
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
	}
}

func (a *Authority) check() {
	a.mu.Lock()
	defer a.mu.Unlock()
	defer a.warnOfExpiry()
	served := a.current.Load()
	files := a.stat()
	same := files.same(served.stamp)
	if same && served.unusable == nil {
		g, err := a.refresh(served)
		if err != nil {
			a.logFailure(err)
			return
		}
		a.use(g)
		return
	}
	// What was refused before is tried again: it need not have been the files, there may have been no descriptors left.
	// A list that is damaged must not keep the server certificate from being renewed.
	g, err := a.look(served)
	if err != nil {
		if a.rejected != err.Error() {
			a.log.Error("changed certificates are not usable, the old ones stay in use", "err", err)
		}
		a.rejected = err.Error()
		return
	}
	known := g.unusable != nil && served.unusable != nil && g.unusable.Error() == served.unusable.Error()
	if known && same && g.server().Equal(served.server()) {
		return
	}
	if g.unusable != nil && !known {
		a.log.Error("the revocation list in the file is not usable, the one before stays in force", "err", g.unusable)
	}
	a.log.Info("took over changed certificates", "dir", a.dir, "server", fingerprint(g.server()), "revoked", len(g.revoked.ids))
	a.use(g)
}

// Reload reads the files again and serves them to new connections, with the checks and the renewal of
// Open. With an error the certificates loaded before stay in use.
func (a *Authority) Reload() error {
	a.mu.Lock()
	defer a.mu.Unlock()
	g, err := a.look(nil)
	if err != nil {
		a.rejected = err.Error() // it is the caller who tells
		return fmt.Errorf("reload certificates: %w", err)
	}
	a.use(g)
	a.log.Info("reloaded certificates", "dir", a.dir, "server", fingerprint(g.server()), "revoked", len(g.revoked.ids))
	return nil
}

// Renew replaces the server certificate now, on disk and for new connections. Live connections go on.
func (a *Authority) Renew() (Info, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	g, err := a.load(nil)
	if err == nil {
		g, err = a.renew(g)
	}
	if err != nil {
		return Info{}, fmt.Errorf("renew server certificate: %w", err)
	}
	a.use(g)
	return describe("server", a.serverCert, g.server()), nil
}

// look reads the files as load does, judges them, and renews what is due. Its result has a server certificate. Dates are no
// reason to fail: what can be renewed is, and what cannot is served as it is.
func (a *Authority) look(before *generation) (*generation, error) {
	g, err := a.load(before)
	if err != nil {
		return nil, err
	}
	if !a.readOnly {
		next, err := a.refresh(g)
		if err != nil && g.server() == nil {
			return nil, err
		}
		if err != nil {
			a.logFailure(err)
			return g, nil
		}
		g = next
	}
	if g.server() == nil {
		return nil, a.noServer()
	}
	return g, nil
}

// refresh returns g, or its successor when something of ours was due: the next authority, the server's certificates.
func (a *Authority) refresh(g *generation) (*generation, error) {
	if g.caKey == nil {
		return g, nil
	}
	now := a.now()
	if g.server() != nil && a.checkClock(g, now) != nil {
		return g, nil // warnOfExpiry tells when it is the authority's end
	}
	next, err := a.keepAuthority(g)
	if err != nil {
		return nil, err
	}
	reason := needsRenewal(next.server(), a.names(), now)
	if reason == "" {
		reason = next.misissued(next.chain, now)
	}
	if reason == "" {
		if next, err = a.keepSecond(next, now); err == nil {
			a.failing = false
		}
		return next, err
	}
	if next, err = a.renew(next); err != nil {
		return nil, fmt.Errorf("renew server certificate because %s: %w", reason, err)
	}
	a.failing = false
	a.log.Info("renewed server certificate", "reason", reason,
		"names", namesOf(next.server()), "expires", next.server().NotAfter)
	return next, nil
}

// renew writes new server certificates for the keys of g and returns what is on disk then.
func (a *Authority) renew(g *generation) (*generation, error) {
	if g.caKey == nil {
		return nil, a.noKey()
	}
	now := a.now()
	if err := a.checkClock(g, now); err != nil {
		return nil, err
	}
	names := namesForRenewal(a.names(), g.server())
	key := g.serverKey
	var files []file
	if key == nil {
		var err error
		if key, err = newKey(); err != nil {
			return nil, err
		}
		files = append(files, file{a.serverKey, encodeKey(key), 0o600})
	}
	first, err := g.issueServer(names, key.Public(), now)
	if err != nil {
		return nil, err
	}
	files = append(files, file{a.serverCert, encodeCert(first...), 0o644})
	second, err := a.issueSecond(g, names, now)
	if err != nil {
		return nil, err
	}
	if err := writeFiles(append(files, second...)...); err != nil {
		return nil, err
	}
	next, err := a.load(g)
	if err == nil && next.server() == nil {
		err = a.noServer() // another process replaced the key meanwhile
	}
	return next, err
}

// issueServer returns a certificate for the server and what must be sent with it.
func (g *generation) issueServer(names []string, public crypto.PublicKey, now time.Time) ([]*x509.Certificate, error) {
	by := g.serverSigner(now)
	leaf, err := newServer(names, public, by.cert, by.key, now)
	if err != nil {
		return nil, err
	}
	chain := []*x509.Certificate{leaf}
	if other := g.otherSigner(by, now); other != nil {
		link, err := bridge(by, *other)
		if err != nil {
			return nil, err
		}
		chain = append(chain, link)
	}
	return chain, nil
}

func (a *Authority) noServer() error {
	return fmt.Errorf("certificate %s is missing or belongs to another key", a.serverCert)
}

// noKey is why nothing can be signed.
func (a *Authority) noKey() error {
	return fmt.Errorf("there is no key of our own authority in %s: certificates from outside are only served", a.caKey)
}

// logFailure logs a renewal that failed, once until one succeeds or is not needed any more: Run tries again at every look.
func (a *Authority) logFailure(err error) {
	if !a.failing {
		a.log.Error("server certificate could not be renewed, the old one stays in use", "err", err)
	}
	a.failing = true
}

// warnOfExpiry logs one line for each stage that a certificate in use has come to. A server certificate of
// our own gets here only when its renewals fail: they begin 132 days before its end.
func (a *Authority) warnOfExpiry() {
	now, g := a.now(), a.current.Load()
	if a.unsure(g, now) {
		return
	}
	for _, c := range g.handedOut(now) {
		a.warnOne(a.caCert, c, now)
	}
	a.warnOne(a.serverCert, g.server(), now)
	a.warnOfLists(g, now)
}

func (a *Authority) warnOne(path string, c *x509.Certificate, now time.Time) {
	left := c.NotAfter.Sub(now)
	stage := expiryStage(left)
	if now.Before(c.NotBefore) {
		stage = notYet
	}
	id := fingerprint(c)
	if a.warned[id] == stage {
		return
	}
	a.warned[id] = stage
	facts := []any{"path", path, "subject", c.Subject.String(), "begins", c.NotBefore, "expires", c.NotAfter}
	switch stage {
	case noWarning:
	case expired:
		a.log.Error("certificate is expired, or the clock is wrong: clients that look at dates stay away", append(facts, "clock", now)...)
	case notYet:
		a.log.Error("certificate is not valid yet, or the clock is wrong: clients that look at dates stay away", append(facts, "clock", now)...)
	default:
		a.log.Warn("certificate expires soon", append(facts, "days", int(left/day))...)
	}
}

// Stages of expiry: noWarning, then 60, 30 and 7 days, then expired. notYet stands beside them.
const (
	noWarning = 0
	expired   = -1
	notYet    = -2
)

func expiryStage(left time.Duration) int {
	switch {
	case left < 0:
		return expired
	case left <= 7*day:
		return 7
	case left <= 30*day:
		return 30
	case left <= 60*day:
		return 60
	}
	return noWarning
}
