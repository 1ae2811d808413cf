package ingest

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync"
	"sync/atomic"

	"github.com/eclipse/paho.golang/packets"
	"github.com/eclipse/paho.golang/paho/log"
	"github.com/eclipse/paho.golang/paho/session"
)

// inbound is paho's session manager for a client that only receives, at QoS 1. paho's own keeps a list of what is not
// yet acknowledged, searches it for every message, and sends acknowledgements by a ticker; here a message goes
// straight from the reader into the queue and is acknowledged by whoever commits it. There is no session to keep on
// this side: what is not acknowledged, the broker sends again [MQTT-4.4.0-1].
type inbound struct {
	take func(item)
	conn atomic.Pointer[conn] // nil while not connected

	sessions int // that the broker has begun; connections come one after the other

	mu     sync.Mutex
	suback chan<- packets.ControlPacket // of the SUBSCRIBE under way; nil: none
}

var _ session.SessionManager = (*inbound)(nil)

// ConAckReceived starts a connection.
func (s *inbound) ConAckReceived(w io.Writer, _ *packets.Connect, answer *packets.Connack) error {
	c, ok := w.(*conn)
	if !ok {
		return fmt.Errorf("connection is a %T", w)
	}
	if !answer.SessionPresent {
		s.sessions++
	}
	c.session = s.sessions
	s.conn.Store(c)
	return nil
}

// ConnectionLost ends the connection; a Subscribe that waits gets the empty packet, as paho wants it.
func (s *inbound) ConnectionLost(*packets.Disconnect) error {
	s.conn.Store(nil)
	s.answer(packets.ControlPacket{})
	return nil
}

// AddToSession gives the SUBSCRIBE its packet id. There is one per connection and nothing else that needs an id.
func (s *inbound) AddToSession(_ context.Context, p session.Packet, suback chan<- packets.ControlPacket) error {
	if p.Type() != packets.SUBSCRIBE {
		return errors.New("only SUBSCRIBE can be sent")
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.conn.Load() == nil {
		return session.ErrNoConnection
	}
	p.SetIdentifier(1)
	s.suback = suback
	return nil
}

func (s *inbound) answer(p packets.ControlPacket) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.suback != nil {
		s.suback <- p // has room for the one answer
		s.suback = nil
	}
}

// PacketReceived is called by paho's reader. While take waits, nothing more is read: that is the back-pressure.
func (s *inbound) PacketReceived(p *packets.ControlPacket, _ chan<- *packets.Publish) error {
	switch content := p.Content.(type) {
	case *packets.Suback:
		s.answer(*p)
	case *packets.Publish:
		c := s.conn.Load()
		if c == nil {
			return nil
		}
		if content.QoS != 1 || content.PacketID == 0 { // we subscribe at QoS 1
			c.fail(fmt.Errorf("broker sent a message with QoS %d and packet id %d", content.QoS, content.PacketID))
			return nil
		}
		s.take(item{topic: content.Topic, payload: content.Payload, id: content.PacketID, dup: content.Duplicate, from: c,
			retained: content.Retain, account: publisherOf(content)})
	}
	return nil
}

// AccountProperty is the user property in which the embedded broker says which account has published a message. It puts it in
// front of those that the publisher has sent.
const AccountProperty = "plantops-account"

func publisherOf(p *packets.Publish) string {
	if p.Properties == nil || len(p.Properties.User) == 0 || p.Properties.User[0].Key != AccountProperty {
		return ""
	}
	return p.Properties.User[0].Value
}

// Ack does nothing: paho calls it for QoS 0 messages only, the others never reach its handlers.
func (s *inbound) Ack(*packets.Publish) error { return nil }

// Close does nothing; Run ends the connection.
func (s *inbound) Close() error { return nil }

// SetErrorLogger does nothing: errors end the connection, and are logged with it.
func (s *inbound) SetErrorLogger(log.Logger) {}

// SetDebugLogger does nothing.
func (s *inbound) SetDebugLogger(log.Logger) {}
