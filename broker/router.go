package broker

import (
	"sync"
	"sync/atomic"
	"time"

	"github.com/mochi-mqtt/server/v2/packets"

	"github.com/plantops/plantops/broker/journal"
	"github.com/plantops/plantops/broker/network"
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

	intake    intake
	gathering *network.Gathering // of what ingest gets
	tallies   tallies
	routes    routes

	shares   shares
	retained retained
	sleepers sleepers
	quotas   quotas
	unread   *unread
	walks    sync.WaitGroup // of retained messages, see walk in retained.go

	ledger ledger
	loader loader
	wall   func() time.Time // the time of day
	unsure func() bool      // whether it may be wrong

	received, sent, dropped atomic.Int64 // PUBLISH packets, and deliveries
	waited                  atomic.Int32 // sessions that publishers wait for

	traffic traffic
	system  system
	bytes   func() (received, sent int64) // of the network
}

func newRouter(h *hook, o Options) *router {
	r := &router{hook: h, ingestTopics: o.IngestTopics, sourceTopics: o.SourceTopics, stall: o.StallTimeout,
		started: time.Now(), wall: o.Now, unsure: o.Unsure}
	if r.unsure == nil {
		r.unsure = func() bool { return false }
	}
	r.intake.told = o.Exhausted
	r.gathering = network.NewGathering(gatherPause, gatherBytes)
	r.ledger = ledger{r: r, storage: o.Storage, next: 1, wake: make(chan struct{}, 1)}
	r.loader.wake = make(chan struct{}, 1)
	r.quotas.onDisk, r.quotas.space = o.Storage != nil, o.FreeBytes
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

	// Of what a client sent on a connection and wants acknowledged.
	link      *clientLink // nil: nobody waits
	ticket    session.Ticket
	pledge    *receipt // made when something has to be waited for, see owe
	storeOnly bool     // its other subscribers have it
	keepOnly  bool     // it is retained, and nobody else gets it
	exact     bool     // it is of QoS 2, and its sender's session lasts

	will  bool              // of from
	ended journal.SessionID // the session that has ended with it
}

// route publishes w.pub and notes in the session of its sender that this is done; all of that, and what is retained, is in one
// batch. Its pledge, or receipt, is then held by the caller, see fulfil.
func (r *router) route(w *work) (done outcome) {
	pub, g := &w.pub, &r.ledger
	g.step.RLock()
	defer g.step.RUnlock()
	w.routing = true
	switch {
	case pub.to == nil:
	case pub.keepOnly:
		r.keepOnly(pub.to, pub.message, pub.account)
	default:
		done = r.publish(w, *pub)
	}
	if pub.will || pub.link != nil && pub.message.QoS == 2 {
		r.routed(w, pub, !done.refused || pub.receipt != nil)
	}
	if w.routing = false; pub.receipt != nil {
		pub.pledge = pub.receipt
	}
	w.arrived()
	return done
}

// routed notes in the session of its sender that a message has been routed.
func (r *router) routed(w *work, pub *publication, done bool) {
	p, g := pub.from, &r.ledger
	if pub.will {
		g.sayEnded(pub.ended)
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	switch {
	case pub.will:
		if p.state.WillRouted(); p.shelf.written {
			g.markState(p)
		}
	case done && p.state.Routed(pub.ticket):
		g.markState(p)
		g.promise(w.owe(pub.message))
	}
}

// owe returns the receipt of the publication that is routed, for one thing more that must be on disk before its sender is
// acknowledged; nil when nobody waits. m is its message, or one of the bundle.
func (w *work) owe(m *session.Message) *receipt {
	pub := &w.pub
	if !w.routing || pub.link == nil || w.r.ledger.storage == nil {
		return nil
	}
	c := pub.receipt
	if c == nil {
		pledge, ticket := &pub.pledge, pub.ticket
		if b := &w.bundle; len(b.messages) > 0 {
			for range b.messages { // m is mostly the next one; none where a share group gives older ones away
				if b.messages[b.owing].message == m {
					break
				}
				b.owing = (b.owing + 1) % len(b.messages)
			}
			pledge, ticket = &b.messages[b.owing].pledge, b.messages[b.owing].ticket
		}
		if *pledge == nil {
			*pledge = &receipt{link: pub.link, ticket: ticket, account: pub.from.account, since: pub.now}
			(*pledge).left.Store(1)
		}
		c = *pledge
	}
	c.left.Add(1)
	return c
}

// fulfil takes notice that one thing has come that a receipt waited for; with the last one its sender is acknowledged.
func (r *router) fulfil(w *work, c *receipt) {
	if c.left.Add(-1) > 0 || c.link == nil {
		return
	}
	r.intake.unlistLocked(c)
	if !c.failed.Load() {
		r.complete(w, c.link.peer, c.ticket, c.reason)
	}
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
	why, kept := refusal.Refusal{}, true
	if !pub.storeOnly {
		why, kept = r.keep(m, pub.account)
	}
	if kept && m.Retain && (pub.account != nil || len(m.Payload) == 0) && !pub.storeOnly {
		r.ledger.retained(m.Topic)
		r.ledger.promise(w.owe(m))
	}
	if o.why, o.refused = why, !kept; o.refused && receipt == nil {
		return o
	}
	to := r.routes.current(pub.to)
	defer r.routes.release(to)
	taken := receipt == nil
	for i := range to.route.To {
		t := &to.route.To[i]
		if pub.storeOnly && (t.Who.peer == nil || !t.Who.peer.ingest) {
			continue
		}
		if t.Who.group != nil {
			r.share(w, t.Who.group, m, pub.now)
			continue
		}
		if t.Who.peer.ingest && receipt == nil && to.ingest { // nothing that is to be stored, see clear in retained.go
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

// routeBundle is route and publish for the messages of a bundle: it is one publish step. It returns outcome.unread.
func (r *router) routeBundle(w *work) (unread *subscribers) {
	pub, messages := &w.pub, w.bundle.messages
	r.ledger.step.RLock()
	defer r.ledger.step.RUnlock()
	w.routing = true
	defer func() { w.routing = false }()
	defer w.arrived()
	s := pub.to.shard
	s.mu.Lock()
	defer s.mu.Unlock()
	to := r.routes.current(pub.to)
	defer r.routes.release(to)
	for i := range to.route.To {
		t := &to.route.To[i]
		if t.Who.group != nil {
			for k := range messages {
				r.share(w, t.Who.group, messages[k].message, pub.now)
			}
			continue
		}
		offer, wanted := t.Offer(), true
		if t.Who.peer == pub.from {
			offer, wanted = t.Own()
		}
		if wanted {
			w.deliverBundle(t.Who.peer, offerOf(offer), pub.now)
		}
	}
	if to.ofDevices && !to.readBy(pub.from) {
		to.lookNearby(r.ingestTopics)
		unread = to
	}
	return unread
}

// deliverBundle puts the messages of a bundle into one session.
func (w *work) deliverBundle(p *peer, o session.Offer, now time.Time) {
	messages := w.bundle.messages
	p.mu.Lock()
	if p.exhausted() {
		p.mu.Unlock()
		for i := range messages { // each is weighed
			w.deliver(p, messages[i].message, o, now)
		}
		return
	}
	if !p.narrowed || p.rights.MayRead(w.bundle.to.topic) {
		o.Awaited = p.isPaced()
		out := w.out[:0]
		for i := range messages {
			out = p.state.Deliver(now, messages[i].message, o, out)
		}
		w.out = out
		w.apply(p)
	}
	p.mu.Unlock()
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
	o.Awaited = p.isPaced()
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
			r.returned(w, token, &c.Effect)
		}
	case *receipt:
		if c.Kind == session.Dropped {
			r.giveBack(w, token)
			return
		}
		if r.intake.close(token, true) && token.link != nil {
			r.complete(w, token.link.peer, token.ticket, session.Success)
		}
	case *probe:
		token.resolve(c.Kind == session.Delivered)
	}
}

// giveBack ends a receipt whose message ingest will not get, because its session was ended. Its sender is not
// acknowledged and has it still; without acknowledgements the message is refused.
func (r *router) giveBack(w *work, c *receipt) {
	c.failed.Store(true)
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
