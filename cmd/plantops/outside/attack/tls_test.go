//go:build linux

package attack_test

import (
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/plantops/plantops/broker/brokertest/rawmqtt"
	"github.com/plantops/plantops/certs/certstest"
	"github.com/plantops/plantops/cmd/plantops/outside/door"
	"github.com/plantops/plantops/cmd/plantops/outside/siege"
)

// What is wrong below MQTT: classes V15 (TLS) and V16 (websocket).

func TestV15CertificateAndAccountAreOneIdentity(t *testing.T) {
	g := siege.Begin(t, "PLANTOPS_LISTENERS_TLS_REQUIRE_CERTIFICATE=true")
	out := t.TempDir()
	issued := map[string]tls.Certificate{}
	for _, name := range []string{"bed-1", "bed-2"} {
		g.In.Run("certs", "issue", name, "--out", out)
		pair, err := tls.LoadX509KeyPair(filepath.Join(out, name+".crt"), filepath.Join(out, name+".key"))
		require.NoError(t, err)
		issued[name] = pair
	}
	ours := filepath.Join(g.In.Dir, "certs")
	pair, err := tls.LoadX509KeyPair(filepath.Join(ours, "ca.crt"), filepath.Join(ours, "ca.key"))
	require.NoError(t, err)
	authority := certstest.Of(t, pair)
	server, err := tls.LoadX509KeyPair(filepath.Join(ours, "server.crt"), filepath.Join(ours, "server.key"))
	require.NoError(t, err)
	stranger := certstest.New(t, func(c *x509.Certificate) { c.Subject = pair.Leaf.Subject })
	bed1 := pkix.Name{CommonName: "bed-1"}
	base := g.Doors[1]
	with := func(certificates ...tls.Certificate) door.Door {
		d := base
		d.TLS = d.TLS.Clone()
		d.TLS.Certificates = certificates
		return d
	}
	for name, certificate := range map[string]tls.Certificate{
		"of another device":             issued["bed-2"],
		"expired":                       authority.IssueTo(bed1, func(c *x509.Certificate) { c.NotAfter = time.Now().Add(-time.Minute) }),
		"not valid yet":                 authority.IssueTo(bed1, func(c *x509.Certificate) { c.NotBefore = time.Now().Add(30 * time.Minute) }),
		"of another authority":          stranger.IssueTo(bed1),
		"self-signed":                   certstest.SelfSigned(t, "bed-1"),
		"of a server":                   server,
		"for servers, by our authority": authority.IssueTo(bed1, func(c *x509.Certificate) { c.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth} }),
		"of a similar name":             authority.IssueTo(pkix.Name{CommonName: "BED-1"}),
		"of no name":                    authority.IssueTo(pkix.Name{}, func(c *x509.Certificate) { c.DNSNames = []string{"bed-1"} }),
		"of a name with more behind":    authority.IssueTo(pkix.Name{CommonName: "bed-1\x00.bed-2"}),
		"by a device's certificate":     certstest.Of(t, issued["bed-2"]).IssueTo(bed1),
	} {
		a, code, err := with(certificate).Enter(t, g.As("bed-1"))
		assert.False(t, err == nil && code == 0, "a certificate %s lets bed-1 in", name)
		if a != nil {
			a.Close()
		}
	}
	g.Refused(with(), g.As("bed-1")) // no certificate
	wrong := g.As("bed-1")
	wrong.Secret = g.Secrets["bed-2"]
	g.Refused(with(issued["bed-1"]), wrong) // a certificate is not enough
	wrong = g.As("plantops_backend")
	g.Refused(with(authority.IssueTo(pkix.Name{CommonName: "plantops_backend"})), wrong)

	a := g.Enter(with(issued["bed-1"]), g.As("bed-1"))
	g.In.Run("device", "remove", "bed-1")
	assert.True(t, a.Ended(siege.Effective), "without its account the certificate is worth nothing")
	g.Refused(with(issued["bed-1"]), g.As("bed-1"))
}

func TestV15OldTLSAndPlainTextAreRefused(t *testing.T) {
	g := siege.Begin(t)
	d := g.Doors[1]
	for _, version := range []uint16{tls.VersionTLS10, tls.VersionTLS11} {
		old := d
		old.TLS = d.TLS.Clone()
		old.TLS.MinVersion, old.TLS.MaxVersion = version, version
		g.Refused(old, g.As("bed-1"))
	}
	d.Kind = "tcp"
	g.Refused(d, g.As("bed-1")) // MQTT without TLS at the port with TLS
	mistaken := g.Doors[0]
	mistaken.Kind, mistaken.TLS = "tls", g.Doors[1].TLS
	g.Refused(mistaken, g.As("bed-1"))
	untrusting := g.Doors[1]
	untrusting.TLS = &tls.Config{RootCAs: x509.NewCertPool(), ServerName: "localhost"}
	_, _, err := untrusting.Enter(t, g.As("bed-1"))
	assert.ErrorContains(t, err, "unknown authority")
	g.ServesAll()
}

func TestV16FramesThatAreNotAllowedEndTheConnection(t *testing.T) {
	g := siege.Begin(t)
	d := g.Doors[2]
	hello := g.As("bed-1").Encode()
	slices := func(a *door.Intruder) { // allowed: a CONNECT in frames of a byte
		for i := range hello {
			first := byte(0)
			if i == 0 {
				first = 2
			} else if i == len(hello)-1 {
				first = 0x80
			}
			a.SendRaw(rawmqtt.EncodeFrame(first, hello[i:i+1]))
		}
	}
	a, err := d.Open(t, "")
	require.NoError(t, err)
	slices(a)
	answer, err := a.Await(rawmqtt.Connack)
	require.NoError(t, err)
	require.Zero(t, answer[1])

	for name, frames := range map[string][]byte{
		"text":                    rawmqtt.EncodeFrame(0x81, hello),
		"not masked":              append([]byte{0x82, byte(len(hello))}, hello...),
		"reserved bit":            rawmqtt.EncodeFrame(0xc2, hello),
		"reserved opcode":         rawmqtt.EncodeFrame(0x83, hello),
		"reserved control opcode": rawmqtt.EncodeFrame(0x8b, nil),
		"continues nothing":       rawmqtt.EncodeFrame(0x80, hello),
		"begins twice":            append(rawmqtt.EncodeFrame(0x02, hello[:5]), rawmqtt.EncodeFrame(0x82, hello[5:])...),
		"long ping":               rawmqtt.EncodeFrame(0x89, make([]byte, 126)),
		"ping in pieces":          rawmqtt.EncodeFrame(0x09, []byte("x")),
		"negative length":         append([]byte{0x82, 0xff, 0xff}, make([]byte, 100)...),
		"close of one byte":       rawmqtt.EncodeFrame(0x88, []byte{3}),
		"no HTTP any more":        []byte("GET /mqtt HTTP/1.1\r\n\r\n"),
	} {
		for _, inside := range []bool{false, true} { // before and after the login
			a, err := d.Open(t, "")
			require.NoError(t, err)
			if inside {
				a.Send(hello)
				_, err := a.Await(rawmqtt.Connack)
				require.NoError(t, err)
			}
			a.SendRaw(frames)
			assert.True(t, a.Ended(siege.Promptness), "%s, logged in %v", name, inside)
			a.Close()
		}
	}
	g.ServesAll()
}

func TestV16OtherSitesMayNotConnect(t *testing.T) {
	g := siege.Begin(t)
	d := door.Door{Kind: "tcp", Address: g.Doors[2].Address}
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
		a, err := d.Open(t, "")
		require.NoError(t, err)
		status, err := a.Upgrade(header)
		require.NoError(t, err, "%.60q", header)
		assert.Equal(t, want, status, "%.60q", header)
		a.Close()
	}
}
