//go:build linux

package door

import (
	"bufio"
	"encoding/binary"
	"fmt"
	"io"

	"github.com/plantops/plantops/broker/brokertest/rawmqtt"
)

// Upgrade asks for a websocket; header lines end in CR LF. It returns the status of the answer.
func (a *Intruder) Upgrade(header string) (status int, err error) {
	a.SendRaw([]byte("GET /mqtt HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n" +
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
	a.websocket, a.In = true, bufio.NewReader(frames{a})
	return status, nil
}

// enterWebsocket asks for a websocket that must be granted.
func (a *Intruder) enterWebsocket() error {
	answer, err := a.Upgrade("")
	if err != nil {
		return fmt.Errorf("ask for a websocket: %w", err)
	}
	if answer != 101 {
		return fmt.Errorf("the websocket is refused with status %d", answer)
	}
	return nil
}

// frames reads what is inside the frames of a server.
type frames struct{ a *Intruder }

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

// framed is a websocket to a client that knows nothing about it.
type framed struct{ *Intruder }

func (f framed) Read(p []byte) (int, error) { return f.In.Read(p) }

func (f framed) Write(p []byte) (int, error) {
	if _, err := f.Conn.Write(rawmqtt.EncodeFrame(0x82, p)); err != nil {
		return 0, err
	}
	return len(p), nil
}
