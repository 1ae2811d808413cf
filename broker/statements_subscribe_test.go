package broker_test

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/plantops/plantops/broker/brokertest"
	"github.com/plantops/plantops/broker/brokertest/rawmqtt"
)

const unsuback = 11

// unsubscribe returns the codes of the UNSUBACK, which must be the next packet; MQTT 3.1.1 has none.
func (w *wire) unsubscribe(version byte, id uint16, filters ...string) []byte {
	w.t.Helper()
	w.send(rawmqtt.EncodeUnsubscribe(version, id, filters...))
	answer := w.next(unsuback)
	require.Equal(w.t, []byte{byte(id >> 8), byte(id)}, answer.Body[:2])
	if version == 4 {
		require.Len(w.t, answer.Body, 2)
		return nil
	}
	require.Zero(w.t, answer.Body[2], "no properties")
	return answer.Body[3:]
}

func TestSubscribesThatBreakTheRulesEndTheConnection(t *testing.T) {
	bothVersions(t, func(t *testing.T, b *brokertest.Broker, version byte) {
		subscribe := rawmqtt.EncodeSubscribe(version, 0, 1, "a")
		unsubscribe := rawmqtt.EncodeUnsubscribe(version, 1, "a")
		for name, c := range map[string]struct {
			sent  []byte
			codes []byte
		}{
			"SUBSCRIBE, flags 0":         {append([]byte{rawmqtt.Subscribe << 4}, subscribe[1:]...), []byte{0x81}},
			"SUBSCRIBE, flags 3":         {append([]byte{rawmqtt.Subscribe<<4 | 3}, subscribe[1:]...), []byte{0x81}},
			"SUBSCRIBE, no filter":       {rawmqtt.EncodeSubscribe(version, 0, 1), []byte{0x82}},
			"SUBSCRIBE, id 0":            {rawmqtt.EncodeSubscribe(version, 0, 0, "a"), []byte{0x82}},
			"SUBSCRIBE, ill-formed":      {rawmqtt.EncodeSubscribe(version, 0, 1, "a\xff"), []byte{0x81, 0x82}},
			"SUBSCRIBE, NUL":             {rawmqtt.EncodeSubscribe(version, 0, 1, "\x00"), []byte{0x81, 0x82}},
			"SUBSCRIBE, QoS 3":           {rawmqtt.EncodeSubscribe(version, 3, 1, "a"), []byte{0x81, 0x82}},
			"SUBSCRIBE, reserved bits":   {rawmqtt.EncodeSubscribe(version, 0xc0, 1, "a"), []byte{0x81}},
			"SUBSCRIBE, no options":      {rawmqtt.Encode(rawmqtt.Subscribe<<4|2, subscribe[2:len(subscribe)-1]), []byte{0x81}},
			"UNSUBSCRIBE, flags 0":       {append([]byte{rawmqtt.Unsubscribe << 4}, unsubscribe[1:]...), []byte{0x81}},
			"UNSUBSCRIBE, no filter":     {rawmqtt.EncodeUnsubscribe(version, 1), []byte{0x82}},
			"UNSUBSCRIBE, id 0":          {rawmqtt.EncodeUnsubscribe(version, 0, "a"), []byte{0x82}},
			"UNSUBSCRIBE, ill-formed":    {rawmqtt.EncodeUnsubscribe(version, 1, "a\xff"), []byte{0x81, 0x82}},
			"DISCONNECT with a flag":     {[]byte{rawmqtt.Disconnect<<4 | 1, 0}, []byte{0x81}},
			"DISCONNECT, unknown reason": {[]byte{rawmqtt.Disconnect << 4, 1, 0x55}, []byte{0x81, 0x82}},
		} {
			w := admitted(t, b, rawmqtt.Login{ClientID: "one", Version: version})
			w.send(c.sent, []byte{rawmqtt.Pingreq << 4, 0})
			w.ends(version, name, c.codes...)
		}
	})
	bothVersions(t, func(t *testing.T, b *brokertest.Broker, version byte) {
		if version == 4 {
			for _, options := range []byte{4, 8, 0x10} {
				w := admitted(t, b, rawmqtt.Login{ClientID: "one", Version: 4})
				w.send(rawmqtt.EncodeSubscribe(4, options, 1, "a"))
				w.ends(4, "options of MQTT 5")
			}
			return
		}
		w := admitted(t, b, rawmqtt.Login{ClientID: "one"})
		w.send(rawmqtt.EncodeSubscribe(5, 0x30, 1, "a"))
		w.ends(5, "Retain Handling 3", 0x81, 0x82)
	})
}

// One SUBACK has a code for each filter in their order; a filter that is none costs nothing but itself.
func TestASubackAnswersEachFilter(t *testing.T) {
	bothVersions(t, func(t *testing.T, b *brokertest.Broker, version byte) {
		w := admitted(t, b, rawmqtt.Login{ClientID: "one", Version: version})
		invalid := map[byte]byte{4: 0x80, 5: 0x8f}[version]
		filters := []string{"a", "a#", "b/+", "b+/c", "#/a", "c/#", "", "a/#/b", "+/+/#", "$share/g/a", "$share/g", "$share//a", "$share/g+/a", "$share/g#/a", "$share/g/", "#"}
		var want []byte
		for _, filter := range filters {
			code := byte(1)
			switch filter {
			case "a#", "b+/c", "#/a", "", "a/#/b", "$share/g", "$share//a", "$share/g+/a", "$share/g#/a", "$share/g/":
				code = invalid
			}
			want = append(want, code)
		}
		assert.Equal(t, want, w.subscribe(version, 1, filters...))
		w.publish(version, 0, "b/x", 0, "it is subscribed to")
		p, _, _, _ := w.take(version)
		assert.Zero(t, p.QoS())

		device := plug(t, b, rawmqtt.Login{User: "bed-1", Secret: brokertest.Password("bed-1"), ClientID: "bed-1", Version: version}.Encode())
		require.Zero(t, device.next(rawmqtt.Connack).Reason)
		refused := map[byte]byte{4: 0x80, 5: 0x87}[version]
		assert.Equal(t, []byte{refused, 2, refused}, device.subscribe(version, 2, "other", "devices/bed-1/#", "#"))
	})
}

func TestTheSameFilterAgainTakesThePlaceOfTheOne(t *testing.T) {
	bothVersions(t, func(t *testing.T, b *brokertest.Broker, version byte) {
		w := admitted(t, b, rawmqtt.Login{ClientID: "one", Version: version})
		w.publish(version, qos1|flagRetain, "a", 1, "kept")
		for _, granted := range []byte{0, 2, 1} {
			assert.Equal(t, []byte{granted}, w.subscribe(version, granted, "a"))
			p, _, _, payload := w.take(version) // the retained one, each time
			assert.Equal(t, "kept", payload)
			assert.Equal(t, min(granted, 1), p.QoS())
			sender := admitted(t, b, rawmqtt.Login{ClientID: "sender", Version: version})
			sender.publish(version, qos2, "a", 1, "new")
			p, _, _, _ = w.take(version)
			assert.Equal(t, granted, p.QoS())
			w.nothing() // one copy
		}
	})
}

func TestOneUnsubackAnswersAllFilters(t *testing.T) {
	bothVersions(t, func(t *testing.T, b *brokertest.Broker, version byte) {
		w := admitted(t, b, rawmqtt.Login{ClientID: "one", Version: version})
		sender := admitted(t, b, rawmqtt.Login{ClientID: "sender", Version: version})
		w.subscribe(version, 2, "a/+", "a/#", "b", "c", "A")
		sender.publish(version, qos2, "b", 1, "under way")
		p := w.next(rawmqtt.Publish)
		codes := w.unsubscribe(version, 300, "b", "never", "a/+", "a/b", "c")
		if version == 5 {
			assert.Equal(t, []byte{0, 0x11, 0, 0x11, 0}, codes)
		}
		sender.publish(version, qos1, "b", 2, "x")
		sender.publish(version, qos1, "c", 3, "x")
		w.send(rawmqtt.EncodeAck(rawmqtt.Pubrec, p.ID)) // what was under way is brought to its end
		assert.Equal(t, p.ID, w.next(rawmqtt.Pubrel).ID)
		w.send(rawmqtt.EncodeAck(rawmqtt.Pubcomp, p.ID))
		w.nothing()
		sender.publish(version, qos1, "a/b", 4, "a/# is another one")
		_, topic, _, _ := w.take(version)
		assert.Equal(t, "a/b", topic)
		for range 2 { // also when there is none
			codes = w.unsubscribe(version, 1, "a/#")
		}
		if version == 5 {
			assert.Equal(t, []byte{0x11}, codes)
		}
		sender.publish(version, qos1, "a/b", 5, "x")
		w.nothing()
	})
}

func TestNoLocalAndRetainAsPublished(t *testing.T) {
	b := brokertest.Start(t)
	w := admitted(t, b, rawmqtt.Login{ClientID: "one"})
	sender := admitted(t, b, rawmqtt.Login{ClientID: "sender"})
	w.subscribe(5, 4, "own") // No Local
	w.publish(5, qos1, "own", 1, "mine")
	w.nothing()
	sender.publish(5, qos1, "own", 1, "yours")
	_, _, _, payload := w.take(5)
	assert.Equal(t, "yours", payload)
	w.subscribe(5, 8, "as published")
	w.subscribe(5, 0, "as new")
	for _, topic := range []string{"as published", "as new"} {
		for _, flags := range []byte{0, flagRetain} {
			sender.publish(5, qos1|flags, topic, 1, "x")
			p, _, _, _ := w.take(5)
			assert.Equal(t, topic == "as published" && flags == flagRetain, p.Flags&flagRetain != 0, topic)
		}
	}
}

func TestNoLocalOnASharedSubscriptionIsAnError(t *testing.T) {
	b := brokertest.Start(t)
	w := admitted(t, b, rawmqtt.Login{ClientID: "one"})
	w.send(rawmqtt.EncodeSubscribe(5, 4|1, 1, "a", "$share/g/a"), []byte{rawmqtt.Pingreq << 4, 0})
	w.ends(5, "No Local on a shared subscription", 0x82)
}

func TestWhenRetainedMessagesComeIsTheClientsChoice(t *testing.T) {
	b := brokertest.Start(t)
	w := admitted(t, b, rawmqtt.Login{ClientID: "one"})
	w.publish(5, qos1|flagRetain, "a/b", 1, "kept")
	w.publish(5, qos1|flagRetain, "a/c", 2, "kept")
	comes := func(filter string, handling byte, count int) {
		t.Helper()
		w.subscribe(5, 1|handling<<4, filter)
		for range count {
			_, _, _, payload := w.take(5)
			assert.Equal(t, "kept", payload)
		}
		w.nothing()
	}
	comes("a/+", 2, 0)
	comes("a/+", 1, 0) // the subscription is there
	comes("a/+", 0, 2)
	comes("a/b", 1, 1)
	comes("a/b", 1, 0)
	comes("$share/g/a/+", 0, 0)
}

// A filter that begins with a wildcard matches no topic that begins with $.
func TestWildcardsDoNotMatchTopicsOfTheServer(t *testing.T) {
	bothVersions(t, func(t *testing.T, b *brokertest.Broker, version byte) {
		w := admitted(t, b, rawmqtt.Login{ClientID: "one", Version: version})
		for _, filter := range []string{"#", "+/#", "+/broker/#", "+/broker/uptime", "+/+/+"} {
			assert.Equal(t, []byte{0}, w.subscribe(version, 0, filter), filter)
		}
		w.nothing()
		w.subscribe(version, 0, "$SYS/broker/#")
		_, topic, _, _ := w.take(version)
		assert.True(t, strings.HasPrefix(topic, "$SYS/broker/"), topic)
	})
}

func TestAMemberOfAShareGroupGetsItsQoS(t *testing.T) {
	bothVersions(t, func(t *testing.T, b *brokertest.Broker, version byte) {
		w := admitted(t, b, rawmqtt.Login{ClientID: "one", Version: version})
		sender := admitted(t, b, rawmqtt.Login{ClientID: "sender", Version: version})
		for _, granted := range []byte{0, 1, 2} {
			assert.Equal(t, []byte{granted}, w.subscribe(version, granted, "$share/g/a"))
			sender.publish(version, qos2, "a", 1, "x")
			p, _, _, _ := w.take(version)
			assert.Equal(t, granted, p.QoS())
		}
	})
}

// A message of QoS 2 that is on its way to a member stays that member's, whatever becomes of it.
func TestAMessageUnderWayStaysWithItsMember(t *testing.T) {
	bothVersions(t, func(t *testing.T, b *brokertest.Broker, version byte) {
		sender := admitted(t, b, rawmqtt.Login{ClientID: "sender", Version: version})
		login := rawmqtt.Login{ClientID: "one", Version: version, Resume: true}
		one := admitted(t, b, login)
		one.subscribe(version, 2, "$share/g/a")
		sender.publish(version, qos2, "a", 1, "x")
		p := one.next(rawmqtt.Publish)
		other := admitted(t, b, rawmqtt.Login{ClientID: "other", Version: version})
		other.subscribe(version, 2, "$share/g/a")
		one = admitted(t, b, login) // takes over
		again := one.next(rawmqtt.Publish)
		assert.Equal(t, p.ID, again.ID)
		assert.NotZero(t, again.Flags&flagDUP)
		one.send(rawmqtt.EncodeAck(rawmqtt.Pubrec, p.ID))
		one.next(rawmqtt.Pubrel)
		login.Resume = false
		admitted(t, b, login) // the session ends
		other.nothing()
		if version == 4 {
			return
		}
		for id, code := range map[uint16]byte{2: 0x80, 3: 0x83} { // a refusal is an answer: nobody else gets it
			sender.publish(5, qos1, "a", id, "x")
			p := other.next(rawmqtt.Publish)
			other.send(rawmqtt.Encode(rawmqtt.Puback<<4, []byte{byte(p.ID >> 8), byte(p.ID), code}))
			other.nothing()
		}
	})
}
