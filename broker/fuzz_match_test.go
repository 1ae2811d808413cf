package broker

import (
	"bufio"
	"bytes"
	"io"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/mochi-mqtt/server/v2/packets"
	"github.com/stretchr/testify/require"

	"github.com/plantops/plantops/broker/session"
	"github.com/plantops/plantops/broker/topic"
	"github.com/plantops/plantops/broker/topic/topictest"
)

// What the syntax of filters says is what [MQTT-4.7] says word for word. The table of subscriptions is held against that in its own tests.
func FuzzFilterMatches(f *testing.F) {
	for _, filter := range []string{"devices/+/data", "devices/#", "#", "+/#", "devices/+/#", "/", "+", "$SYS/#", "$share/g/devices/+/#"} {
		f.Add(filter, "devices/bed-1/data")
		f.Add(filter, "devices")
		f.Add(filter, "/")
	}
	f.Fuzz(func(t *testing.T, filter, name string) {
		if topic.CheckFilter(filter, 32) != nil || topic.Check(name, 32) != nil {
			return
		}
		bare, err := topic.Unshare(filter)
		require.NoError(t, err)
		want := topictest.Matches(bare, name)
		require.Equal(t, want, topic.Matches(bare, name), "topic.Matches(%q, %q)", bare, name)
		require.Equal(t, want, topic.Covers(bare, name), "covers(%q, %q)", bare, name)
	})
}

// readBack decodes exactly one packet with mochi's decoder, which has no line in common with session's encoder.
func readBack(t *testing.T, encoded []byte, version byte) packets.Packet {
	t.Helper()
	r := bufio.NewReader(bytes.NewReader(encoded))
	first, err := r.ReadByte()
	require.NoError(t, err)
	pk := packets.Packet{ProtocolVersion: version}
	require.NoError(t, pk.FixedHeader.Decode(first))
	pk.FixedHeader.Remaining, _, err = packets.DecodeLength(r)
	require.NoError(t, err)
	body, err := io.ReadAll(r)
	require.NoError(t, err)
	require.Len(t, body, pk.FixedHeader.Remaining)
	decode := map[byte]func([]byte) error{
		packets.Publish: pk.PublishDecode, packets.Puback: pk.PubackDecode, packets.Pubrec: pk.PubrecDecode,
		packets.Pubrel: pk.PubrelDecode, packets.Pubcomp: pk.PubcompDecode, packets.Disconnect: pk.DisconnectDecode,
	}[pk.FixedHeader.Type]
	require.NotNil(t, decode, "a packet of type %d", pk.FixedHeader.Type)
	require.NoError(t, decode(body))
	if pk.FixedHeader.Type == packets.Disconnect && len(body) == 1 {
		pk.ReasonCode = body[0] // mochi reads it only where properties follow
	}
	return pk
}

// text reports whether s can be a string of MQTT.
func text(s string) bool {
	return len(s) <= 65535 && utf8.ValidString(s) && !strings.Contains(s, "\x00")
}

// Every message that can come in goes out as a packet that says the same.
func FuzzOutgoingMessages(f *testing.F) {
	f.Add(byte(4), byte(0), byte(0), uint16(0), uint32(0), uint32(0), "a/b", []byte("hi"), "", "", []byte(nil), "", "")
	f.Add(byte(5), byte(1), byte(1), uint16(1), uint32(60), uint32(1), "a/b", []byte("hi"), "text/plain", "re/ply", []byte{0, 1}, "key", "value")
	f.Add(byte(5), byte(0), byte(16), uint16(1), uint32(0), uint32(0), "a/b/c", []byte("hi"), "", "", []byte(nil), "", "")
	f.Add(byte(5), byte(2), byte(48), uint16(16), uint32(5), uint32(3), "a/b/c", []byte("hi"), "", "re/ply", []byte(nil), "k", "v")
	f.Add(byte(5), byte(2), byte(2), uint16(65535), uint32(1<<32-1), uint32(268_435_455), "/", bytes.Repeat([]byte{0}, 20_000), "", "", []byte{}, "", "v")
	f.Fuzz(func(t *testing.T, version, qos, flags byte, id uint16, expiry, subscription uint32, name string, payload []byte,
		contentType, responseTopic string, correlation []byte, key, value string) {
		version, qos, subscription = 3+version%3, qos%3, subscription%268_435_456
		if topic.Check(name, 32) != nil || len(name) > 65535 || len(correlation) > 65535 ||
			!text(contentType) || !text(responseTopic) || !text(key) || !text(value) {
			return
		}
		want := packets.Properties{ContentType: contentType, ResponseTopic: responseTopic, User: []packets.UserProperty{{Key: key, Val: value}}}
		if len(correlation) > 0 {
			want.CorrelationData = correlation
		}
		if flags&4 != 0 {
			want.PayloadFormatFlag, want.PayloadFormat = true, flags>>3&1
		}
		m := session.Message{Topic: name, Payload: payload, Properties: appendProperties(nil, &want)}
		e := session.Effect{Kind: session.Publish, QoS: qos, DUP: qos > 0 && flags&1 != 0, Retain: flags&2 != 0, PacketID: max(id, 1),
			Expiry: expiry, Message: &m}
		if subscription > 0 {
			e.SubscriptionIDs = []uint32{subscription}
		}
		if version < 5 {
			want = packets.Properties{}
		} else {
			if flags&16 != 0 {
				e.Alias, e.TopicKnown = id|1, flags&32 != 0
				want.TopicAlias, want.TopicAliasFlag = e.Alias, true
			}
			want.MessageExpiryInterval = expiry
			for _, id := range e.SubscriptionIDs {
				want.SubscriptionIdentifier = append(want.SubscriptionIdentifier, int(id))
			}
		}

		got := readBack(t, e.AppendPacket(nil, version), version)
		require.Equal(t, packets.FixedHeader{Type: packets.Publish, Qos: qos, Dup: e.DUP, Retain: e.Retain, Remaining: got.FixedHeader.Remaining}, got.FixedHeader)
		if e.TopicKnown {
			require.Empty(t, got.TopicName)
		} else {
			require.Equal(t, name, got.TopicName)
		}
		require.True(t, bytes.Equal(payload, got.Payload))
		require.Equal(t, qos > 0, got.PacketID != 0)
		if qos > 0 {
			require.Equal(t, e.PacketID, got.PacketID)
		}
		require.Equal(t, want, got.Properties)
		require.Equal(t, append([]byte(nil), e.AppendPacket(nil, version)...), append(e.AppendHead(nil, version), payload...))
	})
}

// Acknowledgements and the goodbye say what they should.
func FuzzOutgoingAcknowledgements(f *testing.F) {
	f.Add(byte(4), byte(0), uint16(1), byte(0))
	f.Add(byte(5), byte(1), uint16(65535), byte(0x92))
	f.Add(byte(5), byte(4), uint16(0), byte(0x97))
	kinds := []session.Kind{session.Puback, session.Pubrec, session.Pubrel, session.Pubcomp, session.Close}
	types := []byte{packets.Puback, packets.Pubrec, packets.Pubrel, packets.Pubcomp, packets.Disconnect}
	f.Fuzz(func(t *testing.T, version, kind byte, id uint16, reason byte) {
		version = 3 + version%3
		i := int(kind) % len(kinds)
		e := session.Effect{Kind: kinds[i], PacketID: id, Reason: session.Reason(reason)}
		encoded := e.AppendPacket(nil, version)
		if e.Kind == session.Close && version < 5 {
			require.Empty(t, encoded)
			return
		}
		got := readBack(t, encoded, version)
		require.Equal(t, types[i], got.FixedHeader.Type)
		if e.Kind != session.Close {
			require.Equal(t, id, got.PacketID)
		}
		if version == 5 {
			require.Equal(t, reason, got.ReasonCode)
		}
	})
}
