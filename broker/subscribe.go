package broker

import (
	"strings"

	mqtt "github.com/mochi-mqtt/server/v2"
	"github.com/mochi-mqtt/server/v2/packets"

	"github.com/plantops/plantops/broker/refusal"
	"github.com/plantops/plantops/broker/session"
	"github.com/plantops/plantops/broker/topic"
)

// OnSubscribe reports what OnACLCheck will refuse, and empties the filters that are none, so that mochi refuses them. The
// others it copies: they will stay, and mochi's lie in the packet, which may be large.
func (h *hook) OnSubscribe(cl *mqtt.Client, pk packets.Packet) packets.Packet {
	l := linkOf(cl)
	if l == nil {
		return pk
	}
	if l.bridge.Found {
		asBridge(pk.Filters)
	}
	for i := range pk.Filters {
		filter := strings.Clone(pk.Filters[i].Filter)
		pk.Filters[i].Filter = filter
		if err := topic.CheckFilter(filter, h.maxLevels); err != nil {
			h.refuseSubscribe(l, refusal.InvalidFilter, filter)
			pk.Filters[i].Filter = ""
		} else if !l.rights.MayRead(filter) {
			h.refuseSubscribe(l, refusal.SubscribeNotAllowed.With(l.rights.MayReadText()), filter)
		} else if pk.Filters[i].NoLocal && strings.HasPrefix(filter, topic.SharePrefix) { // [MQTT-3.8.3-4], mochi refuses it
			h.refuseSubscribe(l, refusal.ProtocolViolation, filter)
		}
	}
	return pk
}

// OnSubscribed is called when mochi has put the granted filters into its index, before SUBACK.
func (h *hook) OnSubscribed(cl *mqtt.Client, pk packets.Packet, codes []byte) {
	l := linkOf(cl)
	if l == nil || l.peer == nil {
		return
	}
	p, system := l.peer, false
	var refused []string
	p.mu.Lock()
	for i, asked := range pk.Filters {
		if codes[i] > 2 {
			continue
		}
		filter := asked.Filter
		sub := session.Subscription{Filter: filter, QoS: codes[i], NoLocal: asked.NoLocal,
			RetainAsPublished: asked.RetainAsPublished, RetainHandling: asked.RetainHandling, ID: uint32(asked.Identifier)}
		if !p.ingest && !p.state.Subscribed(filter) && !p.usage.subscribe(filter) {
			codes[i] = h.refuseSubscribe(l, refusal.TooManySubscriptions.By("max_subscriptions_per_account", h.router.quotas.limits.MaxSubscriptionsPerAccount), filter)
			refused = append(refused, filter)
			continue
		}
		existed := p.state.Subscribe(sub)
		h.server.Topics.Subscribe(p.id, asked) // again, under the lock: the end of an older session may have removed it
		cl.State.Subscriptions.Delete(filter)  // so that mochi takes nothing out of the index when the connection ends
		if parent, ok := oneLevelLess(filter); ok && !p.state.Subscribed(parent) {
			h.router.enterParent(p, parent, sub)
		}
		if sub.Shared() {
			h.router.shares.join(filter, p.id)
		}
		if sub.SendsRetained(existed) {
			if existed { // all of them come again: what is left of the last time is among them
				p.retainedDue = withoutFilter(p.retainedDue, filter)
			}
			p.retainedDue = append(p.retainedDue, retainedDelivery{subscription: sub, cursor: session.Match(filter)})
		}
		system = system || strings.HasPrefix(filter, topic.SystemPrefix)
	}
	p.mu.Unlock()
	for _, filter := range refused {
		cl.State.Subscriptions.Delete(filter)
		h.router.leave(p, filter)
	}
	h.router.cache.changed()
	if p.ingest {
		h.router.intake.setReady(true)
	}
	if system {
		h.router.renewSystem()
	}
}

// OnPacketSent is called when mochi has written a packet: after a SUBACK it is the retained messages' turn.
func (h *hook) OnPacketSent(cl *mqtt.Client, pk packets.Packet, _ []byte) {
	h.router.traffic.packetsOut.Add(1)
	l := linkOf(cl)
	if l == nil || l.peer == nil || pk.FixedHeader.Type != packets.Suback {
		return
	}
	l.work.deliverRetained(l.peer, h.now())
}

// OnUnsubscribe notes which subscriptions there are: mochi's codes would be wrong.
func (h *hook) OnUnsubscribe(cl *mqtt.Client, pk packets.Packet) packets.Packet {
	l := linkOf(cl)
	if l == nil || l.peer == nil {
		return pk
	}
	p := l.peer
	l.unsuback = make([]byte, len(pk.Filters))
	p.mu.Lock()
	defer p.mu.Unlock()
	for i, asked := range pk.Filters {
		if !p.state.Unsubscribe(asked.Filter) {
			l.unsuback[i] = packets.CodeNoSubscriptionExisted.Code
		} else {
			p.unsubscribed(asked.Filter)
		}
		p.retainedDue = withoutFilter(p.retainedDue, asked.Filter)
	}
	return pk
}

// OnUnsubscribed is called when mochi has taken the filters out of its index, before UNSUBACK.
func (h *hook) OnUnsubscribed(cl *mqtt.Client, pk packets.Packet) {
	l := linkOf(cl)
	if l == nil || l.peer == nil {
		return
	}
	for _, asked := range pk.Filters {
		h.router.leave(l.peer, asked.Filter)
	}
	h.router.cache.changed()
}

// leave takes a filter that the session does not have any more out of the index and its share group.
func (r *router) leave(p *peer, filter string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.state.Subscribed(filter) {
		return // again, by a newer connection
	}
	if strings.HasPrefix(filter, topic.SharePrefix) {
		r.shares.leave(filter, p.id)
	}
	if parent, ok := oneLevelLess(filter); ok && !p.state.Subscribed(parent) {
		r.index.Unsubscribe(parent, p.id)
	}
	if longer, ok := p.longer(filter); ok {
		r.enterParent(p, filter, longer) // mochi has just taken it out
		return
	}
	r.index.Unsubscribe(filter, p.id)
}

// enterParent puts the level that the # of sub takes in into the index.
func (r *router) enterParent(p *peer, parent string, sub session.Subscription) {
	r.index.Subscribe(p.id, packets.Subscription{Filter: parent, Qos: sub.QoS, NoLocal: sub.NoLocal,
		RetainAsPublished: sub.RetainAsPublished, Identifier: int(sub.ID)})
}

// longer returns the subscription of which filter is in the index as the level that its # takes in. The caller holds p.mu.
func (p *peer) longer(filter string) (session.Subscription, bool) {
	longer := filter + "/#"
	if _, ok := oneLevelLess(longer); !ok {
		return session.Subscription{}, false
	}
	return p.state.Subscription(longer)
}

// oneLevelLess returns a/+ for a/+/#, which matches that level too, but not in mochi's index.
func oneLevelLess(filter string) (string, bool) {
	parent, found := strings.CutSuffix(filter, "/#")
	if !found || parent != "+" && !strings.HasSuffix(parent, "/+") {
		return "", false
	}
	return parent, true
}

// forget takes a session that has ended out of the index, and out of the table when nobody is connected.
func (r *router) forget(p *peer, filters map[string]session.Subscription) {
	for filter := range filters {
		r.leave(p, filter)
	}
	r.cache.changed()
	if p.ingest {
		p.mu.Lock()
		r.intake.setReady(p.state.Subscriptions() > 0) // it may have begun another session meanwhile
		p.mu.Unlock()
	}
	r.sessions.forget(p)
}
