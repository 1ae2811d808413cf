package broker_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/mochi-mqtt/server/v2/packets"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/plantops/plantops/broker/brokertest"
)

// lasting is a login of the device with a session that outlives connections.
func lasting(device, clientID string, version byte) brokertest.Login {
	login := as(device, version)
	login.ClientID, login.Resume = clientID, true
	login.Properties.SessionExpiryInterval, login.Properties.SessionExpiryIntervalFlag = 3600, version == 5
	return login
}

func TestResumesUnderTrafficLoseNothing(t *testing.T) {
	t.Parallel()
	b := brokertest.Start(t, brokertest.Device("bed-1"))
	login := lasting("bed-1", "reader", 5)
	c := brokertest.Dial(t, b, brokertest.TCP, login)
	require.Equal(t, byte(1), c.Subscribe("devices/bed-1/#", 1))
	const resumes, messages = 150, 6000
	sender := brokertest.Dial(t, b, brokertest.TCP, brokertest.As("bed-1"))
	done := make(chan struct{})
	go func() {
		defer close(done)
		for i := range messages {
			sender.Publish(telemetry, fmt.Sprint(i), 1)
		}
	}()
	next := 0
	take := func(pk packets.Packet) { // in order; what was not acknowledged may come twice
		var n int
		_, err := fmt.Sscan(string(pk.Payload), &n)
		require.NoError(t, err)
		require.LessOrEqual(t, n, next, "a message is missing")
		if n == next {
			next++
		} else {
			require.True(t, pk.FixedHeader.Dup)
		}
	}
	for i := range resumes {
		for range 20 {
			take(c.Receive())
		}
		if i%2 == 0 {
			c.Close()
		} // else the next one takes over
		var ack packets.Packet
		c, ack = brokertest.TryDial(t, b, brokertest.TCP, login)
		require.True(t, ack.SessionPresent)
	}
	for next < messages {
		take(c.Receive())
	}
	<-done
}

func TestOfManyTakingUpOneSessionOneStays(t *testing.T) {
	b := brokertest.Start(t, brokertest.Device("bed-1"))
	login := lasting("bed-1", "esp", 4)
	c := brokertest.Dial(t, b, brokertest.TCP, login)
	require.Equal(t, byte(1), c.Subscribe("devices/bed-1/#", 1))
	c.Close()
	for range 5 {
		clients := make([]*brokertest.Client, 20)
		for i := range clients {
			clients[i] = brokertest.Open(t, b, brokertest.TCP, nil)
			clients[i].SendConnect(login)
		}
		var left *brokertest.Client
		require.Eventually(t, func() bool {
			open := 0
			for _, c := range clients {
				if !c.Ended() {
					left, open = c, open+1
				}
			}
			return open == 1
		}, brokertest.Patience, time.Millisecond)
		assert.True(t, left.Await(packets.Connack).SessionPresent)
		require.Equal(t, byte(0), left.Publish(telemetry, "{}", 1))
		left.Receive()
	}
}

func TestRetainedMessagesComeAtTheReadersPace(t *testing.T) {
	t.Parallel()
	const topics = 20_000
	b := brokertest.Start(t)
	sender := brokertest.Dial(t, b, brokertest.TCP, b.AsBackend())
	go func() {
		for i := range topics {
			sender.Send(packets.Packet{FixedHeader: packets.FixedHeader{Type: packets.Publish, Qos: 1, Retain: true},
				PacketID: uint16(i + 1), TopicName: fmt.Sprintf("r/%d/x", i), Payload: make([]byte, 100)})
		}
	}()
	for range topics {
		sender.Await(packets.Puback)
	}
	slow := b.AsBackend()
	slow.Version, slow.Properties.ReceiveMaximum = 5, 2
	for qos, login := range []brokertest.Login{b.AsBackend(), slow, b.AsBackend()} {
		c := brokertest.Dial(t, b, brokertest.TCP, login)
		require.Equal(t, byte(qos), c.Subscribe("r/#", byte(qos)))
		seen := map[string]bool{}
		for range topics {
			pk := c.Receive()
			require.True(t, pk.FixedHeader.Retain)
			seen[pk.TopicName] = true
		}
		assert.Len(t, seen, topics)
		c.Disconnect()
	}
	assert.Zero(t, b.Stats().Dropped)
}

func TestSubscribingOverAndOverDoesNotPileUpRetainedMessages(t *testing.T) {
	b := brokertest.Start(t)
	sender := backend(t, b, 4)
	for _, topic := range []string{"r/1", "r/2", "r/3"} {
		send(t, sender, retain(topic, "x"))
	}
	login := b.AsBackend()
	login.Version, login.Properties.ReceiveMaximum = 5, 1
	c := brokertest.Dial(t, b, brokertest.TCP, login)
	for range 100 {
		require.Equal(t, byte(1), c.Subscribe("r/+", 1))
	}
	var got []string
	for range 1 + 3 {
		got = append(got, c.Receive().TopicName)
	}
	assert.Equal(t, []string{"r/1", "r/1", "r/2", "r/3"}, got)
	c.AwaitNoMessage()
}

func TestRetainedMessagesEndWithTheSubscription(t *testing.T) {
	b := brokertest.Start(t)
	sender := backend(t, b, 4)
	for _, topic := range []string{"r/1", "r/2", "r/3"} {
		send(t, sender, retain(topic, "x"))
	}
	login := b.AsBackend()
	login.Version, login.Properties.ReceiveMaximum = 5, 1
	c := brokertest.Dial(t, b, brokertest.TCP, login)
	require.Equal(t, byte(1), c.Subscribe("r/+", 1))
	first := c.Await(packets.Publish)
	c.Send(packets.Packet{FixedHeader: packets.FixedHeader{Type: packets.Unsubscribe, Qos: 1}, PacketID: 9,
		Filters: packets.Subscriptions{{Filter: "r/+"}}})
	c.Await(packets.Unsuback)
	c.Acknowledge(first)
	c.AwaitNoMessage()
}

func TestASubscriberThatNeverReadsSlowsNobodyDown(t *testing.T) {
	t.Parallel()
	for qos := range byte(3) {
		b := brokertest.Start(t, brokertest.Device("bed-1"))
		watcher := brokertest.Dial(t, b, brokertest.TCP, b.AsBackend())
		require.Equal(t, byte(1), watcher.Subscribe("devices/#", 1))
		device := brokertest.Dial(t, b, brokertest.TCP, as("bed-1", 5))
		payload := string(make([]byte, 16<<10))
		send := func(messages int) time.Duration {
			began := time.Now()
			for range messages {
				require.Equal(t, byte(0), device.Publish(telemetry, payload, 1))
				watcher.Receive()
			}
			return time.Since(began)
		}
		const messages = 1500 // 24 MB: more than its queues hold
		alone := 5 * send(messages/5)
		brokertest.Deaf(t, b, b.AsBackend(), "#", qos)
		beside := send(messages)
		t.Logf("QoS %d: %s alone, %s beside it", qos, alone, beside)
		most := max(5*time.Second, 10*alone) // the machine may have got something else to do meanwhile
		if qos == 0 {
			most += 5 * time.Second // it is waited for once, see stuckAfter
		}
		assert.Less(t, beside, most)
		assert.Equal(t, qos == 0, b.Stats().Dropped > 0, "of the one that never reads; QoS 1 and 2 wait")
		require.NoError(t, b.Close())
	}
}

func TestASubscribeMayUseThePacketIDOfADelivery(t *testing.T) {
	b := brokertest.Start(t, brokertest.Device("bed-1"))
	c := brokertest.Dial(t, b, brokertest.TCP, as("bed-1", 5))
	require.Equal(t, byte(1), c.Subscribe("devices/bed-1/a", 1))
	c.SendPublish("devices/bed-1/a", "", 0)
	sender := brokertest.Dial(t, b, brokertest.TCP, as("bed-1", 5))
	require.Equal(t, byte(0), sender.Publish("devices/bed-1/a", "", 1))
	message := c.Await(packets.Publish)
	if message.FixedHeader.Qos == 0 {
		message = c.Await(packets.Publish)
	}
	c.Send(packets.Packet{FixedHeader: packets.FixedHeader{Type: packets.Subscribe, Qos: 1}, PacketID: message.PacketID,
		Filters: packets.Subscriptions{{Filter: "devices/bed-1/b", Qos: 1}}})
	assert.Equal(t, []byte{1}, c.Await(packets.Suback).ReasonCodes)
	c.Acknowledge(message)
}

func TestMessagesFromClientsBeyondReceiveMaximum(t *testing.T) {
	b := brokertest.Start(t, brokertest.Device("bed-1"))
	device := brokertest.Dial(t, b, brokertest.TCP, as("bed-1", 5))
	for range 1025 { // 1024 were announced
		device.SendPublish("devices/bed-1/state", "{}", 2) // and is never released
	}
	assert.Equal(t, byte(0x93), device.AwaitClosed())
}
