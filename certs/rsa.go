package certs

import (
	"context"
	"crypto"
	"crypto/rand"
	"crypto/rsa"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"
)

const (
	rsaBits = 2048

	// rsaWait is how long a handshake waits for a key that is being made: a Pi Zero takes about half a minute.
	rsaWait = 20 * time.Second
)

// rsaIdentity is the second certificate of the server, for clients that know no ECDSA (Tasmota's default is
// ECDHE-RSA-AES128-GCM-SHA256). The zero value is none.
type rsaIdentity struct {
	chain []*x509.Certificate // as generation.chain: empty when it must be issued
	key   crypto.Signer

	problem error // why there is none although its files are there
}

// rsaSlot is where handshakes wait for the key.
type rsaSlot struct {
	made chan struct{} // closed when the key is there, or cannot be had for now
	once sync.Once
	key  crypto.Signer // made and not on disk yet; used only by Run and what it calls, with Authority.mu held
}

func (s *rsaSlot) over() { s.once.Do(func() { close(s.made) }) }

func newRSAKey() (crypto.Signer, error) { return rsa.GenerateKey(rand.Reader, rsaBits) }

// loadRSA reads the second certificate of our own authority. What is missing or of no use is issued again; only a key that
// others can read is an error.
func (a *Authority) loadRSA(g *generation) error {
	if g.caKey == nil {
		return nil
	}
	key, err := readKey(a.rsaKey)
	switch {
	case isMissing(err):
		return nil
	case errors.Is(err, ErrInsecureKey):
		return err
	case err != nil:
		g.rsa.problem = err
		return nil
	}
	if _, ok := key.(*rsa.PrivateKey); !ok {
		g.rsa.problem = fmt.Errorf("key %s is not one for RSA", a.rsaKey)
		return nil
	}
	g.rsa.key = key
	chain, err := readServerCertificates(a.rsaCert)
	if err == nil && belongs(key, chain[0]) && verifyChain(chain, g.rootPool(), time.Time{}) == nil {
		g.rsa.chain = chain
	}
	return nil
}

// rsaProblem says once, with a.mu held, that the second certificate cannot be had. The first one serves whoever knows ECDSA.
func (a *Authority) rsaProblem(err error) {
	if a.rsaSaid != err.Error() {
		a.log.Error("there is no certificate for clients that know RSA alone; remove the files and they are made again", "err", err)
	}
	a.rsaSaid = err.Error()
}

// makeRSAKey makes the key for the second certificate, if there is none, while others use the Authority; the next look issues the
// certificate. It cannot be broken off: when ctx ends it goes on until the program does.
func (a *Authority) makeRSAKey(ctx context.Context) {
	a.mu.Lock()
	wanted := a.wantsRSAKey()
	a.mu.Unlock()
	if !wanted {
		return
	}
	type result struct {
		key crypto.Signer
		err error
	}
	started, done := time.Now(), make(chan result, 1)
	go func() {
		key, err := newRSAKey()
		done <- result{key, err}
	}()
	select {
	case <-ctx.Done():
	case r := <-done:
		a.mu.Lock()
		defer a.mu.Unlock()
		if a.rsa.key = r.key; r.err != nil {
			a.rsaProblem(r.err)
			return
		}
		a.log.Info("made a key for clients that know RSA alone", "bits", rsaBits, "took", time.Since(started).Round(time.Millisecond))
	}
}

// wantsRSAKey is called with a.mu held.
func (a *Authority) wantsRSAKey() bool {
	g := a.current.Load()
	return g.caKey != nil && !a.readOnly && a.rsa.key == nil && g.rsa.key == nil && !exists(a.rsaKey) && a.checkClock(g, a.now()) == nil
}

// keepSecond issues the second certificate when it is not like the first one: the same names, the same end.
func (a *Authority) keepSecond(g *generation, now time.Time) (*generation, error) {
	leaf := g.server()
	if g.rsa.problem != nil {
		a.rsaProblem(g.rsa.problem)
	}
	if g.rsa.key == nil && (a.rsa.key == nil || exists(a.rsaKey)) || checkDates(leaf, now) != nil {
		return g, nil
	}
	if chain := g.rsa.chain; len(chain) > 0 && slices.Equal(namesOf(chain[0]), namesOf(leaf)) &&
		chain[0].NotAfter.Sub(leaf.NotAfter).Abs() < day && g.misissued(chain, now) == "" {
		return g, nil
	}
	files, err := a.issueSecond(g, namesOf(leaf), leaf.NotBefore.Add(backdate))
	if err == nil {
		err = writeFiles(files...)
	}
	var next *generation
	if err == nil {
		next, err = a.load(g)
	}
	if err != nil {
		return nil, fmt.Errorf("issue the certificate for clients that know RSA alone: %w", err)
	}
	a.log.Info("issued a server certificate for clients that know RSA alone", "path", a.rsaCert, "expires", leaf.NotAfter)
	return next, nil
}

// issueSecond returns the files of the second certificate, none when there is no key for it.
func (a *Authority) issueSecond(g *generation, names []string, now time.Time) ([]file, error) {
	key := g.rsa.key
	var files []file
	if key == nil && a.rsa.key != nil && !exists(a.rsaKey) {
		key = a.rsa.key
		files = append(files, file{a.rsaKey, encodeKey(key), 0o600})
	}
	if key == nil {
		return nil, nil
	}
	chain, err := g.issueServer(names, key.Public(), now)
	if err != nil {
		return nil, err
	}
	return append(files, file{a.rsaCert, encodeCert(chain...), 0o644}), nil
}

// tlsCertificate is what crypto/tls shows for the chain.
func tlsCertificate(chain []*x509.Certificate, key crypto.Signer) *tls.Certificate {
	raw := make([][]byte, len(chain))
	for i, c := range chain {
		raw[i] = c.Raw
	}
	return &tls.Certificate{Certificate: raw, PrivateKey: key, Leaf: chain[0]}
}

// identities are the certificates of one generation as handshakes show them, each also without the bridge.
type identities struct {
	first, firstShort   *tls.Certificate
	second, secondShort *tls.Certificate // nil: there is none
}

func newIdentities(g *generation) identities {
	i := identities{first: tlsCertificate(g.chain, g.serverKey), firstShort: tlsCertificate(g.chain, g.serverKey)}
	if len(g.own) > 1 {
		i.firstShort = tlsCertificate(g.chain[:1], g.serverKey)
	}
	if len(g.rsa.chain) > 0 {
		i.second, i.secondShort = tlsCertificate(g.rsa.chain, g.rsa.key), tlsCertificate(g.rsa.chain[:1], g.rsa.key)
	}
	return i
}

// maxFragmentLength is the extension by which a client says that its buffers are small (RFC 6066, 4). BearSSL on an ESP8266 sends
// it, and gives up when the certificates do not fit into 1 kB: it gets no bridge.
const maxFragmentLength = 1

// certificateFor chooses by what the client offers: signature algorithms, cipher suites, curves. The name that it asks
// for does not matter, it is for the client to judge.
func (a *Authority) certificateFor(hello *tls.ClientHelloInfo) (*tls.Certificate, error) {
	ids := a.current.Load().ids
	short := slices.Contains(hello.Extensions, maxFragmentLength)
	offer := *hello
	offer.ServerName = ""
	if offer.SupportsCertificate(ids.first) == nil || !offersRSA(hello) {
		return ids.pick(false, short), nil
	}
	if ids.second == nil && a.awaitRSA(hello.Context()) {
		ids = a.current.Load().ids
	}
	if ids.second == nil || offer.SupportsCertificate(ids.second) != nil {
		return ids.pick(false, short), nil // crypto/tls says what does not fit
	}
	return ids.pick(true, short), nil
}

func (i identities) pick(second, short bool) *tls.Certificate {
	switch {
	case second && short:
		return i.secondShort
	case second:
		return i.second
	case short:
		return i.firstShort
	}
	return i.first
}

// offersRSA reports whether it may be worth waiting for an RSA key.
func offersRSA(hello *tls.ClientHelloInfo) bool {
	if slices.Contains(hello.SupportedVersions, tls.VersionTLS13) {
		return true
	}
	return slices.ContainsFunc(tls.CipherSuites(), func(s *tls.CipherSuite) bool {
		return len(s.Name) > 14 && s.Name[:14] == "TLS_ECDHE_RSA_" && slices.Contains(hello.CipherSuites, s.ID)
	})
}

// awaitRSA waits while the key is being made, and reports whether it was worth it.
func (a *Authority) awaitRSA(ctx context.Context) bool {
	late := time.NewTimer(rsaWait)
	defer late.Stop()
	select {
	case <-a.rsa.made:
		return true
	case <-ctx.Done():
		return false
	case <-late.C:
		return false
	}
}
