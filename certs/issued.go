package certs

import (
	"bytes"
	"crypto/x509"
	"errors"
	"fmt"
	"math/big"
	"slices"
	"time"
)

// ErrNotIssued: no certificate is known that could be revoked.
var ErrNotIssued = errors.New("no certificate to revoke")

// State is what a certificate is worth.
type State string

// The states of a certificate, in the words that people and --json see.
const (
	Valid   State = "valid"   // a server that knows the list lets its owner in, until it expires
	Revoked State = "revoked" // for good, also after it has expired
	Expired State = "expired" // and not revoked
)

// Issued is a client certificate of this authority that was written to a file, or revoked.
type Issued struct {
	Name      string    `json:"name"`
	Serial    string    `json:"serial"` // hexadecimal, as openssl prints it
	NotBefore time.Time `json:"not_before"`
	NotAfter  time.Time `json:"not_after"`
	State     State     `json:"state,omitempty"` // empty in the index
}

func issuedOf(c *x509.Certificate) Issued {
	return Issued{Name: c.Subject.CommonName, Serial: serialText(c.SerialNumber), NotBefore: c.NotBefore.UTC(), NotAfter: c.NotAfter.UTC()}
}

func (i Issued) serial() *big.Int {
	n, _ := new(big.Int).SetString(i.Serial, 16) // parseIndex has checked it
	return n
}

// Issued lists the certificates that the index knows, the oldest first.
func (a *Authority) Issued() ([]Issued, error) {
	list, err := a.readIndex()
	if err != nil {
		return nil, fmt.Errorf("list certificates: %w", err)
	}
	g, now := a.current.Load(), a.now()
	for i := range list {
		switch {
		case a.isRevoked(g, list[i]):
			list[i].State = Revoked
		case now.After(list[i].NotAfter):
			list[i].State = Expired
		default:
			list[i].State = Valid
		}
	}
	return list, nil
}

func (a *Authority) isRevoked(g *generation, i Issued) bool {
	for _, issuer := range g.issuers() { // serials are random: no two authorities use the same
		if _, revoked := g.revoked.ids[certificateID{string(issuer.RawSubject), i.Serial}]; revoked {
			return true
		}
	}
	return false
}

// IssueFiles makes a client certificate as Issue does, records it in the index, so that it can be revoked by its name,
// and writes it and its key, the key for its owner only. It refuses to overwrite either file (ErrExists). What
// is interrupted or fails at the end leaves a record of a certificate that nobody has, never one without a record.
func (a *Authority) IssueFiles(name, certPath, keyPath string) (Pair, error) {
	if err := checkTargets(certPath, keyPath); err != nil {
		return Pair{}, err
	}
	pair, err := a.Issue(name)
	if err != nil {
		return Pair{}, err
	}
	err = a.exclusively(func() error {
		g, err := a.load(nil)
		if err == nil {
			err = g.checkClient(pair.leaf) // another process may have made another authority meanwhile
		}
		if err != nil {
			return err
		}
		return a.record(g, issuedOf(pair.leaf))
	})
	if err != nil {
		return Pair{}, fmt.Errorf("record the certificate for %.80q: %w", name, err)
	}
	return pair, pair.writeFiles(certPath, keyPath)
}

// Revoke puts every certificate that was issued for name on the revocation list, and returns those that were not there
// yet; none is ErrNotIssued. Other processes obey it from their next Reload on.
func (a *Authority) Revoke(name string) ([]Issued, error) {
	var revoked []Issued
	err := a.revoke(func(g *generation) ([]*big.Int, error) {
		list, err := a.readIndex()
		if err != nil {
			return nil, err
		}
		var serials []*big.Int
		known := false
		for _, i := range list {
			known = known || i.Name == name
			if i.Name == name && !a.isRevoked(g, i) {
				revoked, serials = append(revoked, i), append(serials, i.serial())
			}
		}
		switch {
		case !known:
			return nil, fmt.Errorf("%w: none was issued for that name", ErrNotIssued)
		case len(serials) == 0:
			return nil, fmt.Errorf("%w: those that were issued for that name are revoked", ErrNotIssued)
		}
		return serials, nil
	})
	if err != nil {
		return nil, fmt.Errorf("revoke the certificates of %.80q: %w", name, err)
	}
	return revoked, nil
}

// RevokeFile puts the client certificate in a PEM file on the revocation list, whether the index knows it or not. One
// of another authority, or for another purpose, is an error; one that is revoked already is ErrNotIssued.
func (a *Authority) RevokeFile(path string) (Issued, error) {
	var revoked Issued
	err := a.revoke(func(g *generation) ([]*big.Int, error) {
		chain, err := readCertificates(path)
		if err != nil {
			return nil, err
		}
		leaf := chain[0]
		if err := g.checkClient(leaf); err != nil {
			return nil, fmt.Errorf("certificate %s %w", path, err)
		}
		if g.revoked.has(leaf) {
			return nil, fmt.Errorf("%w: %s is revoked", ErrNotIssued, path)
		}
		revoked = issuedOf(leaf)
		if leaf.SerialNumber.Sign() == 0 { // the index takes none: no authority should use it [RFC 5280, 4.1.2.2]
			return []*big.Int{leaf.SerialNumber}, nil
		}
		list, err := a.readIndex()
		if err == nil && !slices.ContainsFunc(list, func(i Issued) bool { return i.Serial == revoked.Serial }) {
			err = a.record(g, revoked)
		}
		return []*big.Int{leaf.SerialNumber}, err
	})
	if err != nil {
		return Issued{}, fmt.Errorf("revoke certificate: %w", err)
	}
	return revoked, nil
}

// checkClient says why a certificate is not one of this authority for clients. Dates do not matter.
func (g *generation) checkClient(c *x509.Certificate) error {
	pool, moment := x509.NewCertPool(), c.NotBefore
	for _, issuer := range g.issuers() {
		pool.AddCert(issuer)
		if bytes.Equal(issuer.RawSubject, c.RawIssuer) {
			moment = latest(moment, issuer.NotBefore)
		}
	}
	_, err := c.Verify(x509.VerifyOptions{Roots: pool, CurrentTime: moment, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}})
	var invalid x509.CertificateInvalidError
	switch {
	case c.IsCA:
		return errors.New("is that of an authority, not of a client")
	case errors.As(err, &invalid) && invalid.Reason == x509.IncompatibleUsage:
		return errors.New("is not meant for clients (extended key usage)")
	case err != nil:
		return fmt.Errorf("(issued by %s) is not signed by the authority in use: %w", c.Issuer, err)
	}
	return nil
}

// issuers are the authorities whose client certificates are ours to judge.
func (g *generation) issuers() []*x509.Certificate { return g.roots[:max(1, len(g.own))] }

// revoke writes the list with the serials that choose names, and takes it into use.
func (a *Authority) revoke(choose func(*generation) ([]*big.Int, error)) error {
	if a.foreignList {
		return fmt.Errorf("the revocation list %s comes from outside and is only read: revoke where it is made", a.crl)
	}
	err := a.exclusively(func() error {
		g, err := a.load(nil) // again, with the lock: another process may have revoked meanwhile
		if err != nil {
			return err
		}
		if g.caKey == nil {
			return a.noKey()
		}
		now := a.now()
		if err := a.checkClock(g, now); err != nil {
			return err
		}
		serials, err := choose(g)
		if err != nil {
			return err
		}
		if err := a.loadRevocations(g); err != nil { // choose may have begun it
			return err
		}
		data, err := g.encodeLists(serials, g.revoked, now)
		if err != nil {
			return err
		}
		return writeFiles(file{a.ownList, data, 0o644})
	})
	if err != nil {
		return err
	}
	return a.Reload()
}
