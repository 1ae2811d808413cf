package session

import (
	"encoding/binary"
	"math/bits"
)

// AppendPacket appends the MQTT packet of a packet effect to dst, in the
// encoding of the given protocol version (3, 4 or 5). An effect that is no
// packet, and a Close before version 5, add nothing.
func (e *Effect) AppendPacket(dst []byte, version byte) []byte {
	switch e.Kind {
	case Publish:
		return e.appendPublish(dst, version)
	case Puback:
		return e.appendAck(dst, 0x40, version)
	case Pubrec:
		return e.appendAck(dst, 0x50, version)
	case Pubrel:
		return e.appendAck(dst, 0x62, version) // [MQTT-3.6.1-1]
	case Pubcomp:
		return e.appendAck(dst, 0x70, version)
	case Close:
		if version == 5 {
			return append(dst, 0xE0, 1, byte(e.Reason))
		}
	}
	return dst
}

// appendAck leaves the reason code out where it is 0x00 or unknown to the
// version: the short form that every client reads.
func (e *Effect) appendAck(dst []byte, first, version byte) []byte {
	id := e.PacketID
	if version < 5 || e.Reason == Success {
		return append(dst, first, 2, byte(id>>8), byte(id))
	}
	return append(dst, first, 3, byte(id>>8), byte(id), byte(e.Reason))
}

func (e *Effect) appendPublish(dst []byte, version byte) []byte {
	return append(e.AppendHead(dst, version), e.Message.Payload...)
}

// AppendHead appends the packet of a Publish up to its payload, so that a large
// payload can be shared between connections.
func (e *Effect) AppendHead(dst []byte, version byte) []byte {
	m := e.Message
	first := 0x30 | e.QoS<<1
	if e.DUP {
		first |= 0x08
	}
	if e.Retain {
		first |= 0x01
	}
	topic := e.topic()
	propertyBytes, bodyBytes := e.publishBytes(version)
	dst = append(dst, first)
	dst = appendVarint(dst, bodyBytes)
	dst = binary.BigEndian.AppendUint16(dst, uint16(len(topic)))
	dst = append(dst, topic...)
	if e.QoS > 0 {
		dst = binary.BigEndian.AppendUint16(dst, e.PacketID)
	}
	if version == 5 {
		dst = appendVarint(dst, propertyBytes)
		if e.Expiry > 0 {
			dst = append(dst, 0x02)
			dst = binary.BigEndian.AppendUint32(dst, e.Expiry)
		}
		for _, id := range e.SubscriptionIDs {
			dst = append(dst, 0x0B)
			dst = appendVarint(dst, int(id))
		}
		if e.Alias > 0 {
			dst = append(dst, 0x23)
			dst = binary.BigEndian.AppendUint16(dst, e.Alias)
		}
		dst = append(dst, m.Properties...)
	}
	return dst
}

// topic is what stands in the packet: nothing where the client knows the alias.
func (e *Effect) topic() string {
	if e.TopicKnown {
		return ""
	}
	return e.Message.Topic
}

// publishBytes computes the lengths of a PUBLISH: of its properties and of
// everything behind the fixed header.
func (e *Effect) publishBytes(version byte) (properties, body int) {
	body = 2 + len(e.topic()) + len(e.Message.Payload)
	if e.QoS > 0 {
		body += 2
	}
	if version < 5 {
		return 0, body
	}
	properties = len(e.Message.Properties)
	if e.Expiry > 0 {
		properties += 5
	}
	for _, id := range e.SubscriptionIDs {
		properties += 1 + varintBytes(int(id))
	}
	if e.Alias > 0 {
		properties += aliasBytes
	}
	return properties, body + varintBytes(properties) + properties
}

// packetBytes is the length of the whole PUBLISH, as Maximum Packet Size
// counts it.
func (e *Effect) packetBytes(version byte) int {
	_, body := e.publishBytes(version)
	return 1 + varintBytes(body) + body
}

// appendVarint appends a Variable Byte Integer [MQTT-1.5.5-1].
func appendVarint(dst []byte, n int) []byte {
	for n >= 0x80 {
		dst = append(dst, byte(n)|0x80)
		n >>= 7
	}
	return append(dst, byte(n))
}

func varintBytes(n int) int {
	return max(1, (bits.Len(uint(n))+6)/7)
}
