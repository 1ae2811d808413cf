package broker_test

import (
	"bufio"
	"encoding/binary"
	"fmt"
	"net"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/plantops/plantops/broker/brokertest"
	"github.com/plantops/plantops/broker/brokertest/rawmqtt"
)

// The tests in statements_*_test.go go through the normative statements of MQTT 3.1.1 and 5.0 as they show on the wire. Which
// statement is covered by which test stands in docs/mqtt.md.

// wire is a connection on which every byte is the test's.
type wire struct {
	t    testing.TB
	conn net.Conn
	r    *bufio.Reader
}

func plug(t testing.TB, b *brokertest.Broker, sent ...[]byte) *wire {
	t.Helper()
	conn, err := net.Dial("tcp", b.Addrs().TCP.String())
	require.NoError(t, err)
	t.Cleanup(func() { _ = conn.Close() })
	require.NoError(t, conn.SetReadDeadline(time.Now().Add(brokertest.Patience)))
	w := &wire{t: t, conn: conn, r: bufio.NewReader(conn)}
	w.send(sent...)
	return w
}

// admitted is plug with a login that the broker accepts.
func admitted(t testing.TB, b *brokertest.Broker, login rawmqtt.Login) *wire {
	t.Helper()
	w := plug(t, b, rightful(b, login).Encode())
	connack := w.next(rawmqtt.Connack)
	require.Zero(t, connack.Reason)
	return w
}

// rightful fills in the account that may do everything.
func rightful(b *brokertest.Broker, login rawmqtt.Login) rawmqtt.Login {
	login.User, login.Secret = b.Backend.Username, b.Backend.Password
	return login
}

func (w *wire) send(sent ...[]byte) {
	_, _ = w.conn.Write(slices.Concat(sent...)) // that the broker has closed meanwhile is for the next read to find
}

// next is the next packet, which must be of this type.
func (w *wire) next(kind byte) rawmqtt.Packet {
	w.t.Helper()
	p, err := rawmqtt.Read(w.r)
	require.NoError(w.t, err)
	require.Equal(w.t, kind, p.Kind, "% x", p.Body)
	return p
}

// nothing makes sure that the next packet is the answer to a ping.
func (w *wire) nothing() {
	w.t.Helper()
	w.send([]byte{rawmqtt.Pingreq << 4, 0})
	w.next(rawmqtt.Pingresp)
}

// rest is what comes until the broker closes the connection.
func (w *wire) rest() (all []rawmqtt.Packet) {
	w.t.Helper()
	for {
		p, err := rawmqtt.Read(w.r)
		if err != nil {
			timeout, isNet := err.(net.Error)
			require.False(w.t, isNet && timeout.Timeout(), "the connection is not closed: %v", err)
			return all
		}
		all = append(all, p)
	}
}

// ends makes sure that the broker closes the connection, and in MQTT 5 says why.
func (w *wire) ends(version byte, what string, codes ...byte) {
	w.t.Helper()
	all := w.rest()
	if version < 5 {
		assert.Empty(w.t, all, what)
		return
	}
	if assert.Len(w.t, all, 1, what) {
		assert.Equal(w.t, byte(rawmqtt.Disconnect), all[0].Kind, what)
		assert.Contains(w.t, codes, all[0].Reason, "%s: %#x", what, all[0].Reason)
		if len(all[0].Body) > 1 {
			assert.NotContains(w.t, propertyIDs(w.t, all[0].Body[1:]), byte(0x11), "%s: a DISCONNECT of a server has no Session Expiry Interval", what)
		}
	}
}

// subscribe returns the codes of the SUBACK, which must be the next packet.
func (w *wire) subscribe(version, options byte, filters ...string) []byte {
	w.t.Helper()
	w.send(rawmqtt.EncodeSubscribe(version, options, 77, filters...))
	suback := w.next(rawmqtt.Suback)
	head := 2
	if version == 5 {
		require.Zero(w.t, suback.Body[2], "no properties")
		head = 3
	}
	require.Equal(w.t, []byte{0, 77}, suback.Body[:2])
	return suback.Body[head:]
}

// content is the topic, the properties and the payload of a PUBLISH.
func content(version byte, p rawmqtt.Packet) (topic, properties, payload string) {
	n := 2 + int(p.Body[0])<<8 + int(p.Body[1])
	topic, rest := string(p.Body[2:n]), p.Body[n:]
	if p.QoS() > 0 {
		rest = rest[2:]
	}
	if version == 5 {
		length, after, _ := uvarint(rest)
		properties, rest = string(after[:length]), after[length:]
	}
	return topic, properties, string(rest)
}

// message builds a PUBLISH in either version: flags is the lower half of its first byte.
func published(version, flags byte, topic string, id uint16, properties, payload string) []byte {
	body := rawmqtt.AppendString(nil, topic)
	if flags&6 != 0 {
		body = append(body, byte(id>>8), byte(id))
	}
	if version == 5 {
		body = append(append(body, byte(len(properties))), properties...)
	}
	return rawmqtt.Encode(rawmqtt.Publish<<4|flags, append(body, payload...))
}

// propertyIDs are the identifiers in a section of properties that a server sends.
func propertyIDs(t testing.TB, section []byte) (ids []byte) {
	t.Helper()
	length, rest, ok := uvarint(section)
	require.True(t, ok && length == len(rest), "% x", section)
	for len(rest) > 0 {
		id := rest[0]
		ids = append(ids, id)
		size := 2
		switch id {
		case 0x13, 0x21, 0x22, 0x23: // two bytes
			size = 3
		case 0x02, 0x11, 0x27: // four
			size = 5
		case 0x03, 0x08, 0x09, 0x12, 0x15, 0x16, 0x1a, 0x1c, 0x1f: // a text
			size = 3 + int(rest[1])<<8 + int(rest[2])
		case 0x26: // two texts
			size = 3 + int(rest[1])<<8 + int(rest[2])
			size += 2 + int(rest[size])<<8 + int(rest[size+1])
		case 0x0b: // a number
			_, after, _ := uvarint(rest[1:])
			size = len(rest) - len(after)
		}
		require.LessOrEqual(t, size, len(rest), "property %#x in % x", id, section)
		rest = rest[size:]
	}
	return ids
}

func uvarint(p []byte) (value int, rest []byte, ok bool) {
	n, width := binary.Uvarint(p)
	if width <= 0 {
		return 0, nil, false
	}
	return int(n), p[width:], true
}

// bothVersions runs a test in MQTT 3.1.1 and 5, each with a broker of its own.
func bothVersions(t *testing.T, test func(t *testing.T, b *brokertest.Broker, version byte)) {
	for _, version := range []byte{4, 5} {
		t.Run(fmt.Sprint("version ", version), func(t *testing.T) { test(t, brokertest.Start(t, brokertest.Device("bed-1")), version) })
	}
}
