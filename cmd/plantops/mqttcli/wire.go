package mqttcli

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"time"

	"github.com/mochi-mqtt/server/v2/packets"
)

// maxPacketBytes is the largest packet of MQTT.
const maxPacketBytes = 268_435_455

// write sends a packet.
func (c *Conn) write(pk packets.Packet) error {
	pk.ProtocolVersion = c.options.Version
	pk.Mods.AllowResponseInfo = true
	var buf bytes.Buffer
	if err := encode(&pk, &buf); err != nil {
		return fmt.Errorf("make %s: %w", packets.PacketNames[pk.FixedHeader.Type], err)
	}
	if pk.FixedHeader.Type == packets.Publish && buf.Len() > c.largest { // a broker would end the connection, or leave it out
		return fmt.Errorf("publish to %s: it is a packet of %d bytes, and the broker at %s takes at most %d", pk.TopicName, buf.Len(),
			c.options.Address, c.largest)
	}
	c.writing.Lock()
	defer c.writing.Unlock()
	_, err := c.conn.Write(buf.Bytes())
	select {
	case <-c.ended: // the reader knows more about it
		return c.why()
	default:
		return err
	}
}

func encode(pk *packets.Packet, buf *bytes.Buffer) error {
	switch pk.FixedHeader.Type {
	case packets.Connect:
		return pk.ConnectEncode(buf)
	case packets.Publish:
		return pk.PublishEncode(buf)
	case packets.Puback:
		return pk.PubackEncode(buf)
	case packets.Pubrec:
		return pk.PubrecEncode(buf)
	case packets.Pubrel:
		return pk.PubrelEncode(buf)
	case packets.Pubcomp:
		return pk.PubcompEncode(buf)
	case packets.Subscribe:
		return pk.SubscribeEncode(buf)
	case packets.Unsubscribe:
		return pk.UnsubscribeEncode(buf)
	case packets.Pingreq:
		return pk.PingreqEncode(buf)
	}
	return pk.DisconnectEncode(buf)
}

// readPacket reads one packet. What a broker sends may make the decoder panic: that is an error like others.
func readPacket(r *bufio.Reader, version byte) (pk packets.Packet, err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("malformed packet: %v", p)
		}
	}()
	first, err := r.ReadByte()
	if err != nil {
		return pk, err
	}
	pk.ProtocolVersion = version
	if err := pk.FixedHeader.Decode(first); err != nil {
		return pk, err
	}
	if pk.FixedHeader.Remaining, _, err = packets.DecodeLength(r); err != nil {
		return pk, err
	}
	var body bytes.Buffer // grows with what comes, not with what was announced
	if _, err := io.CopyN(&body, r, int64(min(pk.FixedHeader.Remaining, maxPacketBytes))); err != nil {
		return pk, err
	}
	return pk, decode(&pk, body.Bytes())
}

func decode(pk *packets.Packet, body []byte) error {
	switch pk.FixedHeader.Type {
	case packets.Connack:
		if len(body) == 2 { // of an older version: it says so
			pk.SessionPresent, pk.ReasonCode = body[0]&1 == 1, body[1]
			return nil
		}
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
			return nil
		}
		return pk.DisconnectDecode(body)
	}
	return fmt.Errorf("a broker does not send %s", packets.PacketNames[pk.FixedHeader.Type])
}

// read takes what the broker sends until the connection ends.
func (c *Conn) read(r *bufio.Reader) {
	var err error
	for err == nil {
		if keep := c.options.KeepAlive; keep > 0 {
			_ = c.conn.SetReadDeadline(time.Now().Add(keep + keep/2)) // ping asks for an answer before; its error, the read has too
		}
		var pk packets.Packet
		if pk, err = readPacket(r, c.options.Version); err == nil {
			err = c.take(pk)
		}
	}
	switch {
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF), errors.Is(err, net.ErrClosed):
		err = errors.New("the connection was closed")
	case errors.Is(err, os.ErrDeadlineExceeded):
		err = errors.New("the broker does not answer any more")
	}
	c.mu.Lock()
	c.err = err
	c.mu.Unlock()
	close(c.ended)
	c.conn.Close()
}

func (c *Conn) take(pk packets.Packet) error {
	switch pk.FixedHeader.Type {
	case packets.Publish:
		return c.takeMessage(pk)
	case packets.Pubrel:
		c.mu.Lock()
		delete(c.held, pk.PacketID)
		c.mu.Unlock()
		return c.write(packets.Packet{FixedHeader: packets.FixedHeader{Type: packets.Pubcomp}, PacketID: pk.PacketID})
	case packets.Disconnect:
		return c.refused("the connection was ended", pk)
	}
	c.mu.Lock()
	answers := c.waiting[pk.PacketID]
	c.mu.Unlock()
	select {
	case answers <- pk: // nil for a PINGRESP, and for what nobody waits for
	default:
	}
	return nil
}

// takeMessage hands a message on and reads no further until somebody wants it: TCP then slows the broker down.
func (c *Conn) takeMessage(pk packets.Packet) error {
	m := messageOf(pk)
	if m.QoS == 2 {
		c.mu.Lock()
		again := c.held[m.ID]
		c.held[m.ID] = true
		c.mu.Unlock()
		if again {
			return c.acknowledge(m)
		}
	}
	select {
	case c.incoming <- m:
		return nil
	case <-c.closed: // it is not acknowledged, so the session still has it
		return nil
	}
}

func messageOf(pk packets.Packet) Message {
	p := &pk.Properties
	m := Message{Topic: pk.TopicName, Payload: pk.Payload, QoS: pk.FixedHeader.Qos, Retain: pk.FixedHeader.Retain, Dup: pk.FixedHeader.Dup,
		ID: pk.PacketID, ContentType: p.ContentType, ResponseTopic: p.ResponseTopic, CorrelationData: p.CorrelationData,
		Expiry: p.MessageExpiryInterval, Text: p.PayloadFormatFlag && p.PayloadFormat == 1, SubscriptionIDs: p.SubscriptionIdentifier}
	for _, u := range p.User {
		m.User = append(m.User, Property{u.Key, u.Val})
	}
	return m
}

// ping keeps the connection alive.
func (c *Conn) ping() {
	tick := time.NewTicker(max(c.options.KeepAlive/2, time.Second))
	defer tick.Stop()
	for {
		select {
		case <-c.ended:
			return
		case <-tick.C:
			_ = c.write(packets.Packet{FixedHeader: packets.FixedHeader{Type: packets.Pingreq}}) // the reader hears of the end
		}
	}
}
