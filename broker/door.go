package broker

import (
	mqtt "github.com/mochi-mqtt/server/v2"
	"github.com/mochi-mqtt/server/v2/packets"
)

// nothing is what mochi gets in place of a packet that was dealt with: an acknowledgement of packet id 0, which is
// never in flight.
var nothing = packets.Packet{FixedHeader: packets.FixedHeader{Type: packets.Puback}}

// OnPacketRead is the door: every packet a client sends passes here after decoding and before mochi acts on it. The
// only error mochi heeds is ErrRejectPacket, which closes the connection.
func (h *hook) OnPacketRead(cl *mqtt.Client, pk packets.Packet) (packets.Packet, error) {
	l := linkOf(cl)
	if l == nil {
		return pk, packets.ErrRejectPacket
	}
	if l.client == nil { // readConnectionPacket has made sure that it is a CONNECT
		l.client = cl
		return pk, nil
	}
	switch pk.FixedHeader.Type {
	case packets.Publish:
		return h.judgePublish(l, pk)
	case packets.Subscribe:
		return pk, h.judgeFilters(l, pk)
	case packets.Unsubscribe:
		return pk, h.judgeFilters(l, pk)
	case packets.Auth:
		return pk, h.reject(l, protocolError("authentication without a method", packets.ErrProtocolViolation), "")
	}
	return pk, nil
}

// judgePublish decides what becomes of a message: it goes on to the subscribers, or it is refused and answered, or
// the connection ends.
func (h *hook) judgePublish(l *link, pk packets.Packet) (packets.Packet, error) {
	if r, broken := h.brokenPublish(pk); broken {
		h.reportPublish(l, r.reason)
		return pk, h.reject(l, r, pk.TopicName)
	}
	reason := refusePublish.reason
	switch err := checkTopic(pk.TopicName, h.maxLevels); {
	case err == errTopicReserved:
		reason = refuseReserved.reason
	case l.rights.mayPublish(pk.TopicName):
		return pk, nil
	}
	h.reportPublish(l, reason)
	h.refused(l, reason, pk.TopicName, l.rights.mayPublishText())
	return nothing, h.answerRefused(l, pk, reason)
}

// brokenPublish finds what no client may send, whatever its rights.
func (h *hook) brokenPublish(pk packets.Packet) (refusal, bool) {
	if code := pk.PublishValidate(h.server.Options.Capabilities.TopicAliasMaximum); code != packets.CodeSuccess {
		return protocolError(code.Reason, code), true
	}
	if pk.Properties.PayloadFormat > 1 {
		return protocolError("invalid payload format", packets.ErrMalformedPacket), true
	}
	if err := checkTopic(pk.TopicName, h.maxLevels); err != nil && err != errTopicReserved {
		return protocolError(err.Error(), packets.ErrTopicNameInvalid), true
	}
	return refusal{}, false
}

// answerRefused tells the sender of a refused message. MQTT 5 has words for it; in MQTT 3.1.1 an acknowledgement would
// mean success, so the connection ends. A QoS 0 message is refused in silence in both.
func (h *hook) answerRefused(l *link, pk packets.Packet, reason string) error {
	if pk.FixedHeader.Qos == 0 {
		return nil
	}
	if l.client.Properties.ProtocolVersion < 5 {
		l.cause.CompareAndSwap(nil, &reason)
		return packets.ErrRejectPacket
	}
	ack := packets.Packet{
		FixedHeader: packets.FixedHeader{Type: packets.Puback},
		PacketID:    pk.PacketID,
		ReasonCode:  packets.ErrNotAuthorized.Code,
		Properties:  packets.Properties{ReasonString: reason},
	}
	if pk.FixedHeader.Qos == 2 {
		ack.FixedHeader.Type = packets.Pubrec
	}
	if err := l.client.WritePacket(ack); err != nil {
		return packets.ErrRejectPacket
	}
	return nil
}

// judgeFilters ends the connection of a client whose SUBSCRIBE or UNSUBSCRIBE would cost others: mochi holds the lock
// of its index for seconds over a filter of some ten thousand levels.
func (h *hook) judgeFilters(l *link, pk packets.Packet) error {
	for _, sub := range pk.Filters {
		if err := checkFilter(sub.Filter, h.maxLevels); err == errFilterTooDeep {
			return h.reject(l, protocolError(err.Error(), packets.ErrTopicFilterInvalid), sub.Filter)
		}
		if sub.RetainHandling > 2 {
			return h.reject(l, protocolError("invalid retain handling", packets.ErrProtocolViolation), sub.Filter)
		}
	}
	return nil
}

// reject ends a connection for what it sent. An MQTT 5 client is told why. topic may be empty.
func (h *hook) reject(l *link, r refusal, topic string) error {
	h.refused(l, r.reason, topic, "")
	l.cause.CompareAndSwap(nil, &r.reason)
	if l.client.Properties.ProtocolVersion >= 5 {
		_ = l.client.WritePacket(packets.Packet{ // the connection is closed either way
			FixedHeader: packets.FixedHeader{Type: packets.Disconnect},
			ReasonCode:  r.v5.Code,
			Properties:  packets.Properties{ReasonString: r.reason},
		})
	}
	return packets.ErrRejectPacket
}
