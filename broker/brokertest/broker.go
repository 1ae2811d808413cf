// Package brokertest starts real brokers for tests and speaks MQTT to them, packet by packet, over TCP, TLS and
// websocket, in MQTT 3.1.1 and 5. Its client does what the test says and nothing by itself, so that it can also do
// what no library would.
package brokertest

import (
	"crypto/tls"
	"log/slog"
	"net"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/plantops/plantops/broker"
	"github.com/plantops/plantops/broker/brokertest/logtest"
	"github.com/plantops/plantops/certs/certstest"
	"github.com/plantops/plantops/config"
)

// Account is an account and its password.
type Account struct {
	broker.Account
	Password string
}

// Device is an account with a device's rights. Its password is Password(id).
func Device(id string) Account {
	own := []string{"devices/" + id + "/#"}
	return Account{Account: broker.Account{Name: id, Publish: own, Subscribe: own}, Password: Password(id)}
}

// Password is the password that Device gives.
func Password(id string) string { return "secret of " + id }

// Accounts is a broker.Accounts in memory that a test may change while the broker runs.
type Accounts struct {
	mu     sync.Mutex
	byName map[string]Account
}

func (a *Accounts) Authenticate(user string, password []byte, _ broker.Wait) (broker.Account, bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	account, ok := a.byName[user]
	return account.Account, ok && account.Password == string(password)
}

func (a *Accounts) Lookup(name string) (broker.Account, bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	account, ok := a.byName[name]
	return account.Account, ok
}

// Set adds or replaces an account.
func (a *Accounts) Set(account Account) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.byName[account.Name] = account
}

// Remove deletes an account; its sessions are Broker.Disconnect's matter.
func (a *Accounts) Remove(name string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	delete(a.byName, name)
}

// Broker is a broker that listens on all three listeners, at free ports of the loopback.
type Broker struct {
	*broker.Broker
	Accounts *Accounts
	Backend  broker.Backend
	CA       *certstest.CA
	Log      *logtest.Log
}

// Start starts a broker that admits clients at once and is closed at the end of the test.
func Start(t testing.TB, accounts ...Account) *Broker {
	t.Helper()
	b := Listen(t, nil, accounts...)
	require.NoError(t, b.Broker.Start())
	b.AdmitDevices()
	return b
}

// Listen binds a broker and leaves Start and AdmitDevices to the test. edit may be nil, or change the
// options, whose limits are those of the default configuration; with RequireCertificate the TLS listener asks for
// certificates of the broker's CA.
func Listen(t testing.TB, edit func(*broker.Options), accounts ...Account) *Broker {
	t.Helper()
	b := &Broker{
		Accounts: &Accounts{byName: map[string]Account{}},
		Backend:  broker.Backend{Username: "plantops_backend", Password: "backend secret", ClientID: "plantops-ingest"},
		CA:       certstest.New(t),
		Log:      &logtest.Log{},
	}
	for _, account := range accounts {
		b.Accounts.Set(account)
	}
	o := broker.Options{
		TCP: "127.0.0.1:0", TLS: "127.0.0.1:0", WebSocket: "127.0.0.1:0",
		TLSConfig: b.CA.ServerTLS(),
		Accounts:  b.Accounts, Backend: b.Backend,
		Limits: Limits(broker.Limits{}), StallTimeout: config.Default().Ingest.StallTimeout,
		Log: slog.New(slog.NewTextHandler(b.Log, &slog.HandlerOptions{Level: slog.LevelDebug})),
	}
	if edit != nil {
		edit(&o)
	}
	if o.RequireCertificate {
		o.TLSConfig = b.CA.RequiringTLS()
	}
	var err error
	b.Broker, err = broker.Listen(o)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, b.Close()) })
	return b
}

// AsIngest logs in as the backend's subscriber, with a session that lasts.
func (b *Broker) AsIngest(version byte) Login {
	login := b.AsBackend()
	login.ClientID, login.Version, login.Resume = b.Backend.ClientID, version, true
	login.Properties.SessionExpiryInterval, login.Properties.SessionExpiryIntervalFlag = 3600, version == 5
	return login
}

// Kind is the way to the broker.
type Kind string

const (
	TCP       Kind = "tcp"
	TLS       Kind = "tls"
	WebSocket Kind = "websocket"
)

// Kinds are all kinds of listeners: what holds on one must hold on every one.
var Kinds = []Kind{TCP, TLS, WebSocket}

func (b *Broker) addr(kind Kind) net.Addr {
	return map[Kind]net.Addr{TCP: b.Addrs().TCP, TLS: b.Addrs().TLS, WebSocket: b.Addrs().WebSocket}[kind]
}

func (b *Broker) clientTLS(certificate *tls.Certificate) *tls.Config {
	config := &tls.Config{RootCAs: b.CA.Roots(), ServerName: "localhost", MinVersion: tls.VersionTLS12}
	if certificate != nil {
		config.Certificates = []tls.Certificate{*certificate}
	}
	return config
}
