package broker

import (
	"hash/maphash"
	"sync"
	"sync/atomic"
	"time"

	"github.com/mochi-mqtt/server/v2/packets"

	"github.com/plantops/plantops/broker/refusal"
	"github.com/plantops/plantops/broker/session"
)

// router brings messages from the sessions of publishers into the sessions of subscribers, and acknowledgements back.
// The table of subscriptions is in package route, what one client has in package session.
type router struct {
	*hook
	ingestTopics []string
	sourceTopics []string
	stall        time.Duration
	started      time.Time
	seed         maphash.Seed // of the fingerprints of messages

	intake  intake
	tallies tallies
	routes  routes

	shares   shares
	retained retained
	sleepers sleepers
	quotas   quotas
	unread   *unread
	walks    sync.WaitGroup // of retained messages, see walk in retained.go

	received, sent, dropped atomic.Int64 // PUBLISH packets, and deliveries
	waited                  atomic.Int32 // sessions that publishers wait for
}

func newRouter(h *hook, o Options) *router {
	r := &router{hook: h, ingestTopics: o.IngestTopics, sourceTopics: o.SourceTopics, stall: o.StallTimeout,
		started: time.Now(), seed: maphash.MakeSeed()}
	r.unread = newUnread(o.IngestTopics, h.log)
	r.quotas.limits = o.Limits
	r.routes.init()
	r.retained.store = session.Retained{MaxMessages: maxRetained, MaxBytes: maxRetainedBytes,
		MaxOwned: r.quotas.limits.MaxRetainedPerAccount, MaxOwnedBytes: maxRetainedBytes / retainedShare,
		Assured: assuredRetained, AssuredBytes: assuredRetainedBytes}
	return r
}

// publication is a message on its way to its subscribers.
type publication struct {
	to      *subscribers
	message *session.Message
	receipt *receipt // nil: ingest need not store it
	from    *peer    // nil: it comes from no client
	account *usage   // whose message it is, if it is retained; nil: the broker's own
	now     time.Time
}

// outcome is what became of a publication.
type outcome struct {
	refused bool // it asks to be kept and cannot be, because of why; only ingest has got it, if it must
	why     refusal.Refusal
	unread  *subscribers // of its topic, when it looks like one of devices and nobody reads it
}

// publish is the publish step: the retained value, then the route, then the sessions, for one message of a topic at a time. So
// all subscribers and the retained value end with the same message; and who subscribes is in the route before its walk
// begins to look into the store (see retained.go), so that it gets a new value from the one or from the other. Nothing in
// here waits.
func (r *router) publish(w *work, pub publication) (o outcome) {
	m, receipt := pub.message, pub.receipt
	s := pub.to.shard
	s.mu.Lock()
	defer s.mu.Unlock()
	why, kept := r.keep(m, pub.account)
	if o.why, o.refused = why, !kept; o.refused && receipt == nil {
		return o
	}
	to := r.routes.current(pub.to)
	defer r.routes.release(to)
	taken := receipt == nil
	for i := range to.route.To {
		t := &to.route.To[i]
		if t.Who.group != nil {
			r.share(w, t.Who.group, m, pub.now)
			continue
		}
		offer := t.Offer()
		if t.Who.peer == pub.from {
			var wanted bool
			if offer, wanted = t.Own(); !wanted {
				continue
			}
		}
		if receipt != nil && t.Who.peer.ingest {
			taken, receipt.foreign = true, to.foreign
			r.deliverToIngest(w, t.Who.peer, receipt, offerOf(offer), pub.now)
			continue
		}
		w.deliver(t.Who.peer, m, offerOf(offer), pub.now)
	}
	if !taken {
		r.giveBack(w, receipt)
	}
	if to.ofDevices && !to.readBy(pub.from) {
		to.lookNearby(r.ingestTopics)
		o.unread = to
	}
	return o
}

// deliver puts a message into one session.
func (w *work) deliver(p *peer, m *session.Message, o session.Offer, now time.Time) {
	p.mu.Lock()
	if p.narrowed && !p.rights.MayRead(m.Topic) {
		p.mu.Unlock()
		return
	}
	if p.exhausted() {
		o.Scarce = true
		w.pause(p)
	}
	w.out = p.state.Deliver(now, m, o, w.out[:0])
	w.apply(p)
	p.mu.Unlock()
}

// pause makes the session wait for its connection, when that has something to write and its account holds too much.
func (w *work) pause(p *peer) {
	if l := p.link; l != nil && l.QueuedBytes() >= session.FreeBytes {
		p.state.Pause()
		l.AwaitDrain()
		w.markDirty(l.Conn)
	}
}

// deliverToIngest: what has been taken in is stored, however long that takes.
func (r *router) deliverToIngest(w *work, p *peer, c *receipt, o session.Offer, now time.Time) {
	m := &c.message
	if !m.Expires.IsZero() || c.foreign {
		changed := *m
		changed.Expires = time.Time{}
		if c.foreign {
			changed.Properties = append(accountProperty(c.account), m.Properties...)
		}
		m = &changed
	}
	o.Token = c
	w.deliver(p, m, o, now)
}

// AccountProperty is the user property that names the account which published a message of Options.SourceTopics.
const AccountProperty = "plantops-account"

// accountProperty is that property as session.Message wants it.
func accountProperty(account string) []byte {
	return appendString(appendString([]byte{packets.PropUser}, AccountProperty), account)
}

// complete acknowledges a message to its sender, or refuses it, when its turn comes.
func (r *router) complete(w *work, p *peer, t session.Ticket, reason session.Reason) {
	p.mu.Lock()
	w.out = p.state.Complete(t, reason, w.out[:0])
	w.apply(p)
	p.mu.Unlock()
}

// abandon takes a message out of the row of acknowledgements: its sender gets none, and has it still.
func (r *router) abandon(w *work, p *peer, t session.Ticket) {
	p.mu.Lock()
	w.out = p.state.Abandon(t, w.out[:0])
	w.apply(p)
	p.mu.Unlock()
}

// resolve ends the story of a token.
func (r *router) resolve(w *work, c *consequence) {
	switch token := c.Token.(type) {
	case *lent:
		if c.Kind == session.Dropped {
			r.returned(w, token, c.Drop)
		}
	case *receipt:
		if c.Kind == session.Dropped {
			r.giveBack(w, token)
			return
		}
		r.intake.close(token, true)
		if token.link != nil {
			r.complete(w, token.link.peer, token.ticket, session.Success)
		}
	case *probe:
		token.resolve(c.Kind == session.Delivered)
	}
}

// giveBack ends a receipt whose message ingest will not get, because its session was ended. Its sender is not
// acknowledged and has it still; without acknowledgements the message is refused.
func (r *router) giveBack(w *work, c *receipt) {
	r.intake.close(c, false)
	c.tally.received.Add(-1)
	if c.link == nil {
		r.notStored(c)
		return
	}
	r.abandon(w, c.link.peer, c.ticket)
}

// notStored refuses a message that nobody sends again.
func (r *router) notStored(c *receipt) {
	r.refusedAway(c.account, c.message.Publisher, refusal.NotStoredInTime.With(r.stallText()), c.message.Topic)
	r.reportPublish(c.account, refusal.NotStoredInTime)
}

func (r *router) stallText() string { return "ingest.stall_timeout " + r.stall.String() }

// sweep is called by the clock: it ends connections whose messages have waited too long.
func (r *router) sweep(now time.Time) {
	for _, l := range r.intake.overdue(now.Add(-r.stall), nil) {
		if l.hasEnded() {
			continue
		}
		r.refuseElsewhere(l, refusal.NotStoredInTime.With(r.stallText())) // it is listed once for each message
	}
}
