package broker

import (
	"fmt"
	"slices"
	"strings"
	"sync/atomic"

	"github.com/mochi-mqtt/server/v2/packets"

	"github.com/plantops/plantops/broker/access"
	"github.com/plantops/plantops/broker/network"
	"github.com/plantops/plantops/broker/refusal"
	"github.com/plantops/plantops/broker/session"
)

// The network charges the queue of a connection in the units in which a session is charged.
var _ = [1]struct{}{}[network.ChargeBytes-session.FreeBytes]

const (
	maxRetained      = 100_000
	maxRetainedBytes = 32 << 20
	// retainedShare of maxRetainedBytes is one account's: a house whose devices all share an account has a few MiB.
	retainedShare = 2

	// weightLevels is more than ordinary filters have; homeassistant/+/+/+/config has five.
	weightLevels = 8

	// What others have does not keep an account from having so much: of what may wait for its clients, and of retained
	// messages. With share it is as with sessions and connections.
	assuredBytes                          = 256 << 10
	assuredRetained, assuredRetainedBytes = 100, 64 << 10
)

// share is how many sessions or connections an account may have although there are as many as limit in all.
func share(limit int) int { return min(max(limit/100, 1), 8) }

// quotas bound what one account may hold, and what all of them hold together. The backend's subscriber is in none of
// them: credits bound what waits for it, and nothing of it may be lost.
type quotas struct {
	limits Limits
	queued atomic.Int64 // of all accounts

	onDisk bool         // there is a storage
	disk   diskUse      // of all accounts
	room   atomic.Int64 // bytes that the file system had left a moment ago, with what waited there then
	space  func() int64 // asks for what is left; nil: nobody knows
}

// freeSpace is the rule by which sessions end when too little is left.
const freeSpace = "free space"

// One in spaceShare bytes of what is free, with what waits on disk, may wait there: the readings need the rest.
const spaceShare = 2

type diskUse struct{ messages, bytes atomic.Int64 }

func (d *diskUse) add(messages, bytes int64) {
	d.messages.Add(messages)
	d.bytes.Add(bytes)
}

// usage is what an account has in the broker: one for each account that has logged in, until the account is removed.
type usage struct {
	quotas *quotas
	// guarded by sessions.mu
	sessions, connections int
	rights                *access.Rights // those of its last connection; nil: it had none

	owner         session.Owner // of retained messages; guarded by retained.mu
	subscriptions atomic.Int64  // the sum of their weights
	// queued is what waits in its sessions and in the queues of its connections. Each counts in whole units of
	// session.FreeBytes: what is on its way to a client that reads costs nothing here.
	queued atomic.Int64
	disk   diskUse
}

// sameRights returns rights, or the same of another of the account's connections: they are kept for each session. The caller holds
// sessions.mu.
func (u *usage) sameRights(rights *access.Rights) *access.Rights {
	if u.rights == nil || !u.rights.Equal(rights) {
		u.rights = rights
	}
	return u.rights
}

// admit says why the account may not have one connection more, and one session more if the connection needs a new
// one. all counts the sessions of all accounts. The caller holds sessions.mu.
func (u *usage) admit(newSession bool, all int) error {
	limits := &u.quotas.limits
	switch {
	case u.connections >= limits.MaxConnectionsPerAccount:
		return refusal.TooManyAccountConnections.By("max_connections_per_account", limits.MaxConnectionsPerAccount)
	case newSession && u.sessions >= limits.MaxSessionsPerAccount:
		return refusal.TooManyAccountSessions.By("max_sessions_per_account", limits.MaxSessionsPerAccount)
	case newSession && all >= limits.MaxSessions && u.sessions >= share(limits.MaxSessions):
		return refusal.TooManySessions.By("max_sessions", limits.MaxSessions)
	}
	return nil
}

// weight is what a subscription counts for. mochi's index has a node for each level of a filter, and filters that differ in
// where their + stand multiply the ways that a topic takes through it. So what is deeper than any ordinary filter counts
// for several: the square of its levels, in weightLevels. What is longer than 1 KiB counts for its bytes too.
func weight(filter string) int64 {
	n := int64(strings.Count(filter, "/")/weightLevels) + 1
	return n*n + int64(len(filter)>>10)
}

// admitWill says why the account may not leave a will with us, which waits like a message to it. A CONNECT that is
// smaller than what waits for free is never refused for it.
func (u *usage) admitWill(connectBytes int) error {
	if rule, scarce := u.exhausted(); scarce && connectBytes >= session.FreeBytes {
		return refusal.TooMuchWaits.With(rule)
	}
	return nil
}

// subscribe takes room for a subscription, if there is some left.
func (u *usage) subscribe(filter string) bool {
	w := weight(filter)
	for {
		n := u.subscriptions.Load()
		if n+w > int64(u.quotas.limits.MaxSubscriptionsPerAccount) {
			return false
		}
		if u.subscriptions.CompareAndSwap(n, n+w) {
			return true
		}
	}
}

// charge notes that so many units more, or less, wait for the account's clients.
func (u *usage) charge(units int) {
	u.queued.Add(int64(units) * session.FreeBytes)
	u.quotas.queued.Add(int64(units) * session.FreeBytes)
}

// exhausted says why nothing more should wait for the account's clients. It is asked for each message: for an account for
// which little waits it is one load.
func (u *usage) exhausted() (rule string, is bool) {
	limits, queued := &u.quotas.limits, u.queued.Load()
	switch {
	case queued >= int64(limits.MaxQueuedBytesPerAccount):
		return "limits.max_queued_bytes_per_account", true
	case queued >= assuredBytes && u.quotas.queued.Load() >= int64(limits.MaxQueuedBytes):
		return "limits.max_queued_bytes", true
	}
	return "", false
}

// overfull says why a session of the account must end, when more waits for it than has room anywhere.
func (u *usage) overfull() (rule string, is bool) {
	q := u.quotas
	if !q.onDisk {
		return u.exhausted()
	}
	bytes := u.disk.bytes.Load()
	switch {
	case u.disk.messages.Load() > int64(q.limits.MaxDiskMessagesPerAccount):
		return fmt.Sprintf("limits.max_disk_messages_per_account %d", q.limits.MaxDiskMessagesPerAccount), true
	case bytes > int64(q.limits.MaxDiskBytesPerAccount):
		return fmt.Sprintf("limits.max_disk_bytes_per_account %d", q.limits.MaxDiskBytesPerAccount), true
	case q.space != nil && bytes > assuredBytes && q.disk.bytes.Load() > q.room.Load()/spaceShare:
		return freeSpace, true
	}
	return "", false
}

// lookAround is called by the clock. Of what waits on disk, pending bytes are still on their way there.
func (q *quotas) lookAround(pending int64) {
	if q.space != nil {
		q.room.Store(q.space() + max(q.disk.bytes.Load()-pending, 0))
	}
}

// overQuota is a consequence of our own: too much waits for the account of the peer that it is from.
const overQuota session.Kind = 255

// checkQuota is called after each change of a session, with p.mu held. Who has made it too much sees to it himself, and not only the
// first one: until that one has its turn, others would go on.
func (w *work) checkQuota(p *peer) {
	if p.tailBytes.Load() == 0 {
		return
	}
	if _, is := p.usage.overfull(); is && !slices.ContainsFunc(w.after, func(c consequence) bool { return c.Kind == overQuota && c.from.usage == p.usage }) {
		w.after = append(w.after, consequence{from: p, Effect: session.Effect{Kind: overQuota}})
	}
}

// endLargest ends the sessions for which most waits, of those of p's account, or of all where the space is that of all, until
// there is room: no other one loses anything.
func (r *router) endLargest(w *work, p *peer) {
	s := r.sessions
	s.mu.Lock()
	defer s.mu.Unlock()
	u := p.usage
	for rule, is := u.overfull(); is; rule, is = u.overfull() {
		var largest *peer
		for _, other := range s.byID {
			if bytes := other.tailBytes.Load(); (other.usage == u || rule == freeSpace) && bytes > 0 && (largest == nil || bytes > largest.tailBytes.Load()) {
				largest = other
			}
		}
		if largest == nil {
			return
		}
		r.endOverfull(w, largest, rule)
	}
}

// endOverfull ends a session for which more waits than may. The caller holds sessions.mu.
func (r *router) endOverfull(w *work, p *peer, rule string) {
	p.mu.Lock()
	st := p.state.Stats()
	lost := int64(st.Queued + st.InFlight)
	w.out = p.state.End(r.now(), w.out[:0])
	w.apply(p)
	if p.link != nil {
		p.link.over = true
	}
	p.mu.Unlock()
	r.dropped.Add(lost)
	r.refusals.Count(refusal.TooMuchWaits, 1, refusal.Source{Account: p.account, Proved: true})
	r.log.Warn("session ended", "reason", refusal.TooMuchWaits.Reason, "user", p.account, "client", p.id, "dropped", lost, "rule", rule)
	if l := p.owner; !l.hasEnded() {
		l.evicted.Store(true)
		l.because(refusal.TooMuchWaits.Reason)
		go r.sessions.end(l, packets.Code{Code: packets.ErrQuotaExceeded.Code, Reason: refusal.TooMuchWaits.Reason}) // it may wait for mu
	}
}

// nearQuota says that half of what may wait for the account waits: time for publishers to wait, so that a burst to many clients of one account that read is not cut off.
func (u *usage) nearQuota() bool {
	limits, queued := &u.quotas.limits, u.queued.Load()
	return 2*queued >= int64(limits.MaxQueuedBytesPerAccount) ||
		queued >= assuredBytes && 2*u.quotas.queued.Load() >= int64(limits.MaxQueuedBytes)
}

// overflowed counts what there was no room for, in the session or in what its account may have waiting; p.mu is held. A
// flood of it comes here message by message: the line is made when it is due, and refusal.Counters.Add would want it made
// each time.
func (r *router) overflowed(p *peer, lost uint64) {
	if p.losses == nil {
		p.losses = &losses{}
	}
	n := int64(lost - p.losses.counted)
	if p.losses.counted = lost; n == 0 {
		return
	}
	r.dropped.Add(n)
	why := refusal.SubscriberTooSlow
	limit, scarce := p.usage.exhausted()
	if scarce {
		why = refusal.TooMuchWaits
	}
	now := r.refusals.Count(why, n, refusal.Source{Account: p.account, Proved: true})
	if now.Sub(p.losses.warned) < refusal.LineEvery {
		return
	}
	p.losses.warned = now
	if !scarce {
		limit = fmt.Sprintf("%d messages, %d bytes", maxHead, maxWaitingBytes)
	}
	r.log.Warn("refused", "reason", why.Reason, "user", p.account, "client", p.id, "dropped", p.state.Overflowed(), "rule", limit)
}
