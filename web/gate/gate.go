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
	"net/http"

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

// Gate is one gate. Make it with New.
type Gate struct {
	// Pairing is when devices may register without a token.
	Pairing Window
}
