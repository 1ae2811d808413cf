package scene

import (
	"encoding/binary"
	"errors"

	"github.com/plantops/plantops/broker/brokertest/rawmqtt"
	"github.com/plantops/plantops/cmd/plantops/outside/history"
)

// flight is a message of ours on its way.
type flight struct {
	outgoing
	id       uint16
	recorded bool // QoS 2: PUBREC came, so it is PUBREL's turn
}

// encode is the PUBLISH.
func (f flight) encode(version byte, again bool) []byte {
	first := byte(rawmqtt.Publish<<4 | f.qos<<1)
	if again {
		first |= 1 << 3
	}
	if f.retain {
		first |= 1
	}
	body := rawmqtt.AppendString(nil, f.topic)
	if f.qos > 0 {
		body = binary.BigEndian.AppendUint16(body, f.id)
	}
	if version == 5 {
		body = append(body, 0) // no properties
	}
	if !f.empty {
		body = append(body, f.message.Payload(sizeOf(f.message))...)
	}
	return rawmqtt.Encode(first, body)
}

// sizeOf is the length of a payload in bytes: the same when it is sent again.
func sizeOf(m history.Message) int {
	if m.Number%50 == 0 {
		return 4000
	}
	return 32 + m.Number*37%200
}

// takeApart reads the topic and the payload of a PUBLISH.
func takeApart(version byte, p rawmqtt.Packet) (topic string, payload []byte, err error) {
	short := errors.New("a PUBLISH that is too short")
	body := p.Body
	if len(body) < 2 {
		return "", nil, short
	}
	at := 2 + int(binary.BigEndian.Uint16(body))
	if len(body) < at {
		return "", nil, short
	}
	topic = string(body[2:at])
	if p.QoS() > 0 {
		at += 2
	}
	if version == 5 {
		length, n := binary.Uvarint(body[min(at, len(body)):])
		if n <= 0 {
			return "", nil, short
		}
		at += n + int(length)
	}
	if len(body) < at {
		return "", nil, short
	}
	return topic, body[at:], nil
}
