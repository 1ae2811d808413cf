package certs

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"fmt"
	"math/big"
	"net"
	"path/filepath"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"
)

const (
	day            = 24 * time.Hour
	rootLifetime   = 10 * 365 * day
	serverLifetime = 397 * day // Apple refuses more than 398
	// backdate lets certificates hold on devices whose clock is somewhat behind.
	backdate = time.Hour
	// maxNameBytes is what a common name may have (ub-common-name of RFC 5280).
	maxNameBytes = 64
)

// Pair is a certificate with its private key. KeyPEM is a secret.
type Pair struct {
	CertPEM, KeyPEM []byte
	NotAfter        time.Time

	leaf *x509.Certificate
}

// Issue makes a client certificate for name, which becomes the common name. It is valid as long as the
// authority, at most ten years: nothing renews a certificate inside a device. It needs our own authority.
// No record is kept: it is for certificates that live and die with this process. IssueFiles makes the others.
func (a *Authority) Issue(name string) (Pair, error) {
	pair, err := a.issueClient(name)
	if err != nil {
		return Pair{}, fmt.Errorf("issue client certificate for %.80q: %w", name, err)
	}
	return pair, nil
}

// IssueForProcess is Issue for a certificate that only ServerTLS will see, in this process: it is made whatever the clock shows,
// and is valid by the time at which ServerTLS judges it.
func (a *Authority) IssueForProcess(name string) (Pair, error) {
	g, now := a.current.Load(), a.judge()
	err := checkClientName(name)
	if err == nil && g.caKey == nil {
		err = a.noKey()
	}
	var pair Pair
	if err == nil {
		if by := g.clientSigner(now).cert; checkDates(by, now) != nil {
			now = by.NotBefore.Add(backdate)
		}
		pair, err = g.signClient(name, now)
	}
	if err != nil {
		return Pair{}, fmt.Errorf("issue client certificate for %.80q: %w", name, err)
	}
	return pair, nil
}

func (a *Authority) issueClient(name string) (Pair, error) {
	if err := checkClientName(name); err != nil {
		return Pair{}, err
	}
	g, now := a.current.Load(), a.now()
	if g.caKey == nil {
		return Pair{}, a.noKey()
	}
	if err := a.checkClock(g, now); err != nil {
		return Pair{}, err
	}
	return g.signClient(name, now)
}

func (g *generation) signClient(name string, now time.Time) (Pair, error) {
	key, err := newKey()
	if err != nil {
		return Pair{}, err
	}
	by := g.clientSigner(now)
	c, err := sign(&x509.Certificate{
		Subject:     pkix.Name{CommonName: name},
		NotAfter:    now.Add(rootLifetime),
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
	}, key.Public(), by.cert, by.key, now)
	if err != nil {
		return Pair{}, err
	}
	return Pair{CertPEM: encodeCert(c), KeyPEM: encodeKey(key), NotAfter: c.NotAfter, leaf: c}, nil
}

// checkClientName refuses what could not be one level of an MQTT topic or would be mistaken for a pattern.
func checkClientName(name string) error {
	switch {
	case name == "":
		return errors.New("the name is empty")
	case len(name) > maxNameBytes:
		return fmt.Errorf("the name has %d bytes, at most %d fit", len(name), maxNameBytes)
	case !utf8.ValidString(name), strings.ContainsFunc(name, unicode.IsControl):
		return errors.New("the name has control characters")
	case strings.ContainsAny(name, "+#/$%"):
		return errors.New("the name has one of + # / $ %")
	}
	return nil
}

func (p Pair) writeFiles(certPath, keyPath string) error {
	if err := checkTargets(certPath, keyPath); err != nil {
		return err
	}
	return writeFiles(file{keyPath, p.KeyPEM, 0o600}, file{certPath, p.CertPEM, 0o644})
}

// checkTargets refuses files that are there.
func checkTargets(certPath, keyPath string) error {
	if filepath.Clean(certPath) == filepath.Clean(keyPath) {
		return fmt.Errorf("write certificate and key: both would go to %s", certPath)
	}
	for _, path := range []string{keyPath, certPath} {
		if exists(path) {
			return fmt.Errorf("write certificate and key: %s %w", path, ErrExists)
		}
	}
	return nil
}

func newKey() (crypto.Signer, error) { return ecdsa.GenerateKey(elliptic.P256(), rand.Reader) }

func newRoot(key crypto.Signer, now time.Time) (*x509.Certificate, error) {
	serial, err := newSerial()
	if err != nil {
		return nil, err
	}
	template := &x509.Certificate{
		// The suffix tells two authorities apart: verifiers look them up by subject.
		Subject:               pkix.Name{CommonName: fmt.Sprintf("PlantOps CA %.4x", serial.FillBytes(make([]byte, 16)))},
		SerialNumber:          serial,
		NotBefore:             now.Add(-backdate),
		NotAfter:              now.Add(-backdate + rootLifetime),
		KeyUsage:              x509.KeyUsageCertSign | x509.KeyUsageCRLSign,
		BasicConstraintsValid: true,
		IsCA:                  true,
		MaxPathLen:            1, // for the authority that follows it, see rollover.go
	}
	return certify(template, template, key.Public(), key)
}

func newServer(names []string, pub crypto.PublicKey, ca *x509.Certificate, caKey crypto.Signer, now time.Time) (*x509.Certificate, error) {
	template := &x509.Certificate{
		Subject:     pkix.Name{CommonName: "PlantOps server"},
		NotAfter:    now.Add(-backdate + serverLifetime),
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}
	for _, name := range names {
		// mbedTLS 2.28 (Arduino-ESP32 2.x) ignores iPAddress names, so an address is a dNSName too.
		template.DNSNames = append(template.DNSNames, name)
		if ip := net.ParseIP(name); ip != nil {
			template.IPAddresses = append(template.IPAddresses, ip)
		}
	}
	return sign(template, pub, ca, caKey, now)
}

// sign issues an end-entity certificate that begins and ends within the life of its authority.
func sign(template *x509.Certificate, pub crypto.PublicKey, ca *x509.Certificate, caKey crypto.Signer, now time.Time) (*x509.Certificate, error) {
	if err := checkDates(ca, now); err != nil {
		return nil, fmt.Errorf("the certificate authority %w", err)
	}
	serial, err := newSerial()
	if err != nil {
		return nil, err
	}
	template.SerialNumber = serial
	template.KeyUsage = x509.KeyUsageDigitalSignature
	template.BasicConstraintsValid = true
	template.NotBefore = now.Add(-backdate)
	if template.NotBefore.Before(ca.NotBefore) {
		template.NotBefore = ca.NotBefore
	}
	if template.NotAfter.After(ca.NotAfter) {
		template.NotAfter = ca.NotAfter
	}
	return certify(template, ca, pub, caKey)
}

func certify(template, parent *x509.Certificate, pub crypto.PublicKey, key crypto.Signer) (*x509.Certificate, error) {
	der, err := x509.CreateCertificate(rand.Reader, template, parent, pub, key)
	if err != nil {
		return nil, err
	}
	return x509.ParseCertificate(der)
}

func newSerial() (*big.Int, error) {
	return rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 128))
}
