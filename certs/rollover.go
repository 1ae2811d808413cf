package certs

import (
	"bytes"
	"crypto/x509"
	"fmt"
	"path/filepath"
	"slices"
	"time"
)

// The authority is followed by another one before it ends, without a moment at which a client stands outside.
//
//	3 years before its end  the next one is made: its key is ca-2.key (then ca-3.key …), ca.crt holds both certificates, and
//	                        both are handed out. Client certificates are issued by the new one from here on. The server's
//	                        is still issued by the old one; with it goes a certificate of the old authority that the new one
//	                        signed, so that who trusts the new one alone is content too.
//	7 days before its end   the server's certificate is issued by the new one, and with it goes a certificate of the new
//	                        authority that the old one signed, for those who trust the old one alone.
//	its end                 who trusts the old one alone is outside. The client certificates that it issued end too.
//
// Nothing is ever taken back: no key is removed, and ca.crt keeps what has ended, so that a clock that was years ahead
// for a while leaves an authority too many and no harm. A new one is not made before the certificate in use is an hour old by the
// clock, which it is not when the clock has just jumped by more than that certificate's life.
const (
	rolloverBefore = 3 * 365 * day
	switchBefore   = 7 * day
	provenBy       = time.Hour
)

// maxAuthorities is for seven hundred years, or for a clock that jumped a hundred times.
const maxAuthorities = 100

// authorityKey is the path of the key of the nth authority, counted from 1.
func (a *Authority) authorityKey(n int) string {
	if n == 1 {
		return a.caKey
	}
	return filepath.Join(a.dir, fmt.Sprintf("ca-%d.key", n))
}

// serverSigner is who issues the server's certificate at that time: the oldest authority that does not end within days.
func (g *generation) serverSigner(now time.Time) signer {
	by := g.own[len(g.own)-1]
	if now.Before(g.own[0].cert.NotBefore) {
		by = g.own[0]
	}
	for _, s := range g.own {
		if checkDates(s.cert, now) != nil {
			continue
		}
		if by = s; now.Before(s.cert.NotAfter.Add(-switchBefore)) {
			break
		}
	}
	return by
}

// clientSigner is who issues certificates that nobody renews: who lasts longest.
func (g *generation) clientSigner(now time.Time) signer {
	by := g.serverSigner(now)
	for _, s := range g.own {
		if checkDates(s.cert, now) == nil && s.cert.NotAfter.After(by.cert.NotAfter) {
			by = s
		}
	}
	return by
}

// otherSigner is the authority that clients may trust at that time besides by; nil when there is none.
func (g *generation) otherSigner(by signer, now time.Time) *signer {
	for _, s := range g.own {
		if !s.cert.Equal(by.cert) && checkDates(s.cert, now) == nil {
			return &s
		}
	}
	return nil
}

// bridge is what is sent with a certificate issued by by, so that it leads to the other authority as well: a certificate
// for by's key, signed by the other.
func bridge(by, other signer) (*x509.Certificate, error) {
	serial, err := newSerial()
	if err != nil {
		return nil, err
	}
	template := &x509.Certificate{
		Subject:               by.cert.Subject,
		SerialNumber:          serial,
		SubjectKeyId:          by.cert.SubjectKeyId,
		NotBefore:             latest(by.cert.NotBefore, other.cert.NotBefore),
		NotAfter:              earliest(by.cert.NotAfter, other.cert.NotAfter),
		KeyUsage:              by.cert.KeyUsage,
		BasicConstraintsValid: true,
		IsCA:                  true,
		MaxPathLenZero:        true,
	}
	return certify(template, other.cert, by.cert.PublicKey, other.key)
}

func latest(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}

func earliest(a, b time.Time) time.Time {
	if a.Before(b) {
		return a
	}
	return b
}

// misissued says why a chain of ours should come from another authority, or with another bridge; "" when it should not.
func (g *generation) misissued(chain []*x509.Certificate, now time.Time) string {
	by := g.serverSigner(now)
	if !bytes.Equal(chain[0].RawIssuer, by.cert.RawSubject) || chain[0].CheckSignatureFrom(by.cert) != nil {
		return "another authority issues it now"
	}
	other := g.otherSigner(by, now)
	if bridged := len(chain) > 1; bridged != (other != nil) || bridged && chain[1].CheckSignatureFrom(other.cert) != nil {
		return "the authorities that clients may trust have changed"
	}
	return ""
}

// rolloverDue reports whether it is time for the authority that follows.
func (g *generation) rolloverDue(now time.Time) bool {
	if len(g.own) == 0 || len(g.own) >= maxAuthorities {
		return false
	}
	last, leaf := g.clientSigner(now).cert, g.server()
	return checkDates(last, now) == nil && !now.Before(last.NotAfter.Add(-rolloverBefore)) &&
		leaf != nil && checkDates(leaf, now) == nil && now.Sub(leaf.NotBefore) >= backdate+provenBy
}

// listDue reports whether an authority of ours has no revocation list beside those of others.
func (a *Authority) listDue(g *generation) bool {
	if a.foreignList || g.unusable != nil || len(g.revoked.lists) == 0 {
		return false
	}
	return slices.ContainsFunc(g.own, func(s signer) bool {
		return !slices.ContainsFunc(g.revoked.lists, func(l *x509.RevocationList) bool { return bytes.Equal(l.RawIssuer, s.cert.RawSubject) })
	})
}

// keepAuthority takes the step of the roll-over that is due, and returns g or its successor.
func (a *Authority) keepAuthority(g *generation) (*generation, error) {
	now := a.now()
	if a.checkClock(g, now) != nil || !g.rolloverDue(now) && !a.listDue(g) {
		return g, nil
	}
	next := g
	err := a.exclusively(func() error {
		fresh, err := a.load(g)
		if err == nil && fresh.rolloverDue(now) { // no other process has done it meanwhile
			if err = a.makeNext(fresh, now); err == nil {
				fresh, err = a.load(g)
			}
		}
		if err == nil && a.listDue(fresh) {
			var list []byte
			if list, err = fresh.encodeLists(nil, fresh.revoked, now); err == nil {
				err = writeFiles(file{a.ownList, list, 0o644})
			}
			if err == nil {
				fresh, err = a.load(g)
			}
		}
		next = fresh
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("roll the certificate authority over: %w", err)
	}
	return next, nil
}

// makeNext writes the authority that follows. A key without its certificate is taken up by the next try.
func (a *Authority) makeNext(g *generation, now time.Time) error {
	key := g.pending
	if key == nil {
		var err error
		if key, err = newKey(); err != nil {
			return err
		}
	}
	root, err := newRoot(key, now)
	if err != nil {
		return err
	}
	roots := slices.Insert(slices.Clone(g.roots), len(g.own), root)
	err = writeFiles(file{a.authorityKey(len(g.own) + 1), encodeKey(key), 0o600}, file{a.caCert, encodeCert(roots...), 0o644})
	if err != nil {
		return err
	}
	a.log.Warn("made the certificate authority that follows the one in use: give every device both before the old one ends (plantops certs show --pem)",
		"path", a.caCert, "old_ends", g.clientSigner(now).cert.NotAfter, "new", fingerprint(root), "new_ends", root.NotAfter)
	return nil
}
