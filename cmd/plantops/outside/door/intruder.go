//go:build linux

package door

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/plantops/plantops/broker/brokertest/rawmqtt"
	"github.com/plantops/plantops/cmd/plantops/outside/setting"
)

// Intruder is a connection that sends what it likes: below, TCP or TLS; MQTT in websocket frames where the door wants it.
type Intruder struct {
	net.Conn
	socket    net.Conn // below TLS
	t         *testing.T
	websocket bool
	In        *bufio.Reader // of MQTT
	raw       *bufio.Reader // of websocket frames
	message   uint64        // bytes left of the frame that is being read
}

// SendRaw sends bytes as they are. That the server has closed is for a read to find.
func (a *Intruder) SendRaw(p []byte) { _, _ = a.Write(p) }

// Send sends bytes of MQTT.
func (a *Intruder) Send(p []byte) {
	if a.websocket {
		p = rawmqtt.EncodeFrame(0x82, p)
	}
	a.SendRaw(p)
}

// Next reads the next packet.
func (a *Intruder) Next() (rawmqtt.Packet, error) { return rawmqtt.Read(a.In) }

// Await reads until a packet of the kind comes.
func (a *Intruder) Await(kind byte) ([]byte, error) {
	for {
		p, err := a.Next()
		if err != nil {
			return nil, fmt.Errorf("wait for packet type %d: %w", kind, err)
		}
		if p.Kind == kind {
			return p.Body, nil
		}
	}
}

// Ended waits until the server has closed the connection; false means that it has not in time.
func (a *Intruder) Ended(within time.Duration) bool {
	a.t.Helper()
	require.NoError(a.t, a.SetDeadline(time.Now().Add(within)))
	_, err := io.Copy(io.Discard, a.In)
	return !errors.Is(err, os.ErrDeadlineExceeded)
}

// Subscribe returns the reason code of a SUBACK.
func (a *Intruder) Subscribe(filter string) (byte, error) {
	a.Send(rawmqtt.EncodeSubscribe(5, 1, 9, filter))
	answer, err := a.Await(rawmqtt.Suback)
	if err != nil {
		return 0, err
	}
	return answer[len(answer)-1], nil
}

// Publish sends with QoS 1 and returns the reason code of the PUBACK.
func (a *Intruder) Publish(topic, text string) (byte, error) {
	a.Send(rawmqtt.Message{Topic: topic, ID: 7, Payload: []byte(text)}.Encode())
	answer, err := a.Await(rawmqtt.Puback)
	if err != nil || len(answer) < 3 {
		return 0, err
	}
	return answer[2], nil
}

// Retain publishes a message to be retained and returns the reason code of the PUBACK.
func (a *Intruder) Retain(topic, text string) byte {
	a.t.Helper()
	a.Send(rawmqtt.Encode(rawmqtt.Publish<<4|2|1, append(append(rawmqtt.AppendString(nil, topic), 0, 5, 0), text...)))
	answer, err := a.Await(rawmqtt.Puback)
	require.NoError(a.t, err)
	if len(answer) < 3 {
		return 0
	}
	return answer[2]
}

// Comes says whether the intruder gets a message with this text within a time, or, when that is 0, before the answer to
// a ping.
func (a *Intruder) Comes(text string, within time.Duration) bool {
	wait := within > 0
	if !wait {
		within = setting.Patience
		a.Send(rawmqtt.Encode(rawmqtt.Pingreq<<4, nil))
	}
	require.NoError(a.t, a.SetDeadline(time.Now().Add(within)))
	for {
		p, err := a.Next()
		if err != nil {
			require.True(a.t, wait, "the connection must last: %v", err)
			return false
		}
		if p.Kind == rawmqtt.Publish && strings.HasSuffix(string(p.Body), text) {
			return true
		}
		if p.Kind == rawmqtt.Pingresp && !wait {
			return false
		}
	}
}

// IsTimeout says that an answer did not come in time.
func IsTimeout(err error) bool { return strings.Contains(err.Error(), os.ErrDeadlineExceeded.Error()) }
