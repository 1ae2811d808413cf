package ingest

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"io"
	"log/slog"
	"math/big"
	"net"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/eclipse/paho.golang/packets"
)

// authority makes a CA and returns it with a certificate for the name, signed by it.
func authority(t *testing.T, name string) (*x509.CertPool, tls.Certificate) {
	t.Helper()
	issue := func(template, parent *x509.Certificate, signer *ecdsa.PrivateKey) (*x509.Certificate, *ecdsa.PrivateKey) {
		key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
		require.NoError(t, err)
		if signer == nil {
			signer = key
		}
		template.NotBefore, template.NotAfter = time.Now().Add(-time.Hour), time.Now().Add(time.Hour)
		template.SerialNumber = big.NewInt(1)
		der, err := x509.CreateCertificate(rand.Reader, template, parent, &key.PublicKey, signer)
		require.NoError(t, err)
		cert, err := x509.ParseCertificate(der)
		require.NoError(t, err)
		return cert, key
	}
	template := &x509.Certificate{Subject: pkix.Name{CommonName: "CA of " + t.Name()}, IsCA: true, BasicConstraintsValid: true}
	ca, caKey := issue(template, template, nil)
	cert, key := issue(&x509.Certificate{DNSNames: []string{name}}, ca, caKey)
	roots := x509.NewCertPool()
	roots.AddCert(ca)
	return roots, tls.Certificate{Certificate: [][]byte{cert.Raw}, PrivateKey: key}
}

func TestTLS(t *testing.T) {
	roots, certificate := authority(t, "localhost")
	s, sink := serve(t, &tls.Config{Certificates: []tls.Certificate{certificate}}), &open{}
	o, out := options(s), &logs{}
	o.Host, o.TLS = "localhost", &tls.Config{RootCAs: roots}
	o.Log = slog.New(slog.NewTextHandler(out, nil))
	start(t, o, sink)
	s.awaitSubscriptions(1)
	s.publish(telemetryTopic, reading(1), 1)
	s.awaitAcks(1)
	s.cut()
	s.awaitSubscriptions(2) // by TLS again: the server speaks nothing else
	assert.Contains(t, out.String(), `msg="Connecting to MQTT broker with TLS at localhost:`)
}

func TestFailuresAreExplained(t *testing.T) {
	roots, certificate := authority(t, "localhost")
	foreign, _ := authority(t, "localhost")
	secured := &tls.Config{Certificates: []tls.Certificate{certificate}}
	refusing := func(code byte) func(*server) { return func(s *server) { s.connack = code } }
	for name, tt := range map[string]struct {
		server *tls.Config
		set    func(*server)
		client *tls.Config
		host   string
		want   string
	}{
		"wrong CA":       {secured, nil, &tls.Config{RootCAs: foreign}, "localhost", "broker's certificate is not signed by the trusted CA"},
		"wrong name":     {secured, nil, &tls.Config{RootCAs: roots}, "127.0.0.1", "broker's certificate is not for 127.0.0.1"},
		"plain port":     {nil, nil, &tls.Config{RootCAs: roots}, "localhost", "broker closed the connection: TLS handshake: "},
		"TLS port":       {secured, nil, nil, "localhost", "MQTT connection failed"},
		"wrong password": {nil, refusing(packets.ConnackBadUsernameOrPassword), nil, "localhost", "user name or password wrong (0x86)"},
		"not authorised": {nil, refusing(packets.ConnackNotAuthorized), nil, "localhost", "not authorised (0x87)"},
		"client certificate": {&tls.Config{Certificates: secured.Certificates, ClientAuth: tls.RequireAnyClientCert}, nil, &tls.Config{RootCAs: roots}, "localhost",
			"broker refused the TLS connection, perhaps for want of a client certificate"},
	} {
		t.Run(name, func(t *testing.T) {
			s := serve(t, tt.server)
			if tt.set != nil {
				tt.set(s)
			}
			o, out := options(s), &logs{}
			o.Host, o.TLS, o.Log = tt.host, tt.client, slog.New(slog.NewTextHandler(out, nil))
			o.StallTimeout = time.Second
			start(t, o, &open{})
			require.EventuallyWithT(t, func(c *assert.CollectT) {
				assert.Contains(c, out.String(), tt.want)
				assert.Contains(c, out.String(), "retry_in=")
			}, patience, time.Millisecond)
			assert.NotContains(t, out.String(), "secret")
		})
	}

	t.Run("nobody there", func(t *testing.T) {
		listener, err := net.Listen("tcp", "127.0.0.1:0")
		require.NoError(t, err)
		port := listener.Addr().(*net.TCPAddr).Port
		listener.Close()
		out := &logs{}
		o := to("127.0.0.1", port, "devices/#")
		o.Log = slog.New(slog.NewTextHandler(out, nil))
		start(t, o, &open{})
		require.EventuallyWithT(t, func(c *assert.CollectT) { assert.Contains(c, out.String(), "nothing listens there") }, patience, time.Millisecond)
	})
	t.Run("ended by the broker", func(t *testing.T) {
		s, out := serve(t, nil), &logs{}
		o := options(s)
		o.Log = slog.New(slog.NewTextHandler(out, nil))
		start(t, o, &open{})
		s.awaitSubscriptions(1)
		s.disconnect(packets.DisconnectSessionTakenOver)
		require.EventuallyWithT(t, func(c *assert.CollectT) {
			assert.Contains(c, out.String(), "another client took the session over (0x8E)")
		}, patience, time.Millisecond)
	})
	t.Run("cut without a word", func(t *testing.T) {
		assert.EqualError(t, explain(io.EOF, "localhost"), "broker closed the connection: EOF")
	})
}

func TestTLSWithoutVerificationIsRefused(t *testing.T) {
	o := to("h", 1, "a")
	o.TLS = &tls.Config{InsecureSkipVerify: true}
	_, err := New(o, &open{})
	assert.ErrorContains(t, err, "does not verify")
}
