// Package rawmqtt builds and takes apart MQTT packets byte by byte: the ones that a library would not send, such as a
// packet id again, and the broken ones. It is the one encoder of ours for tests, for whole packets and for parts of them, and
// knows none of our packages. Where a test wants typed packets with all properties, brokertest's client has mochi's.
package rawmqtt

import (
	"encoding/binary"
	"fmt"
	"io"
)

// Types of packets, as they stand in the upper half of a packet's first byte.
const (
	Connect     = 1
	Connack     = 2
	Publish     = 3
	Puback      = 4
	Pubrec      = 5
	Pubrel      = 6
	Pubcomp     = 7
	Subscribe   = 8
	Suback      = 9
	Unsubscribe = 10
	Pingreq     = 12
	Pingresp    = 13
	Disconnect  = 14
	Auth        = 15
)

const (
	FirstFailure  = 0x80 // reason codes from here on are refusals
	QuotaExceeded = 0x97 // among them, the reason to send somebody away who may come back later

	maxBodyBytes = 1 << 20 // of a packet that read takes
)

// Packet is one that a broker or a client has sent.
type Packet struct {
	Kind   byte   // its type
	Flags  byte   // the lower half of its first byte
	Body   []byte // all behind its length
	ID     uint16 // of an acknowledgement, and of a PUBLISH with QoS 1 and 2
	Reason byte   // of CONNACK, DISCONNECT and acknowledgements, 0 where the packet has none
}

// QoS is that of a PUBLISH.
func (p Packet) QoS() byte { return p.Flags >> 1 & 3 }

// Stream is a bufio.Reader or a bytes.Reader.
type Stream interface {
	io.Reader
	io.ByteReader
}

// Read reads one packet, or returns why there will be no more: io.EOF or io.ErrUnexpectedEOF at the end of r.
func Read(r Stream) (Packet, error) {
	first, err := r.ReadByte()
	if err != nil {
		return Packet{}, err
	}
	length, err := binary.ReadUvarint(r) // MQTT's variable byte integer is coded the same way
	if err != nil {
		return Packet{}, err
	}
	if length > maxBodyBytes {
		return Packet{}, fmt.Errorf("packet of %d bytes", length)
	}
	body := make([]byte, length)
	if _, err := io.ReadFull(r, body); err != nil {
		return Packet{}, err
	}
	return parsePacket(first, body)
}

func parsePacket(first byte, body []byte) (Packet, error) {
	p := Packet{Kind: first >> 4, Flags: first & 0x0f, Body: body}
	switch p.Kind {
	case Publish:
		if p.QoS() == 0 {
			break
		}
		topicEnds := len(body)
		if len(body) >= 2 {
			topicEnds = 2 + int(binary.BigEndian.Uint16(body))
		}
		if len(body) < topicEnds+2 {
			return p, fmt.Errorf("PUBLISH of %d bytes has no packet id", len(body))
		}
		p.ID = binary.BigEndian.Uint16(body[topicEnds:])
	case Puback, Pubrec, Pubrel, Pubcomp:
		if len(body) < 2 {
			return p, fmt.Errorf("acknowledgement of type %d without an id", p.Kind)
		}
		p.ID = binary.BigEndian.Uint16(body)
		if len(body) > 2 {
			p.Reason = body[2]
		}
	case Connack:
		if len(body) < 2 {
			return p, fmt.Errorf("CONNACK of %d bytes", len(body))
		}
		p.Reason = body[1]
	case Disconnect:
		if len(body) > 0 {
			p.Reason = body[0]
		}
	}
	return p, nil
}

// Encode is any packet: its first byte, the length of the body, the body.
func Encode(first byte, body []byte) []byte {
	return append(binary.AppendUvarint([]byte{first}, uint64(len(body))), body...)
}

// EncodeFrame is a frame of a websocket as a client has to send it; first is the opcode, with 0x80 in the last frame of a
// message. Its mask changes nothing, so that the content stays readable for who mutates it (RFC 6455, 5.2 and 5.3).
func EncodeFrame(first byte, content []byte) []byte {
	const masked = 0x80
	p := []byte{first}
	switch n := len(content); {
	case n < 126:
		p = append(p, masked|byte(n))
	case n < 1<<16:
		p = binary.BigEndian.AppendUint16(append(p, masked|126), uint16(n))
	default:
		p = binary.BigEndian.AppendUint64(append(p, masked|127), uint64(n))
	}
	return append(append(p, 0, 0, 0, 0), content...)
}

// AppendString appends a string as MQTT has it, its length first.
func AppendString(p []byte, s string) []byte {
	return append(binary.BigEndian.AppendUint16(p, uint16(len(s))), s...)
}

// Login is a CONNECT. The zero value of a field leaves it out.
type Login struct {
	User, Secret, ClientID string
	Version                byte // 4 is MQTT 3.1.1; 0 means 5
	Resume                 bool // keep and take up the session: for an hour
	NoKeepalive            bool // else it is a minute
	WillTopic, WillText    string
	WillDelay              uint32 // seconds
	Properties             []byte // MQTT 5: instead of those of the fields above
}

// Encode is the CONNECT as bytes. It never fails: what does not fit the standard is sent as it is.
func (l Login) Encode() []byte {
	const userFlag, passwordFlag, willFlag, cleanFlag, minute = 0x80, 0x40, 0x0c, 0x02, 60 // a will has QoS 1
	flags, keepalive := byte(0), byte(minute)
	if !l.Resume {
		flags |= cleanFlag
	}
	if l.User != "" {
		flags |= userFlag
	}
	if l.Secret != "" {
		flags |= passwordFlag
	}
	if l.WillTopic != "" {
		flags |= willFlag
	}
	if l.Version == 0 {
		l.Version = 5
	}
	if l.NoKeepalive {
		keepalive = 0
	}
	p := append(AppendString(nil, "MQTT"), l.Version, flags, 0, keepalive)
	if l.Version == 5 {
		if l.Properties == nil && l.Resume {
			l.Properties = []byte{0x11, 0, 0, 0x0e, 0x10} // Session Expiry Interval: an hour
		}
		p = append(binary.AppendUvarint(p, uint64(len(l.Properties))), l.Properties...)
	}
	p = AppendString(p, l.ClientID)
	if l.WillTopic != "" {
		if l.Version == 5 {
			p = append(p, 5, 0x18) // Will Delay Interval
			p = binary.BigEndian.AppendUint32(p, l.WillDelay)
		}
		p = AppendString(AppendString(p, l.WillTopic), l.WillText)
	}
	if l.User != "" {
		p = AppendString(p, l.User)
	}
	if l.Secret != "" {
		p = AppendString(p, l.Secret)
	}
	return Encode(Connect<<4, p)
}

// Message is a PUBLISH of MQTT 5 with QoS 1 or 2 and without properties.
type Message struct {
	QoS     byte // 0 means 1
	Again   bool // with DUP
	V4      bool // of MQTT 3.1.1, which has no place for properties
	Topic   string
	ID      uint16
	Payload []byte
}

// Encode is the PUBLISH as bytes. It never fails: what does not fit the standard is sent as it is.
func (m Message) Encode() []byte {
	first := byte(Publish<<4 | max(m.QoS, 1)<<1)
	if m.Again {
		first |= 1 << 3
	}
	body := binary.BigEndian.AppendUint16(AppendString(nil, m.Topic), m.ID)
	if !m.V4 {
		body = append(body, 0)
	}
	return Encode(first, append(body, m.Payload...))
}

// AppendPublish is a PUBLISH of MQTT 3.1.1 with any QoS, and makes no garbage.
func AppendPublish(p []byte, topic string, qos byte, id uint16, payload []byte) []byte {
	length := 2 + len(topic) + len(payload)
	if qos > 0 {
		length += 2
	}
	p = binary.AppendUvarint(append(p, Publish<<4|qos<<1), uint64(length))
	p = AppendString(p, topic)
	if qos > 0 {
		p = binary.BigEndian.AppendUint16(p, id)
	}
	return append(p, payload...)
}

// EncodePubrel releases a message of QoS 2.
func EncodePubrel(id uint16) []byte {
	return Encode(Pubrel<<4|2, binary.BigEndian.AppendUint16(nil, id))
}

// EncodeAck is a PUBACK, PUBREC or PUBCOMP that says yes.
func EncodeAck(kind byte, id uint16) []byte {
	return Encode(kind<<4, binary.BigEndian.AppendUint16(nil, id))
}

// EncodeSubscribe is a SUBSCRIBE of the protocol version, with the same QoS for all filters.
func EncodeSubscribe(version, qos byte, id uint16, filters ...string) []byte {
	body := filterHead(version, id)
	for _, filter := range filters {
		body = append(AppendString(body, filter), qos)
	}
	return Encode(Subscribe<<4|2, body)
}

// EncodeUnsubscribe takes filters back.
func EncodeUnsubscribe(version byte, id uint16, filters ...string) []byte {
	body := filterHead(version, id)
	for _, filter := range filters {
		body = AppendString(body, filter)
	}
	return Encode(Unsubscribe<<4|2, body)
}

func filterHead(version byte, id uint16) []byte {
	body := binary.BigEndian.AppendUint16(nil, id)
	if version == 5 {
		body = append(body, 0) // no properties
	}
	return body
}
