package certs

import (
	"cmp"
	"crypto/x509"
	"errors"
	"fmt"
	"strings"
	"time"
)

// LoadRoots reads the CA file that a client was told to trust. Each way in which it cannot serve is an
// error of its own that names the path: missing, a directory, not readable, empty, a private key, no PEM,
// not a CA certificate, expired, not valid yet. In a file with several certificates one good one is enough;
// the others are left out. A zero now skips the dates, for a host whose clock is not set yet.
func LoadRoots(path string, now time.Time) (*x509.CertPool, error) {
	data, err := readRegular(path, nil)
	if err == nil {
		var pool *x509.CertPool
		if pool, err = parseRoots(data, now); err == nil {
			return pool, nil
		}
	}
	return nil, fmt.Errorf("CA certificate %s %w", path, explain(err))
}

func parseRoots(data []byte, now time.Time) (*x509.CertPool, error) {
	certs, err := parseCertificates(data)
	if err != nil {
		return nil, err
	}
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
	if !c.BasicConstraintsValid || !c.IsCA || (c.KeyUsage != 0 && c.KeyUsage&x509.KeyUsageCertSign == 0) {
		return fmt.Errorf("is not a CA certificate (subject %s)", c.Subject)
	}
	return nil
}

func checkDates(c *x509.Certificate, now time.Time) error {
	switch {
	case now.IsZero():
		return nil
	case now.After(c.NotAfter):
		return fmt.Errorf("expired on %s (it is %s)", utc(c.NotAfter), utc(now))
	case now.Before(c.NotBefore):
		return fmt.Errorf("is not valid before %s (it is %s)", utc(c.NotBefore), utc(now))
	}
	return nil
}

func utc(t time.Time) string { return t.UTC().Format(time.RFC3339) }

// VerifyServer tells whether a client that trusts roots and connects to host would accept this server
// certificate (PEM, with its intermediates), and if not, why. Nil roots are the system's. A zero now skips
// the dates.
func VerifyServer(roots *x509.CertPool, serverCertPEM []byte, host string, now time.Time) error {
	chain, err := parseCertificates(serverCertPEM)
	if err != nil {
		return fmt.Errorf("server certificate %w", err)
	}
	leaf := chain[0]
	if err := checkDates(leaf, now); err != nil {
		return fmt.Errorf("server certificate %w", err)
	}
	if err := leaf.VerifyHostname(host); err != nil {
		return fmt.Errorf("server certificate does not cover %s (it covers %s)", host, cmp.Or(strings.Join(namesOf(leaf), ", "), "no name"))
	}
	if err := verifyChain(chain, roots, now); err != nil {
		return fmt.Errorf("server certificate %w", err)
	}
	return nil
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
		return fmt.Errorf("(issued by %s) is not signed by the CA that is trusted", chain[0].Issuer)
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
