package session

import (
	"math"
	"time"
)

// Message is one application message. It is shared by every session that it is
// delivered to: nobody changes it, its payload or its properties after the
// first Deliver.
type Message struct {
	Topic   string
	Payload []byte
	// Properties are the MQTT 5 properties that travel with the message, as
	// encoded on the wire, without the length in front and without Message
	// Expiry Interval, Subscription Identifier and Topic Alias, which differ
	// per delivery. Nil means none. The router has checked them.
	Properties []byte
	Publisher  string    // client id, for No Local
	Created    time.Time // when it was received
	Expires    time.Time // zero: never
	QoS        byte      // as published
	Retain     bool      // as published
}

// overheadBytes is what a message costs beside its own bytes: the struct, its
// place in a queue or in the in-flight table.
const overheadBytes = 256

// costBytes is what a session is charged for holding the message.
func (m *Message) costBytes() int {
	return len(m.Topic) + len(m.Payload) + len(m.Properties) + overheadBytes
}

// costBytes is the same for a delivery with these identifiers, which are up to five bytes each in the packet.
func costBytes(m *Message, ids []uint32) int { return m.costBytes() + 5*len(ids) }

// Expired reports whether the message's lifetime is over.
func (m *Message) Expired(now time.Time) bool {
	return !m.Expires.IsZero() && !now.Before(m.Expires)
}

// secondsLeft is the Message Expiry Interval to send [MQTT-3.3.2-6], rounded
// up; 0 means that the message has none. A message that is sent again after
// its time gets 1: many client libraries read 0 as "none".
func (m *Message) secondsLeft(now time.Time) uint32 {
	if m.Expires.IsZero() {
		return 0
	}
	left := (m.Expires.Sub(now) + time.Second - 1) / time.Second
	return uint32(min(max(left, 1), math.MaxUint32))
}

// Reason is an MQTT 5 reason code. For a client of an older version the
// encoder leaves it out.
type Reason byte

// The reason codes that the session itself uses.
const (
	Success                Reason = 0x00
	ProtocolError          Reason = 0x82
	NobodyReads            Reason = 0x10 // "No matching subscribers" [MQTT 5, 3.4.2.1]
	PacketIDNotFound       Reason = 0x92
	ReceiveMaximumExceeded Reason = 0x93
	QuotaExceeded          Reason = 0x97
)

// Failed reports whether the code ends the exchange without success.
func (r Reason) Failed() bool { return r >= 0x80 }
