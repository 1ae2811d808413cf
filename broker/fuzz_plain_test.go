package broker

import (
	"testing"
	"unicode/utf8"

	"github.com/mochi-mqtt/server/v2/packets"
	"github.com/stretchr/testify/require"

	"github.com/plantops/plantops/broker/brokertest/rawmqtt"
)

// What plainPublish takes apart, mochi's decoder takes apart in the same way.
func FuzzPlain(f *testing.F) {
	for qos := range byte(3) {
		f.Add(rawmqtt.AppendPublish(nil, "a/b", qos, 7, []byte("12")), "a/b", byte(4))
		f.Add(rawmqtt.AppendPublish(nil, "a/b", qos, 7, make([]byte, 200)), "a/b", byte(4))
		f.Add(rawmqtt.AppendPublish(nil, "a/b", qos, 7, nil), "a/b", byte(3))
		f.Add(rawmqtt.AppendPublish(nil, "a/b", qos, 0, []byte{0, 'x'}), "a/b", byte(5))
	}
	f.Add(append(rawmqtt.Message{Topic: "a/b", ID: 9, Payload: []byte("x")}.Encode(), 0x40, 2, 0, 1), "a/b", byte(5))
	f.Fuzz(func(t *testing.T, p []byte, topic string, version byte) {
		if version = 3 + version%3; len(p) < 4 || !utf8.ValidString(topic) {
			return
		}
		id, payload, n := plainPublish(p, topic, version)
		if n == 0 {
			return
		}
		rest, width := 0, 1
		for ; p[width] >= 0x80; width++ {
			rest |= int(p[width]&0x7f) << (7 * (width - 1))
		}
		rest |= int(p[width]) << (7 * (width - 1))
		require.Equal(t, n, 1+width+rest)
		pk := packets.Packet{ProtocolVersion: version}
		require.NoError(t, pk.FixedHeader.Decode(p[0]))
		pk.FixedHeader.Remaining = rest
		require.NoError(t, pk.PublishDecode(p[1+width:n]))
		require.Equal(t, packets.FixedHeader{Type: packets.Publish, Qos: p[0] >> 1, Remaining: rest}, func() packets.FixedHeader {
			h := pk.FixedHeader
			h.Qos |= packets.Publish << 3
			return h
		}())
		require.Equal(t, topic, pk.TopicName)
		require.Equal(t, id, pk.PacketID)
		require.Equal(t, string(payload), string(pk.Payload))
		require.Equal(t, packets.Properties{}, pk.Properties)
	})
}
