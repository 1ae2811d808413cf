package broker_test

import (
	"crypto"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"math/big"
	"net"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/plantops/plantops/broker"
	"github.com/plantops/plantops/broker/brokertest"
	"github.com/plantops/plantops/certs/certstest"
)

// canary is a password that must never be in a log.
const canary = "Canary-7f3a9c-Password"

// connectWith is a CONNECT with the canary as its password.
func connectWith(version byte, name string) []byte {
	text := func(s string) string { return string([]byte{byte(len(s) >> 8), byte(len(s))}) + s }
	body := text(name) + string([]byte{version, 0xC2, 0, 60})
	if version == 5 {
		body += "\x00"
	}
	body += text("ESP8266Client") + text("bed-1") + text(canary)
	return append([]byte{0x10, byte(len(body))}, body...)
}

// Wrong ways to send a password, each as it comes onto the wire of a listener.
func wrongWays() map[string][]byte {
	connect := connectWith(4, "MQTT")
	upgrade := "GET /mqtt HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n" +
		"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
	frame := func(opcode byte, payload []byte) []byte {
		masked := append([]byte{0x80 | opcode, 0x80 | byte(len(payload)), 0, 0, 0, 0}, payload...)
		return append([]byte(upgrade+"Sec-WebSocket-Protocol: mqtt\r\n\r\n"), masked...)
	}
	return map[string][]byte{
		"MQTT 3.1.1":                        connect,
		"MQTT 5":                            connectWith(5, "MQTT"),
		"MQTT 3.1":                          connectWith(3, "MQIsdp"),
		"a version that there is not":       connectWith(9, "MQTT"),
		"another protocol's name":           connectWith(4, canary),
		"half a CONNECT":                    connect[:len(connect)-4],
		"a CONNECT twice":                   append(append([]byte{}, connect...), connect...),
		"a longer length than there is":     append([]byte{0x10, byte(len(connect) + 20)}, connect[2:]...),
		"a shorter length":                  append([]byte{0x10, 20}, connect[2:]...),
		"a password that is not UTF-8":      []byte(strings.Replace(string(connect), "Client", "Cl\xff\xfet", 1)),
		"a name that is not UTF-8":          []byte(strings.Replace(string(connect), "bed-1", "be\xc3\x28-", 1)),
		"a PUBLISH first":                   append([]byte{0x30, byte(len(canary) + 2), 0, byte(len(canary))}, canary...),
		"a SUBSCRIBE first":                 append([]byte{0x82, byte(len(canary) + 5), 0, 1, 0, byte(len(canary))}, canary+"\x00"...),
		"a request line":                    []byte("GET /" + canary + " HTTP/1.1\r\n\r\n"),
		"a request with basic auth":         []byte("GET / HTTP/1.1\r\nHost: x\r\nAuthorization: Basic " + base64.StdEncoding.EncodeToString([]byte("bed-1:"+canary)) + "\r\n\r\n"),
		"a request with a query":            []byte("POST /?password=" + canary + " HTTP/1.1\r\nHost: x\r\n\r\n"),
		"an address that is none":           []byte("GET http://[" + canary + " HTTP/1.1\r\nHost: x\r\n\r\n"),
		"a version of HTTP that is none":    []byte("GET / " + canary + "\r\n\r\n"),
		"a method that is none":             []byte("G E T{" + canary + "}\r\n\r\n"),
		"a header line that is none":        []byte("GET / HTTP/1.1\r\n" + canary + "\r\n\r\n"),
		"a header name that is none":        []byte("GET / HTTP/1.1\r\n(" + canary + "): x\r\n\r\n"),
		"a long header name":                []byte("GET / HTTP/1.1\r\n" + strings.Repeat(canary, 300) + ": x\r\n\r\n"),
		"a long header":                     []byte("GET / HTTP/1.1\r\nX: " + strings.Repeat(canary, 1000) + "\r\n\r\n"),
		"a length of HTTP that is none":     []byte("POST / HTTP/1.1\r\nHost: x\r\nContent-Length: " + canary + "\r\n\r\n"),
		"a transfer coding that is none":    []byte("POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: " + canary + "\r\n\r\n"),
		"a host that is none":               []byte("GET / HTTP/1.1\r\nHost: " + canary + "/\r\n\r\n"),
		"a sub-protocol":                    []byte(upgrade + "Sec-WebSocket-Protocol: " + canary + "\r\n\r\n"),
		"an origin":                         []byte(upgrade + "Sec-WebSocket-Protocol: mqtt\r\nOrigin: " + canary + "\r\n\r\n"),
		"an origin with a password":         []byte(upgrade + "Sec-WebSocket-Protocol: mqtt\r\nOrigin: http://bed-1:" + canary + "@localhost\r\n\r\n"),
		"a websocket key that is none":      []byte(strings.Replace(upgrade, "dGhlIHNhbXBsZSBub25jZQ==", canary, 1) + "\r\n"),
		"a websocket version that is none":  []byte(strings.Replace(upgrade, "Version: 13", "Version: "+canary, 1) + "\r\n"),
		"MQTT in a text frame":              frame(1, connect),
		"MQTT in a ping":                    frame(9, connect),
		"MQTT in a close frame":             frame(8, append([]byte{0x03, 0xe8}, canary...)),
		"a close frame that is not UTF-8":   frame(8, append([]byte{0x03, 0xe8, 0xff}, canary...)),
		"MQTT in a frame that there is not": frame(3, connect),
		"MQTT in a binary frame, half":      frame(2, connect[:len(connect)-4]),
		"MQTT after the request":            append([]byte(upgrade+"\r\n"), connect...),
		"a frame without a mask":            append([]byte(upgrade+"\r\n"), append([]byte{0x82, byte(len(connect))}, connect...)...),
		"Redis":                             []byte("*2\r\n$4\r\nAUTH\r\n$22\r\n" + canary + "\r\n"),
		"only the password":                 []byte(canary + "\r\n"),
		"a TLS record that is none":         append([]byte{0x16, 3, 1, 0, byte(len(canary))}, canary...),
		"a ClientHello that is none":        append([]byte{0x16, 3, 1, 0, byte(len(canary) + 4), 1, 0, 0, byte(len(canary))}, canary...),
	}
}

// leaked says in which form a log holds the canary; "" when it does not.
func leaked(text string) string {
	for name, form := range map[string]string{"plain": canary, "hex": hex.EncodeToString([]byte(canary)), "base64": base64.StdEncoding.EncodeToString([]byte(canary))[:24],
		"a part": canary[7:16], "bytes": fmt.Sprint([]byte(canary))[1:30], "base64 of both": base64.StdEncoding.EncodeToString([]byte("bed-1:" + canary))[10:36]} {
		if strings.Contains(strings.ToLower(text), strings.ToLower(form)) {
			return name
		}
	}
	return ""
}

func TestNoReceivedBytesReachTheLog(t *testing.T) {
	for _, kind := range brokertest.Kinds {
		for _, inside := range []bool{false, true} { // of TLS
			if inside && kind != brokertest.TLS {
				continue
			}
			for name, sent := range wrongWays() {
				b := brokertest.Start(t, brokertest.Device("bed-1"))
				raw, err := net.Dial("tcp", map[brokertest.Kind]net.Addr{brokertest.TCP: b.Addrs().TCP, brokertest.TLS: b.Addrs().TLS, brokertest.WebSocket: b.Addrs().WebSocket}[kind].String())
				require.NoError(t, err)
				c := raw
				if inside {
					c = tls.Client(raw, &tls.Config{InsecureSkipVerify: true}) // the client is the one who is wrong here
				}
				_, _ = c.Write(sent)
				_ = raw.(*net.TCPConn).CloseWrite()
				_ = raw.SetReadDeadline(time.Now().Add(brokertest.Patience))
				for buffer := make([]byte, 4096); ; {
					if _, err := c.Read(buffer); err != nil {
						break
					}
				}
				_ = c.Close()
				require.NoError(t, b.Close())
				how := leaked(b.Log.String())
				assert.Empty(t, how, "%s on the %s listener (inside TLS: %v)\n%s", name, kind, inside, b.Log)
			}
		}
	}
}

func TestWrongPortIsNamed(t *testing.T) {
	b := brokertest.Start(t)
	for i, c := range []struct {
		addr net.Addr
		sent []byte
		want string
	}{
		{b.Addrs().WebSocket, connectWith(4, "MQTT"), "MQTT without websocket on the websocket port"},
		{b.Addrs().WebSocket, []byte{0x16, 3, 1, 0, 5, 1, 2, 3, 4, 5}, "TLS on the websocket port"},
		{b.Addrs().WebSocket, []byte("SSH-2.0-x\r\n\r\n"), "what came is no HTTP request"},
		{b.Addrs().TLS, connectWith(4, "MQTT"), "MQTT without TLS on the TLS port"},
		{b.Addrs().TLS, []byte("GET / HTTP/1.1\r\n\r\n"), "HTTP without TLS on the TLS port"},
		{b.Addrs().TCP, []byte{0x16, 3, 1, 0, 5, 1, 2, 3, 4, 5}, "TLS on a port without TLS"},
	} {
		// From an address of its own: one line a minute for each.
		raw, err := (&net.Dialer{LocalAddr: &net.TCPAddr{IP: net.IPv4(127, 0, 0, byte(20+i))}}).Dial("tcp", c.addr.String())
		require.NoError(t, err)
		_, err = raw.Write(c.sent)
		require.NoError(t, err)
		require.Eventually(t, func() bool { return len(b.Log.Lines("dropped connection", c.want)) == 1 }, brokertest.Patience, 5*time.Millisecond, c.want)
		require.NoError(t, raw.Close())
	}
}

// A certificate that crypto/x509 cannot read is quoted by it.
func TestClientCertificateIsNotQuoted(t *testing.T) {
	b := brokertest.Listen(t, func(o *broker.Options) { o.RequireCertificate = true })
	require.NoError(t, b.Broker.Start())
	key := b.CA.Issue("bed-1")
	template := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: canary}, NotAfter: time.Now().Add(time.Hour),
		URIs: []*url.URL{{Scheme: "http", Host: canary}}, DNSNames: []string{canary}, EmailAddresses: []string{canary + "@x"}}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.PrivateKey.(crypto.Signer).Public(), key.PrivateKey)
	require.NoError(t, err)
	spoilt := []byte(strings.Replace(string(der), "http://"+canary, "%zz://"+canary, 1))
	require.NotEqual(t, der, spoilt)
	for _, shown := range [][]byte{der, spoilt, der[:len(der)-3], []byte(canary)} {
		c := tls.Client(func() net.Conn {
			raw, err := net.Dial("tcp", b.Addrs().TLS.String())
			require.NoError(t, err)
			return raw
		}(), &tls.Config{InsecureSkipVerify: true, MaxVersion: tls.VersionTLS12,
			GetClientCertificate: func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
				return &tls.Certificate{Certificate: [][]byte{shown}, PrivateKey: key.PrivateKey}, nil
			}})
		_ = c.SetDeadline(time.Now().Add(brokertest.Patience))
		assert.Error(t, c.Handshake())
		_ = c.Close()
	}
	require.NoError(t, b.Close())
	assert.Empty(t, leaked(b.Log.String()), b.Log)
}

// Each device with an old ca.crt is to be found, and many strangers do not fill the log.
func TestHandshakeFailuresAreNamedForEachAddress(t *testing.T) {
	b := brokertest.Start(t)
	roots := certstest.New(t).Roots()
	fail := func(from byte) {
		raw, err := (&net.Dialer{LocalAddr: &net.TCPAddr{IP: net.IPv4(127, 0, 1, from)}}).Dial("tcp", b.Addrs().TLS.String())
		require.NoError(t, err)
		c := tls.Client(raw, &tls.Config{RootCAs: roots, ServerName: "localhost"})
		require.Error(t, c.Handshake())
		_ = c.Close()
	}
	const strangers = 60
	for i := range byte(strangers) {
		fail(i + 1)
		fail(i + 1)
	}
	require.Eventually(t, func() bool { return b.Stats().Refused["TLS handshake failed"] == 2*strangers }, brokertest.Patience, 10*time.Millisecond)
	lines := b.Log.Lines("TLS handshake failed", "does not trust the server certificate")
	assert.Len(t, lines, 21, "twenty addresses and one line for the others")
	for i := range 20 {
		assert.Len(t, b.Log.Lines("TLS handshake failed", fmt.Sprintf("remote=127.0.1.%d:", i+1)), 1)
	}
}
