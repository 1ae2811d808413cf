package broker_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/mochi-mqtt/server/v2/packets"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/plantops/plantops/broker"
	"github.com/plantops/plantops/broker/brokertest"
)

// aliased is a message whose topic has a number; topic may be empty.
func aliased(alias, id uint16, topic, payload string, qos byte) packets.Packet {
	pk := packets.Packet{FixedHeader: packets.FixedHeader{Type: packets.Publish, Qos: qos}, TopicName: topic, Payload: []byte(payload),
		Properties: packets.Properties{TopicAlias: alias, TopicAliasFlag: true}}
	if qos > 0 {
		pk.PacketID = id
	}
	return pk
}

// sendAliased returns the reason code of a QoS 1 message.
func sendAliased(c *brokertest.Client, alias uint16, topic, payload string) byte {
	c.Send(aliased(alias, 1, topic, payload, 1))
	return c.Await(packets.Puback).ReasonCode
}

func TestTopicsMayHaveNumbers(t *testing.T) {
	for _, kind := range brokertest.Kinds {
		t.Run(string(kind), func(t *testing.T) {
			b := brokertest.Start(t, brokertest.Device("bed-1"))
			watcher := brokertest.Dial(t, b, brokertest.TCP, as("bed-1", 5))
			require.Equal(t, byte(2), watcher.Subscribe("devices/bed-1/#", 2))
			c, ack := brokertest.TryDial(t, b, kind, as("bed-1", 5))
			assert.EqualValues(t, 16, ack.Properties.TopicAliasMaximum)
			expect := func(topic, payload string) {
				t.Helper()
				got := watcher.Receive()
				assert.Equal(t, topic, got.TopicName)
				assert.Equal(t, payload, string(got.Payload))
				assert.False(t, got.Properties.TopicAliasFlag, "numbers are nobody else's affair")
			}
			for qos := range byte(3) {
				for i, alias := range []uint16{1, 16} {
					topic := fmt.Sprintf("devices/bed-1/%d/%d", qos, i)
					for n, name := range []string{topic, "", topic, ""} {
						c.Send(aliased(alias, uint16(n+1), name, fmt.Sprint(n), qos))
						expect(topic, fmt.Sprint(n))
					}
				}
				for range 4 { // an ordinary message in between, and another topic for a number
					require.Zero(t, c.Publish("devices/bed-1/plain", "plain", 1))
					expect("devices/bed-1/plain", "plain")
					c.Send(aliased(16, 0, fmt.Sprint("devices/bed-1/new/", qos), "bound", 0))
					expect(fmt.Sprint("devices/bed-1/new/", qos), "bound")
					c.Send(aliased(16, 0, "", "used", 0))
					expect(fmt.Sprint("devices/bed-1/new/", qos), "used")
				}
			}
			kept := aliased(1, 9, "", "kept", 1)
			kept.FixedHeader.Retain = true
			c.Send(kept)
			expect("devices/bed-1/2/0", "kept")
			assert.True(t, retainedFor(t, b, as("bed-1", 5), "devices/bed-1/2/0"))
		})
	}
}

func TestANumberDoesNotCarryATopicPastTheRules(t *testing.T) {
	b := brokertest.Start(t, brokertest.Device("bed-1"), brokertest.Device("bed-2"))
	other := brokertest.Dial(t, b, brokertest.TCP, as("bed-2", 5))
	require.Equal(t, byte(1), other.Subscribe("devices/bed-2/#", 1))
	c := brokertest.Dial(t, b, brokertest.TCP, as("bed-1", 5))
	assert.Less(t, sendAliased(c, 1, "devices/bed-1/mine", "x"), byte(0x80))
	assert.Equal(t, byte(0x87), sendAliased(c, 2, "devices/bed-2/theirs", "x"))
	for range 2 {
		assert.Equal(t, byte(0x87), sendAliased(c, 2, "", "x"), "its number is as good as its name")
		assert.Less(t, sendAliased(c, 1, "", "x"), byte(0x80))
	}
	assert.Equal(t, byte(0x87), sendAliased(c, 1, "devices/bed-2/theirs", "x"))
	assert.Equal(t, byte(0x87), sendAliased(c, 1, "", "x"))
	assert.Equal(t, byte(0x87), sendAliased(c, 3, "$SYS/broker/uptime", "x"))
	assert.Equal(t, byte(0x87), sendAliased(c, 3, "", "x"))
	other.AwaitNoMessage()
}

func TestNumbersThatMeanNoTopic(t *testing.T) {
	b := brokertest.Start(t, brokertest.Device("bed-1"))
	for name, c := range map[string]struct {
		wrong packets.Packet
		code  byte
	}{
		"17":                  {aliased(17, 1, telemetry, "x", 1), 0x94},
		"65535 without topic": {aliased(65535, 1, "", "x", 1), 0x94},
		"never given":         {aliased(2, 1, "", "x", 1), 0x82},
		"a wildcard":          {aliased(2, 1, "devices/bed-1/+", "x", 1), 0x82},
		"too deep":            {aliased(2, 1, "devices/bed-1"+strings.Repeat("/x", 40), "x", 1), 0x90},
	} {
		for _, used := range []bool{false, true} {
			client := brokertest.Dial(t, b, brokertest.TCP, as("bed-1", 5))
			if used {
				require.Less(t, sendAliased(client, 1, telemetry, "x"), byte(0x80))
			}
			client.Send(c.wrong)
			assert.Equal(t, c.code, client.AwaitClosed(), name)
			client = brokertest.Dial(t, b, brokertest.TCP, as("bed-1", 5))
			client.SendBytes([]byte("\x30\x07\x00\x01a\x03\x23\x00\x00")) // no library sends a 0
			assert.Equal(t, byte(0x94), client.AwaitClosed())
		}
	}
	login := lasting("bed-1", "esp", 5)
	c := brokertest.Dial(t, b, brokertest.TCP, login)
	require.Less(t, sendAliased(c, 1, telemetry, "x"), byte(0x80))
	c.Disconnect()
	c = brokertest.Dial(t, b, brokertest.TCP, login)
	c.Send(aliased(1, 1, "", "x", 1))
	assert.Equal(t, byte(0x82), c.AwaitClosed(), "a session keeps its messages, not the numbers of a connection")
}

func TestLongTopicsWithNumbersAreCharged(t *testing.T) {
	b := limited(t, broker.Limits{MaxQueuedBytesPerAccount: 200_000})
	c := brokertest.Dial(t, b, brokertest.TCP, as("bed-1", 5))
	awaitHeld(t, b, "bed-1", broker.Held{Sessions: 1, Connections: 1})
	long := func(n int) string { return "devices/bed-1/" + strings.Repeat("x", n) }
	for n := range uint16(16) {
		require.Less(t, sendAliased(c, n+1, long(200), "x"), byte(0x80))
	}
	awaitHeld(t, b, "bed-1", broker.Held{Sessions: 1, Connections: 1})
	for range 3 {
		require.Less(t, sendAliased(c, 1, long(10_000), "x"), byte(0x80))
		awaitHeld(t, b, "bed-1", broker.Held{Sessions: 1, Connections: 1, Queued: 12 << 10})
	}
	require.Less(t, sendAliased(c, 1, long(1), "x"), byte(0x80))
	awaitHeld(t, b, "bed-1", broker.Held{Sessions: 1, Connections: 1})
	for n := range uint16(3) {
		require.Less(t, sendAliased(c, n+1, long(60_000), "x"), byte(0x80))
	}
	c.Send(aliased(4, 1, long(60_000), "x", 1))
	assert.Equal(t, byte(0x97), c.AwaitClosed())
	awaitHeld(t, b, "bed-1", broker.Held{})
}
