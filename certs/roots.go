package certs

import (
	"bytes"
	"cmp"
	"crypto/x509"
	"errors"
	"fmt"
	"strings"
	"time"
)

// LoadRoots reads the CA file that a client was told to trust. Each way in which it cannot serve is an
// error of its own that names the path: missing, a directory, not readable, empty, a private key in it (ErrKeyInside), no PEM,
// not a CA certificate, expired or not valid yet (ErrDates). In a file with several certificates one good one is enough;
// the others are left out. A certificate that signed itself is trusted for itself, as openssl does, whether it is an
// authority or not. A zero now skips the dates, for a host whose clock is not set yet.
func LoadRoots(path string, now time.Time) (*x509.CertPool, error) {
	certs, err := readRoots(path)
	if err == nil {
		var pool *x509.CertPool
		if pool, err = poolOf(certs, now); err == nil {
			return pool, nil
		}
	}
	return nil, fmt.Errorf("CA certificate %s %w", path, explain(err))
}

// readRoots reads a file of certificates that is given to everybody. It returns at least one.
func readRoots(path string) ([]*x509.Certificate, error) {
	data, err := readRegular(path, nil)
	if err != nil {
		return nil, err
	}
	return parseRoots(data)
}

func parseRoots(data []byte) ([]*x509.Certificate, error) {
	certs, err := parseCertificates(data)
	if err == nil && holdsKey(data) {
		return nil, ErrKeyInside
	}
	return certs, err
}

// poolOf leaves out what cannot serve as an authority now; the error is the first reason when nothing is left.
func poolOf(certs []*x509.Certificate, now time.Time) (*x509.CertPool, error) {
	pool := x509.NewCertPool()
	usable := false
	var problem error // the first one
	for _, c := range certs {
		err := checkAuthority(c)
		if err == nil {
			err = checkDates(c, now)
		}
		if err == nil {
			pool.AddCert(c)
			usable = true
		} else if problem == nil {
			problem = err
		}
	}
	if !usable {
		return nil, problem
	}
	return pool, nil
}

func checkAuthority(c *x509.Certificate) error {
	if c.PublicKey == nil {
		return fmt.Errorf("cannot be used (subject %s): its key %w", c.Subject, cmp.Or(unsupportedPublicKey(c.Raw), errors.New("is unsupported")))
	}
	if !c.IsCA && signedItself(c) {
		return nil
	}
	if !c.BasicConstraintsValid || !c.IsCA || (c.KeyUsage != 0 && c.KeyUsage&x509.KeyUsageCertSign == 0) {
		return fmt.Errorf("is not a CA certificate (subject %s)", c.Subject)
	}
	return nil
}

// signedItself does not mind how: that a certificate is trusted depends on who put it there, not on its signature.
func signedItself(c *x509.Certificate) bool {
	if !bytes.Equal(c.RawSubject, c.RawIssuer) {
		return false
	}
	err := c.CheckSignature(c.SignatureAlgorithm, c.RawTBSCertificate, c.Signature)
	return err == nil || errors.As(err, new(x509.InsecureAlgorithmError))
}

// datesError is what checkDates finds.
type datesError struct{ text string }

func (e datesError) Error() string        { return e.text }
func (e datesError) Is(target error) bool { return target == ErrDates }

func checkDates(c *x509.Certificate, now time.Time) error {
	switch {
	case now.IsZero():
		return nil
	case now.After(c.NotAfter):
		return datesError{fmt.Sprintf("expired on %s (it is %s)", utc(c.NotAfter), utc(now))}
	case now.Before(c.NotBefore):
		return datesError{fmt.Sprintf("is not valid before %s (it is %s)", utc(c.NotBefore), utc(now))}
	}
	return nil
}

func utc(t time.Time) string { return t.UTC().Format(time.RFC3339) }

// VerifyServer tells whether a client that trusts roots and connects to host would accept this server
// certificate (PEM, with its intermediates), and if not, why: ErrDates when it is too early or too late, ErrNames when the
// certificate is for other hosts. Nil roots are the system's. A zero now skips the dates.
func VerifyServer(roots *x509.CertPool, serverCertPEM []byte, host string, now time.Time) error {
	chain, err := parseCertificates(serverCertPEM)
	if err != nil {
		return fmt.Errorf("server certificate %w", err)
	}
	leaf := chain[0]
	if err := checkDates(leaf, now); err != nil {
		return fmt.Errorf("server certificate %w", err)
	}
	if err := checkName(leaf, host); err != nil {
		return fmt.Errorf("server certificate %w", err)
	}
	if err := verifyChain(chain, roots, now); err != nil {
		return fmt.Errorf("server certificate %w", err)
	}
	return nil
}

func checkName(leaf *x509.Certificate, host string) error {
	if leaf.VerifyHostname(host) == nil {
		return nil
	}
	if names := namesOf(leaf); len(names) > 0 {
		return fmt.Errorf("%w %s (it covers %s)", ErrNames, host, strings.Join(names, ", "))
	}
	text := "it has no subjectAltName"
	if cn := leaf.Subject.CommonName; cn != "" {
		text += fmt.Sprintf(", and its common name %.64q does not count", cn)
	}
	return fmt.Errorf("%w %s (it covers no name): %s", ErrNames, host, text)
}

// verifyChain checks that the first certificate is a server's and leads to a root. A zero now skips dates.
func verifyChain(chain []*x509.Certificate, roots *x509.CertPool, now time.Time) error {
	at := now
	if now.IsZero() {
		at = chain[0].NotBefore
	}
	intermediates := x509.NewCertPool()
	for _, c := range chain[1:] {
		intermediates.AddCert(c)
	}
	_, err := chain[0].Verify(x509.VerifyOptions{Roots: roots, Intermediates: intermediates, CurrentTime: at,
		KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}})
	var unknown x509.UnknownAuthorityError
	var invalid x509.CertificateInvalidError
	switch {
	case errors.As(err, &unknown):
		return unknownAuthority(chain)
	case errors.As(err, &invalid) && invalid.Reason == x509.IncompatibleUsage:
		return errors.New("is not meant for servers (extended key usage)")
	case errors.As(err, &invalid) && invalid.Reason == x509.Expired:
		if dates := checkDates(invalid.Cert, now); dates != nil { // crypto/x509 looks at dates after signatures
			return fmt.Errorf("leads to %s, which %w", invalid.Cert.Subject, dates)
		}
		return nil
	case err != nil:
		return fmt.Errorf("does not verify: %w", err)
	}
	return nil
}

var errStranger = errors.New("is not signed by the CA that is trusted")

// unknownAuthority says why no authority was found. crypto/x509 takes a signature that it does not accept for one of
// somebody else.
func unknownAuthority(chain []*x509.Certificate) error {
	for _, c := range chain {
		if bytes.Equal(c.RawSubject, c.RawIssuer) {
			continue // the signature of a root does not matter
		}
		switch c.SignatureAlgorithm {
		case x509.SHA1WithRSA, x509.ECDSAWithSHA1, x509.DSAWithSHA1, x509.MD5WithRSA, x509.MD2WithRSA:
			return fmt.Errorf("(%s) is signed with %s, which is not safe any more and accepted by no current program: have it signed again with SHA-256 (openssl x509 -req -sha256)",
				c.Subject, c.SignatureAlgorithm)
		case x509.UnknownSignatureAlgorithm, x509.DSAWithSHA256:
			return fmt.Errorf("(%s) is signed with an unsupported algorithm: have it signed with RSA or ECDSA and SHA-256", c.Subject)
		}
	}
	return fmt.Errorf("(issued by %s) %w", chain[len(chain)-1].Issuer, errStranger)
}
