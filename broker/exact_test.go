package broker_test

import (
	"testing"

	"github.com/mochi-mqtt/server/v2/packets"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/plantops/plantops/broker/brokertest"
	"github.com/plantops/plantops/broker/brokertest/rawmqtt"
)

// What the standards say of packets that are rare.

func TestASilentClientIsToldWhyItsConnectionEnds(t *testing.T) {
	b := brokertest.Start(t, brokertest.Device("bed-1"))
	everyWay(t, func(t *testing.T, kind brokertest.Kind, version byte) {
		t.Parallel()
		login := as("bed-1", version)
		login.Keepalive = 1
		login.Will = &brokertest.Will{Topic: "devices/bed-1/status/" + string(kind) + string('0'+version), Payload: "dead"}
		watcher := brokertest.Dial(t, b, brokertest.TCP, as("bed-1", 5))
		require.Zero(t, watcher.Subscribe(login.Will.Topic, 0))
		assert.Equal(t, map[byte]byte{4: 0, 5: 0x8D}[version], brokertest.Dial(t, b, kind, login).AwaitClosed())
		assert.Equal(t, "dead", string(watcher.Receive().Payload))
	})
}

func TestAWrongAcknowledgementEndsTheConnectionAndNotTheMessage(t *testing.T) {
	for _, c := range []struct {
		name string
		qos  byte
		acks []byte // the last one is wrong
	}{
		{"PUBACK for QoS 2", 2, []byte{0x40}},
		{"PUBREC for QoS 1", 1, []byte{0x50}},
		{"PUBCOMP for QoS 1", 1, []byte{0x70}},
		{"PUBCOMP before PUBREC", 2, []byte{0x70}},
		{"PUBACK after PUBREC", 2, []byte{0x50, 0x40}},
	} {
		for _, version := range []byte{3, 4, 5} {
			b := brokertest.Start(t, brokertest.Device("bed-1"))
			login := lasting("bed-1", "esp", version)
			client := brokertest.Dial(t, b, brokertest.TCP, login)
			require.Equal(t, c.qos, client.Subscribe(telemetry, c.qos))
			client.SendPublish(telemetry, "{}", c.qos)
			id := client.Await(packets.Publish).PacketID
			for _, kind := range []byte{0x40, 0x50, 0x70} { // of what is not in flight: late, no fault
				client.SendBytes([]byte{kind, 2, 0x77, 0x77})
			}
			client.Ping()
			for _, kind := range c.acks {
				client.SendBytes([]byte{kind, 2, byte(id >> 8), byte(id)})
			}
			want := byte(0)
			if version == 5 {
				want = 0x82
			}
			assert.Equal(t, want, client.AwaitClosed(), "%s in version %d", c.name, version)

			client = brokertest.Dial(t, b, brokertest.TCP, login)
			if len(c.acks) > 1 {
				assert.Equal(t, id, client.Await(packets.Pubrel).PacketID)
				continue
			}
			again := client.Receive()
			assert.True(t, again.FixedHeader.Dup)
			assert.Equal(t, id, again.PacketID)
		}
	}
}

func TestAWillMayNotAskForAnAnswerToManyTopics(t *testing.T) {
	b := brokertest.Start(t, brokertest.Device("bed-1"))
	text := func(s string) string { return string([]byte{0, byte(len(s))}) + s }
	for topic, want := range map[string]byte{"devices/bed-1/#": 0x82, "+": 0x82, "": 0x82, "devices/bed-1/answer": 0} {
		answer := "\x08" + text(topic)
		c := brokertest.Open(t, b, brokertest.TCP, nil)
		c.SendBytes(rawmqtt.Encode(0x10, []byte(text("MQTT")+"\x05\xc6\x00\x00\x00"+text("esp")+
			string([]byte{byte(len(answer))})+answer+text("devices/bed-1/status")+text("dead")+
			text("bed-1")+text(brokertest.Password("bed-1")))))
		assert.Equal(t, want, c.Await(packets.Connack).ReasonCode, topic)
	}
}

func TestClientsOfMQTT31(t *testing.T) {
	b := brokertest.Start(t, brokertest.Device("bed-1"))
	for _, kind := range brokertest.Kinds {
		login := as("bed-1", 3)
		login.ClientID = "twenty-three characters"
		login.Resume = true
		c := brokertest.Dial(t, b, kind, login)
		require.Equal(t, byte(2), c.Subscribe(telemetry, 2))
		id := c.SendPublish(telemetry, "{}", 2)
		c.Await(packets.Pubrec)
		for range 2 { // a repetition has DUP
			c.SendBytes([]byte{0x6a, 2, byte(id >> 8), byte(id)})
			assert.Equal(t, id, c.Await(packets.Pubcomp).PacketID)
		}
		got := c.Receive()
		assert.Equal(t, byte(2), got.FixedHeader.Qos)
		assert.Equal(t, "{}", string(got.Payload))
		c.SendBytes([]byte{0xc1, 0})
		c.Await(packets.Pingresp)
		c.SendBytes([]byte{0xe8, 0})
		c.AwaitClosed()
		again, ack := brokertest.TryDial(t, b, kind, login)
		assert.Zero(t, ack.ReasonCode)
		assert.False(t, ack.SessionPresent, "a byte that means nothing")
		again.Disconnect()
		login.ClientID, login.Resume = "", false
		_, ack = brokertest.TryDial(t, b, kind, login)
		assert.Equal(t, byte(2), ack.ReasonCode, "it has 1 to 23 characters")
	}
}
