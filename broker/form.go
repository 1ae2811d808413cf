package broker

import (
	"bytes"
	"strings"
	"unicode/utf8"

	"github.com/mochi-mqtt/server/v2/packets"

	"github.com/plantops/plantops/broker/refusal"
)

// fault is what is wrong with the form of a packet.
type fault struct {
	refusal.Refusal
	kind   byte   // of packet; 0 when it is not known
	detail string // of a malformed packet
}

func (f *fault) Error() string {
	if f.detail == "" {
		return f.Reason
	}
	return f.Reason + ": " + f.detail
}

// malformed is for bytes that cannot be taken apart as the standard says [MQTT 5, 4.13.1].
func malformed(kind byte, detail string) *fault { return &fault{refusal.MalformedPacket, kind, detail} }

// violation is for a packet that can be read and may not be sent.
func violation(kind byte, r refusal.Refusal) *fault { return &fault{Refusal: r, kind: kind} }

// form reads a packet from front to back. The first fault stays, and everything after it reads as nothing.
type form struct {
	kind  byte
	rest  []byte
	wrong *fault
}

func (f *form) fail(wrong *fault) {
	if f.wrong == nil {
		f.wrong, f.rest = wrong, nil
	}
}

func (f *form) bytes(n int) []byte {
	if n > len(f.rest) {
		f.fail(malformed(f.kind, "cut short"))
		return nil
	}
	b := f.rest[:n]
	f.rest = f.rest[n:]
	return b
}

func (f *form) byte() byte {
	if b := f.bytes(1); len(b) == 1 {
		return b[0]
	}
	return 0
}

func (f *form) two() int {
	if b := f.bytes(2); len(b) == 2 {
		return int(b[0])<<8 | int(b[1])
	}
	return 0
}

// variable is a length or an identifier of one to four bytes, of as few as it takes [MQTT-1.5.5-1].
func (f *form) variable() int {
	n, width := variable(f.rest)
	switch {
	case width == 0:
		f.fail(malformed(f.kind, "cut short"))
	case width < 0 || width > 1 && f.rest[width-1] == 0:
		f.fail(malformed(f.kind, "variable byte integer"))
	default:
		f.rest = f.rest[width:]
	}
	return n
}

func (f *form) binary() []byte { return f.bytes(f.two()) }

// text is UTF-8 without NUL [MQTT-1.5.4-1, 1.5.4-2].
func (f *form) text() []byte {
	b := f.binary()
	if !utf8.Valid(b) || bytes.IndexByte(b, 0) >= 0 {
		f.fail(malformed(f.kind, "text that is not UTF-8"))
	}
	return b
}

// end is for packets that nothing may follow.
func (f *form) end() {
	if len(f.rest) > 0 {
		f.fail(malformed(f.kind, "bytes after its end"))
	}
}

func (s *screen) judge(kind byte, body []byte) *fault {
	f := form{kind: kind, rest: body}
	switch kind {
	case packets.Connect:
		s.judgeConnect(&f)
	case packets.Subscribe:
		s.judgeSubscribe(&f)
	case packets.Unsubscribe:
		s.judgeUnsubscribe(&f)
	case packets.Disconnect:
		s.judgeDisconnect(&f)
	case packets.Pingreq:
		f.end()
	default:
		s.judgeAck(&f)
	}
	return f.wrong
}

// judgePublish judges a PUBLISH up to its payload, whatever of that is in body.
func (s *screen) judgePublish(flags byte, body []byte) *fault {
	f := form{kind: packets.Publish, rest: body}
	topic := f.text()
	if flags&6 != 0 {
		f.two() // 0 is refused by brokenPublish, as other messages are that nobody may send
	}
	if s.version == 5 {
		f.properties(packets.Publish)
	}
	if f.wrong == nil && len(topic) <= keptTopicBytes {
		s.topic = append(s.topic[:0], topic...)
	}
	return f.wrong
}

// CONNECT flags.
const (
	connectReserved   = 1
	connectClean      = 1 << 1
	connectWill       = 1 << 2
	connectWillQoS    = 3 << 3
	connectWillRetain = 1 << 5
	connectPassword   = 1 << 6
	connectUser       = 1 << 7
)

func (s *screen) judgeConnect(f *form) {
	name, version := string(f.binary()), f.byte()
	if f.wrong != nil {
		return
	}
	switch {
	case name == "MQTT" && (version == 4 || version == 5), name == "MQIsdp" && version == 3:
		s.version = version
	default:
		f.fail(violation(f.kind, refusal.UnsupportedVersion))
		return
	}
	flags := f.byte()
	qos := flags & connectWillQoS
	switch {
	case flags&connectReserved != 0, qos == connectWillQoS,
		version > 3 && flags&connectWill == 0 && flags&(connectWillQoS|connectWillRetain) != 0, // MQTT 3.1 disregards them
		version < 5 && flags&connectPassword != 0 && flags&connectUser == 0:
		f.fail(malformed(f.kind, "flags"))
	}
	f.two() // the keepalive
	if version == 5 {
		f.properties(packets.Connect)
	}
	if id := f.text(); f.wrong == nil && len(id) == 0 && version < 5 && flags&connectClean == 0 { // [MQTT-3.1.3-8]
		f.fail(violation(f.kind, refusal.InvalidClientID))
	}
	if flags&connectWill != 0 {
		if version == 5 {
			f.properties(packets.WillProperties)
		}
		if topic := f.text(); f.wrong == nil && len(topic) == 0 {
			f.fail(violation(f.kind, refusal.InvalidWillTopic))
		}
		f.binary()
	}
	if flags&connectUser != 0 {
		f.binary() // login refuses what is no UTF-8, and much else
	}
	if flags&connectPassword != 0 {
		f.binary()
	}
	f.end()
}

func (s *screen) judgeSubscribe(f *form) {
	f.id()
	if s.version == 5 {
		f.properties(f.kind)
	}
	if f.wrong == nil && len(f.rest) == 0 {
		f.fail(violation(f.kind, refusal.NoFilter)) // [MQTT-3.8.3-2]
	}
	for len(f.rest) > 0 {
		f.text()
		switch options := f.byte(); {
		case options&3 == 3, s.version < 5 && options > 2, options > 0x3f:
			f.fail(malformed(f.kind, "subscription options")) // [MQTT-3.8.3-5]
		case options>>4 == 3:
			f.fail(violation(f.kind, refusal.InvalidRetainHandling))
		}
	}
}

func (s *screen) judgeUnsubscribe(f *form) {
	f.id()
	if s.version == 5 {
		f.properties(f.kind)
	}
	if f.wrong == nil && len(f.rest) == 0 {
		f.fail(violation(f.kind, refusal.NoFilter)) // [MQTT-3.10.3-2]
	}
	for len(f.rest) > 0 {
		f.text()
	}
}

func (s *screen) judgeDisconnect(f *form) {
	if s.version == 5 && len(f.rest) > 0 {
		s.farewell = f.reason()
		if len(f.rest) > 0 {
			f.properties(f.kind)
		}
	}
	f.end()
}

// judgeAck is for PUBACK, PUBREC, PUBREL and PUBCOMP.
func (s *screen) judgeAck(f *form) {
	f.two() // an id that is not in flight is the session's affair
	if s.version == 5 && len(f.rest) > 0 {
		f.reason()
		if len(f.rest) > 0 {
			f.properties(f.kind)
		}
	}
	f.end()
}

func (f *form) id() {
	if f.two() == 0 {
		f.fail(violation(f.kind, refusal.NoPacketID)) // [MQTT-2.2.1-3]
	}
}

// reasons are what a client may give, by kind of packet.
var reasons = [16]string{
	packets.Puback:     "\x00\x10\x80\x83\x87\x90\x91\x97\x99",
	packets.Pubrec:     "\x00\x10\x80\x83\x87\x90\x91\x97\x99",
	packets.Pubrel:     "\x00\x92",
	packets.Pubcomp:    "\x00\x92",
	packets.Disconnect: "\x00\x04\x80\x81\x82\x83\x90\x93\x94\x95\x96\x97\x98\x99",
}

func (f *form) reason() byte {
	code := f.byte()
	if strings.IndexByte(reasons[f.kind], code) < 0 {
		f.fail(violation(f.kind, refusal.UnknownReasonCode))
	}
	return code
}
