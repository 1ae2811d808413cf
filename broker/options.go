package broker

import (
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"log/slog"
	"time"

	"github.com/plantops/plantops/broker/access"
	"github.com/plantops/plantops/broker/journal"
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
	// IngestTopics and StallTimeout say which messages the backend must take, and how long they may wait for it. StallTimeout
	// must be set.
	IngestTopics []string
	// SourceTopics are like IngestTopics, but of other people's programs: it is not known which device a message is of. The
	// backend is told which account published it, in a user property before all others, AccountProperty.
	SourceTopics []string
	StallTimeout time.Duration
	// Exhausted is called when no more messages for the backend are let in until it has acknowledged some. It must not block. May be
	// nil.
	Exhausted func()
	Limits    Limits // must be complete
	// Name is told to clients that ask for it.
	Name Name
	// Refused is called for every message that is refused, with the account that sent it. It must not block. May be nil.
	Refused func(device, reason string)
	// Storage keeps what must outlive the broker; nil: nothing does, and what waits for clients waits in memory.
	Storage journal.Storage
	// FreeBytes is what the file system of Storage has left. May be nil.
	FreeBytes func() int64
	Log       *slog.Logger // nil discards
	// Now dates what is told to people, and what is kept over a restart; nil is time.Now. While the broker runs nothing expires
	// by it: it may be wrong, and jump.
	Now func() time.Time
	// Unsure reports whether Now may be wrong: then nothing has grown older over a restart. May be nil.
	Unsure func() bool
}

// Limits bound what clients may cost. All must be set, for their defaults stand in the configuration; only
// MaxConnectionsPerAddress may be 0.
type Limits struct {
	MaxConnections               int           // open connections, those that wait for their turn included
	MaxUnauthenticated           int           // connections served at one time that have not logged in yet
	MaxUnauthenticatedPerAddress int           // the same for one address (IPv6: one /64)
	MaxConnectionsPerAddress     int           // 0 = no limit
	ConnectTimeout               time.Duration // for TLS handshake, websocket upgrade and CONNECT together
	MaxPacketBytes               int
	MaxTopicLevels               int

	// What one account may have, or, without PerAccount, all together.
	MaxConnectionsPerAccount   int
	MaxSessionsPerAccount      int // of clients that are connected and of those that may come back
	MaxSessions                int
	MaxSubscriptionsPerAccount int
	MaxRetainedPerAccount      int // messages
	MaxQueuedBytesPerAccount   int // what waits for its clients in memory
	MaxQueuedBytes             int
	MaxDiskMessagesPerAccount  int // what waits for its clients on disk; more ends the session for which most waits
	MaxDiskBytesPerAccount     int
}

// check names the first limit that is missing.
func (l Limits) check() error {
	for _, limit := range []struct {
		name  string
		value int64
	}{
		{"MaxConnections", int64(l.MaxConnections)},
		{"MaxUnauthenticated", int64(l.MaxUnauthenticated)},
		{"MaxUnauthenticatedPerAddress", int64(l.MaxUnauthenticatedPerAddress)},
		{"ConnectTimeout", int64(l.ConnectTimeout)},
		{"MaxPacketBytes", int64(l.MaxPacketBytes)},
		{"MaxTopicLevels", int64(l.MaxTopicLevels)},
		{"MaxConnectionsPerAccount", int64(l.MaxConnectionsPerAccount)},
		{"MaxSessionsPerAccount", int64(l.MaxSessionsPerAccount)},
		{"MaxSessions", int64(l.MaxSessions)},
		{"MaxSubscriptionsPerAccount", int64(l.MaxSubscriptionsPerAccount)},
		{"MaxRetainedPerAccount", int64(l.MaxRetainedPerAccount)},
		{"MaxQueuedBytesPerAccount", int64(l.MaxQueuedBytesPerAccount)},
		{"MaxQueuedBytes", int64(l.MaxQueuedBytes)},
		{"MaxDiskMessagesPerAccount", int64(l.MaxDiskMessagesPerAccount)},
		{"MaxDiskBytesPerAccount", int64(l.MaxDiskBytesPerAccount)},
	} {
		if limit.value <= 0 {
			return fmt.Errorf("broker limits: %s is %d, it must be more than 0", limit.name, limit.value)
		}
	}
	return nil
}

// Name is a user property: to a CONNECT that has one of that key, the CONNACK has one with our value. Bridges of other brokers of
// ours know by it where they are. Without a key there is none.
type Name struct{ Key, Value string }

// Backend is the in-process subscriber's identity. No account of that name is asked for, and its client id is
// refused to everybody else; other programs may log in as the backend under other client ids.
type Backend struct {
	// Username and Password are compared as they are. An empty password lets nobody in.
	Username, Password string
	// ClientID is the one client that is let in before AdmitDevices and stays in after DisconnectDevices.
	ClientID string
	// ClientIDPrefix begins other client ids that are refused to everybody else; "": none. Its sessions are those of EndSessions.
	ClientIDPrefix string
}

// What Accounts tells of identities; see package access.
type (
	// Accounts is access.Accounts.
	Accounts = access.Accounts
	// Account is access.Account.
	Account = access.Account
	// Wait is access.Wait.
	Wait = access.Wait
)

// AccountRefusal says what an account was refused for one reason since the start.
type AccountRefusal = refusal.AccountRefusal
