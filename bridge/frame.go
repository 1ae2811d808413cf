package bridge

import (
	"bufio"
	"bytes"
	"fmt"
	"io"

	"github.com/eclipse/paho.golang/packets"
)

// lengthBytes is the most that a length may take [MQTT 5, 1.5.5].
const lengthBytes = 4

// readPacket reads one packet of a broker, of at most limit bytes. What paho must not see is an error: it makes room for as
// much as a packet announces, and takes lengths of five bytes too.
func readPacket(in *bufio.Reader, limit int) (*packets.ControlPacket, error) {
	kind, err := in.ReadByte()
	if err != nil {
		return nil, err
	}
	if !fromServer(kind >> 4) {
		return nil, fmt.Errorf("it sent a packet of type %d, which no broker may send", kind>>4)
	}
	frame, length := []byte{kind}, 0
	for {
		b, err := in.ReadByte()
		if err != nil {
			return nil, unexpected(err)
		}
		length |= int(b&0x7f) << (7 * (len(frame) - 1))
		frame = append(frame, b)
		if b&0x80 == 0 {
			break
		}
		if len(frame) > lengthBytes {
			return nil, fmt.Errorf("it sent a packet whose length has more than %d bytes", lengthBytes)
		}
	}
	if length > limit {
		return nil, fmt.Errorf("it sent a packet of %d bytes, %d are taken", length, limit)
	}
	head := len(frame)
	frame = append(frame, make([]byte, length)...)
	if _, err := io.ReadFull(in, frame[head:]); err != nil {
		return nil, unexpected(err)
	}
	if kind>>4 == packets.CONNACK && length == 2 { // as MQTT 3.1.1 has it: no properties
		return nil, &refusedError{code: frame[head+1], old: true}
	}
	if kind>>4 == packets.DISCONNECT && length == 0 { // which paho does not read [MQTT 5, 3.14.2.1]
		return packets.NewControlPacket(packets.DISCONNECT), nil
	}
	p, err := packets.ReadPacket(bytes.NewReader(frame))
	if err != nil {
		return nil, fmt.Errorf("it sent a packet that cannot be read: %w", err)
	}
	return p, nil
}

func unexpected(err error) error {
	if err == io.EOF {
		return io.ErrUnexpectedEOF
	}
	return err
}

// fromServer tells whether a packet of the type may come from a broker. AUTH may not: we begin no authentication.
func fromServer(kind byte) bool {
	switch kind {
	case packets.CONNACK, packets.PUBLISH, packets.PUBACK, packets.PUBREC, packets.PUBREL, packets.PUBCOMP,
		packets.SUBACK, packets.UNSUBACK, packets.PINGRESP, packets.DISCONNECT:
		return true
	}
	return false
}

// encode returns the bytes of a packet.
func encode(p *packets.ControlPacket) []byte {
	var b bytes.Buffer
	_, _ = p.WriteTo(&b) // a buffer takes everything
	return b.Bytes()
}

// answer returns the bytes of a PUBACK, PUBREC, PUBREL or PUBCOMP with reason 0 [MQTT 5, 3.4.2.1].
func answer(kind byte, id uint16) []byte {
	flags := byte(0)
	if kind == packets.PUBREL {
		flags = 2
	}
	return []byte{kind<<4 | flags, 2, byte(id >> 8), byte(id)}
}
