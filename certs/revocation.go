package certs

import (
	"bytes"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"slices"
	"time"
)

// ErrRevocationList: a revocation list is missing or cannot be used.
var ErrRevocationList = errors.New("revocation list")

// RevokedError is why a handshake failed: a certificate of the client is on the revocation list.
type RevokedError struct{ Name, Serial string }

func (e *RevokedError) Error() string {
	return fmt.Sprintf("certificate of %.80q (serial %s) is revoked", e.Name, e.Serial)
}

// RevokedName tells this error from other failures of a handshake to those who do not know this package.
func (e *RevokedError) RevokedName() string { return e.Name }

// certificateID names a certificate as revocation lists do.
type certificateID struct{ issuer, serial string }

func idOf(rawIssuer []byte, serial *big.Int) certificateID {
	return certificateID{string(rawIssuer), serialText(serial)}
}

// serialText is hexadecimal with whole bytes, at least one, as openssl prints it.
func serialText(serial *big.Int) string {
	return fmt.Sprintf("%X", serial.FillBytes(make([]byte, max(1, (serial.BitLen()+7)/8))))
}

// revocations are the entries of the lists in one file. The zero value revokes nothing.
type revocations struct {
	lists []*x509.RevocationList
	ids   map[certificateID]struct{}
}

func newRevocations(lists []*x509.RevocationList) revocations {
	r := revocations{lists: lists, ids: map[certificateID]struct{}{}}
	for _, list := range lists {
		for _, entry := range list.RevokedCertificateEntries {
			r.ids[idOf(list.RawIssuer, entry.SerialNumber)] = struct{}{}
		}
	}
	return r
}

func (r revocations) has(c *x509.Certificate) bool {
	_, revoked := r.ids[idOf(c.RawIssuer, c.SerialNumber)]
	return revoked
}

// find returns nil when one of the chains has no revoked certificate in it, else one that is revoked.
func (r revocations) find(chains [][]*x509.Certificate) (revoked *x509.Certificate) {
	if len(r.ids) == 0 {
		return nil
	}
	for _, chain := range chains {
		var bad *x509.Certificate
		for _, c := range chain {
			if r.has(c) {
				bad = c
				break
			}
		}
		if bad == nil {
			return nil
		}
		revoked = bad
	}
	return revoked
}

// Revoked reports whether the list in use has a certificate of these verified chains, so that none of them holds.
func (a *Authority) Revoked(chains [][]*x509.Certificate) bool {
	return a.current.Load().revoked.find(chains) != nil
}

// ListProblem is why the list in force is not the one in the file; nil when it is.
func (a *Authority) ListProblem() error {
	if err := a.current.Load().unusable; err != nil {
		return fmt.Errorf("%w; the list before stays in force", err)
	}
	return nil
}

// verifyConnection asks the list of this moment, not the one of the moment at which the handshake began.
// crypto/tls calls it for resumed sessions too, and tells the client "bad certificate": it can say nothing else.
func (a *Authority) verifyConnection(s tls.ConnectionState) error {
	if c := a.current.Load().revoked.find(s.VerifiedChains); c != nil {
		return &RevokedError{c.Subject.CommonName, serialText(c.SerialNumber)}
	}
	return nil
}

// CheckRevocationList judges a list before anything is opened: it must be one, signed by the authority in caPath.
// While there is no file at caPath the signature is not looked at.
func CheckRevocationList(path, caPath string) error {
	issuers, err := readCertificates(caPath)
	if err != nil && !isMissing(err) {
		return err
	}
	_, err = readRevocations(path, issuers, caPath)
	return err
}

// readRevocations reads the lists of a file. Nil issuers leave the signatures unchecked.
func readRevocations(path string, issuers []*x509.Certificate, caPath string) (revocations, error) {
	data, err := readRegular(path, nil)
	var lists []*x509.RevocationList
	if err == nil {
		lists, err = parseRevocationLists(data)
	}
	for _, list := range lists {
		if err == nil && issuers != nil {
			err = checkIssuer(list, issuers, caPath)
		}
	}
	if err != nil {
		return revocations{}, fmt.Errorf("%w %s %w", ErrRevocationList, path, explain(err))
	}
	return newRevocations(lists), nil
}

// loadRevocations reads the list in use. Without one nothing is revoked, but once certificates were recorded there
// has been one, and its loss would give the revoked ones back their force.
func (a *Authority) loadRevocations(g *generation) error {
	var err error
	g.revoked, err = readRevocations(a.crl, g.roots, a.caCert)
	if !isMissing(err) || a.foreignList || exists(a.crl) { // a link to nowhere
		return err
	}
	if !a.outside && exists(a.index) {
		return fmt.Errorf("%w although %s does: restore it from a backup; to go on without, move %s away too: "+
			"what was revoked is good again then", err, a.index, a.index)
	}
	return nil
}

// parseRevocationLists returns every list of a PEM text. Its errors end a sentence that begins with the file.
// What it cannot read in full it refuses: a part that was skipped would revoke nothing.
func parseRevocationLists(data []byte) ([]*x509.RevocationList, error) {
	if len(bytes.TrimSpace(data)) == 0 {
		return nil, errors.New("is empty")
	}
	var lists []*x509.RevocationList
	blocks := 0
	for block, rest := pem.Decode(data); block != nil; block, rest = pem.Decode(rest) {
		blocks++
		if block.Type != "X509 CRL" {
			return nil, errors.New("holds something else than a revocation list")
		}
		list, err := x509.ParseRevocationList(block.Bytes)
		if err != nil {
			return nil, fmt.Errorf("holds a damaged revocation list: %w", err)
		}
		if err := checkComplete(list); err != nil {
			return nil, err
		}
		lists = append(lists, list)
	}
	if begun := bytes.Count(data, []byte("-----BEGIN ")); begun != blocks {
		return nil, errors.New("holds a damaged revocation list: a block of PEM has no end")
	}
	if len(lists) == 0 {
		if _, err := x509.ParseRevocationList(data); err == nil {
			return nil, errors.New("holds a revocation list in binary form (DER); PEM is needed")
		}
		return nil, errors.New("holds no revocation list in PEM form")
	}
	return lists, nil
}

// checkComplete refuses lists that mean something only together with others: changes to a list, lists for
// other issuers [RFC 5280, 5.2]. What makes them so is marked as critical, as is everything that must be understood.
func checkComplete(list *x509.RevocationList) error {
	for _, extension := range list.Extensions {
		if extension.Critical {
			return fmt.Errorf("is a partial or indirect list (critical extension %s); a complete one is needed", extension.Id)
		}
	}
	for _, entry := range list.RevokedCertificateEntries {
		for _, extension := range entry.Extensions {
			if extension.Critical {
				return fmt.Errorf("is an indirect list (critical extension %s at serial %s); one for each authority is needed",
					extension.Id, serialText(entry.SerialNumber))
			}
		}
	}
	return nil
}

func checkIssuer(list *x509.RevocationList, issuers []*x509.Certificate, caPath string) error {
	var err error
	for _, issuer := range issuers {
		if !bytes.Equal(issuer.RawSubject, list.RawIssuer) {
			continue
		}
		if err = list.CheckSignatureFrom(issuer); err == nil {
			return nil
		}
	}
	if err != nil {
		return fmt.Errorf("is not signed by the authority in %s: %w", caPath, err)
	}
	return fmt.Errorf("(issued by %s) is not signed by the authority in %s", list.Issuer, caPath)
}

// encodeLists signs the lists that follow those before them, one for each authority of ours: their entries, those of serials, and
// the next number. A serial goes on every list, whoever issued it. Lists of other authorities that we trust follow unchanged. Ours are
// good as long as the authority itself, so they never expire while it matters: a box that nobody looks at for years
// locks nobody out.
func (g *generation) encodeLists(serials []*big.Int, before revocations, now time.Time) ([]byte, error) {
	var out []byte
	for _, by := range g.own {
		list, err := by.encodeList(serials, before, now)
		if err != nil {
			return nil, err
		}
		out = append(out, encodeCRL(list)...)
	}
	for _, list := range before.lists {
		ours := slices.ContainsFunc(g.own, func(s signer) bool { return bytes.Equal(list.RawIssuer, s.cert.RawSubject) })
		if !ours {
			out = append(out, encodeCRL(list.Raw)...)
		}
	}
	return out, nil
}

func (s signer) encodeList(serials []*big.Int, before revocations, now time.Time) ([]byte, error) {
	template := &x509.RevocationList{Number: big.NewInt(1), ThisUpdate: latest(now.Add(-backdate), s.cert.NotBefore), NextUpdate: s.cert.NotAfter}
	if template.ThisUpdate.After(template.NextUpdate) { // it has ended: nothing that it issued is accepted
		template.ThisUpdate = s.cert.NotBefore
	}
	for _, list := range before.lists {
		if !bytes.Equal(list.RawIssuer, s.cert.RawSubject) {
			continue
		}
		if next := list.Number; next != nil && next.Cmp(template.Number) >= 0 {
			template.Number = new(big.Int).Add(next, big.NewInt(1))
		}
		template.RevokedCertificateEntries = append(template.RevokedCertificateEntries, list.RevokedCertificateEntries...)
	}
	for _, serial := range serials {
		template.RevokedCertificateEntries = append(template.RevokedCertificateEntries,
			x509.RevocationListEntry{SerialNumber: serial, RevocationTime: now})
	}
	return x509.CreateRevocationList(rand.Reader, template, s.cert, s.key)
}

func encodeCRL(list []byte) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: "X509 CRL", Bytes: list})
}

// warnOfLists logs once that a list of somebody else's is out of date. Its entries stay in force, and those who are
// not on it are let in: a fetcher that broke must not lock everybody out.
func (a *Authority) warnOfLists(g *generation, now time.Time) {
	for _, list := range g.revoked.lists {
		key := a.crl + " " + utc(list.NextUpdate)
		if list.NextUpdate.IsZero() || now.Before(list.NextUpdate) || a.warned[key] == expired {
			continue
		}
		a.warned[key] = expired
		a.log.Warn("revocation list is out of date, its entries stay in force", "path", a.crl, "issuer", list.Issuer.String(),
			"next_update", list.NextUpdate)
	}
}
