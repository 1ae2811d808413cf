//go:build linux

package main_test

import (
	"bufio"
	"crypto/tls"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// door is one listener of a broker under attack.
type door struct {
	kind, address string // kind is tcp, tls or websocket
	tls           *tls.Config
}

// intruder is a connection that sends what it likes: below, TCP or TLS; MQTT in websocket frames where the door wants it.
type intruder struct {
	net.Conn
	t         *testing.T
	websocket bool
	in        *bufio.Reader // of MQTT
	raw       *bufio.Reader // of websocket frames
	message   uint64        // bytes left of the frame that is being read
}

// login is a CONNECT. The zero value of a field leaves it out.
type login struct {
	user, secret, client string
	version              byte // 0 means 5
	resume               bool // keep and take up the session
	willTopic, willText  string
	willDelay            uint32
	properties           []byte // MQTT 5: instead of those of the fields above
}

func (l login) encode() []byte {
	const userFlag, passwordFlag, willFlag, cleanFlag, keepalive = 0x80, 0x40, 0x0c, 0x02, 60
	flags := byte(0)
	if !l.resume {
		flags |= cleanFlag
	}
	if l.user != "" {
		flags |= userFlag
	}
	if l.secret != "" {
		flags |= passwordFlag
	}
	if l.willTopic != "" {
		flags |= willFlag
	}
	if l.version == 0 {
		l.version = 5
	}
	p := append(appendString(nil, "MQTT"), l.version, flags, 0, keepalive)
	if l.version == 5 {
		if l.properties == nil && l.resume {
			l.properties = []byte{0x11, 0, 0, 0x0e, 0x10} // Session Expiry Interval: an hour
		}
		p = append(binary.AppendUvarint(p, uint64(len(l.properties))), l.properties...)
	}
	p = appendString(p, l.client)
	if l.willTopic != "" {
		if l.version == 5 {
			p = append(p, 5, 0x18) // Will Delay Interval
			p = binary.BigEndian.AppendUint32(p, l.willDelay)
		}
		p = appendString(appendString(p, l.willTopic), l.willText)
	}
	if l.user != "" {
		p = appendString(p, l.user)
	}
	if l.secret != "" {
		p = appendString(p, l.secret)
	}
	return encode(1<<4, p)
}

// encodeSubscribe is of MQTT 5, with QoS 1.
func encodeSubscribe(id uint16, filters ...string) []byte {
	p := append(binary.BigEndian.AppendUint16(nil, id), 0)
	for _, filter := range filters {
		p = append(appendString(p, filter), 1)
	}
	return encode(subscribe<<4|2, p)
}

// open makes a connection from an address of the loopback ("" is any), with TLS and websocket but without MQTT.
func (d door) open(t *testing.T, from string) (*intruder, error) {
	dialer := &net.Dialer{Timeout: patience}
	if from != "" {
		dialer.LocalAddr = &net.TCPAddr{IP: net.ParseIP(from)}
	}
	conn, err := dialer.Dial("tcp", d.address)
	if err != nil {
		return nil, err
	}
	t.Cleanup(func() { conn.Close() })
	if err := conn.SetDeadline(time.Now().Add(patience)); err != nil {
		return nil, err
	}
	a := &intruder{t: t, Conn: conn}
	if d.kind == "tls" {
		a.Conn = tls.Client(conn, d.tls)
	}
	a.in = bufio.NewReader(a.Conn)
	if d.kind == "websocket" {
		answer, err := a.upgrade("")
		if err != nil {
			return nil, err
		}
		if answer != 101 {
			return nil, fmt.Errorf("the websocket is refused with status %d", answer)
		}
	}
	return a, nil
}

// upgrade asks for a websocket; header lines end in CR LF. It returns the status of the answer.
func (a *intruder) upgrade(header string) (status int, err error) {
	a.write([]byte("GET /mqtt HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n" +
		"Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\nSec-WebSocket-Protocol: mqtt\r\n" + header + "\r\n"))
	a.raw = bufio.NewReader(a.Conn)
	line, err := a.raw.ReadString('\n')
	if err != nil {
		return 0, err
	}
	if _, err := fmt.Sscanf(line, "HTTP/1.1 %d", &status); err != nil || status != 101 {
		return status, err
	}
	for line != "\r\n" {
		if line, err = a.raw.ReadString('\n'); err != nil {
			return 0, err
		}
	}
	a.websocket, a.in = true, bufio.NewReader(frames{a})
	return status, nil
}

// frames reads what is inside the frames of a server.
type frames struct{ a *intruder }

func (f frames) Read(p []byte) (int, error) {
	a := f.a
	for a.message == 0 {
		var head [2]byte
		if _, err := io.ReadFull(a.raw, head[:]); err != nil {
			return 0, err
		}
		length, extended := uint64(head[1]&0x7f), 0
		switch length {
		case 126:
			extended = 2
		case 127:
			extended = 8
		}
		if extended > 0 {
			long := make([]byte, 8)
			if _, err := io.ReadFull(a.raw, long[8-extended:]); err != nil {
				return 0, err
			}
			length = binary.BigEndian.Uint64(long)
		}
		if opcode := head[0] & 0x0f; opcode == 8 {
			return 0, io.EOF
		} else if opcode > 8 {
			if _, err := io.CopyN(io.Discard, a.raw, int64(length)); err != nil {
				return 0, err
			}
			continue
		}
		a.message = length
	}
	n, err := a.raw.Read(p[:min(uint64(len(p)), a.message)])
	a.message -= uint64(n)
	return n, err
}

// encodeFrame is a frame as a client has to send it; first is the opcode, with 0x80 in the last frame of a message.
func encodeFrame(first byte, payload []byte) []byte {
	const masked = 0x80
	p := []byte{first}
	switch n := len(payload); {
	case n < 126:
		p = append(p, masked|byte(n))
	case n < 1<<16:
		p = binary.BigEndian.AppendUint16(append(p, masked|126), uint16(n))
	default:
		p = binary.BigEndian.AppendUint64(append(p, masked|127), uint64(n))
	}
	return append(append(p, 0, 0, 0, 0), payload...) // with this key the payload stays as it is
}

// write sends bytes as they are. That the server has closed is for a read to find.
func (a *intruder) write(p []byte) { _, _ = a.Write(p) }

// send sends bytes of MQTT.
func (a *intruder) send(p []byte) {
	if a.websocket {
		p = encodeFrame(0x82, p)
	}
	a.write(p)
}

// next reads the next packet.
func (a *intruder) next() (kind byte, body []byte, err error) {
	first, err := a.in.ReadByte()
	if err != nil {
		return 0, nil, err
	}
	length, err := binary.ReadUvarint(a.in)
	if err != nil {
		return 0, nil, err
	}
	if length > 1<<20 {
		return 0, nil, fmt.Errorf("packet of %d bytes", length)
	}
	body = make([]byte, length)
	_, err = io.ReadFull(a.in, body)
	return first >> 4, body, err
}

// await reads until a packet of the kind comes.
func (a *intruder) await(kind byte) ([]byte, error) {
	for {
		got, body, err := a.next()
		if err != nil {
			return nil, fmt.Errorf("wait for packet type %d: %w", kind, err)
		}
		if got == kind {
			return body, nil
		}
	}
}

// ended waits until the server has closed the connection; false means that it has not in time.
func (a *intruder) ended(within time.Duration) bool {
	a.t.Helper()
	require.NoError(a.t, a.SetDeadline(time.Now().Add(within)))
	_, err := io.Copy(io.Discard, a.in)
	return !errors.Is(err, os.ErrDeadlineExceeded)
}

// enter logs in and returns the reason code of the CONNACK.
func (d door) enter(t *testing.T, l login) (*intruder, byte, error) { return d.enterFrom(t, "", l) }

func (d door) enterFrom(t *testing.T, from string, l login) (*intruder, byte, error) {
	a, err := d.open(t, from)
	if err != nil {
		return nil, 0, err
	}
	a.send(l.encode())
	answer, err := a.await(connack)
	if err != nil {
		return nil, 0, err
	}
	return a, answer[1], nil
}

// subscribe returns the reason code of a SUBACK.
func (a *intruder) subscribe(filter string) (byte, error) {
	a.send(encodeSubscribe(9, filter))
	answer, err := a.await(suback)
	if err != nil {
		return 0, err
	}
	return answer[len(answer)-1], nil
}

// publish sends with QoS 1 and returns the reason code of the PUBACK.
func (a *intruder) publish(topic, text string) (byte, error) {
	a.send(encodePublish(5, 1, false, topic, 7, []byte(text)))
	answer, err := a.await(puback)
	if err != nil || len(answer) < 3 {
		return 0, err
	}
	return answer[2], nil
}
