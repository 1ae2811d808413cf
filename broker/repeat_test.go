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

// A message that says the same as the one that an older connection left under its packet id is that one, which was taken then,
// whatever its sender may do today: clients send it again with DUP and without. Another one is refused.
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
	for _, dup := range []bool{true, false} {
		message.FixedHeader.Dup = dup
		device.Send(message)
		assert.Zero(t, device.Await(packets.Pubrec).ReasonCode, "it was taken")
		device.Close()
		device = brokertest.Dial(t, b, brokertest.TCP, login)
	}
	message.Payload = []byte("two")
	device.Send(message)
	assert.Equal(t, byte(0x87), device.Await(packets.Pubrec).ReasonCode)
	assert.Equal(t, int64(1), b.Stats().Ingest.Refused)
}
