package gate

import (
	"context"
	"errors"
	"net/http"
	"strings"
	"time"

	"github.com/plantops/plantops/store/people"
)

// sessionLifetime is how long somebody stays logged in who does not come back.
const sessionLifetime = 30 * 24 * time.Hour

// Identify finds out who asks, for Of. A token that is wrong is refused here; a cookie that is not known any more is nobody's.
func (g *Gate) Identify(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		p, known, err := g.who(r)
		switch {
		case errors.Is(err, errBadToken):
			Unauthorized(w, "this token is not known, or was removed; plantops token list names those that are")
			return
		case err != nil:
			g.options.Log.Error("who asks could not be looked up", "err", err)
			Problem(w, http.StatusServiceUnavailable, "the database does not answer: try again in a moment")
			return
		case known:
			r = r.WithContext(With(r.Context(), p))
		}
		next.ServeHTTP(w, r)
	})
}

var errBadToken = errors.New("bad token")

// who looks at the token first: a program that sends one wants to be that.
func (g *Gate) who(r *http.Request) (p Principal, known bool, err error) {
	// Another scheme is a proxy's business, which passes it on.
	if scheme, secret, _ := strings.Cut(r.Header.Get("Authorization"), " "); strings.EqualFold(scheme, "Bearer") {
		token, right := g.options.People.Verify(r.Context(), strings.TrimSpace(secret))
		if !right {
			return p, false, errBadToken
		}
		return Principal{Name: token.Name, Role: token.Role, Via: ViaToken}, true, nil
	}
	cookie := g.cookie(r)
	if cookie == "" {
		return p, false, nil
	}
	if g.links.loggedIn(cookie) {
		return Principal{Name: linkName, Role: Admin, Via: ViaLink}, true, nil
	}
	return g.ofSession(r.Context(), cookie)
}

// ofSession is who has a cookie, with the role that the account has now.
func (g *Gate) ofSession(ctx context.Context, cookie string) (p Principal, known bool, err error) {
	s, err := g.options.People.Session(ctx, cookie)
	if errors.Is(err, people.ErrNotFound) {
		return p, false, nil
	}
	if err != nil {
		return p, false, err
	}
	account, known := g.options.Accounts.Account(s.Account)
	if !known || account.Role == "" {
		return p, false, nil
	}
	if err := g.options.People.Touch(ctx, cookie, s, sessionLifetime); err != nil {
		g.options.Log.Warn("a session ends sooner than it should", "account", s.Account, "err", err) // the disk may be full: reading goes on
	}
	return Principal{Name: s.Account, Role: account.Role, Via: ViaSession}, true, nil
}

// cookieName has a prefix with which browsers take the cookie from this host by HTTPS alone [RFC 6265bis, 4.1.3].
func (g *Gate) cookieName(secure bool) string {
	switch {
	case !secure:
		return "plantops"
	case g.options.BasePath == "":
		return "__Host-plantops"
	}
	return "__Secure-plantops"
}

func (g *Gate) cookie(r *http.Request) string {
	c, err := r.Cookie(g.cookieName(secure(r)))
	if err != nil {
		return ""
	}
	return c.Value
}

// setCookie gives the browser a session; "" takes it.
func (g *Gate) setCookie(w http.ResponseWriter, r *http.Request, value string, lifetime time.Duration) {
	c := &http.Cookie{Name: g.cookieName(secure(r)), Value: value, Path: g.options.BasePath + "/", MaxAge: int(lifetime.Seconds()),
		Secure: secure(r), HttpOnly: true, SameSite: http.SameSiteStrictMode}
	if g.options.BasePath != "" {
		c.Path = g.options.BasePath
	}
	if value == "" {
		c.MaxAge = -1
	}
	http.SetCookie(w, c)
}
