package gate

import (
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"net/http"
	"sync"
	"time"
)

const (
	// LinkLifetime is how long a one-time link is good.
	LinkLifetime = 5 * time.Minute
	// linkSession is how long who came by a link of no account stays logged in, until a restart at most.
	linkSession = 12 * time.Hour
	// linkName is what such a person is called.
	linkName = "console"
	// Most of both; the oldest give way.
	maxLinks, maxLinkSessions = 16, 50
)

// LinkPath is where one-time links lead, below the base path.
const LinkPath = "/login/once"

// linkParameter has the secret.
const linkParameter = "key"

// ErrNoAccount says that a link is asked for an account that may not log in here.
var ErrNoAccount = errors.New("no account with a role for the web page")

// links are one-time links that were not used yet, and who came by one of no account. Both are in memory only, their time is the monotonic
// one. The zero value is ready.
type links struct {
	mu       sync.Mutex
	open     map[secretHash]link
	sessions map[secretHash]time.Time // until
}

type secretHash [sha256.Size]byte

type link struct {
	account string // "": of none
	until   time.Time
}

// Link makes a path with a secret that logs in once, until then: the account or, for "", who owns this machine, as administrator. The
// error wraps ErrNoAccount.
func (g *Gate) Link(account string) (path string, until time.Time, err error) {
	if account != "" {
		if a, known := g.options.Accounts.Account(account); !known || a.Role == "" {
			return "", until, fmt.Errorf("link for %.80q: %w", account, ErrNoAccount)
		}
	}
	secret := newSecret()
	g.links.mu.Lock()
	defer g.links.mu.Unlock()
	if g.links.open == nil {
		g.links.open = map[secretHash]link{}
	}
	now := time.Now()
	prune(g.links.open, maxLinks-1, now, func(l link) time.Time { return l.until })
	until = now.Add(LinkLifetime)
	g.links.open[hashOf(secret)] = link{account, until}
	return g.options.BasePath + LinkPath + "?" + linkParameter + "=" + secret, until, nil
}

// Once logs in who comes by a one-time link. page says why it does not.
func (g *Gate) Once(page func(w http.ResponseWriter, status int, words string)) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method != http.MethodGet || r.Header.Get("Sec-Purpose") != "" {
			w.WriteHeader(http.StatusNoContent) // who only looks whether it is there must not use it up
			return
		}
		account, good := g.links.use(r.URL.Query().Get(linkParameter), time.Now())
		if !good {
			page(w, http.StatusForbidden, "This link was used already, or is older than five minutes. “plantops open” makes another.")
			return
		}
		if err := g.beginByLink(w, r, account); err != nil {
			g.options.Log.Error("nobody can log in", "err", err)
			page(w, http.StatusServiceUnavailable, "The database does not answer. Make another link in a moment.")
			return
		}
		http.Redirect(w, r, g.options.BasePath+"/", http.StatusSeeOther)
	})
}

func (g *Gate) beginByLink(w http.ResponseWriter, r *http.Request, account string) error {
	if account != "" {
		return g.begin(w, r, Account{Name: account})
	}
	if err := g.end(r); err != nil {
		return err
	}
	g.setCookie(w, r, g.links.logIn(time.Now()), linkSession)
	g.options.Log.Info("somebody logged in on the web page by a one-time link", "remote", Client(r.Context()).String())
	return nil
}

// use takes a link: nobody else can.
func (l *links) use(secret string, now time.Time) (account string, good bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	key := hashOf(secret)
	found, known := l.open[key]
	delete(l.open, key)
	return found.account, known && now.Before(found.until)
}

func (l *links) logIn(now time.Time) (cookie string) {
	cookie = newSecret()
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.sessions == nil {
		l.sessions = map[secretHash]time.Time{}
	}
	prune(l.sessions, maxLinkSessions-1, now, func(until time.Time) time.Time { return until })
	l.sessions[hashOf(cookie)] = now.Add(linkSession)
	return cookie
}

func (l *links) loggedIn(cookie string) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return time.Now().Before(l.sessions[hashOf(cookie)])
}

func (l *links) logOut(cookie string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	delete(l.sessions, hashOf(cookie))
}

// prune drops what is over, and the oldest of what is more than most.
func prune[V any](all map[secretHash]V, most int, now time.Time, until func(V) time.Time) {
	for key, v := range all {
		if !now.Before(until(v)) {
			delete(all, key)
		}
	}
	for len(all) > most {
		var oldest secretHash
		var first time.Time
		for key, v := range all {
			if first.IsZero() || until(v).Before(first) {
				oldest, first = key, until(v)
			}
		}
		delete(all, oldest)
	}
}

// newSecret draws 256 bits as text for a URL.
func newSecret() string {
	var b [32]byte
	_, _ = rand.Read(b[:]) // it never fails
	return base64.RawURLEncoding.EncodeToString(b[:])
}

func hashOf(secret string) secretHash { return sha256.Sum256([]byte(secret)) }
