package broker_test

import (
	"log/slog"
	"strings"
	"testing"

	"github.com/mochi-mqtt/server/v2/packets"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/plantops/plantops/broker"
	"github.com/plantops/plantops/broker/brokertest"
	"github.com/plantops/plantops/broker/brokertest/logtest"
)

func TestATopicThatNobodyReadsIsSaid(t *testing.T) {
	var log logtest.Log
	b := brokertest.Listen(t, func(o *broker.Options) {
		o.IngestTopics = []string{"devices/+/telemetry", "devices/+/telemetry/+", "devices/+/heartbeat"}
		o.Log = slog.New(slog.NewTextHandler(&log, nil))
	}, brokertest.Device("bed-1"), brokertest.Device("bed-2"))
	require.NoError(t, b.Start())
	b.AdmitDevices()
	everyWay(t, func(t *testing.T, kind brokertest.Kind, version byte) {
		device := brokertest.Dial(t, b, kind, as("bed-1", version))
		want := byte(0)
		if version == 5 {
			want = 0x10
		}
		for _, topic := range []string{"devices/bed-1/Telemetry", "devices/bed-1/temperature"} {
			assert.Equal(t, want, device.Publish(topic, "1", 1))
			device.SendPublish(topic, "1", 2)
			assert.Equal(t, want, device.Await(packets.Pubrec).ReasonCode)
		}
		device.SendPublish("devices/bed-1/Telemetry", "{}", 0)
		device.Ping()
		device.Disconnect()
	})
	count := func(words string) int { return strings.Count(log.String(), words) }
	unread := b.Unread()
	require.Len(t, unread, 1)
	assert.Equal(t, int64(30), unread["bed-1"].Count, "five times in six ways")
	assert.Equal(t, "devices/bed-1/Telemetry", unread["bed-1"].LastTopic)
	assert.Equal(t, "devices/bed-1/telemetry", unread["bed-1"].Meant)
	assert.NotZero(t, unread["bed-1"].Last)
	assert.Equal(t, 1, count("nobody reads devices/bed-1/Telemetry; did it mean devices/bed-1/telemetry?"), "once")
	assert.Equal(t, 1, count("nobody reads devices/bed-1/temperature; did it mean devices/bed-1/telemetry/temperature?"))
	assert.Zero(t, b.Stats().Ingest.Received, "they are in no equation")

	device := brokertest.Dial(t, b, brokertest.TCP, as("bed-2", 5))
	for i := range 20 {
		device.Publish("devices/bed-2/"+strings.Repeat("x", i), "1", 1)
	}
	assert.Equal(t, 8, count("nobody reads devices/bed-2/"), "the log is no place for all of them")
}

func TestWhatSomebodyReadsIsNotSaid(t *testing.T) {
	b := withIngest(t, 0, brokertest.Device("bed-1"), brokertest.Device("bed-2"))
	ingest(t, b, 5)
	device := brokertest.Dial(t, b, brokertest.TCP, as("bed-1", 5))
	retained := func(topic string) byte {
		device.Send(packets.Packet{PacketID: 9, TopicName: topic, Payload: []byte("x"),
			FixedHeader: packets.FixedHeader{Type: packets.Publish, Qos: 1, Retain: true}})
		return device.Await(packets.Puback).ReasonCode
	}
	assert.Zero(t, retained("devices/bed-1/firmware/state/now"), "whoever comes may read it")
	assert.Equal(t, byte(0x10), retained("devices/bed-1/Telemetry"), "a slip, retained or not")

	login := lasting("bed-2", "esp", 5)
	reader := brokertest.Dial(t, b, brokertest.TCP, login)
	require.Equal(t, byte(1), reader.Subscribe("devices/bed-2/#", 1))
	assert.Zero(t, reader.Publish("devices/bed-2/status", "x", 1), "its own echo")
	reader.Disconnect()
	sender := backend(t, b, 5)
	assert.Zero(t, sender.Publish("devices/bed-2/status", "x", 1), "a session that will come back")
	assert.Zero(t, sender.Publish("homeassistant/status", "x", 1), "no topic of a device")
	sender.SendPublish("devices/bed-2/telemetry", "{}", 1)
	sender.Ping()
	assert.Len(t, b.Unread(), 1)
}
