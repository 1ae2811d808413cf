package network

import (
	"net"
	"net/netip"
	"time"

	"github.com/plantops/plantops/broker/access"
	"github.com/plantops/plantops/broker/refusal"
)

// Expect says that a connection from this address is the program's own: it needs no place, and no failures of others
// that share its address concern it. It may have been accepted already. One is expected at a time.
func (n *Network) Expect(remote net.Addr) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.expected = remote.String()
	for c := range n.conns {
		if c.RemoteAddr().String() != n.expected {
			continue
		}
		a := c.address
		for i, waiting := range a.queue {
			if waiting == c {
				n.unqueue(a, i)
				n.serveOwn(c)
				return
			}
		}
		n.expected, c.own, n.ours = "", true, n.ours+1
		n.leavePlace(c)
		return
	}
}

func (n *Network) serveOwn(c *Conn) {
	n.expected, c.own, n.ours = "", true, n.ours+1
	if !n.closed {
		n.begin(c)
	}
}

// Attempt is one password that is looked at, or refused unseen. Its fields do not change, but for of.
type Attempt struct {
	c         *Conn
	from      netip.Prefix
	user      string // "" when there is no such account
	guessable bool
	home      bool      // the user logged in from there of late
	of        *failures // while it counts among those of its name
}

// Attempt says whether a password for an account may be looked at, and how the wait for that is to be. The account is
// zero where there is none of that name. In any case Right or Wrong ends the attempt.
func (c *Conn) Attempt(account access.Account) (t *Attempt, w access.Wait, ok bool) {
	n := c.n
	w.Gone = c.Done()
	n.mu.Lock()
	t = &Attempt{c: c, from: c.address.prefix, user: account.Name, guessable: account.Guessable && !c.own}
	if !t.guessable {
		n.mu.Unlock()
		return t, w, true
	}
	now := time.Now()
	victims, ok := n.guess(t, now)
	if !t.home {
		w.Rank = 1 + int(16*n.failing.get(t.from).level(now)) // one failure counts for two minutes
	}
	n.mu.Unlock()
	for _, v := range victims {
		v.c.abort(refusal.TooManyFailedLogins, nil)
	}
	return t, w, ok
}

// Right ends an attempt with a password that is right.
func (a *Attempt) Right() {
	n := a.c.n
	n.mu.Lock()
	defer n.mu.Unlock()
	a.c.judged = true
	n.answered(a)
	if a.c.own {
		return
	}
	if a.guessable {
		user := a.user // not to keep the rest
		a.c.person = &user
	}
	n.succeeded(a.from, a.c.guessable(), time.Now())
	n.assess(a.c.address, time.Now())
}

// guessable is the account whose password was right, if it can be guessed, else "".
func (c *Conn) guessable() string {
	if c.person == nil {
		return ""
	}
	return *c.person
}

// Wrong ends an attempt with one that is not, or that was not looked at. It returns when the client may be told so, and
// whether that was delayed.
func (a *Attempt) Wrong(unseen bool) (delayed bool) {
	n := a.c.n
	delay := n.holdBack(a, unseen)
	if delay > 0 {
		timer := time.NewTimer(delay)
		defer timer.Stop()
		select {
		case <-timer.C:
		case <-a.c.Done():
		}
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	if delay > 0 {
		a.c.address.delayed--
	}
	n.answered(a)
	return delay > 0
}

// holdBack counts a failed attempt and says how long the answer is to be held back; the CONNECT deadline stands still
// meanwhile. An address that somebody logged in from does so with a quarter of its places at most, for the sake of the
// others behind it; answers beyond that are given at once.
func (n *Network) holdBack(t *Attempt, unseen bool) time.Duration {
	now, at, c, a := time.Now(), now(), t.c, t.c.address
	n.mu.Lock()
	defer n.mu.Unlock()
	c.judged = true
	n.failed(a.prefix, t.user, now)
	n.assess(a, now)
	ofAddress, ofName, delay := n.delay(a.prefix, t.user, now)
	if ofAddress > 0 {
		n.episodes.tell("address", a.prefix.String(), *n.failing.get(a.prefix), now)
	}
	if ofName > 0 || unseen {
		n.episodes.tell("user", t.user, *n.names.get(t.user), now)
	}
	if delay == 0 || a.rank == rankKnown && a.delayed >= max(n.options.Limits.MaxUnauthenticatedPerAddress/4, 1) {
		return 0
	}
	a.delayed++
	c.waited, c.since = c.waited+at.sub(c.since), 0
	return delay
}
