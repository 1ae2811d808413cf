package broker_test

import (
	"testing"

	"github.com/mochi-mqtt/server/v2/packets"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/plantops/plantops/broker"
	"github.com/plantops/plantops/broker/brokertest"
)

// Ingest is told who published a message of another program, before anything that the publisher says itself; and nobody else is
// told, nor is ingest where the topic says it.
func TestIngestIsToldWhoPublished(t *testing.T) {
	b := brokertest.Listen(t, func(o *broker.Options) {
		o.IngestTopics, o.SourceTopics = []string{"devices/+/telemetry"}, []string{"zigbee/#", "+/status/+"}
	}, brokertest.Account{Account: broker.Account{Name: "gate", Publish: []string{"zigbee/#", "devices/#"}}, Password: "gate"})
	require.NoError(t, b.Start())
	b.AdmitDevices()
	subscriber := brokertest.Dial(t, b, brokertest.TCP, b.AsIngest(5))
	other := backend(t, b, 5)
	for _, filter := range []string{"devices/+/telemetry", "zigbee/#", "+/status/+"} {
		require.Equal(t, byte(1), subscriber.Subscribe(filter, 1))
	}
	require.Equal(t, byte(1), other.Subscribe("zigbee/#", 1))

	forged := packets.UserProperty{Key: broker.AccountProperty, Val: "somebody else"}
	told := packets.UserProperty{Key: broker.AccountProperty, Val: "gate"}
	for _, version := range []byte{4, 5} {
		login := brokertest.Login{User: "gate", Password: "gate", ClientID: "g", Version: version,
			Will: &brokertest.Will{Topic: "zigbee/lamp/availability", Payload: "offline", QoS: 1, Retain: true}}
		said := []packets.UserProperty(nil)
		if version == 5 {
			said = []packets.UserProperty{forged}
			login.Will.Properties.User = said
		}
		gate := brokertest.Dial(t, b, brokertest.TCP, login)
		publish := func(topic string) packets.Packet {
			gate.Send(packets.Packet{FixedHeader: packets.FixedHeader{Type: packets.Publish, Qos: 1}, PacketID: 7, TopicName: topic,
				Payload: []byte("1"), Properties: packets.Properties{User: said}})
			got := subscriber.Receive()
			require.Equal(t, topic, got.TopicName)
			gate.Await(packets.Puback)
			return got
		}
		assert.Equal(t, append([]packets.UserProperty{told}, said...), publish("zigbee/lamp").Properties.User)
		assert.Equal(t, said, other.Receive().Properties.User, "nobody else is told")
		assert.Equal(t, said, publish("devices/x/telemetry").Properties.User)
		assert.Equal(t, said, publish("devices/status/telemetry").Properties.User, "a device called status is a device")

		gate.Close()
		will := subscriber.Receive()
		assert.Equal(t, append([]packets.UserProperty{told}, said...), will.Properties.User)
		assert.False(t, will.FixedHeader.Retain, "it is no copy")
		other.Receive()
	}

	stats := b.Stats().Ingest
	assert.Equal(t, int64(2), stats.Devices["x"].Received)
	assert.Equal(t, int64(2), stats.Devices["status"].Received)
	assert.Equal(t, int64(4), stats.Devices[""].Received, "which device it is, only ingest knows")
	assert.Equal(t, int64(8), stats.Received)
}
