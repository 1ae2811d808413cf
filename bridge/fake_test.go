package bridge_test

import (
	"bufio"
	"net"
	"slices"
	"sync"
	"testing"
	"time"

	paho "github.com/eclipse/paho.golang/packets"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/plantops/plantops/bridge"
	"github.com/plantops/plantops/broker/brokertest"
)

// fake is a broker that does what a test says.
type fake struct {
	address string
	connack []byte
	// published says what to answer to a message; nil: that it is acknowledged. end ends the connection then.
	published func(p *paho.Publish) (reply []byte, end bool)
	pinged    func() (reply []byte) // may be nil
	deaf      chan struct{}         // not nil: after a CONNECT nothing is read until it is closed

	mu   sync.Mutex
	got  []*paho.Publish
	rels int             // PUBRELs
	held map[uint16]bool // packet ids of QoS 2 whose PUBREL has not come; nil: it does not look
}

// accepted is a CONNACK without a session.
var accepted = []byte{0x20, 3, 0, 0, 0}

func (f *fake) start(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	t.Cleanup(func() { l.Close() })
	f.address = l.Addr().String()
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go f.serve(c)
		}
	}()
}

func (f *fake) serve(c net.Conn) {
	defer c.Close()
	if f.deaf != nil {
		_ = c.(*net.TCPConn).SetReadBuffer(256 << 10)
	}
	in := bufio.NewReader(c)
	for {
		p, err := paho.ReadPacket(in)
		if err != nil {
			return
		}
		switch p := p.Content.(type) {
		case *paho.Connect:
			_, _ = c.Write(f.connack)
			if f.deaf != nil {
				<-f.deaf
			}
		case *paho.Subscribe:
			ack := paho.NewControlPacket(paho.SUBACK)
			ack.Content.(*paho.Suback).PacketID, ack.Content.(*paho.Suback).Reasons = p.PacketID, make([]byte, len(p.Subscriptions))
			_, _ = ack.WriteTo(c)
		case *paho.Pingreq:
			if f.pinged != nil {
				_, _ = c.Write(f.pinged())
			}
		case *paho.Pubrel:
			f.mu.Lock()
			delete(f.held, p.PacketID)
			f.rels++
			f.mu.Unlock()
			_, _ = c.Write([]byte{0x70, 2, byte(p.PacketID >> 8), byte(p.PacketID)})
		case *paho.Publish:
			reply, end := f.answer(p)
			_, _ = c.Write(reply)
			if end {
				return
			}
		}
	}
}

func (f *fake) answer(p *paho.Publish) (reply []byte, end bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if !f.held[p.PacketID] {
		f.got = append(f.got, p)
	}
	if f.held != nil {
		f.held[p.PacketID] = true
	}
	if f.published != nil {
		if reply, end = f.published(p); reply != nil || end {
			return reply, end
		}
	}
	if p.QoS == 0 {
		return nil, false
	}
	return []byte{map[byte]byte{1: 0x40, 2: 0x50}[p.QoS], 2, byte(p.PacketID >> 8), byte(p.PacketID)}, false
}

// payloads are those of the messages that came, in order, each once.
func (f *fake) payloads() (all []string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, p := range f.got {
		if text := string(p.Payload); !slices.Contains(all, text) {
			all = append(all, text)
		}
	}
	return all
}

func TestABrokerWithoutMQTT5IsSaidInWords(t *testing.T) {
	for name, c := range map[string]struct {
		connack []byte
		says    string
	}{
		"as MQTT 3.1.1 says it": {[]byte{0x20, 2, 0, 1}, "a bridge speaks MQTT 5 only"},
		"as MQTT 5 says it":     {[]byte{0x20, 3, 0, 0x84, 0}, "a bridge speaks MQTT 5 only"},
		"client id":             {[]byte{0x20, 3, 0, 0x85, 0}, `set client_id to one that it takes; it was "box-1"`},
		"password, 3.1.1":       {[]byte{0x20, 2, 0, 5}, `check username ("guest") and password`},
		"no packet":             {[]byte{0x20, 0xff, 0xff, 0xff, 0xff, 1}, "whose length has more than 4 bytes"},
		"too large":             {[]byte{0x20, 0xff, 0xff, 0xff, 0x7f}, "are taken"},
		"HTTP":                  {[]byte("HTTP/1.1 400 Bad Request\r\n\r\n"), "it may be no MQTT broker"},
		"properties cut off":    {[]byte{0x20, 4, 0, 0, 9, 17}, "cannot be read"},
	} {
		t.Run(name, func(t *testing.T) {
			here, there := brokertest.Start(t), &fake{connack: c.connack}
			there.start(t)
			b, _, _ := start(t, options(here, there.address, everything))
			s := await(t, b, func(s bridge.Status) bool { return s.Why != "not connected yet" })
			assert.False(t, s.Connected)
			assert.Contains(t, s.Why, c.says)
		})
	}
}

func TestTwoClientsWithOneIDAreSaidInWords(t *testing.T) {
	here, there := brokertest.Start(t), brokertest.Start(t, guest)
	b, log, _ := start(t, options(here, there.Addrs().TCP.String(), everything))
	awaitUp(t, b)
	brokertest.Dial(t, there, brokertest.TCP, brokertest.Login{User: "guest", Password: guest.Password, ClientID: "box-1", Version: 5})
	await(t, b, func(bridge.Status) bool {
		return len(log.Lines(`another client uses the client id`, `give each bridge a client_id of its own`)) > 0
	})
}

// A broker may end the connection for a message. That one alone is left, after it was sent alone.
func TestAMessageForWhichTheConnectionEndsIsLeft(t *testing.T) {
	for qos := byte(1); qos <= 2; qos++ {
		here := brokertest.Start(t)
		there := &fake{connack: accepted, published: func(p *paho.Publish) ([]byte, bool) {
			if p.Topic == "poison" {
				return []byte{0xe0, 1, 0x99}, true
			}
			return nil, false
		}}
		there.start(t)
		o := options(here, there.address, bridge.Route{Filter: "#", Direction: bridge.Out, QoS: qos})
		b, _, stop := start(t, o)
		awaitUp(t, b)
		stop()
		send := publisher(t, here)
		for _, text := range []string{"1", "2", "x", "3", "4"} {
			name := "n"
			if text == "x" {
				name = "poison"
			}
			send.Publish(name, text, qos)
		}
		b, log, _ := start(t, o)
		await(t, b, func(s bridge.Status) bool { return s.Connected && s.Out.Refused == 1 && s.Out.Carried >= 4 })
		require.Eventually(t, func() bool { return here.Waiting(o.Local.ClientID) == 0 }, brokertest.Patience, 5e6)
		assert.Equal(t, []string{"1", "2", "x", "3", "4"}, there.payloads())
		assert.Len(t, log.Lines("a message is not carried", "topic=poison", "payload format not valid"), 1)
	}
}

// A broker may have no room for a while.
func TestAMessageWithoutRoomIsSentAgain(t *testing.T) {
	here := brokertest.Start(t)
	full := 3
	there := &fake{connack: accepted, published: func(p *paho.Publish) ([]byte, bool) {
		if full--; full >= 0 {
			return []byte{0x40, 3, byte(p.PacketID >> 8), byte(p.PacketID), 0x97}, false
		}
		return nil, false
	}}
	there.start(t)
	b, _, _ := start(t, options(here, there.address, bridge.Route{Filter: "#", Direction: bridge.Out, QoS: 1}))
	awaitUp(t, b)
	publisher(t, here).Publish("n", "1", 1)
	s := await(t, b, func(s bridge.Status) bool { return s.Out.Carried == 1 })
	assert.Zero(t, s.Out.Refused)
	assert.Equal(t, []string{"1"}, there.payloads())
}

// One that has never room must not hold up what comes behind.
func TestAMessageThatNeverHasRoomIsLeft(t *testing.T) {
	here := brokertest.Start(t)
	there := &fake{connack: accepted, published: func(p *paho.Publish) ([]byte, bool) {
		if string(p.Payload) == "x" {
			return []byte{0x40, 3, byte(p.PacketID >> 8), byte(p.PacketID), 0x97}, false
		}
		return nil, false
	}}
	there.start(t)
	o := options(here, there.address, bridge.Route{Filter: "#", Direction: bridge.Out, QoS: 1})
	o.FirstWait = 1e6
	b, _, _ := start(t, o)
	awaitUp(t, b)
	send := publisher(t, here)
	send.Publish("n", "x", 1)
	send.Publish("n", "1", 1)
	await(t, b, func(s bridge.Status) bool { return s.Out.Carried == 1 && s.Out.Refused == 1 })
	assert.Equal(t, []string{"x", "1"}, there.payloads())
}

// The other broker may allow less than is asked for: messages at a time, QoS, retained messages.
func TestWhatTheOtherBrokerAllowsIsKept(t *testing.T) {
	here := brokertest.Start(t)
	there := &fake{connack: []byte{0x20, 10, 0, 0, 7, 0x21, 0, 1, 0x24, 1, 0x25, 0}} // Receive Maximum 1, Maximum QoS 1, no retained messages
	var waiting []byte                                                               // its acknowledgement leaves at the next ping
	there.published = func(p *paho.Publish) ([]byte, bool) {
		assert.Empty(t, waiting, "one at a time")
		waiting = []byte{0x40, 2, byte(p.PacketID >> 8), byte(p.PacketID)}
		return []byte{}, false
	}
	there.pinged = func() []byte {
		reply := append([]byte{0xd0, 0}, waiting...)
		waiting = nil
		return reply
	}
	there.start(t)
	send := publisher(t, here)
	o := options(here, there.address, bridge.Route{Filter: "#", Direction: bridge.Out, QoS: 2})
	o.KeepAlive = 50 * time.Millisecond
	b, _, _ := start(t, o)
	awaitUp(t, b)
	for range 5 {
		send.SendPublish("n", "x", 2)
	}
	await(t, b, func(s bridge.Status) bool { return s.Out.Carried == 5 })
	assert.Zero(t, there.rels)
	for _, p := range there.got {
		assert.Equal(t, byte(1), p.QoS)
		assert.False(t, p.Retain)
	}
}

// The session at one broker may be newer than that at the other one, which then holds packet ids of messages that are no more.
func TestANewMessageIsNotTakenForAnOldOneOfItsID(t *testing.T) {
	here := brokertest.Start(t)
	there := &fake{connack: []byte{0x20, 3, 1, 0, 0}, held: map[uint16]bool{1: true, 2: true}}
	there.start(t)
	b, _, _ := start(t, options(here, there.address, bridge.Route{Filter: "#", Direction: bridge.Out, QoS: 2}))
	awaitUp(t, b)
	send := publisher(t, here)
	for _, text := range []string{"1", "2", "3"} {
		send.Publish("n", text, 2)
	}
	await(t, b, func(bridge.Status) bool { return len(there.payloads()) == 3 })
	assert.Equal(t, []string{"1", "2", "3"}, there.payloads())
}

// Messages of QoS 0 do not wait for ever for a broker that takes nothing, and not one after the other.
func TestQoS0IsDroppedForABrokerThatTakesNothing(t *testing.T) {
	here := brokertest.Start(t)
	there := &fake{connack: accepted, deaf: make(chan struct{})}
	defer close(there.deaf)
	there.start(t)
	b, log, _ := start(t, options(here, there.address, bridge.Route{Filter: "#", Direction: bridge.Out, QoS: 0}))
	awaitUp(t, b)
	send := publisher(t, here)
	s := await(t, b, func(s bridge.Status) bool { // until sockets and bridge are full
		for range 10 {
			send.Publish("n", string(make([]byte, 200_000)), 0)
		}
		return s.Out.Dropped > 100
	})
	assert.True(t, s.Connected)
	require.Eventually(t, func() bool { return len(log.Lines("QoS 0 messages are dropped", "topic=n")) == 1 }, brokertest.Patience, 5e6)
}
