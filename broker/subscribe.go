package broker

import (
	"encoding/binary"
	"runtime"
	"slices"
	"strings"

	"github.com/mochi-mqtt/server/v2/packets"

	"github.com/plantops/plantops/broker/refusal"
	"github.com/plantops/plantops/broker/session"
	"github.com/plantops/plantops/broker/topic"
	"github.com/plantops/plantops/broker/validate"
)

// filterStep is how many filters of a SUBSCRIBE or UNSUBSCRIBE are dealt with while the session's lock is held, for which its
// publishers wait.
const filterStep = 32

// takeSubscribe answers a SUBSCRIBE. An error ends the connection.
func (h *hook) takeSubscribe(l *clientLink, pk *packets.Packet) error {
	if err := h.checkFilters(l, pk); err != nil {
		return err
	}
	if l.bridge.Found {
		asBridge(pk.Filters)
	}
	for i := range pk.Filters {
		if f := &pk.Filters[i]; f.NoLocal && topic.Shared(f.Filter) { // [MQTT-3.8.3-4]
			return h.refuseConnection(l, validate.Violation(packets.Subscribe, refusal.ProtocolViolation), f.Filter)
		}
	}
	w, codes := l.work, make([]byte, len(pk.Filters))
	for i := range pk.Filters {
		codes[i] = h.judgeSubscribe(l, &pk.Filters[i])
	}
	for from := 0; from < len(codes); from += filterStep {
		if l.IsClosing() || !h.router.awaitFilters(l) {
			return packets.ErrRejectPacket
		}
		to := min(from+filterStep, len(codes))
		h.subscribe(l, pk.Filters[from:to], codes[from:to])
		w.settle()
		runtime.Gosched() // publishers wait for the session's lock
	}
	if l.peer.ingest {
		h.router.intake.setReady(true)
	}
	ofSystem := func(f packets.Subscription) bool { return strings.HasPrefix(f.Filter, topic.SystemPrefix) }
	if slices.ContainsFunc(pk.Filters, ofSystem) {
		h.router.renewSystem()
	}
	if l.screen.Version == 3 { // it has no code for a refusal [MQTT 3.1, 3.8]
		for i := range codes {
			if codes[i] > 2 {
				codes[i] = pk.Filters[i].Qos
			}
		}
	}
	w.answerFilters(l, packets.Suback, pk.PacketID, codes)
	w.deliverRetained(l.peer, l.now)
	return nil
}

// maxFilterBytes of a session's changes of filters may wait for the disk.
const maxFilterBytes = 256 << 10

// awaitFilters makes who changes filters faster than the disk takes them wait for it. It reports false when the connection is to
// end.
func (r *router) awaitFilters(l *clientLink) bool {
	p, number := l.peer, int64(0)
	p.mu.Lock()
	if c := p.shelf.changed; c != nil && c.bytes > maxFilterBytes {
		number = r.ledger.mark(p)
	}
	p.mu.Unlock()
	if number == 0 {
		return true
	}
	if l.work.flush(); r.ledger.await(l, number) {
		return true
	}
	r.refuseElsewhere(l, refusal.NotStoredInTime.With(r.stallText()))
	return false
}

// judgeSubscribe returns the code for a filter of a SUBSCRIBE, as far as it can be told without the session. A filter that is
// granted is copied: it will stay, and mochi's lies in the packet, which may be large.
func (h *hook) judgeSubscribe(l *clientLink, asked *packets.Subscription) (code byte) {
	switch {
	case topic.CheckFilter(asked.Filter, h.maxLevels) != nil:
		return h.refuseSubscribe(l, refusal.InvalidFilter, asked.Filter)
	case !l.rights.MayRead(asked.Filter):
		return h.refuseSubscribe(l, refusal.SubscribeNotAllowed.With(l.rights.MayReadText()), asked.Filter)
	}
	asked.Filter = strings.Clone(asked.Filter)
	return asked.Qos
}

// subscribe enters the filters that are granted, by their codes, as far as the account's quota goes.
func (h *hook) subscribe(l *clientLink, filters packets.Subscriptions, codes []byte) {
	p, w := l.peer, l.work
	p.mu.Lock()
	defer p.mu.Unlock()
	for i := range filters {
		asked := &filters[i]
		if codes[i] > 2 || p.ended { // by its quota; the connection is about to be
			continue
		}
		sub := session.Subscription{Filter: asked.Filter, QoS: codes[i], NoLocal: asked.NoLocal,
			RetainAsPublished: asked.RetainAsPublished, RetainHandling: asked.RetainHandling, ID: uint32(asked.Identifier)}
		if !p.ingest && !p.state.Subscribed(sub.Filter) && !p.usage.subscribe(sub.Filter) {
			codes[i] = h.refuseSubscribe(l, refusal.TooManySubscriptions.By("max_subscriptions_per_account",
				h.router.quotas.limits.MaxSubscriptionsPerAccount), sub.Filter)
			continue
		}
		if existed := w.enter(p, sub); sub.SendsRetained(existed) {
			p.ask(sub)
		}
	}
	p.charge()
}

// takeUnsubscribe answers an UNSUBSCRIBE. An error ends the connection.
func (h *hook) takeUnsubscribe(l *clientLink, pk *packets.Packet) error {
	if err := h.checkFilters(l, pk); err != nil {
		return err
	}
	p, w, codes := l.peer, l.work, make([]byte, len(pk.Filters))
	for from := 0; from < len(codes); from += filterStep {
		if l.IsClosing() || !h.router.awaitFilters(l) {
			return packets.ErrRejectPacket
		}
		p.mu.Lock()
		for i := from; i < min(from+filterStep, len(codes)); i++ {
			if filter := pk.Filters[i].Filter; !w.remove(p, filter) {
				codes[i] = packets.CodeNoSubscriptionExisted.Code
			}
		}
		p.charge()
		p.mu.Unlock()
		w.settle()
		runtime.Gosched()
	}
	w.answerFilters(l, packets.Unsuback, pk.PacketID, codes)
	return nil
}

// enter gives a session a subscription: nowhere else it gets one. It reports whether there was one to the same filter. From
// then on the session is in every route, as a share group is a moment later, by settle. The caller holds p.mu.
func (w *work) enter(p *peer, sub session.Subscription) (existed bool) {
	before, existed := p.state.Subscription(sub.Filter)
	if existed && before == sub { // as a client says that comes back
		return true
	}
	existed = p.state.Subscribe(sub)
	w.r.ledger.subscribed(p, sub.Filter)
	if sub.Shared() {
		w.regroup(p, sub.Filter)
	} else {
		w.r.routes.table.Subscribe(recipient{peer: p}, sub.Filter, optionsOf(sub))
	}
	return existed
}

// remove takes a subscription from a session that goes on; from one that ends they are taken by removeAll, and nowhere
// else. It reports whether there was one. The caller holds p.mu.
func (w *work) remove(p *peer, filter string) (existed bool) {
	if existed = p.state.Unsubscribe(filter); existed {
		w.r.ledger.subscribed(p, strings.Clone(filter)) // not to keep the packet
		w.removed(p, filter)
	}
	return existed
}

// removeAll takes the subscriptions of a session that has ended. The caller holds p.mu: when it lets go of it, no route leads
// here.
func (w *work) removeAll(p *peer, filters map[string]session.Subscription) {
	for filter := range filters {
		w.removed(p, filter)
	}
	p.due.clear()
}

func (w *work) removed(p *peer, filter string) {
	if !p.ingest {
		p.usage.subscriptions.Add(-weight(filter))
	}
	p.due.remove(filter)
	if topic.Shared(filter) {
		if p.waiting != nil {
			*p.waiting = slices.DeleteFunc(*p.waiting, func(g *shareGroup) bool { return g.filter == filter })
		}
		w.regroup(p, filter)
	} else {
		w.r.routes.table.Unsubscribe(recipient{peer: p}, filter)
	}
}

// answerFilters sends a SUBACK or an UNSUBACK with these codes.
func (w *work) answerFilters(l *clientLink, kind byte, id uint16, codes []byte) {
	p := l.peer
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.link != l || l.over {
		return
	}
	if p.state.Lasting() && w.r.ledger.storage != nil {
		w.closeGate(p, w.r.ledger.mark(p)) // the subscriptions are on disk first
	}
	w.r.traffic.packetsOut.Add(1)
	w.write(l, appendFilterAck(w.buf[:0], kind, p.state.Version(), id, codes), nil)
}

// appendFilterAck encodes a SUBACK or an UNSUBACK, without any properties. That of an UNSUBSCRIBE has codes only in MQTT 5.
func appendFilterAck(dst []byte, kind, version byte, id uint16, codes []byte) []byte {
	properties := []byte{0}
	if version < 5 {
		properties = nil
		if kind == packets.Unsuback {
			codes = nil
		}
	}
	dst = append(dst, kind<<4)
	dst = binary.AppendUvarint(dst, uint64(2+len(properties)+len(codes))) // as MQTT writes a length [MQTT-1.5.5-1]
	dst = binary.BigEndian.AppendUint16(dst, id)
	return append(append(dst, properties...), codes...)
}

// forget lets go of a session that has ended, when nobody is connected.
func (r *router) forget(p *peer) {
	if p.ingest {
		p.mu.Lock()
		r.intake.setReady(p.state.Subscriptions() > 0) // it may have begun another session meanwhile
		p.mu.Unlock()
	}
	r.sessions.forget(p)
}
