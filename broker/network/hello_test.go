package network

import (
	"bytes"
	"crypto/tls"
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/plantops/plantops/broker/refusal"
)

// slowly writes a few bytes at a time.
type slowly struct {
	net.Conn
	step int
}

func (c *slowly) Write(p []byte) (n int, err error) {
	for err == nil && n < len(p) {
		var k int
		k, err = c.Conn.Write(p[n:min(n+c.step, len(p))])
		n += k
	}
	return n, err
}

func TestALargeClientHelloIsUnderstood(t *testing.T) {
	n := newTestNet(t, Limits{}).start(t, "tls", login)
	for _, version := range []uint16{tls.VersionTLS12, tls.VersionTLS13} {
		for _, protocols := range []int{0, 1, 10, 100, 200} { // up to 10 kB
			for _, step := range []int{1, 7, 512, 1 << 20} {
				config := &tls.Config{InsecureSkipVerify: true, MinVersion: version, MaxVersion: version}
				for i := range protocols {
					config.NextProtos = append(config.NextProtos, fmt.Sprint(strings.Repeat("protocol ", 5), i))
				}
				c := tls.Client(&slowly{n.rawDial(t, ""), step}, config)
				require.NoError(t, c.Handshake(), "%x, %d protocols, %d bytes at a time", version, protocols, step)
				requireLogin(t, c)
				require.NoError(t, c.Close())
			}
		}
	}
}

func TestAClientHelloIsGivenInPieces(t *testing.T) {
	client, server := net.Pipe()
	go func() { _ = tls.Client(client, &tls.Config{InsecureSkipVerify: true}).Handshake() }() // it is not answered
	head := make([]byte, recordHeader)
	_, err := io.ReadFull(server, head)
	require.NoError(t, err)
	message := make([]byte, binary.BigEndian.Uint16(head[3:]))
	_, err = io.ReadFull(server, message)
	require.NoError(t, err)
	require.NoError(t, client.Close())
	require.Greater(t, len(message), 2*pieceBytes, "that of Go has a large key")

	there, here := net.Pipe()
	s := &socket{Conn: here, hello: &hello{}}
	go func() {
		_, _ = there.Write(append(head, message...))
		_, _ = there.Write([]byte("what follows"))
		_ = there.Close()
	}()
	var said []byte
	for p := make([]byte, 576); len(said) < len(message); {
		n, err := s.Read(p)
		require.NoError(t, err)
		require.Equal(t, head[:3], p[:3])
		require.Equal(t, n-recordHeader, int(binary.BigEndian.Uint16(p[3:])), "a record at a time")
		require.LessOrEqual(t, n, recordHeader+pieceBytes)
		said = append(said, p[recordHeader:n]...)
	}
	assert.Equal(t, message, said)
	assert.Nil(t, s.hello)
	rest, err := io.ReadAll(s)
	require.NoError(t, err)
	assert.Equal(t, "what follows", string(rest))
}

// What is no ClientHello is for crypto/tls to judge, byte by byte as it came.
func TestWhatIsNoClientHelloIsGivenAsItIs(t *testing.T) {
	long := string(bytes.Repeat([]byte{'x'}, 2000))
	for _, begin := range []string{"", "G", "GET / HTTP/1.1\r\n", "\x10\x0e\x00\x04MQTT", "\x16", "\x16\x03\x01", "\x16\x03\x01\x00\x00", "\x16\x03\x01\x04\x00",
		"\x16\x03\x01\x00\x02\x01\x00", "\x16\x03\x01\x04\x00\x02" + long, "\x16\x03\x01\x40\x01\x01" + long, "\x15\x03\x01\x00\x02\x02\x28", "\x16\x03\x01\x04\x00\x01short"} {
		there, here := net.Pipe()
		go func() {
			_, _ = io.WriteString(there, begin)
			_ = there.Close()
		}()
		said, err := io.ReadAll(&socket{Conn: here, hello: &hello{}})
		require.NoError(t, err)
		assert.Equal(t, begin, string(said))
	}
}

func TestFirstPacketLimit(t *testing.T) {
	tests := map[string]struct {
		bytes []byte
		want  *refusal.Refusal
	}{
		"an ordinary CONNECT":              {connectPacket, nil},
		"as large as allowed":              {[]byte{0x10, 0x80, 0x80, 0x04}, nil}, // 64 KiB
		"one more":                         {[]byte{0x10, 0x81, 0x80, 0x04}, &refusal.FirstPacketTooLarge},
		"256 MB":                           {[]byte{0x10, 0xff, 0xff, 0xff, 0x7f}, &refusal.FirstPacketTooLarge},
		"a length without an end":          {[]byte{0x10, 0x80, 0x80, 0x80, 0x80}, &refusal.FirstPacketTooLarge},
		"four bytes of length, small":      {[]byte{0x10, 0x81, 0x80, 0x80, 0x00}, nil},
		"what follows is not looked at":    {append(bytes.Clone(connectPacket), 0x10, 0xff, 0xff, 0xff, 0x7f), nil},
		"a TLS client on the plain port":   {[]byte{0x16, 3, 1}, &refusal.TLSOnPlainPort},
		"announced by a part of the bytes": {[]byte{0x10, 0xff, 0xff, 0xff}, &refusal.FirstPacketTooLarge},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			var whole firstPacket
			assert.Equal(t, test.want, whole.check(test.bytes, firstPacketBytes))
			var dripped firstPacket
			var got *refusal.Refusal
			for i := range test.bytes {
				if got == nil {
					got = dripped.check(test.bytes[i:i+1], firstPacketBytes)
				}
			}
			assert.Equal(t, test.want, got, "byte by byte")
		})
	}
}

func TestOversizeFirstPacketIsNotPassedOn(t *testing.T) {
	for _, kind := range listenerKinds {
		t.Run(kind, func(t *testing.T) {
			passed := make(chan int, 1)
			n := newTestNet(t, Limits{}).start(t, kind, func(c *Conn) error {
				all, err := io.ReadAll(c)
				passed <- len(all)
				return err
			})
			client := n.dial(t)
			_, err := client.Write([]byte{0x10, 0xff, 0xff, 0xff, 0x7f, 'x', 'x'})
			require.NoError(t, err)
			require.Zero(t, <-passed)
			requireEnd(t, client)
			require.Equal(t, 1, n.dropped(refusal.FirstPacketTooLarge))
		})
	}
}
