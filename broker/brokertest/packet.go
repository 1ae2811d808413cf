package brokertest

import (
	"bufio"
	"bytes"
	"fmt"
	"io"

	"github.com/gorilla/websocket"
	"github.com/mochi-mqtt/server/v2/packets"
)

// read puts what the broker sends into the inbox until the connection ends.
func (c *Client) read(r *bufio.Reader) {
	for {
		pk, err := c.readPacket(r)
		c.mu.Lock()
		if err == nil {
			c.inbox = append(c.inbox, pk)
		}
		c.ended = err
		c.mu.Unlock()
		select {
		case c.changed <- struct{}{}:
		default:
		}
		if err != nil {
			return
		}
	}
}

func (c *Client) readPacket(r *bufio.Reader) (packets.Packet, error) {
	first, err := r.ReadByte()
	if err != nil {
		return packets.Packet{}, err
	}
	pk := packets.Packet{ProtocolVersion: byte(c.version.Load())}
	if err := pk.FixedHeader.Decode(first); err != nil {
		return pk, err
	}
	if pk.FixedHeader.Remaining, _, err = packets.DecodeLength(r); err != nil {
		return pk, err
	}
	body := make([]byte, pk.FixedHeader.Remaining)
	if _, err := io.ReadFull(r, body); err != nil {
		return pk, err
	}
	return pk, decode(&pk, body)
}

func decode(pk *packets.Packet, body []byte) error {
	switch pk.FixedHeader.Type {
	case packets.Connack:
		return pk.ConnackDecode(body)
	case packets.Publish:
		return pk.PublishDecode(body)
	case packets.Puback:
		return pk.PubackDecode(body)
	case packets.Pubrec:
		return pk.PubrecDecode(body)
	case packets.Pubrel:
		return pk.PubrelDecode(body)
	case packets.Pubcomp:
		return pk.PubcompDecode(body)
	case packets.Suback:
		return pk.SubackDecode(body)
	case packets.Unsuback:
		return pk.UnsubackDecode(body)
	case packets.Pingresp:
		return nil
	case packets.Disconnect:
		if len(body) == 1 { // mochi leaves it out
			pk.ReasonCode = body[0]
		}
		return pk.DisconnectDecode(body)
	}
	return fmt.Errorf("a broker does not send %s", packets.PacketNames[pk.FixedHeader.Type])
}

func encode(pk packets.Packet) ([]byte, error) {
	var buf bytes.Buffer
	encoders := map[byte]func(*bytes.Buffer) error{
		packets.Connect: pk.ConnectEncode, packets.Publish: pk.PublishEncode, packets.Puback: pk.PubackEncode,
		packets.Pubrec: pk.PubrecEncode, packets.Pubrel: pk.PubrelEncode, packets.Pubcomp: pk.PubcompEncode,
		packets.Subscribe: pk.SubscribeEncode, packets.Unsubscribe: pk.UnsubscribeEncode, packets.Pingreq: pk.PingreqEncode,
		packets.Disconnect: pk.DisconnectEncode, packets.Auth: pk.AuthEncode,
	}
	encoder := encoders[pk.FixedHeader.Type]
	if encoder == nil {
		return nil, fmt.Errorf("a client does not send %s", packets.PacketNames[pk.FixedHeader.Type])
	}
	err := encoder(&buf)
	return buf.Bytes(), err
}

// webSocket makes a stream of a websocket's binary messages.
type webSocket struct {
	*websocket.Conn
	message io.Reader
}

func (w *webSocket) Read(p []byte) (int, error) {
	for {
		if w.message == nil {
			_, r, err := w.NextReader()
			if err != nil {
				return 0, err
			}
			w.message = r
		}
		n, err := w.message.Read(p)
		if err == io.EOF {
			w.message, err = nil, nil
		}
		if n > 0 || err != nil {
			return n, err
		}
	}
}

func (w *webSocket) Write(p []byte) (int, error) {
	return len(p), w.WriteMessage(websocket.BinaryMessage, p)
}
