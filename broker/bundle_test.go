package broker_test

import (
	"fmt"
	"testing"

	"github.com/mochi-mqtt/server/v2/packets"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/plantops/plantops/broker/brokertest"
	"github.com/plantops/plantops/broker/journal"
	"github.com/plantops/plantops/broker/journal/journaltest"
)

// TestWhatIsReadTogetherComesAsItWasSent: messages of one topic that are read together are routed together; nobody notices.
// Topics, QoS and ids change in between, an id comes again before its PUBACK can have come, and acknowledgements stand among the
// messages.
func TestWhatIsReadTogetherComesAsItWasSent(t *testing.T) {
	b := brokertest.Start(t, brokertest.Device("bed-1"), brokertest.Device("bed-2"))
	everyWay(t, func(t *testing.T, kind brokertest.Kind, version byte) {
		reader := brokertest.Dial(t, b, kind, b.AsBackend())
		require.Equal(t, byte(1), reader.Subscribe("devices/bed-1/+", 1))
		member := brokertest.Dial(t, b, kind, b.AsBackend())
		require.Equal(t, byte(1), member.Subscribe("$share/g/devices/bed-1/+", 1))
		device := brokertest.Dial(t, b, kind, as("bed-1", version))
		require.Equal(t, byte(1), device.Subscribe("devices/bed-1/x", 1))
		var want, acks []string
		burst := brokertest.Record(t, version, func(c *brokertest.Client) {
			for i := range 300 {
				pk := packets.Packet{TopicName: "devices/bed-1/x", Payload: []byte(fmt.Sprint(i)),
					FixedHeader: packets.FixedHeader{Type: packets.Publish, Qos: 1}}
				pk.PacketID = uint16(1 + i%40) // again before its PUBACK, with something else in it
				switch {
				case i%50 == 49:
					pk.TopicName = "devices/bed-1/y"
				case i%70 == 69:
					pk.FixedHeader.Qos, pk.PacketID = 0, 0
				case i%90 == 0:
					pk.PacketID = 1 // out of the row
				case i%60 == 59:
					c.Send(packets.Packet{PacketID: 900, FixedHeader: packets.FixedHeader{Type: packets.Puback}}) // of nothing
				}
				c.Send(pk)
				want = append(want, fmt.Sprintf("%s %d %d", pk.TopicName, pk.FixedHeader.Qos, i))
				if pk.FixedHeader.Qos > 0 {
					acks = append(acks, fmt.Sprint(pk.PacketID))
				}
			}
		})
		device.SendBytes(burst)
		var got []string
		for range acks {
			got = append(got, fmt.Sprint(device.Await(packets.Puback).PacketID))
		}
		assert.Equal(t, acks, got)
		for _, c := range []*brokertest.Client{reader, member} {
			got = nil
			for range want {
				pk := c.Await(packets.Publish)
				got = append(got, fmt.Sprintf("%s %d %s", pk.TopicName, pk.FixedHeader.Qos, pk.Payload))
				if pk.FixedHeader.Qos > 0 {
					c.Acknowledge(pk)
				}
			}
			assert.Equal(t, want, got)
			c.AwaitNoMessage()
			c.Disconnect()
		}
		for i := range want {
			if want[i][:len("devices/bed-1/x")] != "devices/bed-1/x" {
				continue
			}
			pk := device.Await(packets.Publish)
			assert.Equal(t, want[i], fmt.Sprintf("%s %d %s", pk.TopicName, pk.FixedHeader.Qos, pk.Payload))
			if pk.FixedHeader.Qos > 0 {
				device.Acknowledge(pk)
			}
		}
		device.Disconnect()
	})
}

// TestAMessageOfABundleSentAgainIsOne: one that waits for the disk, or behind one that does, is known when it comes again.
func TestAMessageOfABundleSentAgainIsOne(t *testing.T) {
	b := withIngest(t, 0, brokertest.Device("bed-1"))
	subscriber := ingest(t, b, 5)
	reader := brokertest.Dial(t, b, brokertest.TCP, b.AsBackend())
	require.Equal(t, byte(1), reader.Subscribe("devices/bed-1/x", 1))
	device := brokertest.Dial(t, b, brokertest.TCP, as("bed-1", 4))
	device.Publish("devices/bed-1/x", "0", 1) // from here on it is the topic of the last one
	reader.Acknowledge(reader.Await(packets.Publish))
	message := func(id uint16, topic string) packets.Packet {
		return packets.Packet{PacketID: id, TopicName: topic, Payload: []byte(fmt.Sprint(id)),
			FixedHeader: packets.FixedHeader{Type: packets.Publish, Qos: 1}}
	}
	device.SendBytes(brokertest.Record(t, 4, func(c *brokertest.Client) {
		c.Send(message(20, telemetry)) // the others wait behind it
		for _, id := range []uint16{21, 22, 23, 24, 22, 23, 24} {
			c.Send(message(id, "devices/bed-1/x"))
		}
	}))
	device.Ping()
	for _, id := range []string{"21", "22", "23", "24"} {
		pk := reader.Await(packets.Publish)
		assert.Equal(t, id, string(pk.Payload))
		reader.Acknowledge(pk)
	}
	reader.AwaitNoMessage()
	subscriber.Acknowledge(subscriber.Await(packets.Publish))
	for id := range uint16(5) {
		assert.Equal(t, 20+id, device.Await(packets.Puback).PacketID)
	}
	device.AwaitNone(packets.Puback)
}

// TestABundleIsAcknowledgedWhenItIsOnDisk: each message of it, for a client that is away.
func TestABundleIsAcknowledgedWhenItIsOnDisk(t *testing.T) {
	s := journaltest.New()
	b := keeping(t, s, nil)
	login := lasting("bed-1", "esp", 4)
	c := brokertest.Dial(t, b, brokertest.TCP, login)
	require.Equal(t, byte(1), c.Subscribe("devices/bed-1/commands", 1))
	c.Disconnect()
	c.AwaitClosed()
	gate := make(chan struct{})
	sender := brokertest.Dial(t, b, brokertest.TCP, b.AsBackend())
	sender.Publish("devices/bed-1/commands", "first", 1)
	s.Before(func(*journal.Batch) error { <-gate; return nil })
	var want []string
	burst := brokertest.Record(t, 4, func(c *brokertest.Client) {
		for i := range uint16(50) {
			want = append(want, fmt.Sprint(i))
			c.Send(packets.Packet{PacketID: 100 + i, TopicName: "devices/bed-1/commands", Payload: []byte(fmt.Sprint(i)),
				FixedHeader: packets.FixedHeader{Type: packets.Publish, Qos: 1}})
		}
	})
	sender.SendBytes(burst)
	sender.Ping()
	sender.SendBytes(burst) // it is impatient
	sender.AwaitNone(packets.Puback)
	close(gate)
	for i := range want {
		require.Equal(t, uint16(100+i), sender.Await(packets.Puback).PacketID)
	}
	sender.AwaitNone(packets.Puback)
	b, _ = crash(t, b, s, nil)
	c = brokertest.Dial(t, b, brokertest.TCP, login)
	assert.Equal(t, append([]string{"first"}, want...), texts(c, 51))
	c.AwaitNoMessage()
}
