package certs

import (
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/plantops/plantops/certs/certstest"
)

// outside writes certificates that come from elsewhere into a folder of their own.
func outside(t *testing.T, leaf tls.Certificate, serverCert, caCert string) Options {
	t.Helper()
	dir := t.TempDir()
	key, err := x509.MarshalPKCS8PrivateKey(leaf.PrivateKey)
	require.NoError(t, err)
	write(t, string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: key})), dir, "server.key")
	write(t, serverCert, dir, "server.crt")
	write(t, caCert, dir, "ca.crt")
	return Options{Dir: t.TempDir(), CACert: filepath.Join(dir, "ca.crt"), ServerCert: filepath.Join(dir, "server.crt"),
		ServerKey: filepath.Join(dir, "server.key")}
}

func pemOf(pair tls.Certificate) string {
	return string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: pair.Certificate[0]}))
}

// Whatever file the certificates in between lie in, and in whatever order: a client that has the root alone verifies the server.
func TestServerShowsTheWayToTheRoot(t *testing.T) {
	root, stranger := certstest.New(t), certstest.New(t)
	signing := root.Under("signing CA")
	second := signing.Under("second CA")
	leaf, deep, plain := signing.Issue("localhost"), second.Issue("localhost"), root.Issue("localhost")
	r, s, i, x := string(root.PEM()), string(signing.PEM()), string(second.PEM()), string(stranger.PEM())
	client := signing.Issue("bed-1")

	for name, c := range map[string]struct {
		leaf               tls.Certificate
		serverCert, caCert string
		want               string // what is shown
	}{
		"signing CA beside the root":            {leaf, pemOf(leaf), r + s, pemOf(leaf) + s},
		"signing CA before the root":            {leaf, pemOf(leaf), s + r, pemOf(leaf) + s},
		"signing CA in the server's file":       {leaf, pemOf(leaf) + s, r, pemOf(leaf) + s},
		"signing CA in both":                    {leaf, pemOf(leaf) + s, r + s, pemOf(leaf) + s},
		"signing CA first":                      {leaf, s + pemOf(leaf), r, pemOf(leaf) + s},
		"root in the server's file":             {leaf, pemOf(leaf) + r + s, r, pemOf(leaf) + s + r},
		"several roots":                         {leaf, pemOf(leaf), x + r + s, pemOf(leaf) + s},
		"no signing CA":                         {plain, pemOf(plain), r + s, pemOf(plain)},
		"two in between, beside the root":       {deep, pemOf(deep), r + s + i, pemOf(deep) + i + s},
		"two in between, upside down":           {deep, pemOf(deep) + s + i, r, pemOf(deep) + i + s},
		"two in between, one in each":           {deep, pemOf(deep) + i, r + s, pemOf(deep) + i + s},
		"somebody else's as well":               {leaf, pemOf(leaf) + x + s, r, pemOf(leaf) + s + x},
		"another certificate beside the own":    {leaf, pemOf(client) + pemOf(leaf) + s, r, pemOf(leaf) + s + pemOf(client)},
		"the only one that is trusted, no root": {leaf, pemOf(leaf), s, pemOf(leaf) + s},
	} {
		t.Run(name, func(t *testing.T) {
			a, err := Open(outside(t, c.leaf, c.serverCert, c.caCert))
			require.NoError(t, err)
			assert.Equal(t, c.want, string(a.ServerPEM()))
			roots := root.Roots()
			if c.caCert == s {
				roots = signing.Roots()
			}
			_, err = dial(t, echo(t, a.ServerTLS(false)), &tls.Config{RootCAs: roots, ServerName: "localhost"})
			require.NoError(t, err)
		})
	}

	t.Run("of two with one key, the one that lasts longer", func(t *testing.T) {
		again := string(signing.Again(root, func(c *x509.Certificate) { c.NotAfter = c.NotAfter.Add(time.Hour) }))
		for _, caCert := range []string{r + s + again, again + s + r} {
			a, err := Open(outside(t, leaf, pemOf(leaf), caCert))
			require.NoError(t, err)
			assert.Equal(t, pemOf(leaf)+again, string(a.ServerPEM()))
		}
	})
}

func TestMissingAuthorityInBetweenIsNamed(t *testing.T) {
	root, stranger := certstest.New(t), certstest.New(t, func(c *x509.Certificate) { c.Subject.CommonName = "stranger CA" })
	signing := root.Under("signing CA")
	second := signing.Under("second CA")
	leaf, deep := signing.Issue("localhost"), second.Issue("localhost")
	r, s, i, x := string(root.PEM()), string(signing.PEM()), string(second.PEM()), string(stranger.PEM())

	for name, c := range map[string]struct {
		leaf               tls.Certificate
		serverCert, caCert string
		subject, issuer    string
	}{
		"the only one":     {leaf, pemOf(leaf), r, "CN=localhost", "CN=signing CA"},
		"the upper of two": {deep, pemOf(deep) + i, r, "CN=second CA", "CN=signing CA"},
		"the lower of two": {deep, pemOf(deep) + s, r, "CN=localhost", "CN=second CA"},
		"the root":         {leaf, pemOf(leaf) + s, x, "CN=signing CA", "CN=test CA"},
	} {
		t.Run(name, func(t *testing.T) {
			o := outside(t, c.leaf, c.serverCert, c.caCert)
			_, err := Open(o)
			require.ErrorContains(t, err, o.ServerCert+" is incomplete: "+c.subject+" was issued by "+c.issuer+", whose certificate is neither there nor in "+o.CACert)
			assert.ErrorContains(t, err, "append it to "+o.ServerCert)
		})
	}
	o := outside(t, leaf, s+r, r)
	_, err := Open(o)
	require.ErrorContains(t, err, "key "+o.ServerKey+" does not belong to "+o.ServerCert)
}

func TestOpenSSLVerifiesTheChainWithTheRootAlone(t *testing.T) {
	root := certstest.New(t)
	signing := root.Under("signing CA")
	leaf := signing.Issue("localhost")
	a, err := Open(outside(t, leaf, pemOf(leaf), string(root.PEM())+string(signing.PEM())))
	require.NoError(t, err)
	alone := filepath.Join(t.TempDir(), "root.crt")
	write(t, string(root.PEM()), alone)
	address := echo(t, a.ServerTLS(false))
	for _, version := range []string{"-tls1_2", "-tls1_3"} {
		out := openssl(t, "s_client", "-connect", address, "-CAfile", alone, "-verify_return_error", "-verify_hostname", "localhost", version)
		assert.Contains(t, out, "Verify return code: 0 (ok)")
		assert.Equal(t, 2, strings.Count(out, "\n   i:"), "certificates sent:\n%s", out)
	}
}
