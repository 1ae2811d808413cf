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
