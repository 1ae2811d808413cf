package ingest

import (
	"crypto/tls"
	"crypto/x509"
	"io"
	"log/slog"
	"net"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/eclipse/paho.golang/packets"

	"github.com/plantops/plantops/certs/certstest"
)

// authority makes a CA and returns it with a certificate for the name, signed by it.
func authority(t *testing.T, name string) (*x509.CertPool, tls.Certificate) {
	t.Helper()
	ca := certstest.New(t)
	return ca.Roots(), ca.Issue(name, func(c *x509.Certificate) { c.IPAddresses = nil })
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
