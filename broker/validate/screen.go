// Package validate judges what a client sends before mochi decodes it: whether the bytes are packets of MQTT in good form,
// and none that a client must not send. It has no rights in mind and sends nothing.
//
// screen.go follows the packets through the bytes as they come in; form.go reads one packet, properties.go its properties
// of MQTT 5; bridge.go takes away what Mosquitto's bridges add to the version; fault.go is what is wrong with it.
package validate

import (
	"github.com/mochi-mqtt/server/v2/packets"

	"github.com/plantops/plantops/broker/refusal"
)

const (
	keptHeldBytes  = 4 << 10
	keptTopicBytes = 256
)

// Screen follows the packets in the bytes that one client sends and judges the form of each before mochi decodes it:
// mochi takes properties twice or with forbidden values, sections that end elsewhere than announced, trailing bytes, and
// panics on some that are cut short. What passes here mochi can decode.
//
// A packet that lies in one piece in what was read is judged where it lies; of others a copy is made, of a PUBLISH only
// up to its payload.
//
// The zero value with a Limit is ready. Screen is for one goroutine.
type Screen struct {
	// Limit is the most bytes that a packet may have.
	Limit int
	// Version is that of the protocol; 0 until the CONNECT has passed.
	Version byte
	// Farewell is the reason code of the DISCONNECT that has passed.
	Farewell byte

	fresh bool   // the packet under way began in the last call of Pass
	flags byte   // of the CONNECT's first byte
	topic []byte // of the last PUBLISH, if it was short: need not be looked at again

	held []byte // the beginning of a packet that cannot be judged yet
	need int    // as many bytes of it say more
	rest int    // bytes of a packet that is in order
	size int    // of the packet under way, as far as it is known
}

// Pass takes the next bytes, and clears bits that a client of MQTT 3.1 may set. It returns how many of them belong to packets that are in order so far, and what is wrong
// with the packet after those; nothing may be passed after that.
func (s *Screen) Pass(p []byte) (good int, wrong *PacketFault) {
	s.fresh = false
	for good < len(p) {
		switch {
		case s.rest > 0:
			n := min(s.rest, len(p)-good)
			s.rest -= n
			good += n
		case len(s.held) == 0:
			s.fresh = true
			if s.Version <= 3 {
				s.clearUnused(&p[good])
			}
			if s.size = s.sameAgain(p[good:]); s.size > 0 {
				s.rest = s.size
				break
			}
			if s.need, wrong = s.look(p[good:]); wrong != nil {
				return good, wrong
			}
			if s.need > 0 {
				s.held = append(s.held, p[good:]...)
				return len(p), nil
			}
			s.rest = s.size
		default: // it began in an earlier call
			n := min(s.need-len(s.held), len(p)-good)
			s.held = append(s.held, p[good:good+n]...)
			good += n
			if len(s.held) < s.need {
				return good, nil
			}
			if s.need, wrong = s.look(s.held); wrong != nil {
				return 0, wrong
			}
			if s.need == 0 {
				s.rest = s.size - len(s.held)
				if s.held = s.held[:0]; cap(s.held) > keptHeldBytes {
					s.held = nil
				}
			}
		}
	}
	return good, nil
}

// UnderWay says that a packet has begun and is not complete, that it began in the last call of Pass, and how long it is as
// far as that is known.
func (s *Screen) UnderWay() (is, fresh bool, size int) {
	return s.rest > 0 || len(s.held) > 0, s.fresh, s.size
}

// clearUnused clears the bits of a packet's first byte that mean nothing in MQTT 3.1 (2.1), where later versions want them to be 0
// and mochi does. Of a CONNECT the version is not known yet.
func (s *Screen) clearUnused(first *byte) {
	switch kind := *first >> 4; {
	case s.Version == 0 && kind == packets.Connect:
		s.flags = *first & 0xf
		*first &^= 0xf
	case s.Version == 0:
	case kind == packets.Publish && *first&6 == 0:
		*first &^= 8 // DUP, which is for messages of a higher QoS
	case kind == packets.Pubrel, kind == packets.Subscribe, kind == packets.Unsubscribe:
		*first &^= 9 // they may be repetitions
	case kind != packets.Publish:
		*first &^= 0xf
	}
}

// sameAgain returns the length of the PUBLISH that b begins with, if it has the topic of the last one, no properties and
// nothing else that needs a closer look; else 0. It is what most packets are, and four times as quick as look.
func (s *Screen) sameAgain(b []byte) (size int) {
	if len(b) < 5 || b[0]>>4 != packets.Publish || b[0]&6 == 6 || b[0]&0xe == 8 || len(s.topic) == 0 {
		return 0
	}
	at := 2
	if size = 2 + int(b[1]); b[1] >= 0x80 {
		if b[2] == 0 || b[2] >= 0x80 {
			return 0
		}
		at, size = 3, 3+int(b[1]&0x7f)+int(b[2])<<7
	}
	length := int(b[at])<<8 | int(b[at+1])
	at += 2
	if length != len(s.topic) || len(b) < at+length || string(b[at:at+length]) != string(s.topic) {
		return 0
	}
	at += length
	if b[0]&6 != 0 {
		at += 2
	}
	if s.Version == 5 {
		if at >= len(b) || b[at] != 0 {
			return 0
		}
		at++
	}
	if at > size || size > s.Limit {
		return 0
	}
	return size
}

// look judges the packet that begins with b. When b is too short for that, need is how many bytes must be there; with
// need 0 it is in order, and s.size bytes long.
func (s *Screen) look(b []byte) (need int, wrong *PacketFault) {
	kind, flags := b[0]>>4, b[0]&0xf
	if wrong := s.mayCome(kind, flags); wrong != nil {
		return 0, wrong
	}
	if len(b) == 1 {
		s.size = 0
		return 2, nil
	}
	remaining, width := int(b[1]), 1
	if b[1] >= 0x80 {
		if remaining, width = variable(b[1:]); width == 0 {
			s.size = 0
			return len(b) + 1, nil
		}
	}
	s.size = 1 + width + remaining
	if width < 0 || width > 1 && s.Version == 5 && b[width] == 0 {
		return 0, malformed(kind, "packet length")
	}
	if s.size > s.Limit {
		return 0, Violation(kind, refusal.PacketTooLarge)
	}
	body := b[1+width : min(len(b), s.size)]
	if kind == packets.Publish {
		return s.lookAtPublish(flags, body, 1+width, remaining)
	}
	if len(b) < s.size {
		return s.size, nil
	}
	return 0, s.judge(kind, body)
}

// lookAtPublish needs a PUBLISH up to its payload only. head is the length of the fixed header.
func (s *Screen) lookAtPublish(flags byte, body []byte, head, remaining int) (need int, wrong *PacketFault) {
	if len(body) < 2 && remaining > len(body) {
		return head + min(2, remaining), nil
	}
	end := 2
	if remaining >= 2 {
		end += int(body[0])<<8 | int(body[1])
	}
	if flags&6 != 0 {
		end += 2
	}
	if s.Version == 5 && end < remaining {
		if len(body) <= end {
			return head + end + 1, nil
		}
		n, width := variable(body[end:])
		if width == 0 && len(body) < remaining {
			return head + len(body) + 1, nil
		}
		if width > 0 {
			end += n + width
		}
	}
	if end > remaining {
		return 0, malformed(packets.Publish, "cut short")
	}
	if len(body) < end {
		return head + end, nil
	}
	return 0, s.judgePublish(flags, body)
}

// mayCome judges the first byte of a packet by itself.
func (s *Screen) mayCome(kind, flags byte) *PacketFault {
	if kind == packets.Publish && s.Version > 0 {
		if flags&6 == 6 || flags&0xe == 8 { // QoS 3, and DUP with QoS 0
			return malformed(kind, "flags")
		}
		return nil
	}
	switch {
	case s.Version == 0 && kind != packets.Connect:
		return Violation(kind, refusal.FirstNotConnect)
	case s.Version > 0 && kind == packets.Connect:
		return Violation(kind, refusal.SecondConnect)
	}
	want := byte(0)
	switch kind {
	case packets.Pubrel, packets.Subscribe, packets.Unsubscribe:
		want = 2
	case packets.Reserved:
		return malformed(kind, "packet type")
	case packets.Connack, packets.Suback, packets.Unsuback, packets.Pingresp:
		return Violation(kind, refusal.ServerOnlyPacket)
	case packets.Auth:
		return Violation(kind, refusal.AuthWithoutMethod)
	}
	if flags != want {
		return malformed(kind, "flags")
	}
	return nil
}

// judge judges a whole packet other than PUBLISH.
func (s *Screen) judge(kind byte, body []byte) *PacketFault {
	f := form{kind: kind, version: s.Version, rest: body}
	switch kind {
	case packets.Connect:
		f.connect()
		if s.Version = f.version; s.Version > 3 && s.flags != 0 {
			f.fail(malformed(kind, "flags"))
		}
	case packets.Subscribe:
		f.subscribe()
	case packets.Unsubscribe:
		f.unsubscribe()
	case packets.Disconnect:
		s.Farewell = f.disconnect()
	case packets.Pingreq:
		f.end()
	default:
		f.acknowledgement()
	}
	return f.wrong
}

// judgePublish judges a PUBLISH up to its payload, whatever of that is in body.
func (s *Screen) judgePublish(flags byte, body []byte) *PacketFault {
	f := form{kind: packets.Publish, version: s.Version, rest: body}
	topic := f.text()
	if flags&6 != 0 {
		f.two() // 0 is refused by brokenPublish, as other messages are that nobody may send
	}
	if s.Version == 5 {
		f.properties(packets.Publish)
	}
	if f.wrong == nil && len(topic) <= keptTopicBytes {
		s.topic = append(s.topic[:0], topic...)
	}
	return f.wrong
}

// variable reads a variable byte integer. width is 0 when it is cut off and negative when it is longer than may be.
func variable(b []byte) (n, width int) {
	for i, c := range b[:min(len(b), 4)] {
		n |= int(c&0x7f) << (7 * i)
		if c < 0x80 {
			return n, i + 1
		}
	}
	if len(b) < 4 {
		return 0, 0
	}
	return 0, -1
}
