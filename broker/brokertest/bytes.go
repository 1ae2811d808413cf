package brokertest

import (
	"bufio"
	"bytes"
	"errors"
	"io"
	"testing"

	"github.com/mochi-mqtt/server/v2/packets"
)

// Record returns the bytes that a client of the protocol version would send; send must not wait for answers.
func Record(t testing.TB, version byte, send func(c *Client)) []byte {
	t.Helper()
	var sent recording
	c := &Client{t: t, conn: &sent}
	c.version.Store(uint32(version))
	send(c)
	return sent.Bytes()
}

// recording is a connection on which nothing comes back.
type recording struct{ bytes.Buffer }

func (*recording) Close() error { return nil }

// Packets takes apart what a broker has sent to a client of the protocol version. It fails at the first packet that
// no broker may send, that is not complete or that cannot be read.
func Packets(sent []byte, version byte) (found []packets.Packet, err error) {
	c := &Client{}
	c.version.Store(uint32(version))
	for r := bufio.NewReader(bytes.NewReader(sent)); ; {
		pk, err := c.readPacket(r)
		if errors.Is(err, io.EOF) && r.Buffered() == 0 {
			return found, nil
		}
		if err != nil {
			return found, err
		}
		found = append(found, pk)
	}
}
