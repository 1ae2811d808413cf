package broker_test

import (
	"testing"

	"github.com/mochi-mqtt/server/v2/packets"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/plantops/plantops/broker/brokertest"
)

// What a client sends again while the acknowledgement is withheld is one message, with DUP or without; another payload on
// the same id is another.
func TestWhatIsSentAgainBeforeItsAcknowledgementIsOneMessage(t *testing.T) {
	b := withIngest(t, 0, brokertest.Device("bed-1"))
	subscriber := ingest(t, b, 5)
	everyWay(t, func(t *testing.T, kind brokertest.Kind, version byte) {
		for qos, ack := range map[byte]byte{1: packets.Puback, 2: packets.Pubrec} {
			device := brokertest.Dial(t, b, kind, as("bed-1", version))
			send := func(payload string, dup bool) {
				device.Send(packets.Packet{PacketID: 7, TopicName: telemetry, Payload: []byte(payload),
					FixedHeader: packets.FixedHeader{Type: packets.Publish, Qos: qos, Dup: dup}})
			}
			send("one", false)
			send("one", true)
			send("one", false)
			device.Ping()
			one := subscriber.Await(packets.Publish)
			subscriber.AwaitNone(packets.Publish)
			assert.Equal(t, int64(1), b.Stats().Ingest.Pending)
			send("two", false)
			two := subscriber.Await(packets.Publish)
			assert.Equal(t, "two", string(two.Payload))
			subscriber.Acknowledge(one)
			subscriber.Acknowledge(two)
			require.Equal(t, uint16(7), device.Await(ack).PacketID)
			if qos == 1 {
				require.Equal(t, uint16(7), device.Await(ack).PacketID, "one acknowledgement for each")
			}
			device.AwaitNone(ack)
			device.Disconnect()
		}
	})
}

// A packet id that an older connection left says nothing about a message without DUP: it is another one, which is refused
// although it reads the same. With DUP it is the one that was taken then, whatever its sender may do today.
func TestARefusedMessageIsNotAcknowledgedForAnIDOfAnOlderConnection(t *testing.T) {
	b := brokertest.Start(t, brokertest.Device("bed-1"))
	login := lasting("bed-1", "esp", 5)
	message := packets.Packet{PacketID: 7, TopicName: "devices/bed-1/notes", Payload: []byte("one"),
		FixedHeader: packets.FixedHeader{Type: packets.Publish, Qos: 2}}
	device := brokertest.Dial(t, b, brokertest.TCP, login)
	device.Send(message)
	require.Zero(t, device.Await(packets.Pubrec).ReasonCode)
	device.Close()

	narrower := brokertest.Device("bed-1")
	narrower.Publish = []string{"devices/bed-1/other"}
	b.Accounts.Set(narrower)
	device = brokertest.Dial(t, b, brokertest.TCP, login)
	message.FixedHeader.Dup = true
	device.Send(message)
	assert.Zero(t, device.Await(packets.Pubrec).ReasonCode, "it was taken")
	device.Close()

	device = brokertest.Dial(t, b, brokertest.TCP, login)
	message.FixedHeader.Dup = false
	device.Send(message)
	assert.Equal(t, byte(0x87), device.Await(packets.Pubrec).ReasonCode)
	assert.Equal(t, int64(1), b.Stats().Ingest.Refused)
}
