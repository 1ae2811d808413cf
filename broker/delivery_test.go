package broker_test

import (
	"testing"
	"time"

	"github.com/mochi-mqtt/server/v2/packets"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/plantops/plantops/broker/brokertest"
)

// send publishes with every option.
func send(t *testing.T, c *brokertest.Client, edit func(*packets.Packet)) {
	t.Helper()
	pk := packets.Packet{FixedHeader: packets.FixedHeader{Type: packets.Publish, Qos: 1}, PacketID: 60_000, TopicName: "a", Payload: []byte("x")}
	edit(&pk)
	c.Send(pk)
	if pk.FixedHeader.Qos == 1 {
		require.Equal(t, byte(0), c.Await(packets.Puback).ReasonCode)
	}
}

func retain(topic, payload string) func(*packets.Packet) {
	return func(pk *packets.Packet) {
		pk.FixedHeader.Retain, pk.TopicName, pk.Payload = true, topic, []byte(payload)
	}
}

// backend connects another client of the backend account.
func backend(t *testing.T, b *brokertest.Broker, version byte) *brokertest.Client {
	t.Helper()
	login := b.AsBackend()
	login.Version = version
	return brokertest.Dial(t, b, brokertest.TCP, login)
}

func TestFiltersMatchAsMQTTSays(t *testing.T) {
	b := brokertest.Start(t)
	sender := backend(t, b, 4)
	for filter, topics := range map[string]map[string]bool{
		"+/#":     {"one": true, "one/two": true, "/": true},
		"a/+/#":   {"a": false, "a/b": true, "a/b/c": true, "b/b": false},
		"a/#":     {"a": true, "a/b": true, "ab": false},
		"+":       {"a": true, "a/b": false},
		"+/b":     {"a/b": true, "/b": true, "b": false},
		"a//b":    {"a//b": true, "a/b": false},
		"a/+/c/#": {"a/b/c": true, "a/b/c/d": true, "a/b": false},
	} {
		c := backend(t, b, 4)
		require.Equal(t, byte(0), c.Subscribe(filter, 0))
		for topic, matches := range topics {
			require.Equal(t, byte(0), sender.Publish(topic, "", 1))
			if matches {
				assert.Equal(t, topic, c.Receive().TopicName, filter)
			}
			c.AwaitNoMessage()
		}
		c.Disconnect()
	}
}

func TestUnsubscribing(t *testing.T) {
	b := brokertest.Start(t)
	sender := backend(t, b, 4)
	c := backend(t, b, 5)
	for _, filter := range []string{"a/+", "a/+/#", "b"} {
		require.Equal(t, byte(1), c.Subscribe(filter, 1))
	}
	unsubscribe := func(filter string) byte {
		c.Send(packets.Packet{FixedHeader: packets.FixedHeader{Type: packets.Unsubscribe, Qos: 1}, PacketID: 9, Filters: packets.Subscriptions{{Filter: filter}}})
		return c.Await(packets.Unsuback).ReasonCodes[0]
	}
	gets := func(topic string) bool {
		require.Equal(t, byte(0), sender.Publish(topic, "", 1))
		c.Ping()
		if !c.Has(packets.Publish) {
			return false
		}
		c.Receive()
		return true
	}
	assert.Equal(t, byte(0), unsubscribe("a/+"))
	assert.True(t, gets("a/x"), "the other filter matches it too")
	assert.Equal(t, byte(0), unsubscribe("a/+/#"))
	assert.False(t, gets("a/x"))
	assert.Equal(t, byte(0x11), unsubscribe("a/+"))
	assert.Equal(t, byte(0x11), unsubscribe("never"))
	assert.True(t, gets("b"))
	require.Equal(t, byte(1), c.Subscribe("a/+/#", 1))
	require.Equal(t, byte(1), c.Subscribe("a/+", 1))
	assert.Equal(t, byte(0), unsubscribe("a/+/#"))
	assert.True(t, gets("a/x"))
	assert.False(t, gets("a/x/y"))
}

func TestSubscriptionOptions(t *testing.T) {
	b := brokertest.Start(t)
	sender := backend(t, b, 5)
	c := backend(t, b, 5)
	require.Equal(t, byte(1), c.SubscribeWith(packets.Subscription{Filter: "a/#", Qos: 1, NoLocal: true, Identifier: 1}))
	require.Equal(t, byte(0), c.SubscribeWith(packets.Subscription{Filter: "a/b", Qos: 0, RetainAsPublished: true, Identifier: 2}))

	send(t, c, func(pk *packets.Packet) { pk.TopicName = "a/x" })
	c.AwaitNoMessage() // its own
	send(t, c, func(pk *packets.Packet) { pk.TopicName = "a/b" })
	own := c.Receive()
	assert.Equal(t, []any{byte(0), []int{2}}, []any{own.FixedHeader.Qos, own.Properties.SubscriptionIdentifier}, "only the filter that takes its own")

	send(t, sender, retain("a/b", "x"))
	both := c.Receive()
	assert.Equal(t, byte(1), both.FixedHeader.Qos, "the higher one")
	assert.True(t, both.FixedHeader.Retain)
	assert.ElementsMatch(t, []int{1, 2}, both.Properties.SubscriptionIdentifier)
	send(t, sender, retain("a/c", "x"))
	assert.False(t, c.Receive().FixedHeader.Retain, "without Retain As Published")
}

func TestRetainedMessagesFollowTheSubscription(t *testing.T) {
	b := brokertest.Start(t)
	sender := backend(t, b, 5)
	send(t, sender, retain("a", "old"))
	send(t, sender, retain("a", "new"))
	send(t, sender, retain("b", "gone"))
	send(t, sender, retain("b", ""))
	c := backend(t, b, 5)
	subscribe := func(handling byte, filter string) bool {
		require.Equal(t, byte(1), c.SubscribeWith(packets.Subscription{Filter: filter, Qos: 1, RetainHandling: handling, Identifier: 3}))
		c.Ping()
		if !c.Has(packets.Publish) {
			return false
		}
		pk := c.Receive()
		assert.Equal(t, "new", string(pk.Payload))
		assert.True(t, pk.FixedHeader.Retain)
		assert.Equal(t, []int{3}, pk.Properties.SubscriptionIdentifier)
		return true
	}
	assert.False(t, subscribe(2, "#"))
	assert.False(t, subscribe(1, "#"), "the subscription existed")
	assert.True(t, subscribe(0, "#"))
	assert.True(t, subscribe(1, "+"))
	assert.True(t, subscribe(0, "a/#"), "# takes in its parent")
	assert.False(t, subscribe(0, "b"))
	assert.False(t, subscribe(0, "$share/g/a"))
}

func TestWhatTravelsWithAMessage(t *testing.T) {
	b := brokertest.Start(t)
	sender, v5, v4 := backend(t, b, 5), backend(t, b, 5), backend(t, b, 4)
	require.Equal(t, byte(1), v5.Subscribe("a", 1))
	require.Equal(t, byte(1), v4.Subscribe("a", 1))
	send(t, sender, func(pk *packets.Packet) {
		pk.Properties = packets.Properties{PayloadFormat: 1, PayloadFormatFlag: true, MessageExpiryInterval: 100, ContentType: "text/plain",
			ResponseTopic: "answers", CorrelationData: []byte{1, 2}, User: []packets.UserProperty{{Key: "k", Val: "v"}, {Key: "k", Val: "w"}}}
	})
	got := v5.Receive().Properties
	assert.LessOrEqual(t, got.MessageExpiryInterval, uint32(100))
	assert.Positive(t, got.MessageExpiryInterval)
	assert.Equal(t, []any{byte(1), "text/plain", "answers", []byte{1, 2}, []packets.UserProperty{{Key: "k", Val: "v"}, {Key: "k", Val: "w"}}},
		[]any{got.PayloadFormat, got.ContentType, got.ResponseTopic, got.CorrelationData, got.User})
	assert.Equal(t, "x", string(v4.Receive().Payload))
	sender.Send(packets.Packet{FixedHeader: packets.FixedHeader{Type: packets.Publish}, TopicName: "a",
		Properties: packets.Properties{ContentType: "x"}, Payload: nil})
	v5.Receive()
}

func TestAMessageThatIsTooOldIsNotDelivered(t *testing.T) {
	t.Parallel()
	b := brokertest.Start(t, brokertest.Device("bed-1"))
	login := lasting("bed-1", "esp", 5)
	c := brokertest.Dial(t, b, brokertest.TCP, login)
	require.Equal(t, byte(1), c.Subscribe("devices/bed-1/#", 1))
	c.Disconnect()
	sender := backend(t, b, 5)
	send(t, sender, func(pk *packets.Packet) {
		pk.TopicName, pk.Properties.MessageExpiryInterval = "devices/bed-1/old", 1
	})
	began := time.Now() // its second began before
	send(t, sender, func(pk *packets.Packet) { pk.TopicName = "devices/bed-1/lasting" })
	require.Eventually(t, func() bool { return time.Since(began) > time.Second }, brokertest.Patience, 10*time.Millisecond)
	c = brokertest.Dial(t, b, brokertest.TCP, login)
	assert.Equal(t, "devices/bed-1/lasting", c.Receive().TopicName)
}

// # takes in its parent level, which mochi's index does not know after a +.
func TestAShareGroupGetsTheLevelAboveItsHash(t *testing.T) {
	b := brokertest.Start(t, brokertest.Device("bed-1"))
	c := brokertest.Dial(t, b, brokertest.TCP, as("bed-1", 5))
	require.Equal(t, byte(1), c.Subscribe("$share/g/devices/bed-1/+/#", 1))
	for _, topic := range []string{"devices/bed-1/a", "devices/bed-1/a/b"} {
		require.Equal(t, byte(0), c.Publish(topic, "", 1))
		got := c.Receive()
		assert.Equal(t, topic, got.TopicName)
		assert.Equal(t, byte(1), got.FixedHeader.Qos)
		c.Acknowledge(got)
	}
	c.Send(packets.Packet{FixedHeader: packets.FixedHeader{Type: packets.Unsubscribe, Qos: 1}, PacketID: 60000,
		Filters: packets.Subscriptions{{Filter: "$share/g/devices/bed-1/+/#"}}})
	c.Await(packets.Unsuback)
	c.Publish("devices/bed-1/a", "", 1)
	c.Publish("devices/bed-1/a/b", "", 1)
	c.AwaitNoMessage()
}

// A share group is a name and a filter: with the level above its hash a group is not one with another group's filter.
func TestShareGroupsOfDifferentFiltersGetEachMessage(t *testing.T) {
	b := brokertest.Start(t, brokertest.Device("bed-1"))
	sender := brokertest.Dial(t, b, brokertest.TCP, as("bed-1", 4))
	long := brokertest.Dial(t, b, brokertest.TCP, lasting("bed-1", "long", 5))
	require.Equal(t, byte(1), long.Subscribe("$share/g/devices/bed-1/+/#", 1))
	short := brokertest.Dial(t, b, brokertest.TCP, lasting("bed-1", "short", 5))
	require.Equal(t, byte(1), short.Subscribe("$share/g/devices/bed-1/+", 1))
	gets := func(members ...*brokertest.Client) {
		t.Helper()
		for range 2 { // a common group would take turns
			sender.Publish("devices/bed-1/a", "", 1)
			for _, c := range members {
				assert.Equal(t, "devices/bed-1/a", c.Receive().TopicName)
			}
		}
		long.AwaitNoMessage()
		short.AwaitNoMessage()
	}
	gets(long, short)
	require.Equal(t, byte(1), long.Subscribe("$share/g/devices/bed-1/+", 1)) // it is in both, and takes turns in one of them
	unsubscribe := func(filter string) {
		long.Send(packets.Packet{FixedHeader: packets.FixedHeader{Type: packets.Unsubscribe, Qos: 1}, PacketID: 60000,
			Filters: packets.Subscriptions{{Filter: filter}}})
		long.Await(packets.Unsuback)
	}
	unsubscribe("$share/g/devices/bed-1/+")
	gets(long, short)
	unsubscribe("$share/g/devices/bed-1/+/#")
	gets(short)
}

func TestAShareGroupTakesTurnsAndPrefersThoseWhoAreThere(t *testing.T) {
	b := brokertest.Start(t, brokertest.Device("bed-1"))
	sender := brokertest.Dial(t, b, brokertest.TCP, as("bed-1", 4))
	members := make([]*brokertest.Client, 3)
	for i, id := range []string{"one", "two", "away"} {
		members[i] = brokertest.Dial(t, b, brokertest.TCP, lasting("bed-1", id, 5))
		require.Equal(t, byte(1), members[i].Subscribe("$share/g/devices/bed-1/jobs", 1))
	}
	left := func(connected int) { // the broker notices a moment after the connection has ended
		require.Eventually(t, func() bool { return b.Stats().Connected == connected }, brokertest.Patience, time.Millisecond)
	}
	members[2].Disconnect()
	left(3)
	work := func(n int) {
		for range n {
			require.Equal(t, byte(0), sender.Publish("devices/bed-1/jobs", "", 1))
		}
	}
	work(10)
	for _, c := range members[:2] {
		for range 5 {
			c.Receive()
		}
		c.AwaitNoMessage()
	}
	members[0].Disconnect()
	members[1].Disconnect()
	left(1)
	work(3)
	total := 0
	for _, id := range []string{"one", "two", "away"} {
		c := brokertest.Dial(t, b, brokertest.TCP, lasting("bed-1", id, 5))
		c.Ping()
		for c.Has(packets.Publish) {
			c.Receive()
			total++
		}
	}
	assert.Equal(t, 3, total, "with nobody there, it waits for one of them")
}
