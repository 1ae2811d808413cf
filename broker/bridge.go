package broker

import (
	"strings"

	"github.com/mochi-mqtt/server/v2/packets"

	"github.com/plantops/plantops/broker/refusal"
	"github.com/plantops/plantops/broker/session"
)

// This file lets a bridge of Mosquitto connect with its defaults. Such a bridge sets a bit in its protocol version
// (try_private), and publishes whether it is connected, as its will too, at $SYS/broker/connection/ID/state (notifications).

// isBridgeState tells the topic at which a bridge says how it is.
func isBridgeState(topic string) bool {
	return strings.HasPrefix(topic, "$SYS/broker/connection/") && strings.HasSuffix(topic, "/state")
}

// sayBridgeState says once for each connection that the state of a bridge is not taken: what stands below $SYS here is ours. Who is
// connected can be seen without it.
func (l *clientLink) sayBridgeState(topic string) {
	if !l.stateSaid {
		l.hook.log.Info("the state of a bridge is ignored", append(l.attrs(), "topic", refusal.Clip(topic))...)
	}
	l.stateSaid = true
}

// ignoreBridgeState acknowledges the message, counted as refused: without an acknowledgement the bridge would send it for ever.
func (h *hook) ignoreBridgeState(l *clientLink, pk *packets.Packet) error {
	l.sayBridgeState(pk.TopicName)
	w, p, qos := l.work, l.peer, pk.FixedHeader.Qos
	if qos == 0 {
		h.reportPublish(l.account.Name, refusal.ReservedTopic)
		return nil
	}
	p.mu.Lock()
	ticket, verdict, out := p.state.Receive(pk.PacketID, qos, w.out[:0])
	w.out = out
	w.apply(p)
	p.mu.Unlock()
	switch verdict {
	case session.Duplicate:
		return nil
	case session.TooMany:
		h.reportPublish(l.account.Name, refusal.ReceiveMaximumExceeded)
		return packets.ErrRejectPacket
	}
	h.reportPublish(l.account.Name, refusal.ReservedTopic)
	h.router.complete(w, p, ticket, session.Success)
	w.settle()
	return nil
}

// asBridge gives the subscriptions of a bridge what Mosquitto gives them: they do not get back what the bridge itself published,
// or two brokers would send each other the same message for ever, and the retain flag stays as it was.
func asBridge(filters packets.Subscriptions) {
	for i := range filters {
		filters[i].NoLocal = !strings.HasPrefix(filters[i].Filter, "$share/")
		filters[i].RetainAsPublished = true
	}
}
