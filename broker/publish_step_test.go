package broker_test

import (
	"fmt"
	"sync"
	"testing"

	"github.com/mochi-mqtt/server/v2/packets"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/plantops/plantops/broker"
	"github.com/plantops/plantops/broker/brokertest"
)

// sendKept sends a retained message at QoS 1 and waits for nothing.
func sendKept(c *brokertest.Client, topic, payload string, id uint16) {
	c.Send(packets.Packet{FixedHeader: packets.FixedHeader{Type: packets.Publish, Qos: 1, Retain: true},
		TopicName: topic, Payload: []byte(payload), PacketID: id})
}

// Whoever is subscribed, by its SUBACK, before a retained message is acknowledged, gets it: from the store or as it is
// published.
func TestWhoSubscribesWhileAMessageIsKeptGetsIt(t *testing.T) {
	b := brokertest.Start(t, brokertest.Device("bed-1"))
	sender := brokertest.Dial(t, b, brokertest.TCP, as("bed-1", 5))
	sendKept(sender, "devices/bed-1/state", "old", 1)
	sender.Await(packets.Puback)

	unlock := b.LockRetained() // as a search of the store does, for a moment
	sendKept(sender, "devices/bed-1/state", "new", 2)
	reader := brokertest.Dial(t, b, brokertest.TCP, as("bed-1", 5))
	require.Equal(t, byte(1), reader.Subscribe("devices/bed-1/state", 1))
	unlock()
	sender.Await(packets.Puback)
	for got := ""; got != "new"; {
		got = string(reader.Receive().Payload)
	}

	for i := range 500 {
		topic := fmt.Sprint("devices/bed-1/", i)
		sendKept(sender, topic, "new", uint16(i+10))
		require.Equal(t, byte(1), reader.Subscribe(topic, 1))
		sender.Await(packets.Puback)
		for got := ""; got != topic; { // it may come twice
			got = reader.Receive().TopicName
		}
	}
}

// Of several who publish to one topic, everybody has the same one's message last, the store too.
func TestAllAgreeAboutTheLastMessageOfATopic(t *testing.T) {
	b := brokertest.Start(t, brokertest.Device("bed-1"))
	dial := func() *brokertest.Client { return brokertest.Dial(t, b, brokertest.TCP, as("bed-1", 4)) }
	const topic, rounds = "devices/bed-1/light", 600
	senders := []*brokertest.Client{dial(), dial(), dial(), dial()}
	readers := make([]*brokertest.Client, 8)
	for i := range readers {
		readers[i] = dial()
	}
	between := func() { // it takes a while to come from the first readers to the last
		for i := range 100 {
			c := brokertest.Dial(t, b, brokertest.TCP, lasting("bed-1", fmt.Sprint("away-", i), 5))
			require.Equal(t, byte(0), c.Subscribe(topic, 0))
			c.Disconnect()
		}
	}
	for i, c := range readers {
		if i == len(readers)/2 {
			between()
		}
		require.Equal(t, byte(1), c.Subscribe(topic, 1))
	}
	late := dial()
	for i := range rounds {
		var both sync.WaitGroup
		for who, c := range senders {
			both.Go(func() {
				sendKept(c, topic, fmt.Sprint(who), uint16(i+1))
				c.Await(packets.Puback)
			})
		}
		both.Wait()
		last := map[string]bool{}
		for _, c := range readers {
			for range senders[1:] {
				c.Receive()
			}
			last[string(c.Receive().Payload)] = true
		}
		require.Equal(t, byte(1), late.Subscribe(topic, 1))
		last[string(late.Receive().Payload)] = true
		require.Len(t, last, 1, "round %d", i)
		late.Send(packets.Packet{FixedHeader: packets.FixedHeader{Type: packets.Unsubscribe, Qos: 1}, PacketID: 60000,
			Filters: packets.Subscriptions{{Filter: topic}}})
		late.Await(packets.Unsuback)
	}
}

// Subscribers come and go, with a clean session or taking one up again, while several publish to a few retained topics. After
// its SUBACK each sees the values of a topic in the order of one publisher, never an older after a newer one, and ends with
// what is kept.
func TestSubscribersThatComeAndGoSeeNothingStale(t *testing.T) {
	b := brokertest.Start(t, brokertest.Device("bed-1"))
	const topics, messages, visitors = 4, 400, 3
	var publishing, visiting sync.WaitGroup
	for i := range topics {
		publishing.Go(func() {
			c := brokertest.Dial(t, b, brokertest.TCP, as("bed-1", 4))
			for n := range messages {
				sendKept(c, fmt.Sprint("devices/bed-1/t/", i), fmt.Sprint(n+1), uint16(n+1))
				c.Await(packets.Puback)
			}
		})
	}
	done := make(chan struct{})
	for v := range visitors {
		visiting.Go(func() {
			filter := []string{"devices/bed-1/t/+", "devices/bed-1/#", "devices/bed-1/t/#"}[v]
			for round, last := 0, false; !last; round++ {
				select {
				case <-done:
					last = true
				default:
				}
				c := brokertest.Dial(t, b, brokertest.TCP, as("bed-1", 4))
				if !assert.Equal(t, byte(1), c.Subscribe(filter, 1)) {
					return
				}
				seen := map[string]int{}
				for complete := false; !complete; {
					pk := c.Receive()
					var value int
					_, err := fmt.Sscan(string(pk.Payload), &value)
					if !assert.NoError(t, err) || !assert.GreaterOrEqual(t, value, seen[pk.TopicName], "an old value after a newer one") {
						return
					}
					seen[pk.TopicName] = value
					complete = !last && round%2 == 0 || len(seen) == topics && (!last || min(seen["devices/bed-1/t/0"], seen["devices/bed-1/t/1"],
						seen["devices/bed-1/t/2"], seen["devices/bed-1/t/3"]) == messages)
				}
				c.Close()
			}
		})
	}
	publishing.Wait()
	close(done)
	visiting.Wait()
}

func TestASubscribeIsAnsweredAsItsVersionCan(t *testing.T) {
	b := brokertest.Start(t, brokertest.Device("bed-1"))
	filters := packets.Subscriptions{{Filter: "devices/bed-1/a", Qos: 2}, {Filter: "devices/bed-2/a", Qos: 1}, {Filter: "devices/+b"}}
	for version, want := range map[byte][]byte{3: {2, 1, 0}, 4: {2, 0x80, 0x80}, 5: {2, 0x87, 0x8f}} {
		c := brokertest.Open(t, b, brokertest.TCP, nil)
		login := as("bed-1", version)
		if login.ClientID = fmt.Sprint("v", version); version == 3 {
			c.SendBytes(connect31(login))
			require.Zero(t, c.Await(packets.Connack).ReasonCode)
		} else {
			c.SendConnect(login)
			require.Zero(t, c.Await(packets.Connack).ReasonCode)
		}
		c.Send(packets.Packet{FixedHeader: packets.FixedHeader{Type: packets.Subscribe, Qos: 1}, PacketID: 7, Filters: filters,
			Properties: packets.Properties{User: []packets.UserProperty{{Key: "mine", Val: "alone"}}}})
		ack := c.Await(packets.Suback)
		assert.Equal(t, want, ack.ReasonCodes, "version %d", version)
		assert.Equal(t, uint16(7), ack.PacketID)
		assert.Empty(t, ack.Properties.User, "they are the client's")
		c.Send(packets.Packet{FixedHeader: packets.FixedHeader{Type: packets.Unsubscribe, Qos: 1}, PacketID: 8, Filters: filters,
			Properties: packets.Properties{User: []packets.UserProperty{{Key: "mine", Val: "alone"}}}})
		ack = c.Await(packets.Unsuback)
		assert.Equal(t, uint16(8), ack.PacketID)
		assert.Empty(t, ack.Properties.User)
		if version == 5 {
			assert.Equal(t, []byte{0, 0x11, 0x11}, ack.ReasonCodes)
		}
	}
}

// connect31 is a CONNECT of MQTT 3.1 with a clean session.
func connect31(login brokertest.Login) []byte {
	text := func(s string) string { return string([]byte{byte(len(s) >> 8), byte(len(s))}) + s }
	body := text("MQIsdp") + string([]byte{3, 0xC2, 0, 0}) + text(login.ClientID) + text(login.User) + text(login.Password)
	return append([]byte{0x10, byte(len(body))}, body...)
}

// The largest SUBSCRIBE that may be sent is answered in one packet, and each filter counts.
func TestALargeSubscribeIsAnsweredAsOne(t *testing.T) {
	b := brokertest.Start(t, brokertest.Device("bed-1"))
	c := brokertest.Dial(t, b, brokertest.TCP, as("bed-1", 5))
	var filters packets.Subscriptions
	for i := range 1000 {
		filters = append(filters, packets.Subscription{Filter: fmt.Sprint("devices/bed-1/", i), Qos: byte(i % 3)})
	}
	c.Send(packets.Packet{FixedHeader: packets.FixedHeader{Type: packets.Subscribe, Qos: 1}, PacketID: 7, Filters: filters})
	for i, code := range c.Await(packets.Suback).ReasonCodes {
		require.Equal(t, byte(i%3), code)
	}
	sender := brokertest.Dial(t, b, brokertest.TCP, as("bed-1", 5))
	for _, i := range []int{0, 31, 32, 999} {
		require.Zero(t, sender.Publish(fmt.Sprint("devices/bed-1/", i), "x", 1))
		assert.Equal(t, filters[i].Filter, c.Await(packets.Publish).TopicName)
	}
	c.Send(packets.Packet{FixedHeader: packets.FixedHeader{Type: packets.Unsubscribe, Qos: 1}, PacketID: 8, Filters: filters})
	assert.Len(t, c.Await(packets.Unsuback).ReasonCodes, 1000)
	awaitHeld(t, b, "bed-1", broker.Held{Sessions: 2, Connections: 2})
}

// While one client's walk passes over many retained messages, what others get from its reader leaves at once, and it notices
// that its connection is taken over.
func TestAWalkHoldsUpNobody(t *testing.T) {
	b := brokertest.Start(t, brokertest.Device("bed-1"), brokertest.Device("bed-2"))
	filler := brokertest.Dial(t, b, brokertest.TCP, as("bed-1", 4))
	for i := range 20_000 {
		filler.Send(packets.Packet{FixedHeader: packets.FixedHeader{Type: packets.Publish, Retain: true},
			TopicName: fmt.Sprintf("devices/bed-1/%d/y", i), Payload: []byte("x")})
	}
	filler.Ping()
	victim := brokertest.Dial(t, b, brokertest.TCP, as("bed-1", 4))
	require.Equal(t, byte(0), victim.Subscribe("devices/bed-1/victim", 0))
	pk := packets.Packet{FixedHeader: packets.FixedHeader{Type: packets.Subscribe, Qos: 1}, PacketID: 1}
	for i := range 900 {
		pk.Filters = append(pk.Filters, packets.Subscription{Filter: fmt.Sprintf("devices/bed-1/+/none%d", i)})
	}
	record := brokertest.Record(t, 4, func(c *brokertest.Client) {
		c.SendPublish("devices/bed-1/victim", "before", 0)
		c.Send(pk)
		c.SendPublish("devices/bed-1/victim", "after", 0)
	})
	var walks int
	for range 5 { // a busy machine may let us come here after the end of the walk
		brokertest.Dial(t, b, brokertest.TCP, withID("bed-1", "walker")).SendBytes(record)
		assert.Equal(t, "before", string(victim.Receive().Payload))
		assert.Equal(t, "after", string(victim.Receive().Payload), "the reader is not busy with the walk")
		if walks = b.Walks("walker"); walks > 0 {
			break
		}
	}
	require.Positive(t, walks, "the walk goes on")
	again := brokertest.Dial(t, b, brokertest.TCP, withID("bed-1", "walker"))
	require.Zero(t, b.Walks("walker"), "a session that ends walks no more")
	again.Ping()
}
