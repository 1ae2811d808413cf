package certs

import (
	"bufio"
	"crypto/tls"
	"io"
	"net"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// echo serves config on a free port until the test ends and returns its address.
func echo(t *testing.T, config *tls.Config) string {
	t.Helper()
	l, err := tls.Listen("tcp", "127.0.0.1:0", config)
	require.NoError(t, err)
	var serving sync.WaitGroup
	serving.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			serving.Go(func() {
				_, _ = io.Copy(c, c)
				_ = c.Close()
			})
		}
	})
	t.Cleanup(func() {
		_ = l.Close()
		serving.Wait()
	})
	return l.Addr().String()
}

// dial connects and sends a line both ways, which TLS 1.3 needs to tell the client that it was refused.
func dial(t *testing.T, address string, config *tls.Config) (*tls.Conn, error) {
	t.Helper()
	c, err := tls.Dial("tcp", address, config)
	if err != nil {
		return nil, err
	}
	t.Cleanup(func() { _ = c.Close() })
	return c, say(c)
}

var dialer = &net.Dialer{Timeout: 30 * time.Second}

func say(c net.Conn) error {
	if _, err := c.Write([]byte("hello\n")); err != nil {
		return err
	}
	_, err := bufio.NewReader(c).ReadString('\n')
	return err
}

func client(a *Authority) *tls.Config {
	return &tls.Config{RootCAs: a.current.Load().rootPool(), Time: a.now}
}

func withPair(t *testing.T, config *tls.Config, p Pair) *tls.Config {
	t.Helper()
	cert, err := tls.X509KeyPair(p.CertPEM, p.KeyPEM)
	require.NoError(t, err)
	config = config.Clone()
	config.Certificates = []tls.Certificate{cert}
	return config
}

func TestRenewalReachesNewConnectionsAndSparesLiveOnes(t *testing.T) {
	a := create(t, options(t))
	address := echo(t, a.ServerTLS(false))
	live, err := dial(t, address, client(a))
	require.NoError(t, err)
	first := live.ConnectionState().PeerCertificates[0]

	info, err := a.Renew()
	require.NoError(t, err)
	require.NoError(t, say(live))
	fresh, err := dial(t, address, client(a))
	require.NoError(t, err)
	second := fresh.ConnectionState().PeerCertificates[0]
	assert.NotEqual(t, first.SerialNumber, second.SerialNumber)
	assert.Equal(t, info.Fingerprint, fingerprint(second))
}

func TestServerSpeaksTLS12ButNothingOlder(t *testing.T) {
	a := create(t, options(t))
	address := echo(t, a.ServerTLS(false))
	config := client(a)
	config.MaxVersion = tls.VersionTLS12
	_, err := dial(t, address, config)
	require.NoError(t, err, "ESP32 has no TLS 1.3")
	config.MinVersion, config.MaxVersion = tls.VersionTLS10, tls.VersionTLS11
	_, err = dial(t, address, config)
	require.Error(t, err)
}

func TestSessionTicketsSurviveARenewal(t *testing.T) {
	for _, version := range []uint16{tls.VersionTLS12, tls.VersionTLS13} {
		a := create(t, options(t))
		pair, err := a.Issue("bed-1")
		require.NoError(t, err)
		address := echo(t, a.ServerTLS(true))
		config := withPair(t, client(a), pair)
		config.MaxVersion, config.ClientSessionCache = version, tls.NewLRUClientSessionCache(1)
		first, err := dial(t, address, config)
		require.NoError(t, err)
		assert.False(t, first.ConnectionState().DidResume)
		_, err = a.Renew()
		require.NoError(t, err)
		second, err := dial(t, address, config)
		require.NoError(t, err)
		assert.True(t, second.ConnectionState().DidResume, tls.VersionName(version))
	}
}

func TestRequiredClientCertificates(t *testing.T) {
	a, other := create(t, options(t)), create(t, options(t))
	address := echo(t, a.ServerTLS(true))
	_, err := dial(t, address, client(a))
	require.Error(t, err, "none")
	for issuer, accepted := range map[*Authority]bool{a: true, other: false} {
		pair, err := issuer.Issue("bed-1")
		require.NoError(t, err)
		_, err = dial(t, address, withPair(t, client(a), pair))
		assert.Equal(t, accepted, err == nil, "%v", err)
	}
	server := Pair{CertPEM: a.ServerPEM(), KeyPEM: encodeKey(a.current.Load().serverKey)}
	_, err = dial(t, address, withPair(t, client(a), server))
	require.Error(t, err, "a server certificate is none for a client")

	_, err = dial(t, echo(t, a.ServerTLS(false)), client(a))
	require.NoError(t, err, "none needed")
}

func TestReloadChangesWhichClientsAreTrusted(t *testing.T) {
	o := options(t)
	a := create(t, o)
	address := echo(t, a.ServerTLS(true))
	pair, err := a.Issue("bed-1")
	require.NoError(t, err)
	old := withPair(t, client(a), pair)
	old.ClientSessionCache = tls.NewLRUClientSessionCache(1)
	_, err = dial(t, address, old)
	require.NoError(t, err)

	replaced, err := Create(o, true) // another process: certs init --force
	require.NoError(t, err)
	require.NoError(t, a.Reload())
	old.InsecureSkipVerify = true // only to see what the server says
	_, err = dial(t, address, old)
	require.Error(t, err, "not even with its session ticket")
	pair, err = replaced.Issue("bed-1")
	require.NoError(t, err)
	_, err = dial(t, address, withPair(t, client(replaced), pair))
	require.NoError(t, err)
}

func TestFailedReloadKeepsServing(t *testing.T) {
	o := options(t)
	a := create(t, o)
	address := echo(t, a.ServerTLS(false))
	require.NoError(t, os.Truncate(filepath.Join(o.Dir, "server.key"), 10))
	require.ErrorContains(t, a.Reload(), "server.key")
	_, err := dial(t, address, client(a))
	require.NoError(t, err)
}

func TestHandshakesWhileRenewing(t *testing.T) {
	a := create(t, options(t))
	address := echo(t, a.ServerTLS(false))
	var renewing sync.WaitGroup
	renewing.Go(func() {
		for range 20 {
			_, err := a.Renew()
			assert.NoError(t, err)
		}
	})
	for range 20 {
		_, err := dial(t, address, client(a))
		require.NoError(t, err)
	}
	renewing.Wait()
}
