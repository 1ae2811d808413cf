// Package gate decides who a request comes from and what it may do: sessions of people (cookie), bearer tokens, one-time links,
// roles, the pairing window, and what keeps strangers out: foreign hosts and origins, guessed passwords, proxies that nobody named.
//
//	gate.go      Principal, Role, Of, Need: what handlers ask
//	problem.go   errors for people and programs, RFC 9457
//	identify.go  who asks: bearer token or cookie
//	login.go     logging in and out
//	links.go     one-time links
//	guess.go     how often somebody may be wrong
//	window.go    the pairing window
//	host.go      names by which this machine may be called, and who stands behind a proxy
//	shield.go    headers, paths, bodies, origins
//
// It opens no sockets and keeps nothing on disk: people and accounts come in through interfaces.
package gate

import (
	"context"
	"log/slog"
	"net/http"
	"net/netip"
	"time"

	"github.com/plantops/plantops/store/people"
)

// Role is what somebody may do: viewer < operator < admin, see Role.May. "" is nothing.
type Role = people.Role

// The roles.
const (
	Viewer   = people.Viewer
	Operator = people.Operator
	Admin    = people.Admin
)

// How somebody is known.
const (
	ViaSession = "session" // a cookie
	ViaToken   = "token"   // a bearer token
	ViaLink    = "link"    // a cookie of a one-time link of no account
)

// Principal is who a request comes from.
type Principal struct {
	Name string // of the account or the token
	Role Role   // never ""
	Via  string // ViaSession, ViaToken or ViaLink
}

type principalKey struct{}

// With returns a context in which Of finds p.
func With(ctx context.Context, p Principal) context.Context {
	return context.WithValue(ctx, principalKey{}, p)
}

// Of returns who the request of a handler comes from; false: nobody who is known.
func Of(ctx context.Context) (Principal, bool) {
	p, ok := ctx.Value(principalKey{}).(Principal)
	return p, ok
}

// Need lets requests through that come from somebody with a role, or one that may more. Others get 401 when nobody knows who they are, else
// 403.
func Need(role Role, next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		p, known := Of(r.Context())
		switch {
		case !known:
			Unauthorized(w, "log in, or send a token: Authorization: Bearer TOKEN (plantops token add NAME --role "+string(role)+")")
		case !p.Role.May(role):
			Problem(w, http.StatusForbidden, "role "+string(p.Role)+" may not do this; it needs role "+string(role))
		default:
			next.ServeHTTP(w, r)
		}
	})
}

// Account is somebody with a password.
type Account struct {
	Name string
	Role Role // "": may not log in here
}

// Accounts are those who log in with a password. A device, or an account of bare rules, has no role.
type Accounts interface {
	// Authenticate returns the account if name and password are right; it may wait for a slow hash until gone is closed.
	Authenticate(name, password string, gone <-chan struct{}) (Account, bool)
	// Account returns the one of that name, from memory.
	Account(name string) (Account, bool)
}

// People are the sessions and bearer tokens that are kept; *people.Keeper is one.
type People interface {
	Verify(ctx context.Context, secret string) (people.Token, bool)
	Session(ctx context.Context, cookie string) (people.Session, error)
	MakeSession(ctx context.Context, account string, lifetime time.Duration) (cookie string, s people.Session, err error)
	Touch(ctx context.Context, cookie string, s people.Session, lifetime time.Duration) error
	EndSession(ctx context.Context, cookie string) error
}

// Options say whom the gate knows.
type Options struct {
	People   People
	Accounts Accounts
	// Hosts are names and addresses by which this machine may be called beside those that it has by itself; *.example stands for one
	// level more.
	Hosts []string
	// Proxies may say for whom they ask (X-Forwarded-For) and whether by HTTPS (X-Forwarded-Proto); what others say of that is taken away.
	Proxies []netip.Prefix
	// ProxiesOnly refuses all others but this machine itself: between them and the gate nothing is encrypted.
	ProxiesOnly bool
	BasePath    string // of the page, such as /plantops; "": none
	Log         *slog.Logger
}

// Gate is one gate. Make it with New. It is safe for concurrent use.
type Gate struct {
	// Pairing is when devices may register without a token.
	Pairing Window

	options Options
	names   ownNames
	guesses guesses
	links   links
	origins http.CrossOriginProtection
}

// New returns a gate.
func New(o Options) *Gate {
	return &Gate{options: o}
}
