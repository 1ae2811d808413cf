package certs

import (
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"io/fs"
	"math/big"
	"os"
	"path/filepath"
	"slices"
	"strings"
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

func TestCAFilesAreReadAsEditorsAndToolsLeaveThem(t *testing.T) {
	a := create(t, options(t))
	plain := string(a.RootPEM())
	der := a.current.Load().roots[0].Raw
	trusted := string(pem.EncodeToMemory(&pem.Block{Type: "TRUSTED CERTIFICATE", Bytes: append(slices.Clone(der), 0x30, 0x02, 0x30, 0x00)}))
	for name, text := range map[string]string{
		"byte order mark":     "\xef\xbb\xbf" + plain,
		"Windows":             strings.ReplaceAll(plain, "\n", "\r\n"),
		"mark and Windows":    "\xef\xbb\xbf" + strings.ReplaceAll(plain, "\n", "\r\n"),
		"X509 CERTIFICATE":    strings.ReplaceAll(plain, " CERTIFICATE", " X509 CERTIFICATE"),
		"TRUSTED CERTIFICATE": trusted,
		"spaces at line ends": strings.ReplaceAll(plain, "\n", "   \n"),
		"openssl x509 -text":  "Certificate:\n    Data:\n        Version: 3 (0x2)\n" + plain,
		"one of another kind": "-----BEGIN X509 CRL-----\nMAA=\n-----END X509 CRL-----\n" + plain,
	} {
		path := filepath.Join(t.TempDir(), "trust.crt")
		write(t, text, path)
		pool, err := LoadRoots(path, noon)
		require.NoError(t, err, name)
		assert.True(t, pool.Equal(a.current.Load().rootPool()), name)
	}
	for text, want := range map[string]string{
		string(der): "in binary form (DER); PEM is needed: openssl x509 -inform DER",
		"\xff\xfe-\x00-\x00-\x00-\x00-\x00B\x00E\x00G\x00I\x00N\x00": "is saved as UTF-16",
		plain[:300]: "it is cut off, the end is missing",
		"    " + strings.ReplaceAll(plain, "\n", "\n    "):   "its lines are indented",
		strings.ReplaceAll(plain, "\n", `\n`):                `its lines are joined with \n`,
		strings.ReplaceAll(plain, "\n", ""):                  "all of it is in one line",
		strings.ReplaceAll(plain, "-----B", "----B"):         "the lines with BEGIN and END",
		"-----BEGIN PKCS7-----\nMAA=\n-----END PKCS7-----\n": "PKCS#7: openssl pkcs7 -print_certs",
		read(t, "testdata", "keys", "p12.key"):               "holds a PKCS#12 file",
		read(t, "testdata", "keys", "der.key"):               "holds a private key in binary form",
	} {
		path := filepath.Join(t.TempDir(), "trust.crt")
		write(t, text, path)
		_, err := LoadRoots(path, noon)
		assert.ErrorContains(t, err, want)
	}
}

// A key in a file that is handed to everybody is refused, in whatever state the key is.
func TestCAFileWithAKeyIsRefused(t *testing.T) {
	o := options(t)
	a := create(t, o)
	root, key := string(a.RootPEM()), read(t, o.Dir, "ca.key")
	for name, text := range map[string]string{
		"key after":     root + key,
		"key before":    key + root,
		"damaged key":   root + strings.Replace(key, "\nM", "\n!", 1),
		"key cut off":   root + key[:len(key)/2],
		"indented key":  root + "  " + strings.ReplaceAll(key, "\n", "\n  "),
		"key of RSA":    root + read(t, "testdata", "keys", "encrypted-pkcs1.key"),
		"key of ssh":    root + read(t, "testdata", "keys", "openssh.key"),
		"encrypted key": root + read(t, "testdata", "keys", "encrypted-pkcs8.key"),
	} {
		path := filepath.Join(t.TempDir(), "ca.pem")
		write(t, text, path)
		_, err := LoadRoots(path, noon)
		require.ErrorIs(t, err, ErrKeyInside, name)
		assert.ErrorContains(t, err, path, name)
		_, err = Open(Options{Dir: t.TempDir(), CACert: path, ServerCert: filepath.Join(o.Dir, "server.crt"), ServerKey: filepath.Join(o.Dir, "server.key")})
		require.ErrorIs(t, err, ErrKeyInside, name)
		assert.ErrorContains(t, err, path, name)
	}
}

// What is printed is encoded anew: what else a file holds stays there.
func TestOnlyCertificatesArePrinted(t *testing.T) {
	o := options(t)
	a := create(t, o)
	write(t, "# the password of the box is hunter2\n"+string(a.RootPEM())+"trailing secret\n", o.Dir, "ca.crt")
	opened, err := Open(o)
	require.NoError(t, err)
	assert.Equal(t, a.RootPEM(), opened.RootPEM())
}

// issue makes a certificate that is unlike ours.
func unlike(t *testing.T, g *generation, change func(*x509.Certificate)) []byte {
	t.Helper()
	template := &x509.Certificate{SerialNumber: big.NewInt(7), Subject: pkix.Name{CommonName: "localhost"}, NotBefore: noon.Add(-time.Hour), NotAfter: noon.Add(day)}
	change(template)
	c, err := certify(template, g.roots[0], g.serverKey.Public(), g.caKey)
	require.NoError(t, err)
	return encodeCert(c)
}

func TestCertificateWithACommonNameAloneIsNamed(t *testing.T) {
	g := create(t, options(t)).current.Load()
	err := VerifyServer(g.rootPool(), unlike(t, g, func(*x509.Certificate) {}), "localhost", noon)
	require.ErrorIs(t, err, ErrNames)
	assert.ErrorContains(t, err, `it has no subjectAltName, and its common name "localhost" does not count`)
	require.ErrorIs(t, VerifyServer(g.rootPool(), encodeCert(g.chain...), "other.farm", noon), ErrNames)
}

func TestSignatureWithSHA1IsNamed(t *testing.T) {
	dir := t.TempDir()
	run := func(args ...string) { openssl(t, args...) }
	at := func(name string) string { return filepath.Join(dir, name) }
	write(t, "subjectAltName=DNS:localhost\n", dir, "san.ext")
	run("req", "-new", "-x509", "-newkey", "rsa:2048", "-nodes", "-keyout", at("ca.key"), "-out", at("ca.crt"), "-subj", "/CN=My Home CA")
	run("req", "-new", "-newkey", "rsa:2048", "-nodes", "-keyout", at("server.key"), "-out", at("csr"), "-subj", "/CN=localhost")
	run("x509", "-req", "-sha1", "-in", at("csr"), "-CA", at("ca.crt"), "-CAkey", at("ca.key"), "-CAcreateserial", "-out", at("server.crt"), "-extfile", at("san.ext"))
	_, err := Open(Options{Dir: t.TempDir(), CACert: at("ca.crt"), ServerCert: at("server.crt"), ServerKey: at("server.key")})
	require.ErrorContains(t, err, "is signed with SHA1-RSA")
	assert.ErrorContains(t, err, "SHA-256")
}

// mosquitto_pub --cafile takes the broker's own self-signed certificate.
func TestCertificateThatSignedItselfIsTrustedForItself(t *testing.T) {
	for name, change := range map[string]func(*x509.Certificate){
		"no constraints":  func(*x509.Certificate) {},
		"CA:FALSE":        func(c *x509.Certificate) { c.BasicConstraintsValid = true },
		"for servers":     func(c *x509.Certificate) { c.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth} },
		"for signatures":  func(c *x509.Certificate) { c.KeyUsage = x509.KeyUsageDigitalSignature },
		"as an authority": func(c *x509.Certificate) { c.BasicConstraintsValid, c.IsCA = true, true },
	} {
		key, err := newKey()
		require.NoError(t, err)
		template := &x509.Certificate{SerialNumber: big.NewInt(7), Subject: pkix.Name{CommonName: "localhost"}, DNSNames: []string{"localhost"}, NotBefore: noon, NotAfter: noon.Add(day)}
		change(template)
		c, err := certify(template, template, key.Public(), key)
		require.NoError(t, err)
		path := filepath.Join(t.TempDir(), "self.crt")
		write(t, string(encodeCert(c)), path)
		roots, err := LoadRoots(path, noon)
		require.NoError(t, err, name)
		require.NoError(t, VerifyServer(roots, encodeCert(c), "localhost", noon), name)
		address := echo(t, &tls.Config{Certificates: []tls.Certificate{*tlsCertificate([]*x509.Certificate{c}, key)}})
		_, err = dial(t, address, &tls.Config{RootCAs: roots, ServerName: "localhost", Time: at(noon)})
		require.NoError(t, err, name)
	}
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
		certs, err := parseRoots(data)
		var pool *x509.CertPool
		if err == nil {
			pool, err = poolOf(certs, noon)
		}
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
