package certs

import (
	"crypto/tls"
	"crypto/x509"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestIssuedCertificateIsForClientsOnly(t *testing.T) {
	a := create(t, options(t))
	pair, err := a.Issue("Beet 1 – Süd")
	require.NoError(t, err)
	cert, err := tls.X509KeyPair(pair.CertPEM, pair.KeyPEM)
	require.NoError(t, err)

	assert.Equal(t, "Beet 1 – Süd", cert.Leaf.Subject.CommonName)
	assert.Equal(t, cert.Leaf.NotAfter, pair.NotAfter)
	verify := x509.VerifyOptions{Roots: a.current.Load().rootPool(), CurrentTime: noon, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}}
	_, err = cert.Leaf.Verify(verify)
	require.NoError(t, err)
	verify.KeyUsages = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}
	_, err = cert.Leaf.Verify(verify)
	require.Error(t, err, "a device must not be able to pose as the server")
}

func TestNothingOutlivesTheAuthority(t *testing.T) {
	o := options(t)
	root := create(t, o).current.Load().roots[0]
	o.Now = at(root.NotAfter.Add(-48 * time.Hour))
	a, err := Open(o) // renews
	require.NoError(t, err)
	pair, err := a.Issue("bed-1")
	require.NoError(t, err)
	assert.Equal(t, root.NotAfter, pair.NotAfter)
	assert.Equal(t, root.NotAfter, a.current.Load().server().NotAfter)

	o.Now = at(root.NotBefore.Add(time.Minute)) // the clock was set back
	a, err = Open(o)
	require.NoError(t, err)
	_, err = a.Renew()
	require.NoError(t, err)
	assert.Equal(t, root.NotBefore, a.current.Load().server().NotBefore)
}

func TestIssueRefusesNames(t *testing.T) {
	a := create(t, options(t))
	for name, refused := range map[string]string{
		"empty": "", "too long": strings.Repeat("x", 65), "new line": "a\nb", "null": "a\x00", "C1 control": "a\u0085", "not UTF-8": "a\xff",
		"plus": "a+", "hash": "#", "slash": "a/b", "dollar": "$SYS", "percent": "%u",
	} {
		_, err := a.Issue(refused)
		require.Error(t, err, name)
		assert.NotContains(t, err.Error(), "\n", name)
	}
	_, err := a.Issue(strings.Repeat("x", 64))
	require.NoError(t, err)
}

func TestWriteFilesNeverOverwrites(t *testing.T) {
	dir := t.TempDir()
	cert, key := filepath.Join(dir, "bed-1.crt"), filepath.Join(dir, "bed-1.key")
	pair := Pair{CertPEM: []byte("new certificate"), KeyPEM: []byte("new key")}
	for _, taken := range []string{"bed-1.crt", "bed-1.key"} {
		write(t, "old", dir, taken)
		require.ErrorIs(t, pair.writeFiles(cert, key), ErrExists)
		assert.Equal(t, "old", read(t, dir, taken))
		remove(t, dir, taken)
	}
	require.Error(t, pair.writeFiles(key, filepath.Join(dir, ".", "bed-1.key")), "one file for both")
	require.NoError(t, pair.writeFiles(cert, key))
	assert.Equal(t, "new key", read(t, key))
}
