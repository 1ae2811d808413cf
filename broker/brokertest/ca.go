package brokertest

import (
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

// CA is a certificate authority for one test.
type CA struct {
	t           testing.TB
	certificate *x509.Certificate
	key         *ecdsa.PrivateKey
}

// NewCA creates one in memory.
func NewCA(t testing.TB) *CA {
	t.Helper()
	ca := &CA{t: t}
	template := ca.template("test CA")
	template.IsCA, template.BasicConstraintsValid, template.KeyUsage = true, true, x509.KeyUsageCertSign
	ca.key = ca.newKey()
	der, err := x509.CreateCertificate(rand.Reader, template, template, ca.key.Public(), ca.key)
	require.NoError(t, err)
	ca.certificate, err = x509.ParseCertificate(der)
	require.NoError(t, err)
	return ca
}

// TrustCA is the authority of a program that was started elsewhere, from its PEM. It can be trusted, and issues nothing.
func TrustCA(t testing.TB, text string) *CA {
	t.Helper()
	block, _ := pem.Decode([]byte(text))
	require.NotNil(t, block, "a PEM block")
	certificate, err := x509.ParseCertificate(block.Bytes)
	require.NoError(t, err)
	return &CA{t: t, certificate: certificate}
}

// Issue returns a certificate for a client or for localhost.
func (ca *CA) Issue(name string) tls.Certificate {
	ca.t.Helper()
	template := ca.template(name)
	template.DNSNames, template.IPAddresses = []string{name}, []net.IP{net.IPv4(127, 0, 0, 1)}
	return ca.sign(template)
}

// IssueTo returns a certificate for a client with any subject.
func (ca *CA) IssueTo(subject pkix.Name) tls.Certificate {
	ca.t.Helper()
	template := ca.template("")
	template.Subject = subject
	return ca.sign(template)
}

func (ca *CA) sign(template *x509.Certificate) tls.Certificate {
	ca.t.Helper()
	key := ca.newKey()
	template.KeyUsage = x509.KeyUsageDigitalSignature
	template.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth}
	der, err := x509.CreateCertificate(rand.Reader, template, ca.certificate, key.Public(), ca.key)
	require.NoError(ca.t, err)
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
}

// ServerTLS serves localhost and asks for no client certificate.
func (ca *CA) ServerTLS() *tls.Config {
	return &tls.Config{Certificates: []tls.Certificate{ca.Issue("localhost")}, MinVersion: tls.VersionTLS12}
}

// RequiringTLS serves localhost to clients with a certificate of this CA.
func (ca *CA) RequiringTLS() *tls.Config {
	config := ca.ServerTLS()
	config.ClientAuth, config.ClientCAs = tls.RequireAndVerifyClientCert, x509.NewCertPool()
	config.ClientCAs.AddCert(ca.certificate)
	return config
}

func (ca *CA) newKey() *ecdsa.PrivateKey {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	require.NoError(ca.t, err)
	return key
}

func (ca *CA) template(name string) *x509.Certificate {
	serial, err := rand.Int(rand.Reader, big.NewInt(1<<62))
	require.NoError(ca.t, err)
	return &x509.Certificate{
		SerialNumber: serial,
		Subject:      pkix.Name{CommonName: name},
		NotBefore:    time.Now().Add(-time.Hour),
		NotAfter:     time.Now().Add(time.Hour),
	}
}

// Certificate is what clients trust.
func (ca *CA) Certificate() *x509.Certificate { return ca.certificate }
