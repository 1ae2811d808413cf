package brokertest

import (
	"bufio"
	"crypto/tls"
	"io"
	"net"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/gorilla/websocket"
	"github.com/mochi-mqtt/server/v2/packets"
	"github.com/stretchr/testify/require"
)

// Patience is how long a client waits for a packet before its test fails.
const Patience = 30 * time.Second

// Login is what a client says in its CONNECT. The zero value of a field is the ordinary case.
type Login struct {
	User, Password string // "" leaves it out
	ClientID       string // "" = the broker assigns one
	Version        byte   // 0 = 4 = MQTT 3.1.1
	Keepalive      uint16 // seconds
	Resume         bool   // keep and take up the session: Clean Session or Clean Start 0
	Will           *Will
	Properties     packets.Properties // MQTT 5
	Certificate    *tls.Certificate
}

// Will is a will message.
type Will struct {
	Topic, Payload string
	QoS            byte
	Retain         bool
	Properties     packets.Properties
}

// As is the login of a device made by Device, under a client id of the broker's choice.
func As(id string) Login { return Login{User: id, Password: Password(id)} }

// AsBackend logs in as the backend account, under any other client id than the in-process subscriber's.
func (b *Broker) AsBackend() Login {
	return Login{User: b.Backend.Username, Password: b.Backend.Password}
}

// Client is one MQTT connection. It is used by one goroutine.
type Client struct {
	t       testing.TB
	version atomic.Uint32
	conn    io.WriteCloser
	lastID  uint16

	mu      sync.Mutex
	inbox   []packets.Packet // arrived and not returned yet
	ended   error            // why nothing more will come
	changed chan struct{}    // inbox or ended changed
}

// Dial connects and logs in; the broker must accept. A ping makes sure that it counts the client as connected, which it
// does a moment after its CONNACK.
func Dial(t testing.TB, b *Broker, kind Kind, login Login) *Client {
	t.Helper()
	c, ack := TryDial(t, b, kind, login)
	require.Equal(t, byte(0), ack.ReasonCode, "CONNACK over %s: %#x", kind, ack.ReasonCode)
	c.Ping()
	return c
}

// TryDial connects and returns the broker's CONNACK, whatever it says.
func TryDial(t testing.TB, b *Broker, kind Kind, login Login) (*Client, packets.Packet) {
	t.Helper()
	c := Open(t, b, kind, login.Certificate)
	c.SendConnect(login)
	return c, c.Await(packets.Connack)
}

// Open makes the connection and sends nothing. certificate may be nil.
func Open(t testing.TB, b *Broker, kind Kind, certificate *tls.Certificate) *Client {
	t.Helper()
	conn, err := open(b, kind, certificate)
	require.NoError(t, err)
	c := &Client{t: t, conn: conn, changed: make(chan struct{}, 1)}
	c.version.Store(4)
	t.Cleanup(func() { _ = conn.Close() })
	go c.read(bufio.NewReader(conn))
	return c
}

// Deaf connects a subscriber over TCP, in MQTT 3.1.1, that reads nothing more after its SUBACK.
func Deaf(t testing.TB, b *Broker, login Login, filter string, qos byte) {
	t.Helper()
	conn, err := open(b, TCP, nil)
	require.NoError(t, err)
	t.Cleanup(func() { _ = conn.Close() })
	c := &Client{t: t, conn: conn}
	c.version.Store(4)
	c.SendConnect(login)
	c.Send(packets.Packet{FixedHeader: packets.FixedHeader{Type: packets.Subscribe, Qos: 1}, PacketID: 1,
		Filters: packets.Subscriptions{{Filter: filter, Qos: qos}}})
	answers := make([]byte, 9) // CONNACK and SUBACK
	_, err = io.ReadFull(conn, answers)
	require.NoError(t, err)
	require.Equal(t, []byte{0x20, 2, 0, 0, 0x90, 3, 0, 1, qos}, answers)
}

func open(b *Broker, kind Kind, certificate *tls.Certificate) (io.ReadWriteCloser, error) {
	address := b.addr(kind).String()
	dialer := &net.Dialer{Timeout: Patience}
	switch kind {
	case TLS:
		return tls.DialWithDialer(dialer, "tcp", address, b.clientTLS(certificate))
	case WebSocket:
		d := websocket.Dialer{Subprotocols: []string{"mqtt"}, HandshakeTimeout: Patience}
		conn, _, err := d.Dial("ws://"+address+"/mqtt", nil)
		return &webSocket{Conn: conn}, err
	}
	return dialer.Dial("tcp", address)
}

// SendConnect sends a CONNECT and sets the client's protocol version.
func (c *Client) SendConnect(login Login) {
	c.t.Helper()
	if login.Version != 0 {
		c.version.Store(uint32(login.Version))
	}
	connect := packets.ConnectParams{
		ProtocolName: []byte("MQTT"), ClientIdentifier: login.ClientID, Clean: !login.Resume, Keepalive: login.Keepalive,
		UsernameFlag: login.User != "", Username: []byte(login.User),
		PasswordFlag: login.Password != "", Password: []byte(login.Password),
	}
	if w := login.Will; w != nil {
		connect.WillFlag, connect.WillTopic, connect.WillPayload = true, w.Topic, []byte(w.Payload)
		connect.WillQos, connect.WillRetain, connect.WillProperties = w.QoS, w.Retain, w.Properties
	}
	if c.version.Load() == 3 {
		connect.ProtocolName = []byte("MQIsdp")
	}
	c.Send(packets.Packet{FixedHeader: packets.FixedHeader{Type: packets.Connect}, Connect: connect, Properties: login.Properties})
}

// Send sends any packet. That the broker has closed the connection meanwhile is for the next Await to find.
func (c *Client) Send(pk packets.Packet) {
	c.t.Helper()
	pk.ProtocolVersion = byte(c.version.Load())
	pk.Mods.AllowResponseInfo = true
	encoded, err := encode(pk)
	require.NoError(c.t, err)
	c.SendBytes(encoded)
}

// SendBytes sends what may be no packet at all.
func (c *Client) SendBytes(p []byte) { _, _ = c.conn.Write(p) }

// Subscribe returns the reason code of the SUBACK.
func (c *Client) Subscribe(filter string, qos byte) byte {
	c.t.Helper()
	return c.SubscribeWith(packets.Subscription{Filter: filter, Qos: qos})
}

// SubscribeWith is Subscribe with the options of MQTT 5.
func (c *Client) SubscribeWith(sub packets.Subscription) byte {
	c.t.Helper()
	id := c.nextID()
	pk := packets.Packet{FixedHeader: packets.FixedHeader{Type: packets.Subscribe, Qos: 1}, PacketID: id, Filters: packets.Subscriptions{sub}}
	if sub.Identifier > 0 {
		pk.Properties.SubscriptionIdentifier = []int{sub.Identifier}
	}
	c.Send(pk)
	codes := c.awaitAck(packets.Suback, id).ReasonCodes
	require.Len(c.t, codes, 1)
	return codes[0]
}

// Publish sends a message and, for QoS 1 and 2, waits until it is acknowledged, or refused; it returns the reason code.
func (c *Client) Publish(topic, payload string, qos byte) byte {
	c.t.Helper()
	id := c.SendPublish(topic, payload, qos)
	switch qos {
	case 1:
		return c.awaitAck(packets.Puback, id).ReasonCode
	case 2:
		if code := c.awaitAck(packets.Pubrec, id).ReasonCode; code >= 0x80 {
			return code
		}
		c.sendAck(packets.Pubrel, id)
		return c.awaitAck(packets.Pubcomp, id).ReasonCode
	}
	return 0
}

// SendPublish sends a message, waits for nothing and returns its packet id.
func (c *Client) SendPublish(topic, payload string, qos byte) (id uint16) {
	c.t.Helper()
	if qos > 0 {
		id = c.nextID()
	}
	c.Send(packets.Packet{FixedHeader: packets.FixedHeader{Type: packets.Publish, Qos: qos}, PacketID: id,
		TopicName: topic, Payload: []byte(payload)})
	return id
}

// Receive waits for a message and acknowledges it.
func (c *Client) Receive() packets.Packet {
	c.t.Helper()
	pk := c.Await(packets.Publish)
	c.Acknowledge(pk)
	return pk
}

// Acknowledge completes the exchange for a message that Await returned.
func (c *Client) Acknowledge(pk packets.Packet) {
	c.t.Helper()
	switch pk.FixedHeader.Qos {
	case 1:
		c.sendAck(packets.Puback, pk.PacketID)
	case 2:
		c.sendAck(packets.Pubrec, pk.PacketID)
		c.awaitAck(packets.Pubrel, pk.PacketID)
		c.sendAck(packets.Pubcomp, pk.PacketID)
	}
}

// Await returns the first packet of the type that has not been returned yet; others are kept for later.
func (c *Client) Await(packetType byte) packets.Packet {
	c.t.Helper()
	pk, ok := c.wait(func(pk packets.Packet) bool { return pk.FixedHeader.Type == packetType })
	if !ok {
		require.Fail(c.t, "connection ended", "waiting for %s: %v", packets.PacketNames[packetType], c.ended)
	}
	return pk
}

// AwaitNoMessage makes sure that no message has come before the answer to a ping. What the test publishes elsewhere
// must have been acknowledged before.
func (c *Client) AwaitNoMessage() {
	c.t.Helper()
	c.Ping()
	for _, pk := range c.unread() {
		require.NotEqual(c.t, packets.Publish, pk.FixedHeader.Type, "unexpected message %s %q", pk.TopicName, pk.Payload)
	}
}

// AwaitNone makes sure that no packet of the type has come before the answer to a ping.
func (c *Client) AwaitNone(packetType byte) {
	c.t.Helper()
	c.Ping()
	for _, pk := range c.unread() {
		require.NotEqual(c.t, packetType, pk.FixedHeader.Type, "unexpected %s", packets.PacketNames[packetType])
	}
}

// Ping waits for the answer to a PINGREQ: the broker has dealt with what was sent before.
func (c *Client) Ping() {
	c.t.Helper()
	c.Send(packets.Packet{FixedHeader: packets.FixedHeader{Type: packets.Pingreq}})
	c.Await(packets.Pingresp)
}

// AwaitClosed waits until the broker has closed the connection and returns its DISCONNECT's reason code; 0 = there was none.
func (c *Client) AwaitClosed() byte {
	c.t.Helper()
	_, got := c.wait(func(packets.Packet) bool { return false })
	require.False(c.t, got)
	for _, pk := range c.unread() {
		if pk.FixedHeader.Type == packets.Disconnect {
			return pk.ReasonCode
		}
	}
	return 0
}

// Ended reports whether the connection has ended.
func (c *Client) Ended() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.ended != nil
}

// Disconnect says goodbye and waits for the broker to close.
func (c *Client) Disconnect() {
	c.t.Helper()
	c.Send(packets.Packet{FixedHeader: packets.FixedHeader{Type: packets.Disconnect}})
	c.AwaitClosed()
}

// Close ends the connection without a word: the broker publishes the will.
func (c *Client) Close() { _ = c.conn.Close() }

func (c *Client) nextID() uint16 {
	c.lastID++
	if c.lastID == 0 {
		c.lastID = 1
	}
	return c.lastID
}

func (c *Client) sendAck(packetType byte, id uint16) {
	c.t.Helper()
	ack := packets.Packet{FixedHeader: packets.FixedHeader{Type: packetType}, PacketID: id}
	if packetType == packets.Pubrel {
		ack.FixedHeader.Qos = 1
	}
	c.Send(ack)
}

func (c *Client) awaitAck(packetType byte, id uint16) packets.Packet {
	c.t.Helper()
	pk, ok := c.wait(func(pk packets.Packet) bool { return pk.FixedHeader.Type == packetType && pk.PacketID == id })
	if !ok {
		require.Fail(c.t, "connection ended", "waiting for %s of %d: %v", packets.PacketNames[packetType], id, c.ended)
	}
	return pk
}

// AwaitAckOrEnd returns the reason code of the first packet of the type, or that the connection has ended instead.
func (c *Client) AwaitAckOrEnd(packetType byte) (code byte, ended bool) {
	c.t.Helper()
	pk, ok := c.wait(func(pk packets.Packet) bool { return pk.FixedHeader.Type == packetType })
	return pk.ReasonCode, !ok
}

// wait returns the first packet that fits, or false at the end of the connection.
func (c *Client) wait(fits func(packets.Packet) bool) (packets.Packet, bool) {
	c.t.Helper()
	timeout := time.NewTimer(Patience)
	defer timeout.Stop()
	for seen := 0; ; {
		c.mu.Lock()
		for i, pk := range c.inbox[seen:] {
			if fits(pk) {
				c.remove(seen + i)
				c.mu.Unlock()
				return pk, true
			}
		}
		seen = len(c.inbox)
		ended := c.ended != nil
		c.mu.Unlock()
		if ended {
			return packets.Packet{}, false
		}
		select {
		case <-c.changed:
		case <-timeout.C:
			require.Fail(c.t, "no answer from the broker", "waited %s; %d other packets came", Patience, seen)
		}
	}
}

// remove takes packet i out of the inbox, at no cost when it is the first.
func (c *Client) remove(i int) {
	if i == 0 {
		c.inbox = c.inbox[1:]
		return
	}
	c.inbox = slices.Delete(c.inbox, i, i+1)
}

// unread returns what has arrived and was not returned by a wait.
func (c *Client) unread() []packets.Packet {
	c.mu.Lock()
	defer c.mu.Unlock()
	return slices.Clone(c.inbox)
}

// Has reports whether a packet of the type has come and was not returned yet.
func (c *Client) Has(packetType byte) bool {
	for _, pk := range c.unread() {
		if pk.FixedHeader.Type == packetType {
			return true
		}
	}
	return false
}
