package validate

import (
	"bytes"
	"strings"
	"unicode/utf8"

	"github.com/mochi-mqtt/server/v2/packets"

	"github.com/plantops/plantops/broker/refusal"
)

// form reads a packet from front to back. The first fault stays, and everything after it reads as nothing.
type form struct {
	kind    byte
	version byte // of the protocol; of a CONNECT it is read from the packet
	rest    []byte
	wrong   *PacketFault
}

func (f *form) fail(wrong *PacketFault) {
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

// connect reads a CONNECT and finds out the version.
func (f *form) connect() {
	name, version := string(f.binary()), f.byte()
	if f.wrong != nil {
		return
	}
	switch {
	case name == "MQTT" && (version == 4 || version == 5), name == "MQIsdp" && version == 3:
		f.version = version
	default:
		f.fail(Violation(f.kind, refusal.UnsupportedVersion))
		return
	}
	flags := f.byte()
	qos := flags & connectWillQoS
	switch {
	case version > 3 && flags&connectReserved != 0, flags&connectWill != 0 && qos == connectWillQoS,
		version > 3 && flags&connectWill == 0 && flags&(connectWillQoS|connectWillRetain) != 0, // MQTT 3.1 disregards these
		version < 5 && flags&connectPassword != 0 && flags&connectUser == 0:
		f.fail(malformed(f.kind, "flags"))
	}
	f.two() // the keepalive
	if version == 5 {
		f.properties(packets.Connect)
	}
	if id := f.text(); f.wrong == nil && len(id) == 0 && (version == 3 || version == 4 && flags&connectClean == 0) { // [MQTT-3.1.3-8]
		f.fail(Violation(f.kind, refusal.InvalidClientID))
	}
	if flags&connectWill != 0 {
		if version == 5 {
			f.properties(packets.WillProperties)
		}
		if topic := f.text(); f.wrong == nil && len(topic) == 0 {
			f.fail(Violation(f.kind, refusal.InvalidWillTopic))
		}
		f.binary()
	}
	if flags&connectUser != 0 {
		f.binary() // package broker refuses what is no UTF-8, and much else
	}
	if flags&connectPassword != 0 {
		f.binary()
	}
	f.end()
}

func (f *form) subscribe() {
	f.id()
	if f.version == 5 {
		f.properties(f.kind)
	}
	if f.wrong == nil && len(f.rest) == 0 {
		f.fail(Violation(f.kind, refusal.NoFilter)) // [MQTT-3.8.3-2]
	}
	for len(f.rest) > 0 {
		f.text()
		switch options := f.byte(); {
		case options&3 == 3, f.version < 5 && options > 2, options > 0x3f:
			f.fail(malformed(f.kind, "subscription options")) // [MQTT-3.8.3-5]
		case options>>4 == 3:
			f.fail(Violation(f.kind, refusal.InvalidRetainHandling))
		}
	}
}

func (f *form) unsubscribe() {
	f.id()
	if f.version == 5 {
		f.properties(f.kind)
	}
	if f.wrong == nil && len(f.rest) == 0 {
		f.fail(Violation(f.kind, refusal.NoFilter)) // [MQTT-3.10.3-2]
	}
	for len(f.rest) > 0 {
		f.text()
	}
}

// disconnect returns the reason code.
func (f *form) disconnect() (reason byte) {
	if f.version == 5 && len(f.rest) > 0 {
		reason = f.reason()
		if len(f.rest) > 0 {
			f.properties(f.kind)
		}
	}
	f.end()
	return reason
}

// acknowledgement is for PUBACK, PUBREC, PUBREL and PUBCOMP.
func (f *form) acknowledgement() {
	f.id() // one that is not in flight is the session's affair
	if f.version == 5 && len(f.rest) > 0 {
		f.reason()
		if len(f.rest) > 0 {
			f.properties(f.kind)
		}
	}
	f.end()
}

func (f *form) id() {
	if f.two() == 0 {
		f.fail(Violation(f.kind, refusal.NoPacketID)) // [MQTT-2.2.1-3]
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
		f.fail(Violation(f.kind, refusal.UnknownReasonCode))
	}
	return code
}
