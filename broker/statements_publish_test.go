package broker_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/plantops/plantops/broker/brokertest"
	"github.com/plantops/plantops/broker/brokertest/rawmqtt"
)

// The lower half of the first byte of a PUBLISH.
const (
	flagRetain, flagDUP = 1, 8
	qos1, qos2          = 2, 4
)

// take reads a message and acknowledges it.
func (w *wire) take(version byte) (p rawmqtt.Packet, topic, properties, payload string) {
	w.t.Helper()
	p = w.next(rawmqtt.Publish)
	switch p.QoS() {
	case 1:
		w.send(rawmqtt.EncodeAck(rawmqtt.Puback, p.ID))
	case 2:
		w.send(rawmqtt.EncodeAck(rawmqtt.Pubrec, p.ID))
		require.Equal(w.t, p.ID, w.next(rawmqtt.Pubrel).ID)
		w.send(rawmqtt.EncodeAck(rawmqtt.Pubcomp, p.ID))
	}
	topic, properties, payload = content(version, p)
	return p, topic, properties, payload
}

// publish sends a message and completes its exchange.
func (w *wire) publish(version, flags byte, topic string, id uint16, payload string) {
	w.t.Helper()
	w.send(published(version, flags, topic, id, "", payload))
	switch flags & 6 {
	case qos1:
		require.Equal(w.t, id, w.next(rawmqtt.Puback).ID)
	case qos2:
		require.Equal(w.t, id, w.next(rawmqtt.Pubrec).ID)
		w.send(rawmqtt.EncodePubrel(id))
		require.Equal(w.t, id, w.next(rawmqtt.Pubcomp).ID)
	}
}

func TestEachQoSHasItsAnswer(t *testing.T) {
	bothVersions(t, func(t *testing.T, b *brokertest.Broker, version byte) {
		w := admitted(t, b, rawmqtt.Login{ClientID: "sender", Version: version})
		got := admitted(t, b, rawmqtt.Login{ClientID: "got", Version: version})
		got.subscribe(version, 2, "a")
		receive := func(what string) {
			t.Helper()
			p, _, _, payload := got.take(version)
			assert.Equal(t, what, payload)
			assert.Zero(t, p.Flags&flagDUP, "DUP is the sender's")
			assert.True(t, (p.ID == 0) == (p.QoS() == 0), "id %d at QoS %d", p.ID, p.QoS())
		}
		w.publish(version, 0, "a", 0, "QoS 0")
		w.nothing()
		receive("QoS 0")
		w.publish(version, qos1, "a", 7, "QoS 1")
		receive("QoS 1")
		w.publish(version, qos1|flagDUP, "a", 7, "after its PUBACK an id is new, whatever DUP says")
		receive("after its PUBACK an id is new, whatever DUP says")
		w.publish(version, qos2, "a", 8, "QoS 2")
		receive("QoS 2")
		w.publish(version, qos2|flagDUP, "a", 8, "after its PUBCOMP too")
		receive("after its PUBCOMP too")

		for range 3 {
			w.send(published(version, qos2|flagDUP, "a", 9, "", "once"))
			require.Equal(t, uint16(9), w.next(rawmqtt.Pubrec).ID)
		}
		for range 2 { // of an id that is released already too
			w.send(rawmqtt.EncodePubrel(9))
			pubcomp := w.next(rawmqtt.Pubcomp)
			require.Equal(t, uint16(9), pubcomp.ID)
			require.Zero(t, pubcomp.Reason)
		}
		w.nothing()
		receive("once")
		got.nothing()
	})
}

func TestPublishesThatBreakTheRulesEndTheConnection(t *testing.T) {
	bothVersions(t, func(t *testing.T, b *brokertest.Broker, version byte) {
		watcher := admitted(t, b, rawmqtt.Login{ClientID: "watcher", Version: version})
		watcher.subscribe(version, 0, "#")
		long := strings.Repeat("a", 1<<16-1)
		for name, c := range map[string]struct {
			sent  []byte
			codes []byte
		}{
			"QoS 3":               {published(version, 6, "a", 1, "", "x"), []byte{0x81}},
			"DUP at QoS 0":        {published(version, flagDUP, "a", 0, "", "x"), []byte{0x81, 0x82}},
			"QoS 1, id 0":         {published(version, qos1, "a", 0, "", "x"), []byte{0x82}},
			"QoS 2, id 0":         {published(version, qos2, "a", 0, "", "x"), []byte{0x82}},
			"wildcard +":          {published(version, 0, "a/+", 0, "", "x"), []byte{0x82, 0x90}},
			"wildcard #":          {published(version, 0, "#", 0, "", "x"), []byte{0x82, 0x90}},
			"no topic":            {published(version, 0, "", 0, "", "x"), []byte{0x82, 0x90}},
			"ill-formed topic":    {published(version, 0, "a\xff", 0, "", "x"), []byte{0x81, 0x82}},
			"surrogate in it":     {published(version, 0, "a\xed\xbf\xbf", 0, "", "x"), []byte{0x81, 0x82}},
			"NUL in it":           {published(version, 0, "a\x00", 0, "", "x"), []byte{0x81, 0x82}},
			"topic past its end":  {rawmqtt.Encode(0x30, []byte(long[:10])), []byte{0x81}},
			"PUBREL, flags 0":     {rawmqtt.Encode(rawmqtt.Pubrel<<4, []byte{0, 1}), []byte{0x81}},
			"PINGREQ with a flag": {[]byte{rawmqtt.Pingreq<<4 | 1, 0}, []byte{0x81}},
			"a server's packet":   {rawmqtt.Encode(rawmqtt.Suback<<4, []byte{0, 1, 0}), []byte{0x82}},
			"type 0":              {[]byte{0, 0}, []byte{0x81}},
		} {
			w := admitted(t, b, rawmqtt.Login{ClientID: "sender", Version: version})
			w.send(c.sent, []byte{rawmqtt.Pingreq << 4, 0})
			w.ends(version, name, c.codes...)
		}
		if version == 5 {
			for name, properties := range map[string]string{
				"subscription identifier":        "\x0b\x01",
				"response topic with a wildcard": "\x08\x00\x03a/+",
				"ill-formed response topic":      "\x08\x00\x01\xff",
				"ill-formed content type":        "\x03\x00\x01\xff",
				"user property without a value":  "\x26\x00\x01a",
				"topic alias 0":                  "\x23\x00\x00",
				"topic alias above the maximum":  "\x23\xff\xff",
				"payload format 2":               "\x01\x02",
				"property of another packet":     "\x21\x00\x01",
				"property twice":                 "\x03\x00\x00\x03\x00\x00",
				"long number":                    "\x0b\x81\x00",
			} {
				w := admitted(t, b, rawmqtt.Login{ClientID: "sender"})
				w.send(published(5, 0, "a", 0, properties, "x"), []byte{rawmqtt.Pingreq << 4, 0})
				w.ends(5, name, 0x81, 0x82, 0x94)
			}
		}
		watcher.nothing()
		w := admitted(t, b, rawmqtt.Login{ClientID: "sender", Version: version})
		w.subscribe(version, 0, "+")
		w.send(published(version, 0, long, 0, "", "x"))
		_, topic, _, _ := w.take(version)
		assert.Equal(t, long, topic, "the longest there is")
	})
}

// Topics and filters are compared byte by byte and arrive as they were sent: no case, no normal form, no byte order mark.
func TestTextsAreNotChanged(t *testing.T) {
	topics := []string{"a", "A", "/a", "a/", "a//", " a", "a ", "\u00e9", "e\u0301", "\ufeffa", "\U0001f331", "$a", "a/$b", "\u2028"}
	bothVersions(t, func(t *testing.T, b *brokertest.Broker, version byte) {
		sender := admitted(t, b, rawmqtt.Login{ClientID: "sender", Version: version})
		for i, filter := range topics {
			w := admitted(t, b, rawmqtt.Login{ClientID: "got", Version: version})
			w.subscribe(version, 0, filter)
			for j, topic := range topics {
				if strings.HasPrefix(topic, "$") {
					continue // clients publish nothing there
				}
				sender.publish(version, qos1, topic, 1, "x")
				if i == j {
					_, got, _, _ := w.take(version)
					assert.Equal(t, topic, got)
				}
				w.nothing()
			}
		}
	})
}

func TestRetainedMessagesAreKeptAsTheyCame(t *testing.T) {
	bothVersions(t, func(t *testing.T, b *brokertest.Broker, version byte) {
		sender := admitted(t, b, rawmqtt.Login{ClientID: "sender", Version: version})
		live := admitted(t, b, rawmqtt.Login{ClientID: "live", Version: version})
		live.subscribe(version, 2, "a")
		live.nothing() // the search for retained messages is over
		kept := func() (found string) {
			t.Helper()
			w := admitted(t, b, rawmqtt.Login{ClientID: "new", Version: version})
			w.subscribe(version, 2, "a")
			w.send([]byte{rawmqtt.Pingreq << 4, 0})
			for {
				p, err := rawmqtt.Read(w.r)
				require.NoError(t, err)
				if p.Kind == rawmqtt.Pingresp {
					return found
				}
				require.Equal(t, byte(rawmqtt.Publish), p.Kind)
				_, _, payload := content(version, p)
				assert.Equal(t, byte(flagRetain), p.Flags&(flagRetain|flagDUP))
				found += fmt.Sprintf("%s at QoS %d", payload, p.QoS())
				if p.QoS() > 0 {
					return found
				}
			}
		}
		for _, c := range []struct {
			flags         byte
			payload, kept string
		}{
			{qos1 | flagRetain, "first", "first at QoS 1"},
			{qos2 | flagRetain, "second", "second at QoS 2"},
			{qos1, "not retained", "second at QoS 2"},
			{qos1, "", "second at QoS 2"},
			{flagRetain, "third", "third at QoS 0"},
			{qos1 | flagRetain, "", ""},
			{qos1 | flagRetain, "", ""},
			{qos1 | flagRetain, "fourth", "fourth at QoS 1"},
		} {
			sender.publish(version, c.flags, "a", 1, c.payload)
			p, _, _, payload := live.take(version)
			assert.Equal(t, c.payload, payload)
			assert.Zero(t, p.Flags&flagRetain, "%q: to an existing subscription", c.payload)
			assert.Equal(t, c.kept, kept(), "%q", c.payload)
		}
		sender.send([]byte{rawmqtt.Disconnect << 4, 0})
		sender.rest()
		assert.Equal(t, "fourth at QoS 1", kept(), "it belongs to no session")
	})
}

func TestTheLowerQoSIsDelivered(t *testing.T) {
	bothVersions(t, func(t *testing.T, b *brokertest.Broker, version byte) {
		sender := admitted(t, b, rawmqtt.Login{ClientID: "sender", Version: version})
		for granted := range byte(3) {
			w := admitted(t, b, rawmqtt.Login{ClientID: "got", Version: version})
			require.Equal(t, []byte{granted}, w.subscribe(version, granted, "a"))
			for sent := range byte(3) {
				sender.publish(version, sent<<1, "a", 1, "x")
				p, _, _, _ := w.take(version)
				assert.Equal(t, min(sent, granted), p.QoS())
			}
			w.nothing()
		}
		w := admitted(t, b, rawmqtt.Login{ClientID: "got", Version: version})
		w.subscribe(version, 0, "a/#", "+/b")
		w.subscribe(version, 2, "a/b")
		w.subscribe(version, 1, "a/+")
		for sent, want := range []byte{0, 1, 2} {
			sender.publish(version, byte(sent)<<1, "a/b", 1, "x")
			p, _, _, _ := w.take(version)
			assert.Equal(t, want, p.QoS(), "the highest of four filters, in one copy")
			w.nothing()
		}
	})
}

func TestSubscriptionIdentifiersOfAllFiltersComeAlong(t *testing.T) {
	b := brokertest.Start(t)
	w := admitted(t, b, rawmqtt.Login{ClientID: "got"})
	for id, filter := range map[byte]string{1: "a/b", 2: "a/+", 3: "other"} {
		w.send(rawmqtt.Encode(rawmqtt.Subscribe<<4|2, append(rawmqtt.AppendString([]byte{0, 1, 2, 0x0b, id}, filter), 1)))
		w.next(rawmqtt.Suback)
	}
	w.subscribe(5, 1, "#")
	w.send(published(5, qos1, "a/b", 1, "", "x"))
	var properties string
	for range 2 { // the PUBACK and the message, in any order
		p, err := rawmqtt.Read(w.r)
		require.NoError(t, err)
		if p.Kind == rawmqtt.Publish {
			_, properties, _ = content(5, p)
		}
	}
	assert.Contains(t, []string{"\x0b\x01\x0b\x02", "\x0b\x02\x0b\x01"}, properties)
	w.nothing()
}

func TestAMessageKeepsItsProperties(t *testing.T) {
	b := brokertest.Start(t)
	w := admitted(t, b, rawmqtt.Login{ClientID: "got"})
	w.subscribe(5, 2, "a")
	const all = "\x01\x01" + "\x08\x00\x05reply" + "\x09\x00\x03\x00\x01\x02" + "\x03\x00\x02ct" +
		"\x26\x00\x01b\x00\x011" + "\x26\x00\x01a\x00\x012" + "\x26\x00\x01b\x00\x013"
	sender := admitted(t, b, rawmqtt.Login{ClientID: "sender"})
	sender.send(published(5, qos1, "a", 1, all+"\x02\x00\x00\x00\x0a", "x"))
	_, topic, properties, _ := w.take(5)
	assert.Equal(t, "a", topic)
	for _, one := range []string{"\x01\x01", "\x08\x00\x05reply", "\x09\x00\x03\x00\x01\x02", "\x03\x00\x02ct",
		"\x26\x00\x01b\x00\x011\x26\x00\x01a\x00\x012\x26\x00\x01b\x00\x013"} { // user properties in their order
		assert.Contains(t, properties, one)
	}
	_, expiry, found := strings.Cut(properties, "\x02\x00\x00\x00")
	require.True(t, found, "Message Expiry Interval")
	assert.LessOrEqual(t, expiry[0], byte(10))
	assert.Len(t, properties, len(all)+5, "and nothing else")
}

// A server has no more messages under way than the client takes, and goes on with everything else.
func TestTheReceiveMaximumIsKept(t *testing.T) {
	b := brokertest.Start(t)
	w := admitted(t, b, rawmqtt.Login{ClientID: "got", Properties: []byte("\x21\x00\x02")})
	w.subscribe(5, 2, "a")
	sender := admitted(t, b, rawmqtt.Login{ClientID: "sender"})
	for i := range uint16(6) {
		sender.publish(5, []byte{qos1, qos2}[i%2], "a", 1, "x")
	}
	one, two := w.next(rawmqtt.Publish), w.next(rawmqtt.Publish)
	assert.NotEqual(t, one.ID, two.ID)
	assert.NotZero(t, one.ID)
	w.nothing()
	assert.Equal(t, []byte{1}, w.subscribe(5, 1, "b"), "the quota is used up")
	w.publish(5, qos1, "c", 5, "x")
	w.send(rawmqtt.EncodeAck(rawmqtt.Puback, one.ID))
	three := w.next(rawmqtt.Publish)
	w.nothing()
	w.send(rawmqtt.EncodeAck(rawmqtt.Pubrec, two.ID))
	w.next(rawmqtt.Pubrel)
	w.nothing() // its place is free with PUBCOMP
	w.send(rawmqtt.EncodeAck(rawmqtt.Pubcomp, two.ID))
	four := w.next(rawmqtt.Publish)
	w.send(rawmqtt.EncodeAck(rawmqtt.Puback, three.ID))
	w.next(rawmqtt.Publish)
	w.send(rawmqtt.Encode(rawmqtt.Pubrec<<4, []byte{byte(four.ID >> 8), byte(four.ID), 0x80})) // that ends it too
	w.next(rawmqtt.Publish)
	w.nothing()
}

func TestARefusedQoS2MessageLeavesItsIDFree(t *testing.T) {
	b := brokertest.Start(t, brokertest.Device("bed-1"))
	w := plug(t, b, rawmqtt.Login{User: "bed-1", Secret: brokertest.Password("bed-1"), ClientID: "bed-1"}.Encode())
	require.Zero(t, w.next(rawmqtt.Connack).Reason)
	w.subscribe(5, 0, "devices/bed-1/#")
	w.send(published(5, qos2, "devices/bed-2/x", 3, "", "x"))
	assert.Equal(t, byte(0x87), w.next(rawmqtt.Pubrec).Reason)
	w.send(published(5, qos2, "devices/bed-1/x", 3, "", "new"))
	kinds := map[byte]byte{}
	for range 2 {
		p, err := rawmqtt.Read(w.r)
		require.NoError(t, err)
		kinds[p.Kind] = p.Reason
	}
	assert.Equal(t, map[byte]byte{rawmqtt.Pubrec: 0, rawmqtt.Publish: 0}, kinds)
}
