package broker

import (
	"bytes"
	"strings"
	"time"

	mqtt "github.com/mochi-mqtt/server/v2"
	"github.com/mochi-mqtt/server/v2/packets"

	"github.com/plantops/plantops/broker/access"
	"github.com/plantops/plantops/broker/refusal"
	"github.com/plantops/plantops/broker/session"
)

// maxSessionExpiry bounds how long a session is kept for a client that does not come back.
const maxSessionExpiry = 30 * 24 * time.Hour

// attach gives the session of its client id to a connection, before CONNACK. Nothing is sent yet.
func (r *router) attach(l *clientLink, pk *packets.Packet) {
	w := &work{r: r}
	l.work, l.now = w, r.now()
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
	p.smallWindow = c.ReceiveMaximum > 0 && c.ReceiveMaximum < smallWindow
	l.present, w.out = p.state.Connect(r.now(), c, w.out[:0])
	w.apply(p)
	p.ended, p.narrowed = false, p.narrowed && l.present
	p.mu.Unlock()
	p.online.Store(true)
	w.settle()
}

// start lets the session send, after CONNACK.
func (r *router) start(l *clientLink) {
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
	p, w, now := l.peer, l.work, r.now()
	if w == nil { // it was never attached
		return
	}
	cause := session.Lost
	switch {
	case r.gate.isClosed():
		cause = session.Stopping
	case l.goodbye, l.revoked.Load():
		cause = session.Goodbye
	}
	p.online.Store(false)
	p.mu.Lock()
	p.link = nil
	if l.evicted.Load() {
		w.out = p.state.End(now, w.out[:0])
	} else {
		w.out = p.state.Disconnect(now, cause, w.out[:0])
	}
	w.apply(p)
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
		Version:           l.client.Properties.ProtocolVersion,
		Clean:             pk.Connect.Clean,
		ReceiveMaximum:    pk.Properties.ReceiveMaximum,
		MaximumPacketSize: pk.Properties.MaximumPacketSize,
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

// willOf takes the will over from mochi.
func willOf(l *clientLink, pk *packets.Packet) *session.Will {
	l.client.Properties.Will = mqtt.Will{}
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
	if l.client.Properties.ProtocolVersion >= 5 {
		properties := &pk.Connect.WillProperties
		t.Message.Properties = appendProperties(nil, properties)
		t.Delay = time.Duration(properties.WillDelayInterval) * time.Second
		t.Expiry = time.Duration(properties.MessageExpiryInterval) * time.Second
	}
	return t
}

// publishWill publishes the will of a client, by the rules of the moment: they can have changed since CONNECT.
func (r *router) publishWill(w *work, p *peer, m *session.Message) {
	if r.gate.isClosed() {
		return
	}
	account, exists := r.account(p.account)
	if rights := access.RightsOf(account, p.id); !exists || !rights.MayPublish(m.Topic) {
		r.refusedAway(p.account, p.id, refusal.WillNotAllowed.With(rights.MayPublishText()), m.Topic)
		r.reportPublish(p.account, refusal.WillNotAllowed)
		return
	}
	to := r.subscribersOf(m.Topic)
	p.mu.Lock()
	u := p.usage
	p.mu.Unlock()
	pub := publication{to: to, message: m, from: p, account: u, now: m.Created}
	if to.ingest {
		c := &receipt{message: *m, account: p.account, tally: to.tally, since: m.Created}
		c.bytes = len(m.Topic) + len(m.Payload) + len(m.Properties) + receiptBytes
		if !r.intake.force(c) {
			r.notStored(c)
			r.keepOnly(to, m, u)
			return
		}
		c.tally.received.Add(1)
		pub.message, pub.receipt = &c.message, c
	}
	if done := r.publish(w, pub); done.refused {
		r.refusedAway(p.account, p.id, done.why, m.Topic)
		if !to.ingest {
			r.reportPublish(p.account, done.why)
		}
	}
}
