package certs

import (
	"crypto/tls"
	"crypto/x509"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// withRSA is an authority that has both certificates.
func withRSA(t *testing.T) (*Authority, Options) {
	t.Helper()
	o := options(t)
	a := create(t, o)
	a.makeRSAKey(t.Context())
	a.check()
	require.NotEmpty(t, a.current.Load().rsa.chain)
	return a, o
}

func TestClientsGetTheCertificateThatTheyKnow(t *testing.T) {
	a, _ := withRSA(t)
	address := echo(t, a.ServerTLS(false))
	for name, c := range map[string]struct {
		change func(*tls.Config)
		want   x509.PublicKeyAlgorithm
	}{
		"everything":                 {func(*tls.Config) {}, x509.ECDSA},
		"TLS 1.2":                    {func(c *tls.Config) { c.MaxVersion = tls.VersionTLS12 }, x509.ECDSA},
		"Tasmota":                    {only(tls.TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256), x509.RSA},
		"RSA and AES 256":            {only(tls.TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384), x509.RSA},
		"RSA and ChaCha20":           {only(tls.TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256), x509.RSA},
		"RSA and CBC":                {only(tls.TLS_ECDHE_RSA_WITH_AES_128_CBC_SHA), x509.RSA},
		"both, RSA first":            {only(tls.TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256, tls.TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256), x509.ECDSA},
		"a name that is not covered": {func(c *tls.Config) { c.ServerName, c.InsecureSkipVerify = "farm.example", true }, x509.ECDSA},
		"the same, with RSA alone": {func(c *tls.Config) {
			only(tls.TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256)(c)
			c.ServerName, c.InsecureSkipVerify = "farm.example", true
		}, x509.RSA},
		"a curve that ECDSA cannot do": {func(c *tls.Config) { c.MaxVersion, c.CurvePreferences = tls.VersionTLS12, []tls.CurveID{tls.X25519} }, x509.RSA},
	} {
		config := client(a)
		c.change(config)
		conn, err := dial(t, address, config)
		require.NoError(t, err, name)
		assert.Equal(t, c.want, conn.ConnectionState().PeerCertificates[0].PublicKeyAlgorithm, name)
	}
}

func only(suites ...uint16) func(*tls.Config) {
	return func(c *tls.Config) { c.MaxVersion, c.CipherSuites = tls.VersionTLS12, suites }
}

func TestOpenSSLGetsTheCertificateOfItsSignatureAlgorithms(t *testing.T) {
	o := Options{Dir: t.TempDir()}
	a := create(t, o)
	a.makeRSAKey(t.Context())
	a.check()
	address := echo(t, a.ServerTLS(false))
	for want, args := range map[string][]string{
		"Peer signature type: RSA-PSS": {"-sigalgs", "RSA-PSS+SHA256:ECDSA+SHA1"},
		"Peer signature type: RSA":     {"-tls1_2", "-sigalgs", "RSA+SHA256:ECDSA+SHA1"},
		"Peer signature type: ECDSA":   {"-sigalgs", "ECDSA+SHA256"},
	} {
		out := openssl(t, append([]string{"s_client", "-connect", address, "-CAfile", filepath.Join(o.Dir, "ca.crt")}, args...)...)
		assert.Contains(t, out, want)
	}
	openssl(t, "verify", "-x509_strict", "-CAfile", filepath.Join(o.Dir, "ca.crt"), "-purpose", "sslserver", "-verify_hostname", "localhost",
		filepath.Join(o.Dir, "server-rsa.crt"))
}

func TestSecondCertificateFollowsTheFirst(t *testing.T) {
	a, o := withRSA(t)
	infos := a.Certificates()
	require.Len(t, infos, 3)
	assert.Equal(t, "RSA 2048", infos[2].Key)
	assert.Equal(t, "ECDSA P-256", infos[1].Key)
	assert.Equal(t, filepath.Join(o.Dir, "server-rsa.crt"), infos[2].Path)
	same := func() {
		infos = a.Certificates()
		assert.Equal(t, infos[1].Names, infos[2].Names)
		assert.Equal(t, infos[1].NotBefore, infos[2].NotBefore)
		assert.Equal(t, infos[1].NotAfter, infos[2].NotAfter)
	}
	same()
	first, key := infos[2].Fingerprint, read(t, o.Dir, "server-rsa.key")
	info, err := os.Stat(filepath.Join(o.Dir, "server-rsa.key"))
	require.NoError(t, err)
	assert.EqualValues(t, 0o600, info.Mode().Perm())

	a.names = func() []string { return []string{"localhost", "plantops.farm"} }
	a.check()
	same()
	assert.Contains(t, infos[2].Names, "plantops.farm")
	assert.NotEqual(t, first, infos[2].Fingerprint)
	assert.Equal(t, key, read(t, o.Dir, "server-rsa.key"), "who pins the key is not disturbed")

	before := infos[2].Fingerprint
	a.check()
	same()
	assert.Equal(t, before, infos[2].Fingerprint, "nothing is due")

	remove(t, o.Dir, "server-rsa.crt")
	a.check()
	same()
	assert.Equal(t, key, read(t, o.Dir, "server-rsa.key"))

	opened, err := Open(o)
	require.NoError(t, err)
	assert.Equal(t, infos, opened.Certificates())

	_, err = Create(o, true)
	require.NoError(t, err)
	assert.NoFileExists(t, filepath.Join(o.Dir, "server-rsa.key"), "it was of another authority")
}

func TestDamagedSecondKeyStopsNothing(t *testing.T) {
	_, o := withRSA(t)
	write(t, "-----BEGIN PRIVATE KEY-----\nMAA=\n-----END PRIVATE KEY-----\n", o.Dir, "server-rsa.key")
	a, err := Open(o)
	require.NoError(t, err)
	assert.Len(t, a.Certificates(), 2)
	a.makeRSAKey(t.Context())
	a.check()
	assert.Contains(t, read(t, o.Dir, "server-rsa.key"), "MAA=", "a key is never overwritten")
	_, err = dial(t, echo(t, a.ServerTLS(false)), client(a))
	require.NoError(t, err)

	require.NoError(t, os.Chmod(filepath.Join(o.Dir, "server-rsa.key"), 0o644))
	_, err = Open(o)
	require.ErrorIs(t, err, ErrInsecureKey)
}

// Whoever needs the key while it is made waits; everybody else does not notice.
func TestHandshakeWaitsForTheKeyThatIsBeingMade(t *testing.T) {
	a := create(t, options(t))
	address := echo(t, a.ServerTLS(false))
	_, err := dial(t, address, client(a))
	require.NoError(t, err)

	connected := make(chan error, 1)
	config := client(a)
	only(tls.TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256)(config)
	go func() {
		c, err := tls.DialWithDialer(dialer, "tcp", address, config)
		if err == nil {
			err = c.Close()
		}
		connected <- err
	}()
	a.makeRSAKey(t.Context())
	a.check()
	require.NoError(t, <-connected)
}

func TestHandshakeDoesNotWaitForAKeyThatCannotBeHad(t *testing.T) {
	o := options(t)
	create(t, o)
	remove(t, o.Dir, "ca.key") // from outside
	a, err := Open(o)
	require.NoError(t, err)
	config := client(a)
	only(tls.TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256)(config)
	started := time.Now()
	_, err = dial(t, echo(t, a.ServerTLS(false)), config)
	require.Error(t, err)
	assert.Less(t, time.Since(started), rsaWait)
}
