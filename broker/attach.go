package broker

import (
	"bytes"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/mochi-mqtt/server/v2/packets"

	"github.com/plantops/plantops/broker/access"
	"github.com/plantops/plantops/broker/journal"
	"github.com/plantops/plantops/broker/refusal"
	"github.com/plantops/plantops/broker/session"
)

// maxSessionExpiry bounds how long a session is kept for a client that does not come back.
const maxSessionExpiry = 30 * 24 * time.Hour

// attach gives the session of its client id to a connection, before CONNACK. Nothing is sent yet. A new session that lasts,
// and a will, are on disk when it returns; where that takes too long the connection is ended.
func (r *router) attach(l *clientLink, pk *packets.Packet) {
	w := l.work
	l.attached, l.now = true, r.now()
	l.OnDrained(func() { r.resume(l) })
	c := sessionConnection(l, pk)
	p := l.peer
	p.mu.Lock()
	r.sleepers.remove(p)
	if p.ingest && c.Expiry > 0 {
		c.Expiry = session.Forever // what it has not stored is kept until it comes
	}
	p.narrowed = p.narrowed || !p.rights.ReadsLike(l.rights) // as yet only for a session that is present
	p.link, p.rights = l, l.rights
	l.present, w.out = p.state.Connect(r.now(), c, w.out[:0])
	w.apply(p)
	p.ended, p.narrowed = false, p.narrowed && l.present
	l.lasting = p.state.Lasting()
	number, promised := int64(0), !p.shelf.stored && p.state.Lasting() || c.Will != nil
	if promised || p.shelf.written {
		number = r.ledger.markState(p)
	}
	p.mu.Unlock()
	p.online.Store(true)
	r.traffic.joined()
	w.settle()
	if w.flush(); promised && !r.ledger.await(l, number) {
		code := refusal.NotStoredInTime.V5
		if !l.isTold() {
			code.Code = refusal.NotStoredInTime.V3
		}
		_ = r.server.SendConnack(l.mochi(), code, false, nil) // in place of the one to come
		r.refuseElsewhere(l, refusal.NotStoredInTime.With(r.stallText()))
	}
}

// start lets the session send, after CONNACK.
func (r *router) start(l *clientLink) {
	l.peer.mu.Lock()
	l.started = true
	l.peer.mu.Unlock()
	l.work.resume(l.peer, l, r.now())
	l.work.settle()
}

// resume goes on sending when the connection's queue has become short. It runs in the goroutine of its writer.
func (r *router) resume(l *clientLink) {
	w := r.begin()
	w.resume(l.peer, l, r.now())
	w.finish()
}

// detach ends the connection of a session, when mochi has let go of it.
func (r *router) detach(l *clientLink) {
	if !l.attached {
		return
	}
	p, w, now := l.peer, l.work, r.now()
	if w == nil { // else a panic has ended the round
		w = r.begin()
		defer w.finish()
	}
	cause := session.Lost
	switch {
	case r.gate.isClosed():
		cause = session.Stopping
	case l.goodbye, l.revoked.Load():
		cause = session.Goodbye
	}
	p.online.Store(false)
	r.traffic.connected.Add(-1)
	p.mu.Lock()
	p.away = now.UnixNano()
	p.link, p.shelf.outbox = nil, nil
	if l.evicted.Load() {
		w.out = p.state.End(now, w.out[:0])
	} else {
		w.out = p.state.Disconnect(now, cause, w.out[:0])
	}
	w.apply(p)
	if p.shelf.written {
		r.ledger.markState(p)
	}
	if !p.state.Deadline().IsZero() {
		r.sleepers.add(p)
	}
	p.mu.Unlock()
	w.settle()
	w.flush()
}

// sessionConnection says what a CONNECT asks of the session.
func sessionConnection(l *clientLink, pk *packets.Packet) session.Connection {
	c := session.Connection{
		Version:           l.asked.version,
		Clean:             pk.Connect.Clean,
		ReceiveMaximum:    pk.Properties.ReceiveMaximum,
		MaximumPacketSize: pk.Properties.MaximumPacketSize,
		TopicAliasMaximum: pk.Properties.TopicAliasMaximum,
		Will:              willOf(l, pk),
	}
	if c.Version >= 5 {
		c.Expiry = expiry(pk.Properties.SessionExpiryInterval)
	} else if !c.Clean {
		c.Expiry = maxSessionExpiry
	}
	return c
}

func expiry(seconds uint32) time.Duration {
	return min(time.Duration(seconds)*time.Second, maxSessionExpiry)
}

// willOf is the will of a CONNECT.
func willOf(l *clientLink, pk *packets.Packet) *session.Will {
	if !pk.Connect.WillFlag || l.noWill {
		return nil
	}
	t := &session.Will{Message: session.Message{
		Topic:     strings.Clone(pk.Connect.WillTopic), // not to keep the packet
		Payload:   bytes.Clone(pk.Connect.WillPayload),
		Publisher: l.peer.id,
		QoS:       pk.Connect.WillQos,
		Retain:    pk.Connect.WillRetain,
	}}
	if l.emptyWill {
		t.Message.Payload = nil
	}
	if l.asked.version >= 5 {
		properties := &pk.Connect.WillProperties
		t.Message.Properties = appendProperties(nil, properties)
		t.Delay = time.Duration(properties.WillDelayInterval) * time.Second
		t.Expiry = time.Duration(properties.MessageExpiryInterval) * time.Second
	}
	return t
}

// publishWill publishes the will of a client, by the rules of the moment: they can have changed since CONNECT. With its
// message, what is on disk of it goes: of the whole session when that has ended, by whose name it is called then.
func (r *router) publishWill(w *work, p *peer, m *session.Message, ended journal.SessionID) {
	if r.gate.isClosed() {
		r.ledger.sayEnded(ended)
		return
	}
	w.pub = publication{message: m, from: p, now: m.Created, will: true, ended: ended}
	account, exists := r.account(p.account)
	if rights := access.RightsOf(account, p.id); !exists || !rights.MayPublish(m.Topic) {
		r.refusedAway(p.account, p.id, refusal.WillNotAllowed.With(rights.MayPublishText()), m.Topic)
		r.reportPublish(p.account, refusal.WillNotAllowed)
		r.route(w)
		return
	}
	to := r.subscribersOf(m.Topic)
	p.mu.Lock()
	w.pub.account = p.usage
	p.mu.Unlock()
	if w.pub.to = to; to.ingest {
		c := &receipt{message: *m, account: p.account, tally: to.tally, since: m.Created}
		c.bytes = len(m.Topic) + len(m.Payload) + len(m.Properties) + receiptBytes
		c.left.Store(2)
		if r.intake.force(c) {
			c.tally.received.Add(1)
			w.pub.message, w.pub.receipt = &c.message, c
		} else {
			r.notStored(c)
			w.pub.keepOnly = true
		}
	}
	if done := r.route(w); done.refused {
		r.refusedAway(p.account, p.id, done.why, m.Topic)
		if !to.ingest {
			r.reportPublish(p.account, done.why)
		}
	}
}

const (
	maxTick     = time.Second
	minTick     = 10 * time.Millisecond
	systemEvery = 10 * time.Second
)

// run is the router's clock: one ticker for everything that is due at a time. It ends with stop.
func (r *router) run(stop <-chan struct{}) {
	tick := time.NewTicker(max(minTick, min(maxTick, r.stall/10)))
	defer tick.Stop()
	system := r.now()
	for {
		select {
		case <-stop:
			return
		case <-tick.C:
		}
		now := r.now()
		r.sweep(now)
		r.wake(now)
		r.retained.expire(now, r)
		r.ledger.tick()
		r.loader.retry()
		r.quotas.lookAround(r.ledger.pending.Load())
		if now.Sub(system) >= systemEvery {
			system = now
			r.updateSystem(now)
			r.publishSystem(now)
		}
	}
}

// sleepers are the sessions without a connection that have a time at which something is due.
type sleepers struct {
	mu  sync.Mutex
	all []*peer // each knows its place
}

func (s *sleepers) add(p *peer) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if p.asleep == 0 {
		s.all = append(s.all, p)
		p.asleep = int32(len(s.all))
	}
}

func (s *sleepers) remove(p *peer) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if p.asleep == 0 {
		return
	}
	last := len(s.all) - 1
	other := s.all[last]
	s.all[p.asleep-1], other.asleep = other, p.asleep
	s.all[last], s.all, p.asleep = nil, s.all[:last], 0
}

func (s *sleepers) list() []*peer {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.all)
}

// wake publishes the wills that were delayed until now, and ends the sessions whose time is over.
func (r *router) wake(now time.Time) {
	all := r.sleepers.list()
	if len(all) == 0 || r.gate.isClosed() { // what is due at a stop is due after it
		return
	}
	w := r.begin()
	defer w.finish()
	for _, p := range all {
		p.mu.Lock()
		if deadline := p.state.Deadline(); p.link == nil && !deadline.IsZero() && !now.Before(deadline) {
			w.out = p.state.Tick(now, w.out[:0])
			w.apply(p)
			if p.shelf.written {
				r.ledger.markState(p)
			}
			if p.ended {
				r.traffic.expired.Add(1)
			}
		}
		if p.link != nil || p.state.Deadline().IsZero() {
			r.sleepers.remove(p) // under its lock: it may fall asleep again right afterwards
		}
		p.mu.Unlock()
	}
}
