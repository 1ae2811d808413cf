package certstest_test

import (
	"crypto/x509"
	"testing"

	"github.com/stretchr/testify/assert"

	"github.com/plantops/plantops/certs/certstest"
)

func TestIssuedCertificatesAreGoodForWhomTheyAre(t *testing.T) {
	ca := certstest.New(t)
	verify := func(leaf *x509.Certificate, usage x509.ExtKeyUsage, name string) error {
		_, err := leaf.Verify(x509.VerifyOptions{Roots: ca.Roots(), DNSName: name, KeyUsages: []x509.ExtKeyUsage{usage}})
		return err
	}
	server := ca.Issue("localhost").Leaf
	assert.NoError(t, verify(server, x509.ExtKeyUsageServerAuth, "localhost"))
	assert.NoError(t, verify(server, x509.ExtKeyUsageServerAuth, "127.0.0.1"))
	assert.Error(t, verify(server, x509.ExtKeyUsageServerAuth, "elsewhere"))
	client := ca.IssueTo(server.Subject).Leaf
	assert.NoError(t, verify(client, x509.ExtKeyUsageClientAuth, ""))
	assert.Error(t, verify(client, x509.ExtKeyUsageServerAuth, ""))

	for what, leaf := range map[string]*x509.Certificate{
		"nobody's":              certstest.SelfSigned(t, "localhost").Leaf,
		"another authority's":   certstest.New(t).Issue("localhost").Leaf,
		"that of a certificate": certstest.Of(t, ca.Issue("localhost")).Issue("localhost").Leaf,
		"of the future":         ca.Issue("localhost", func(c *x509.Certificate) { c.NotBefore = c.NotAfter }).Leaf,
	} {
		assert.Error(t, verify(leaf, x509.ExtKeyUsageClientAuth, ""), what)
	}
	assert.NotPanics(t, func() { certstest.Trust(t, string(ca.PEM())).Roots() })
}
