package session

import (
	"bytes"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"pgregory.net/rapid"
)

var noon = time.Date(2026, 1, 7, 12, 0, 0, 0, time.UTC)

func TestPacketsAsOnTheWire(t *testing.T) {
	m := &Message{Topic: "a/b", Payload: []byte("hi"), Properties: []byte{0x01, 0x01}}
	for name, c := range map[string]struct {
		effect  Effect
		version byte
		want    []byte
	}{
		"qos 0":                          {Effect{Kind: Publish, Message: m}, 4, []byte("\x30\x07\x00\x03a/bhi")},
		"qos 1 again, retained":          {Effect{Kind: Publish, QoS: 1, DUP: true, Retain: true, PacketID: 258, Message: m}, 4, []byte("\x3b\x09\x00\x03a/b\x01\x02hi")},
		"qos 2 with properties":          {Effect{Kind: Publish, QoS: 2, PacketID: 1, Expiry: 7, SubscriptionIDs: []uint32{1, 300}, Message: m}, 5, []byte("\x34\x16\x00\x03a/b\x00\x01\x0c\x02\x00\x00\x00\x07\x0b\x01\x0b\xac\x02\x01\x01hi")},
		"the first of an alias":          {Effect{Kind: Publish, Message: m, Alias: 258}, 5, []byte("\x30\x0d\x00\x03a/b\x05\x23\x01\x02\x01\x01hi")},
		"an alias in place of the topic": {Effect{Kind: Publish, QoS: 1, PacketID: 1, Message: m, Alias: 1, TopicKnown: true}, 5, []byte("\x32\x0c\x00\x00\x00\x01\x05\x23\x00\x01\x01\x01hi")},
		"puback":                         {Effect{Kind: Puback, PacketID: 1}, 5, []byte{0x40, 2, 0, 1}},
		"refusing puback":                {Effect{Kind: Puback, PacketID: 1, Reason: 0x87}, 5, []byte{0x40, 3, 0, 1, 0x87}},
		"3.1.1 knows no refusal":         {Effect{Kind: Puback, PacketID: 1, Reason: 0x87}, 4, []byte{0x40, 2, 0, 1}},
		"pubrec":                         {Effect{Kind: Pubrec, PacketID: 513}, 4, []byte{0x50, 2, 2, 1}},
		"pubrel carries its flag":        {Effect{Kind: Pubrel, PacketID: 1}, 4, []byte{0x62, 2, 0, 1}},
		"pubrel of an unknown id":        {Effect{Kind: Pubrel, PacketID: 1, Reason: PacketIDNotFound}, 5, []byte{0x62, 3, 0, 1, 0x92}},
		"disconnect":                     {Effect{Kind: Close, Reason: QuotaExceeded}, 5, []byte{0xE0, 1, 0x97}},
		"3.1.1 is closed without a word": {Effect{Kind: Close, Reason: QuotaExceeded}, 4, nil},
		"no packet":                      {Effect{Kind: Delivered}, 5, nil},
	} {
		t.Run(name, func(t *testing.T) {
			assert.Equal(t, c.want, c.effect.AppendPacket(nil, c.version))
		})
	}
}

func TestSizeIsTheLengthOfTheEncoding(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		version := rapid.SampledFrom([]byte{3, 4, 5}).Draw(t, "version")
		e := Effect{
			Kind: Publish, QoS: rapid.ByteMax(2).Draw(t, "qos"), PacketID: 7,
			Alias: rapid.Uint16Max(2).Draw(t, "alias"), TopicKnown: rapid.Bool().Draw(t, "known"),
			Expiry:          rapid.Uint32().Draw(t, "expiry"),
			SubscriptionIDs: rapid.SliceOfN(rapid.Uint32Range(1, 268_435_455), 0, 4).Draw(t, "ids"),
			Message: &Message{
				Topic:      rapid.StringN(1, 20, -1).Draw(t, "topic"),
				Payload:    make([]byte, rapid.SampledFrom([]int{0, 1, 100, 127, 128, 16_383, 16_384, 2_097_151}).Draw(t, "payload")),
				Properties: bytes.Repeat([]byte{1}, rapid.IntRange(0, 200).Draw(t, "properties")),
			},
		}
		want := len(e.AppendPacket(nil, version))
		assert.Equal(t, want, e.packetBytes(version))
	})
}

func TestExpiryCountsDown(t *testing.T) {
	m := &Message{Expires: noon.Add(10 * time.Second)}
	for name, c := range map[string]struct {
		after time.Duration
		left  uint32
	}{
		"at once":               {0, 10},
		"a moment later":        {time.Millisecond, 10},
		"counted down":          {4 * time.Second, 6},
		"the last moment":       {9_999 * time.Millisecond, 1},
		"over, but sent before": {time.Minute, 1},
	} {
		t.Run(name, func(t *testing.T) {
			assert.Equal(t, c.left, m.secondsLeft(noon.Add(c.after)))
		})
	}
	assert.Zero(t, (&Message{}).secondsLeft(noon), "none given")
	assert.False(t, m.Expired(noon.Add(9*time.Second)))
	assert.True(t, m.Expired(noon.Add(10*time.Second)))
}
