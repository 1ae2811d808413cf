package certs

import (
	"crypto/x509"
	"encoding/pem"
	"io/fs"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestLoadRootsSaysWhatIsWrong(t *testing.T) {
	o := options(t)
	a := create(t, o)
	root := string(a.RootPEM())
	block, _ := pem.Decode(a.RootPEM())
	unusual := *a.current.Load().roots[0]
	unusual.KeyUsage = x509.KeyUsageDigitalSignature
	key := a.current.Load().caKey
	noSigner, err := certify(&unusual, &unusual, key.Public(), key)
	require.NoError(t, err)

	for name, c := range map[string]struct {
		content string
		now     time.Time
		want    string
	}{
		"empty":                {"", noon, "is empty"},
		"blank":                {" \n\n", noon, "is empty"},
		"private key":          {read(t, o.Dir, "ca.key"), noon, "holds a private key, not a certificate"},
		"server certificate":   {read(t, o.Dir, "server.crt"), noon, "is not a CA certificate (subject CN=PlantOps server)"},
		"CA that may not sign": {string(encodeCert(noSigner)), noon, "is not a CA certificate"},
		"text":                 {"hello", noon, "holds no complete certificate in PEM form"},
		"cut off":              {root[:200], noon, "holds no complete certificate in PEM form"},
		"binary":               {string(block.Bytes), noon, "holds a certificate in binary form (DER)"},
		"damaged":              {string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: block.Bytes[:99]})), noon, "holds a damaged certificate"},
		"request":              {string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE REQUEST"})), noon, "holds something else than a certificate"},
		"expired":              {root, noon.Add(3650 * day), "expired on 2036-02-27T11:00:00Z"},
		"not yet valid":        {root, noon.Add(-2 * time.Hour), "is not valid before 2026-03-01T11:00:00Z"},
		"too large":            {string(make([]byte, maxFileBytes+1)), noon, "is too large"},
	} {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "trust.crt")
			write(t, c.content, path)
			pool, err := LoadRoots(path, c.now)
			assert.Nil(t, pool)
			assert.ErrorContains(t, err, "CA certificate "+path+" "+c.want)
		})
	}

	_, err = LoadRoots("/nonexistent/ca.crt", noon)
	require.ErrorIs(t, err, fs.ErrNotExist)
	assert.EqualError(t, err, "CA certificate /nonexistent/ca.crt does not exist")
	_, err = LoadRoots(o.Dir, noon)
	assert.EqualError(t, err, "CA certificate "+o.Dir+" is a directory")
	_, err = LoadRoots(filepath.Join(o.Dir, "ca.crt", "below"), noon)
	assert.ErrorContains(t, err, "is not readable: not a directory")
	assert.EqualError(t, explain(&fs.PathError{Op: "open", Path: "x", Err: os.ErrPermission}), "is not readable by this user") // the tests may run as root
}

func TestLoadRootsTakesTheGoodOnesOfABundle(t *testing.T) {
	o := options(t)
	a := create(t, o)
	o.Dir, o.Now = t.TempDir(), at(noon.Add(-3650*day))
	expired := create(t, o)
	path := filepath.Join(t.TempDir(), "bundle.crt")
	write(t, "# a comment\r\n"+string(expired.RootPEM())+string(a.ServerPEM())+string(a.RootPEM()), path)

	pool, err := LoadRoots(path, noon)
	require.NoError(t, err)
	assert.True(t, pool.Equal(a.current.Load().rootPool()))
}

func TestLoadRootsWithoutAClockSkipsTheDates(t *testing.T) {
	o := options(t)
	a := create(t, o)
	pool, err := LoadRoots(filepath.Join(o.Dir, "ca.crt"), time.Time{})
	require.NoError(t, err)
	require.NoError(t, VerifyServer(pool, a.ServerPEM(), "localhost", time.Time{}))
}

func TestVerifyServerSaysWhyAClientWouldRefuse(t *testing.T) {
	o, foreign := options(t), options(t)
	a, other := create(t, o), create(t, foreign)
	roots, otherRoots := a.current.Load().rootPool(), other.current.Load().rootPool()
	issuer := a.current.Load().roots[0].Subject.String()
	client, err := a.Issue("localhost")
	require.NoError(t, err)

	require.NoError(t, VerifyServer(roots, a.ServerPEM(), "127.0.0.1", noon))
	require.NoError(t, VerifyServer(roots, a.ServerPEM(), "LOCALHOST", noon))
	for name, c := range map[string]struct {
		roots *x509.CertPool
		cert  []byte
		host  string
		now   time.Time
		want  string
	}{
		"another authority":  {otherRoots, a.ServerPEM(), "localhost", noon, "(issued by " + issuer + ") is not signed by the CA that is trusted"},
		"system roots":       {nil, a.ServerPEM(), "localhost", noon, "(issued by " + issuer + ") is not signed by the CA that is trusted"},
		"another host":       {roots, a.ServerPEM(), "broker.example", noon, "does not cover broker.example (it covers localhost, "},
		"another address":    {roots, a.ServerPEM(), "203.0.113.9", noon, "does not cover 203.0.113.9"},
		"expired":            {roots, a.ServerPEM(), "localhost", noon.Add(397 * day), "expired on 2027-04-02T11:00:00Z"},
		"not yet valid":      {roots, a.ServerPEM(), "localhost", noon.Add(-day), "is not valid before 2026-03-01T11:00:00Z"},
		"client certificate": {roots, client.CertPEM, "localhost", noon, "does not cover localhost (it covers no name)"},
		"a key":              {roots, client.KeyPEM, "localhost", noon, "holds a private key"},
		"nothing":            {roots, nil, "localhost", noon, "is empty"},
	} {
		assert.ErrorContains(t, VerifyServer(c.roots, c.cert, c.host, c.now), "server certificate "+c.want, name)
	}
}

func TestServerWhoseAuthorityExpiredIsNamed(t *testing.T) {
	o := options(t)
	g := create(t, o).current.Load()
	root := *g.roots[0]
	root.NotAfter = noon.Add(day)
	key := g.caKey
	expired, err := certify(&root, &root, key.Public(), key)
	require.NoError(t, err)
	pool := x509.NewCertPool()
	pool.AddCert(expired)
	err = VerifyServer(pool, encodeCert(g.chain...), "localhost", noon.Add(2*day))
	require.ErrorContains(t, err, "leads to CN=PlantOps CA")
	require.ErrorContains(t, err, "which expired on 2026-03-02T12:00:00Z")
}

// What parseRoots accepts is a pool with at least one authority; it never panics.
func FuzzLoadRoots(f *testing.F) {
	a, err := Create(Options{Dir: f.TempDir(), Now: at(noon)}, false)
	require.NoError(f, err)
	root := a.RootPEM()
	f.Add(root)
	f.Add(a.ServerPEM())
	f.Add(root[:len(root)/2])
	f.Add(append(a.ServerPEM(), root...))
	f.Add([]byte("-----BEGIN CERTIFICATE-----\n\n-----END CERTIFICATE-----\n"))
	f.Fuzz(func(t *testing.T, data []byte) {
		pool, err := parseRoots(data, noon)
		if err != nil {
			assert.Nil(t, pool)
			assert.NotEmpty(t, err.Error())
			return
		}
		assert.False(t, pool.Equal(x509.NewCertPool()), "an empty pool would trust nobody")
	})
}

// What parseKey accepts can be written and read again.
func FuzzParseKey(f *testing.F) {
	key, err := newKey()
	require.NoError(f, err)
	f.Add(encodeKey(key))
	f.Add([]byte("-----BEGIN EC PRIVATE KEY-----\n\n-----END EC PRIVATE KEY-----\n"))
	f.Add([]byte("-----BEGIN RSA PRIVATE KEY-----\nMAA=\n-----END RSA PRIVATE KEY-----\n"))
	f.Fuzz(func(t *testing.T, data []byte) {
		key, err := parseKey(data)
		if err != nil {
			return
		}
		again, err := parseKey(encodeKey(key))
		require.NoError(t, err)
		assert.Equal(t, key.Public(), again.Public())
	})
}
