package broker

import (
	"cmp"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	mqtt "github.com/mochi-mqtt/server/v2"
	"github.com/mochi-mqtt/server/v2/packets"

	"github.com/plantops/plantops/broker/session"
)

// router brings messages from the sessions of publishers into the sessions of subscribers, and acknowledgements back.
// mochi keeps the index of subscriptions for it; everything else of MQTT's delivery is here and in package session.
type router struct {
	*hook
	index        *mqtt.TopicsIndex
	ingestTopics []string
	stall        time.Duration
	started      time.Time

	intake  intake
	tallies tallies
	routes  routes

	shares   shares
	retained retained
	sleepers sleepers

	received, sent, dropped atomic.Int64 // PUBLISH packets, and deliveries
	full                    limiter
}

// defaultStall is StallTimeout when none is given.
const defaultStall = 10 * time.Second

func newRouter(h *hook, o Options) *router {
	return &router{hook: h, index: h.server.Topics, ingestTopics: o.IngestTopics, stall: cmp.Or(o.StallTimeout, defaultStall),
		started: o.Now()}
}

// tallies counts by device.
type tallies struct {
	mu       sync.Mutex
	byDevice map[string]*tally
}

func (t *tallies) of(device string) *tally {
	t.mu.Lock()
	defer t.mu.Unlock()
	one := t.byDevice[device]
	if one == nil {
		if t.byDevice == nil {
			t.byDevice = map[string]*tally{}
		}
		one = new(tally)
		t.byDevice[device] = one
	}
	return one
}

// receive takes a PUBLISH that is valid and allowed. It runs in the goroutine of the sender's reader. An error ends the
// connection.
func (r *router) receive(l *link, pk *packets.Packet) error {
	w, p, now := l.work, l.peer, r.now()
	qos := pk.FixedHeader.Qos
	var ticket session.Ticket
	if qos > 0 {
		var verdict session.Verdict
		p.mu.Lock()
		ticket, verdict, w.out = p.state.Receive(pk.PacketID, qos, w.out[:0])
		w.apply(p)
		p.mu.Unlock()
		switch verdict {
		case session.Duplicate:
			return nil
		case session.TooMany:
			return packets.ErrRejectPacket
		}
	}
	rt := r.route(l, pk.TopicName)
	if rt.ingest {
		return r.receiveForIngest(l, rt, pk, ticket, now)
	}
	m := new(session.Message)
	fill(m, rt.topic, p.id, pk, now)
	r.publish(w, rt, m, nil, p, now)
	if qos > 0 {
		r.complete(w, p, ticket, session.Success)
	}
	w.settle()
	w.yield(l)
	return nil
}

// refuse answers a message that its sender may not publish.
func (r *router) refuse(l *link, pk *packets.Packet, reason string) error {
	w, p := l.work, l.peer
	p.mu.Lock()
	ticket, verdict, out := p.state.Receive(pk.PacketID, pk.FixedHeader.Qos, w.out[:0])
	if verdict == session.Route {
		out = p.state.Complete(ticket, session.Reason(packets.ErrNotAuthorized.Code), out)
	}
	w.out = out
	w.apply(p)
	p.mu.Unlock()
	switch verdict {
	case session.Route:
		r.reportPublish(l.account.Name, reason)
	case session.TooMany:
		return packets.ErrRejectPacket
	}
	return nil
}

// acknowledged takes what a client says about deliveries to it, and the PUBREL for its own.
func (r *router) acknowledged(l *link, pk *packets.Packet) error {
	w, p, now := l.work, l.peer, r.now()
	reason := session.Reason(pk.ReasonCode)
	p.mu.Lock()
	out := w.out[:0]
	switch pk.FixedHeader.Type {
	case packets.Puback:
		out = p.state.Puback(now, pk.PacketID, reason, out)
	case packets.Pubrec:
		out = p.state.Pubrec(now, pk.PacketID, reason, out)
	case packets.Pubrel:
		out = p.state.Pubrel(pk.PacketID, out)
	case packets.Pubcomp:
		out = p.state.Pubcomp(now, pk.PacketID, out)
	}
	w.out = out
	w.apply(p)
	if len(p.walks) > 0 {
		w.feed(p, now)
	}
	p.mu.Unlock()
	w.settle()
	return nil
}

func (r *router) setExpiry(p *peer, d time.Duration) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.state.SetExpiry(d)
}

// receiveForIngest takes a message that must be stored. It waits for a credit, and is not acknowledged before ingest
// has acknowledged it.
func (r *router) receiveForIngest(l *link, rt *route, pk *packets.Packet, ticket session.Ticket, now time.Time) error {
	w, p := l.work, l.peer
	c := &receipt{account: p.account, ticket: ticket, tally: rt.tally, since: now}
	fill(&c.message, rt.topic, p.id, pk, now)
	c.bytes = len(c.message.Topic) + len(c.message.Payload) + len(c.message.Properties) + receiptBytes
	if pk.FixedHeader.Qos > 0 {
		c.link = l
	}
	if !r.intake.take(c) {
		w.flush()
		if !r.intake.wait(l, c) {
			p.mu.Lock()
			w.out = p.state.Abandon(ticket, w.out[:0])
			w.apply(p)
			p.mu.Unlock()
			return packets.ErrRejectPacket
		}
		rt = r.route(l, pk.TopicName) // subscriptions may have changed
	}
	c.tally.received.Add(1)
	r.publish(w, rt, &c.message, c, p, now)
	w.settle()
	w.yield(l)
	return nil
}

// receiptBytes is what a message on its way into the store costs besides its own bytes.
const receiptBytes = 512

// fill makes the message of a PUBLISH.
func fill(m *session.Message, topic, publisher string, pk *packets.Packet, now time.Time) {
	m.Topic, m.Payload, m.Publisher, m.Created = topic, pk.Payload, publisher, now
	m.QoS, m.Retain = pk.FixedHeader.Qos, pk.FixedHeader.Retain
	if pk.ProtocolVersion == 5 {
		m.Properties = appendProperties(nil, &pk.Properties)
		if s := pk.Properties.MessageExpiryInterval; s > 0 {
			m.Expires = now.Add(time.Duration(s) * time.Second)
		}
	}
}

// publish puts a message into the retained store, if it is one for that, and into the sessions of its subscribers.
// receipt is nil when ingest need not store it; from is nil when it comes from no client.
func (r *router) publish(w *work, rt *route, m *session.Message, receipt *receipt, from *peer, now time.Time) {
	if m.Retain {
		r.retained.set(r, m)
	}
	taken := receipt == nil
	for i := range rt.targets {
		t := &rt.targets[i]
		offer := &t.offer
		if t.peer == from {
			if !t.wantsOwn {
				continue
			}
			offer = &t.own
		}
		if receipt != nil && t.peer.ingest {
			taken = true
			r.deliverToIngest(w, t.peer, receipt, *offer, now)
			continue
		}
		w.deliver(t.peer, m, *offer, now)
	}
	for i := range rt.shares {
		r.deliverToOne(w, &rt.shares[i], m, now)
	}
	if !taken {
		r.giveBack(w, receipt)
	}
}

// deliver puts a message into one session.
func (w *work) deliver(p *peer, m *session.Message, o session.Offer, now time.Time) {
	p.mu.Lock()
	w.out = p.state.Deliver(now, m, o, w.out[:0])
	w.apply(p)
	p.mu.Unlock()
}

// deliverToIngest: what has been taken in is stored, however long that takes.
func (r *router) deliverToIngest(w *work, p *peer, c *receipt, o session.Offer, now time.Time) {
	m := &c.message
	if !m.Expires.IsZero() {
		lasting := *m
		lasting.Expires = time.Time{}
		m = &lasting
	}
	o.Token = c
	w.deliver(p, m, o, now)
}

// complete acknowledges a message to its sender, or refuses it, when its turn comes.
func (r *router) complete(w *work, p *peer, t session.Ticket, reason session.Reason) {
	p.mu.Lock()
	w.out = p.state.Complete(t, reason, w.out[:0])
	w.apply(p)
	p.mu.Unlock()
}

// resolve ends the story of a token.
func (r *router) resolve(w *work, c *consequence) {
	switch token := c.Token.(type) {
	case *receipt:
		if c.Kind == session.Dropped {
			r.giveBack(w, token)
			return
		}
		r.intake.close(token)
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
	r.intake.close(c)
	c.tally.received.Add(-1)
	if c.link == nil {
		r.reportPublish(c.account, reasonStalled)
		return
	}
	p := c.link.peer
	p.mu.Lock()
	w.out = p.state.Abandon(c.ticket, w.out[:0])
	w.apply(p)
	p.mu.Unlock()
}

// closing is called when the session ends its connection, after its last packet was queued.
func (r *router) closing(l *link, reason session.Reason) {
	l.over = true
	l.because(closeReasons[reason])
	_ = l.Close()
}

var closeReasons = map[session.Reason]string{
	session.ReceiveMaximumExceeded: packets.ErrReceiveMaximum.Reason,
	session.QuotaExceeded:          reasonStalled,
}

const reasonStalled = "not stored in time"

// overflowed counts what a session had no room for.
func (r *router) overflowed(p *peer, n int64) {
	r.dropped.Add(n)
	if more, due := r.full.allow(p.id, r.now()); due {
		r.log.Warn("message dropped, subscriber too slow", "user", p.account, "client", p.id, "more", more)
	}
}

// sweep is called by the clock: it ends connections whose messages have waited too long.
func (r *router) sweep(now time.Time) {
	for _, l := range r.intake.overdue(now.Add(-r.stall), nil) {
		if l.hasEnded() {
			continue
		}
		r.refusals.add(reasonStalled, l.account.Name, slog.String("user", l.account.Name), slog.String("client", l.client.ID))
		r.sessions.end(l, packets.Code{Code: packets.ErrQuotaExceeded.Code, Reason: reasonStalled})
	}
}
