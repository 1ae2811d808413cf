package broker

import (
	"cmp"
	"crypto/tls"
	"crypto/x509"
	"log/slog"
	"time"

	"github.com/plantops/plantops/broker/access"
	"github.com/plantops/plantops/broker/refusal"
)

// Options say what to listen on and who may come in.
type Options struct {
	// TCP, TLS and WebSocket are addresses such as ":8883"; "" leaves that listener out. Port 0 takes any free port.
	TCP, TLS, WebSocket string
	// TLSConfig serves TLS; it must be set when TLS is. An error of its verification with a method RevokedName() string
	// is counted as that of a revoked certificate, and put down to the account of that name.
	TLSConfig *tls.Config
	// AllowedOrigins are the websites that may open a websocket from a browser, besides the one of the same host.
	AllowedOrigins []string
	// RequireCertificate makes the name in the client's certificate and its user name one identity. That a
	// certificate is asked for and checked is TLSConfig's part.
	RequireCertificate bool
	// Revoked reports whether a client's certificate, which had these chains when it connected, has been revoked since. It
	// is asked at each login with a certificate and by EndRevoked. May be nil.
	Revoked func(chains [][]*x509.Certificate) bool

	Accounts Accounts // nil: only the backend can log in
	Backend  Backend
	// IngestTopics and StallTimeout say which messages the backend must take, and how long they may wait for it.
	IngestTopics []string
	StallTimeout time.Duration
	Limits       Limits // zero fields have defaults
	// Refused is called for every message that is refused, with the account that sent it. It must not block. May be nil.
	Refused func(device, reason string)
	Log     *slog.Logger     // nil discards
	Now     func() time.Time // nil is time.Now
}

// Limits bound what clients may cost. Zero means the default, except for MaxConnectionsPerAddress, where it means no limit.
type Limits struct {
	MaxConnections               int           // 10000; open connections, those that wait for their turn included
	MaxUnauthenticated           int           // 500; connections served at one time that have not logged in yet
	MaxUnauthenticatedPerAddress int           // 100; the same for one address (IPv6: one /64)
	MaxConnectionsPerAddress     int           // 0 = no limit
	ConnectTimeout               time.Duration // 30 s; for TLS handshake, websocket upgrade and CONNECT together
	MaxPacketBytes               int           // 262144
	MaxTopicLevels               int           // 32

	// What one account may have, or, without PerAccount, all together.
	MaxConnectionsPerAccount   int // 2000
	MaxSessionsPerAccount      int // 2000; of clients that are connected and of those that may come back
	MaxSessions                int // 20000
	MaxSubscriptionsPerAccount int // 10000
	MaxRetainedPerAccount      int // 25000; messages
	MaxQueuedBytesPerAccount   int // 67108864; what waits for its clients
	MaxQueuedBytes             int // 134217728
}

func (l Limits) withDefaults() Limits {
	l.MaxConnections = cmp.Or(l.MaxConnections, 10_000)
	l.MaxUnauthenticated = cmp.Or(l.MaxUnauthenticated, 500)
	l.MaxUnauthenticatedPerAddress = cmp.Or(l.MaxUnauthenticatedPerAddress, 100)
	l.ConnectTimeout = cmp.Or(l.ConnectTimeout, 30*time.Second)
	l.MaxPacketBytes = cmp.Or(l.MaxPacketBytes, 256<<10)
	l.MaxTopicLevels = cmp.Or(l.MaxTopicLevels, 32)
	l.MaxConnectionsPerAccount = cmp.Or(l.MaxConnectionsPerAccount, 2000)
	l.MaxSessionsPerAccount = cmp.Or(l.MaxSessionsPerAccount, 2000)
	l.MaxSessions = cmp.Or(l.MaxSessions, 20_000)
	l.MaxSubscriptionsPerAccount = cmp.Or(l.MaxSubscriptionsPerAccount, 10_000)
	l.MaxRetainedPerAccount = cmp.Or(l.MaxRetainedPerAccount, 25_000)
	l.MaxQueuedBytesPerAccount = cmp.Or(l.MaxQueuedBytesPerAccount, 64<<20)
	l.MaxQueuedBytes = cmp.Or(l.MaxQueuedBytes, 128<<20)
	return l
}

// Backend is the in-process subscriber's identity. No account of that name is asked for, and its client id is
// refused to everybody else; other programs may log in as the backend under other client ids.
type Backend struct {
	// Username and Password are compared as they are. An empty password lets nobody in.
	Username, Password string
	// ClientID is the one client that is let in before AdmitDevices and stays in after DisconnectDevices.
	ClientID string
}

// What Accounts tells of identities; see package access.
type (
	// Accounts is where identities come from. Its methods are called from many goroutines.
	Accounts = access.Accounts
	// Account is who a client has proved to be, and what it may do.
	Account = access.Account
	// Wait says how a login waits for its turn, where looking at a password takes long.
	Wait = access.Wait
)

// AccountRefusal says what an account was refused for one reason since the start.
type AccountRefusal = refusal.AccountRefusal
