package certs

import (
	"bytes"
	"crypto"
	"crypto/x509"
	"errors"
	"fmt"
	"slices"
)

// serverChain is what the server shows: its own certificate, then those in between, up to the root, which a client has
// already [RFC 8446, 4.4.2]. What is in the server's file is shown, whatever its order; what is missing in between is taken from
// the file of the authorities, where many keep it. A file without a certificate of the key is returned as it is.
func serverChain(held, trusted []*x509.Certificate, key crypto.Signer) []*x509.Certificate {
	mine := -1
	if key != nil {
		mine = slices.IndexFunc(held, func(c *x509.Certificate) bool { return belongs(key, c) })
	}
	if mine < 0 {
		return held
	}
	chain := []*x509.Certificate{held[mine]}
	held = slices.Delete(slices.Clone(held), mine, mine+1)
	for last := chain[0]; !signedItself(last); last = chain[len(chain)-1] {
		if issuer := issuerOf(last, held); issuer != nil {
			chain = append(chain, issuer)
			held = slices.DeleteFunc(held, issuer.Equal)
			continue
		}
		issuer := issuerOf(last, trusted)
		if issuer == nil || signedItself(issuer) || slices.ContainsFunc(chain, issuer.Equal) {
			break
		}
		chain = append(chain, issuer)
	}
	return append(chain, held...) // what leads elsewhere: to an older root, for instance
}

// issuerOf finds who signed c; of several certificates with that name and key a root, then the one that lasts longest.
func issuerOf(c *x509.Certificate, among []*x509.Certificate) *x509.Certificate {
	var found *x509.Certificate
	for _, issuer := range among {
		if !signedBy(c, issuer) {
			continue
		}
		if found == nil || !signedItself(found) && (signedItself(issuer) || issuer.NotAfter.After(found.NotAfter)) {
			found = issuer
		}
	}
	return found
}

// signedBy does not mind with what: verifyChain says what is not accepted.
func signedBy(c, issuer *x509.Certificate) bool {
	if !bytes.Equal(c.RawIssuer, issuer.RawSubject) {
		return false
	}
	err := issuer.CheckSignature(c.SignatureAlgorithm, c.RawTBSCertificate, c.Signature)
	return err == nil || errors.As(err, new(x509.InsecureAlgorithmError))
}

// gap names the certificate that is missing between the server's and the authorities, and what to do; nil: none is, or it
// is not known which.
func (a *Authority) gap(chain, trusted []*x509.Certificate) error {
	last := chain[0]
	for _, c := range chain[1:] {
		if !signedBy(last, c) {
			break
		}
		last = c
	}
	if signedItself(last) || issuerOf(last, trusted) != nil {
		return nil
	}
	return fmt.Errorf("certificate %s is incomplete: %s was issued by %s, whose certificate is neither there nor in %s; "+
		"append it to %s if another authority signed it, or put it into %s if it is the one to trust",
		a.serverCert, last.Subject, last.Issuer, a.caCert, a.serverCert, a.caCert)
}
