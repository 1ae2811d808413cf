// Package certstest is the certificate authority of tests: one in memory, or the one of a program that runs, and
// certificates of either, good and bad. It knows none of our packages and issues what package certs would not.
package certstest

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"net"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// CA is a certificate authority for one test. What it issues is valid for an hour, and has been for one.
type CA struct {
	t           testing.TB
	certificate *x509.Certificate
	key         crypto.Signer // nil: it can be trusted, and issues nothing
}

// New creates an authority in memory. edit may change what its certificate says.
func New(t testing.TB, edit ...func(*x509.Certificate)) *CA {
	t.Helper()
	template := newTemplate(t, pkix.Name{CommonName: "test CA"})
	template.IsCA, template.BasicConstraintsValid, template.KeyUsage = true, true, x509.KeyUsageCertSign
	return Of(t, selfSigned(t, template, edit))
}

// Under creates an authority in memory whose certificate this one signs.
func (ca *CA) Under(name string, edit ...func(*x509.Certificate)) *CA {
	ca.t.Helper()
	authority := func(c *x509.Certificate) {
		c.IsCA, c.BasicConstraintsValid, c.KeyUsage, c.ExtKeyUsage = true, true, x509.KeyUsageCertSign, nil
	}
	return Of(ca.t, ca.IssueTo(pkix.Name{CommonName: name}, append([]func(*x509.Certificate){authority}, edit...)...))
}

// Again is its certificate signed once more, with the same key; edit may change what it says.
func (ca *CA) Again(by *CA, edit func(*x509.Certificate)) []byte {
	ca.t.Helper()
	template := *ca.certificate
	edit(&template)
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: by.Sign(&template, template.PublicKey)})
}

// Of makes an authority of any certificate with its key: one that was made elsewhere, or one that is no authority's at all.
func Of(t testing.TB, pair tls.Certificate) *CA {
	t.Helper()
	certificate, err := x509.ParseCertificate(pair.Certificate[0])
	require.NoError(t, err)
	return &CA{t: t, certificate: certificate, key: pair.PrivateKey.(crypto.Signer)}
}

// Trust is the authority of a program that was started elsewhere, from its PEM. It can be trusted, and issues nothing.
func Trust(t testing.TB, text string) *CA {
	t.Helper()
	block, _ := pem.Decode([]byte(text))
	require.NotNil(t, block, "a PEM block")
	certificate, err := x509.ParseCertificate(block.Bytes)
	require.NoError(t, err)
	return &CA{t: t, certificate: certificate}
}

// SelfSigned is a client's certificate that no authority has signed.
func SelfSigned(t testing.TB, name string) tls.Certificate {
	t.Helper()
	template := newTemplate(t, pkix.Name{CommonName: name})
	template.KeyUsage, template.ExtKeyUsage = x509.KeyUsageDigitalSignature, []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}
	return selfSigned(t, template, nil)
}

// Issue returns a certificate for a server or a client, which is also good for 127.0.0.1. edit may change what it says.
func (ca *CA) Issue(name string, edit ...func(*x509.Certificate)) tls.Certificate {
	ca.t.Helper()
	forBoth := func(c *x509.Certificate) {
		c.DNSNames, c.IPAddresses = []string{name}, []net.IP{net.IPv4(127, 0, 0, 1)}
		c.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth}
	}
	return ca.IssueTo(pkix.Name{CommonName: name}, append([]func(*x509.Certificate){forBoth}, edit...)...)
}

// IssueTo returns a certificate for a client with any subject. edit may change what it says.
func (ca *CA) IssueTo(subject pkix.Name, edit ...func(*x509.Certificate)) tls.Certificate {
	ca.t.Helper()
	template := newTemplate(ca.t, subject)
	template.KeyUsage, template.ExtKeyUsage = x509.KeyUsageDigitalSignature, []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}
	for _, change := range edit {
		change(template)
	}
	key := NewKey(ca.t)
	return pair(ca.t, ca.Sign(template, key.Public()), key)
}

// Sign returns, in DER, the certificate that the template describes, for any key.
func (ca *CA) Sign(template *x509.Certificate, public crypto.PublicKey) []byte {
	ca.t.Helper()
	der, err := x509.CreateCertificate(rand.Reader, template, ca.certificate, public, ca.key)
	require.NoError(ca.t, err)
	return der
}

// Roots are what a client needs to trust this authority.
func (ca *CA) Roots() *x509.CertPool {
	roots := x509.NewCertPool()
	roots.AddCert(ca.certificate)
	return roots
}

// PEM is its certificate.
func (ca *CA) PEM() []byte {
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: ca.certificate.Raw})
}

// ServerTLS serves localhost and asks for no client certificate.
func (ca *CA) ServerTLS() *tls.Config {
	return &tls.Config{Certificates: []tls.Certificate{ca.Issue("localhost")}, MinVersion: tls.VersionTLS12}
}

// RequiringTLS serves localhost to clients with a certificate of this CA.
func (ca *CA) RequiringTLS() *tls.Config {
	config := ca.ServerTLS()
	config.ClientAuth, config.ClientCAs = tls.RequireAndVerifyClientCert, ca.Roots()
	return config
}

// NewKey is a key as devices have it.
func NewKey(t testing.TB) crypto.Signer {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	require.NoError(t, err)
	return key
}

func selfSigned(t testing.TB, template *x509.Certificate, edit []func(*x509.Certificate)) tls.Certificate {
	t.Helper()
	for _, change := range edit {
		change(template)
	}
	own := &CA{t: t, certificate: template, key: NewKey(t)}
	return pair(t, own.Sign(template, own.key.Public()), own.key)
}

func pair(t testing.TB, der []byte, key crypto.Signer) tls.Certificate {
	t.Helper()
	leaf, err := x509.ParseCertificate(der)
	require.NoError(t, err)
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key, Leaf: leaf}
}

func newTemplate(t testing.TB, subject pkix.Name) *x509.Certificate {
	t.Helper()
	serial, err := rand.Int(rand.Reader, big.NewInt(1<<62))
	require.NoError(t, err)
	return &x509.Certificate{
		SerialNumber: serial,
		Subject:      subject,
		NotBefore:    time.Now().Add(-time.Hour),
		NotAfter:     time.Now().Add(time.Hour),
	}
}
