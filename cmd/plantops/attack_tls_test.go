//go:build linux

package main_test

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"math/big"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// What is wrong below MQTT: classes V15 (TLS) and V16 (websocket).

// forge issues a client certificate for name; edit may change what it says.
func forge(t *testing.T, authority tls.Certificate, name string, edit func(*x509.Certificate)) tls.Certificate {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	require.NoError(t, err)
	template := &x509.Certificate{SerialNumber: big.NewInt(time.Now().UnixNano()), Subject: pkix.Name{CommonName: name},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour), KeyUsage: x509.KeyUsageDigitalSignature,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}}
	if edit != nil {
		edit(template)
	}
	parent, signer := template, crypto.PrivateKey(key)
	if authority.Leaf != nil {
		parent, signer = authority.Leaf, authority.PrivateKey
	}
	der, err := x509.CreateCertificate(rand.Reader, template, parent, key.Public(), signer)
	require.NoError(t, err)
	leaf, err := x509.ParseCertificate(der)
	require.NoError(t, err)
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key, Leaf: leaf}
}

func TestV15CertificateAndAccountAreOneIdentity(t *testing.T) {
	g := besiege(t, "PLANTOPS_LISTENERS_TLS_REQUIRE_CERTIFICATE=true")
	out := t.TempDir()
	issued := map[string]tls.Certificate{}
	for _, name := range []string{"bed-1", "bed-2"} {
		g.in.run("certs", "issue", name, "--out", out)
		pair, err := tls.LoadX509KeyPair(filepath.Join(out, name+".crt"), filepath.Join(out, name+".key"))
		require.NoError(t, err)
		issued[name] = pair
	}
	ours := filepath.Join(g.in.dir, "certs")
	authority, err := tls.LoadX509KeyPair(filepath.Join(ours, "ca.crt"), filepath.Join(ours, "ca.key"))
	require.NoError(t, err)
	server, err := tls.LoadX509KeyPair(filepath.Join(ours, "server.crt"), filepath.Join(ours, "server.key"))
	require.NoError(t, err)
	stranger := forge(t, tls.Certificate{}, authority.Leaf.Subject.CommonName, func(c *x509.Certificate) {
		c.IsCA, c.BasicConstraintsValid, c.KeyUsage, c.ExtKeyUsage = true, true, x509.KeyUsageCertSign, nil
	})
	base := g.doors[1]
	with := func(certificates ...tls.Certificate) door {
		d := base
		d.tls = d.tls.Clone()
		d.tls.Certificates = certificates
		return d
	}
	for name, certificate := range map[string]tls.Certificate{
		"of another device":             issued["bed-2"],
		"expired":                       forge(t, authority, "bed-1", func(c *x509.Certificate) { c.NotAfter = time.Now().Add(-time.Minute) }),
		"not valid yet":                 forge(t, authority, "bed-1", func(c *x509.Certificate) { c.NotBefore = time.Now().Add(30 * time.Minute) }),
		"of another authority":          forge(t, stranger, "bed-1", nil),
		"self-signed":                   forge(t, tls.Certificate{}, "bed-1", nil),
		"of a server":                   server,
		"for servers, by our authority": forge(t, authority, "bed-1", func(c *x509.Certificate) { c.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth} }),
		"of a similar name":             forge(t, authority, "BED-1", nil),
		"of no name":                    forge(t, authority, "", func(c *x509.Certificate) { c.DNSNames = []string{"bed-1"} }),
		"of a name with more behind":    forge(t, authority, "bed-1\x00.bed-2", nil),
		"by a device's certificate":     forge(t, issuedBy(t, issued["bed-2"]), "bed-1", nil),
	} {
		a, code, err := with(certificate).enter(t, g.as("bed-1"))
		assert.False(t, err == nil && code == 0, "a certificate %s lets bed-1 in", name)
		if a != nil {
			a.Close()
		}
	}
	g.refused(with(), g.as("bed-1")) // no certificate
	wrong := g.as("bed-1")
	wrong.secret = g.secrets["bed-2"]
	g.refused(with(issued["bed-1"]), wrong) // a certificate is not enough
	wrong = g.as("plantops_backend")
	g.refused(with(forge(t, authority, "plantops_backend", nil)), wrong)

	a := g.enter(with(issued["bed-1"]), g.as("bed-1"))
	g.in.run("device", "remove", "bed-1")
	assert.True(t, a.ended(effective), "without its account the certificate is worth nothing")
	g.refused(with(issued["bed-1"]), g.as("bed-1"))
}

func issuedBy(t *testing.T, c tls.Certificate) tls.Certificate {
	t.Helper()
	leaf, err := x509.ParseCertificate(c.Certificate[0])
	require.NoError(t, err)
	c.Leaf = leaf
	return c
}

func TestV15OldTLSAndPlainTextAreRefused(t *testing.T) {
	g := besiege(t)
	d := g.doors[1]
	for _, version := range []uint16{tls.VersionTLS10, tls.VersionTLS11} {
		old := d
		old.tls = d.tls.Clone()
		old.tls.MinVersion, old.tls.MaxVersion = version, version
		g.refused(old, g.as("bed-1"))
	}
	d.kind = "tcp"
	g.refused(d, g.as("bed-1")) // MQTT without TLS at the port with TLS
	mistaken := g.doors[0]
	mistaken.kind, mistaken.tls = "tls", g.doors[1].tls
	g.refused(mistaken, g.as("bed-1"))
	untrusting := g.doors[1]
	untrusting.tls = &tls.Config{RootCAs: x509.NewCertPool(), ServerName: "localhost"}
	_, _, err := untrusting.enter(t, g.as("bed-1"))
	assert.ErrorContains(t, err, "unknown authority")
	g.servesAll()
}

func TestV16FramesThatAreNotAllowedEndTheConnection(t *testing.T) {
	g := besiege(t)
	d := g.doors[2]
	hello := g.as("bed-1").encode()
	slices := func(a *intruder) { // allowed: a CONNECT in frames of a byte
		for i := range hello {
			first := byte(0)
			if i == 0 {
				first = 2
			} else if i == len(hello)-1 {
				first = 0x80
			}
			a.write(encodeFrame(first, hello[i:i+1]))
		}
	}
	a, err := d.open(t, "")
	require.NoError(t, err)
	slices(a)
	answer, err := a.await(connack)
	require.NoError(t, err)
	require.Zero(t, answer[1])

	for name, frames := range map[string][]byte{
		"text":                    encodeFrame(0x81, hello),
		"not masked":              append([]byte{0x82, byte(len(hello))}, hello...),
		"reserved bit":            encodeFrame(0xc2, hello),
		"reserved opcode":         encodeFrame(0x83, hello),
		"reserved control opcode": encodeFrame(0x8b, nil),
		"continues nothing":       encodeFrame(0x80, hello),
		"begins twice":            append(encodeFrame(0x02, hello[:5]), encodeFrame(0x82, hello[5:])...),
		"long ping":               encodeFrame(0x89, make([]byte, 126)),
		"ping in pieces":          encodeFrame(0x09, []byte("x")),
		"negative length":         append([]byte{0x82, 0xff, 0xff}, make([]byte, 100)...),
		"close of one byte":       encodeFrame(0x88, []byte{3}),
		"no HTTP any more":        []byte("GET /mqtt HTTP/1.1\r\n\r\n"),
	} {
		for _, inside := range []bool{false, true} { // before and after the login
			a, err := d.open(t, "")
			require.NoError(t, err)
			if inside {
				a.send(hello)
				_, err := a.await(connack)
				require.NoError(t, err)
			}
			a.write(frames)
			assert.True(t, a.ended(promptness), "%s, logged in %v", name, inside)
			a.Close()
		}
	}
	g.servesAll()
}

func TestV16OtherSitesMayNotConnect(t *testing.T) {
	g := besiege(t)
	d := door{kind: "tcp", address: g.doors[2].address}
	for header, want := range map[string]int{
		"":                                101, // no browser
		"Origin: http://localhost\r\n":    101,
		"Origin: http://evil.example\r\n": 403,
		"Origin: null\r\n":                403,
		"Origin: http://localhost.evil.example\r\n": 403,
		"Origin: http://evil.example/localhost\r\n": 403,
		"Origin: http://localhost@evil.example\r\n": 403,
		"Origin: http://localhost:1\r\n":            403,
		"X: " + strings.Repeat("x", 9000) + "\r\n":  431,
	} {
		a, err := d.open(t, "")
		require.NoError(t, err)
		status, err := a.upgrade(header)
		require.NoError(t, err, "%.60q", header)
		assert.Equal(t, want, status, "%.60q", header)
		a.Close()
	}
}
