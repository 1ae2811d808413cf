package rawmqtt_test

import (
	"bytes"
	"io"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/plantops/plantops/broker/brokertest/rawmqtt"
)

// The bytes are those of the examples in the standards, and of chapters 3.1 to 3.10 where there is none.
func TestPacketsAreWhatTheStandardSays(t *testing.T) {
	for what, c := range map[string]struct{ want, got string }{
		"CONNECT, 3.1.1": {"\x10\x15\x00\x04MQTT\x04\xc2\x00\x3c\x00\x01c\x00\x01u\x00\x03pwd",
			string(rawmqtt.Login{User: "u", Secret: "pwd", ClientID: "c", Version: 4}.Encode())},
		"CONNECT that resumes, 5": {"\x10\x13\x00\x04MQTT\x05\x00\x00\x00\x05\x11\x00\x00\x0e\x10\x00\x01c",
			string(rawmqtt.Login{ClientID: "c", Resume: true, NoKeepalive: true}.Encode())},
		"CONNECT with a will, 5": {"\x10\x1a\x00\x04MQTT\x05\x0e\x00\x3c\x00\x00\x01c\x05\x18\x00\x00\x00\x07\x00\x01t\x00\x01x",
			string(rawmqtt.Login{ClientID: "c", WillTopic: "t", WillText: "x", WillDelay: 7}.Encode())},
		"PUBLISH again, 5":    {"\x3a\x08\x00\x03a/b\x00\x0a\x00", string(rawmqtt.Message{Again: true, Topic: "a/b", ID: 10}.Encode())},
		"PUBLISH, 3.1.1":      {"\x34\x08\x00\x03a/b\x00\x0ax", string(rawmqtt.Message{QoS: 2, V4: true, Topic: "a/b", ID: 10, Payload: []byte("x")}.Encode())},
		"PUBLISH, QoS 0":      {"\x30\x06\x00\x03a/bx", string(rawmqtt.AppendPublish(nil, "a/b", 0, 10, []byte("x")))},
		"PUBLISH, QoS 2":      {"\x34\x08\x00\x03a/b\x00\x0ax", string(rawmqtt.AppendPublish(nil, "a/b", 2, 10, []byte("x")))},
		"PUBREL":              {"\x62\x02\x00\x0a", string(rawmqtt.EncodePubrel(10))},
		"PUBACK":              {"\x40\x02\x01\x00", string(rawmqtt.EncodeAck(rawmqtt.Puback, 256))},
		"SUBSCRIBE, 3.1.1":    {"\x82\x0e\x00\x0a\x00\x03a/b\x01\x00\x03c/d\x01", string(rawmqtt.EncodeSubscribe(4, 1, 10, "a/b", "c/d"))},
		"UNSUBSCRIBE, 5":      {"\xa2\x08\x00\x0a\x00\x00\x03a/b", string(rawmqtt.EncodeUnsubscribe(5, 10, "a/b"))},
		"a length of 2 bytes": {"\x30\x80\x01" + string(make([]byte, 128)), string(rawmqtt.Encode(0x30, make([]byte, 128)))},
	} {
		assert.Equal(t, c.want, c.got, what)
	}
}

// RFC 6455, 5.2: the length of the content in 7 bits, in 2 bytes or in 8.
func TestFramesAreWhatTheStandardSays(t *testing.T) {
	for want, n := range map[string]int{
		"\x82\xfd":         125,
		"\x82\xfe\x00\x7e": 126,
		"\x82\xfe\xff\xff": 1<<16 - 1,
		"\x82\xff\x00\x00\x00\x00\x00\x01\x00\x00": 1 << 16,
	} {
		assert.Equal(t, want+"\x00\x00\x00\x00"+string(make([]byte, n)), string(rawmqtt.EncodeFrame(0x82, make([]byte, n))), "%d bytes", n)
	}
}

func TestReadTakesApartWhatComes(t *testing.T) {
	r := bytes.NewReader([]byte("\x20\x03\x00\x87\x00" + "\x3d\x08\x00\x01t\x01\x02\x00xy" + "\x50\x03\x00\x07\x97" + "\x40\x02\x00\x08" + "\xe0\x01\x8e" + "\xd0\x00" + "\x30\x7f"))
	for _, want := range []rawmqtt.Packet{
		{Kind: rawmqtt.Connack, Body: []byte("\x00\x87\x00"), Reason: 0x87},
		{Kind: rawmqtt.Publish, Flags: 0xd, Body: []byte("\x00\x01t\x01\x02\x00xy"), ID: 0x102},
		{Kind: rawmqtt.Pubrec, Body: []byte("\x00\x07\x97"), ID: 7, Reason: rawmqtt.QuotaExceeded},
		{Kind: rawmqtt.Puback, Body: []byte("\x00\x08"), ID: 8},
		{Kind: rawmqtt.Disconnect, Body: []byte("\x8e"), Reason: 0x8e},
		{Kind: rawmqtt.Pingresp, Body: []byte{}},
	} {
		got, err := rawmqtt.Read(r)
		require.NoError(t, err)
		assert.Equal(t, want, got)
	}
	_, err := rawmqtt.Read(r)
	assert.ErrorIs(t, err, io.EOF, "cut off")
	for _, bad := range []string{"\x32\x03\x00\x01t", "\x32\x01\x00", "\x40\x01\x00", "\x20\x00", "\x30\xff\xff\xff\x7f"} {
		_, err := rawmqtt.Read(bytes.NewReader([]byte(bad)))
		assert.Error(t, err, "% x", bad)
		assert.NotErrorIs(t, err, io.EOF, "% x", bad)
	}
}
