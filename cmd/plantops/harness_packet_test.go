//go:build linux

package main_test

import (
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"time"
)

// The few MQTT packets that a device needs, written by hand: a device of the harness does what a library
// hides, such as sending a packet id again.
const (
	connack    = 2
	publish    = 3
	puback     = 4
	pubrec     = 5
	pubrel     = 6
	pubcomp    = 7
	disconnect = 14

	firstFailure  = 0x80 // MQTT 5: reason codes from here on are refusals
	quotaExceeded = 0x97 // MQTT 5: the reason to disconnect a sender whose message cannot be stored now
)

// packet is one that a broker sent.
type packet struct {
	kind   byte
	id     uint16 // of an acknowledgement
	reason byte   // 0 where the packet has none
}

// stream is a bufio.Reader or a bytes.Reader.
type stream interface {
	io.Reader
	io.ByteReader
}

// readPacket reads one packet, or returns why there will be no more.
func readPacket(r stream) (packet, error) {
	first, err := r.ReadByte()
	if err != nil {
		return packet{}, err
	}
	length, err := binary.ReadUvarint(r) // MQTT's variable byte integer is coded the same way
	if err != nil {
		return packet{}, err
	}
	if length > 1<<20 {
		return packet{}, fmt.Errorf("packet of %d bytes", length)
	}
	body := make([]byte, length)
	if _, err := io.ReadFull(r, body); err != nil {
		return packet{}, err
	}
	return parsePacket(first>>4, body)
}

func parsePacket(kind byte, body []byte) (packet, error) {
	p := packet{kind: kind}
	switch kind {
	case puback, pubrec, pubrel, pubcomp:
		if len(body) < 2 {
			return p, fmt.Errorf("acknowledgement of type %d without an id", kind)
		}
		p.id = binary.BigEndian.Uint16(body)
		if len(body) > 2 {
			p.reason = body[2]
		}
	case connack:
		if len(body) < 2 {
			return p, fmt.Errorf("short CONNACK")
		}
		p.reason = body[1]
	case disconnect:
		if len(body) > 0 {
			p.reason = body[0]
		}
	}
	return p, nil
}

func encode(first byte, body []byte) []byte {
	return append(binary.AppendUvarint([]byte{first}, uint64(len(body))), body...)
}

func appendString(p []byte, s string) []byte {
	return append(binary.BigEndian.AppendUint16(p, uint16(len(s))), s...)
}

// encodeConnect asks for a session that outlives the connection; version is 4 (MQTT 3.1.1) or 5.
func encodeConnect(version byte, user, secret string) []byte {
	const hasUser, hasPassword, keepalive = 0x80, 0x40, 60
	body := append(appendString(nil, "MQTT"), version, hasUser|hasPassword, 0, keepalive)
	if version == 5 {
		body = append(body, 5, 0x11, 0, 0, 0x0e, 0x10) // Session Expiry Interval: an hour
	}
	body = appendString(body, user) // the client id
	return encode(1<<4, appendString(appendString(body, user), secret))
}

func encodePublish(version, qos byte, dup bool, topic string, id uint16, payload []byte) []byte {
	first := publish<<4 | qos<<1
	if dup {
		first |= 1 << 3
	}
	body := binary.BigEndian.AppendUint16(appendString(nil, topic), id)
	if version == 5 {
		body = append(body, 0) // no properties
	}
	return encode(first, append(body, payload...))
}

func encodePubrel(id uint16) []byte {
	return encode(pubrel<<4|2, binary.BigEndian.AppendUint16(nil, id))
}

// framed is a websocket to a device that knows nothing about it.
type framed struct{ *intruder }

func overWebsocket(socket net.Conn) (net.Conn, error) {
	a := &intruder{Conn: socket}
	if err := socket.SetDeadline(time.Now().Add(patience)); err != nil {
		return nil, err
	}
	if answer, err := a.upgrade(""); err != nil || answer != 101 {
		return nil, fmt.Errorf("the websocket is refused with status %d: %w", answer, err)
	}
	return framed{a}, socket.SetDeadline(time.Time{})
}

func (f framed) Read(p []byte) (int, error) { return f.in.Read(p) }

func (f framed) Write(p []byte) (int, error) {
	if _, err := f.Conn.Write(encodeFrame(0x82, p)); err != nil {
		return 0, err
	}
	return len(p), nil
}
