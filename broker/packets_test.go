package broker_test

import (
	"testing"
	"time"

	"github.com/mochi-mqtt/server/v2/packets"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/plantops/plantops/broker/brokertest"
	"github.com/plantops/plantops/broker/brokertest/rawmqtt"
)

func TestABrokenCONNECTIsAnsweredAndCounted(t *testing.T) {
	connect := func(version, flags byte, rest string) []byte {
		body := append([]byte("\x00\x04MQTT"), version, flags, 0, 60)
		body = append(body, rest...)
		return rawmqtt.Encode(rawmqtt.Connect<<4, body)
	}
	for name, c := range map[string]struct {
		sent   []byte
		answer []byte // CONNACK; nil for none
		reason string
	}{
		"reserved bit, 3.1.1":   {connect(4, 3, "\x00\x01a"), nil, "malformed packet"},
		"reserved bit, 5":       {connect(5, 3, "\x00\x00\x01a"), []byte{0x20, 3, 0, 0x81, 0}, "malformed packet"},
		"Receive Maximum 0":     {connect(5, 2, "\x03\x21\x00\x00\x00\x01a"), []byte{0x20, 3, 0, 0x82, 0}, "forbidden value of a property"},
		"Receive Maximum twice": {connect(5, 2, "\x06\x21\x00\x01\x21\x00\x01\x00\x01a"), []byte{0x20, 3, 0, 0x82, 0}, "property given twice"},
		"bytes after it":        {connect(5, 2, "\x00\x00\x01a!"), []byte{0x20, 3, 0, 0x81, 0}, "malformed packet"},
		"MQTT 6":                {connect(6, 2, "\x00\x01a"), []byte{0x20, 2, 0, 1}, "unsupported protocol version"},
		"nameless for long":     {connect(4, 0, "\x00\x00"), []byte{0x20, 2, 0, 2}, "invalid client id"},
		"not CONNECT":           {[]byte{0xc0, 0}, nil, "first packet is not CONNECT"},
	} {
		b := brokertest.Start(t, brokertest.Device("bed-1"))
		for _, kind := range brokertest.Kinds {
			client := brokertest.Open(t, b, kind, nil)
			client.SendBytes(c.sent)
			if c.answer != nil {
				assert.Equal(t, c.answer[3], client.Await(packets.Connack).ReasonCode, "%s over %s", name, kind)
			}
			client.AwaitClosed()
		}
		assert.Equal(t, int64(3), b.Stats().Refused[c.reason], name)
	}
}

// Of a client of MQTT 3.1 the bits about a will say nothing when there is none.
func TestMQTT31MayLeaveWillBitsSet(t *testing.T) {
	b := brokertest.Start(t, brokertest.Device("bed-1"))
	for _, flags := range []byte{0xc2 | 1<<3, 0xc2 | 2<<3, 0xc2 | 1<<5} {
		for _, kind := range brokertest.Kinds {
			client := brokertest.Open(t, b, kind, nil)
			rest := "\x00\x01a\x00\x05bed-1" + string([]byte{0, byte(len(brokertest.Password("bed-1")))}) + brokertest.Password("bed-1")
			body := "\x00\x06MQIsdp\x03" + string([]byte{flags}) + "\x00\x3c" + rest
			client.SendBytes(rawmqtt.Encode(rawmqtt.Connect<<4, []byte(body)))
			assert.Zero(t, client.Await(packets.Connack).ReasonCode, "flags %#x over %s", flags, kind)
			client.Ping()
			client.Disconnect()
		}
	}
}

func TestABrokenPacketEndsAConnectionAfterWhatCameBefore(t *testing.T) {
	b := brokertest.Start(t, brokertest.Device("bed-1"))
	everyWay(t, func(t *testing.T, kind brokertest.Kind, version byte) {
		before := b.Stats().Refused["malformed packet"]
		client := brokertest.Dial(t, b, kind, as("bed-1", version))
		client.SendBytes([]byte{0xc0, 0, 0xc0, 1, 0, 0xc0, 0}) // PINGREQ, one with a byte too many, and another
		client.Await(packets.Pingresp)
		code := client.AwaitClosed()
		assert.False(t, client.Has(packets.Pingresp))
		if version == 5 {
			assert.Equal(t, byte(0x81), code)
		}
		assert.Equal(t, before+1, b.Stats().Refused["malformed packet"])
	})
	assert.NotEmpty(t, b.Log.Lines("refused", "packet=Pingreq", "bytes after its end", "user=bed-1"))
}

func TestAWillWithoutPayloadIsAWill(t *testing.T) {
	b := brokertest.Start(t, brokertest.Device("bed-1"))
	watcher := watch(t, b, brokertest.TCP)
	everyWay(t, func(t *testing.T, kind brokertest.Kind, version byte) {
		login := as("bed-1", version)
		login.Will = &brokertest.Will{Topic: "devices/bed-1/status", QoS: 1}
		brokertest.Dial(t, b, kind, login).Close()
		will := watcher.Receive()
		assert.Equal(t, "devices/bed-1/status", will.TopicName)
		assert.Empty(t, will.Payload)
	})
}

// ingest/redelivery.go relies on it: an id comes back only when the others have had their turn. One that is still in use
// elsewhere may cost its neighbours theirs.
func TestTheSubscribersPacketIDsFollowEachOther(t *testing.T) {
	b := withIngest(t, 0, brokertest.Device("bed-1"))
	last := uint16(0) // across its connections, which belong to one session
	for round, version := range []byte{4, 5, 5} {
		subscriber := ingest(t, b, version)
		device := brokertest.Dial(t, b, brokertest.TCP, as("bed-1", version))
		for i := range 300 {
			if i%7 == 0 { // the ids of the two directions have nothing to do with each other
				require.Equal(t, byte(1), device.Subscribe("devices/bed-1/commands", 1))
			}
			device.SendPublish(telemetry, "{}", byte(i%3))
			pk := subscriber.Receive()
			require.Equal(t, last+1, pk.PacketID, "message %d of connection %d", i, round)
			last = pk.PacketID
			subscriber.Acknowledge(pk)
		}
		device.Close()
		subscriber.Ping()
		subscriber.Close()
		require.Eventually(t, func() bool { return b.Stats().Connected == 0 }, brokertest.Patience, time.Millisecond)
	}

	subscriber := ingest(t, b, 5)
	device := brokertest.Dial(t, b, brokertest.TCP, as("bed-1", 5))
	held, first := []packets.Packet(nil), last
	for i := range 300 {
		device.SendPublish(telemetry, "{}", 1)
		pk := subscriber.Receive()
		require.Greater(t, pk.PacketID, last, "message %d", i)
		last = pk.PacketID
		if held = append(held, pk); i%3 > 0 { // in another order, and not all
			subscriber.Acknowledge(held[0])
			held = held[1:]
		}
	}
	assert.Less(t, last-first, uint16(2*300), "ids passed over")
}
