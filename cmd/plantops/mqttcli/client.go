// Package mqttcli is the MQTT client behind plantops pub and plantops sub: one connection, MQTT 3.1, 3.1.1 or 5, all
// qualities of service, to any broker; and what a message looks like to a person. It knows no command line and none of our
// other packages. The bytes are made and read by mochi's packets, which knows every version; paho.golang knows 5 alone.
package mqttcli

import (
	"bufio"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"sync"
	"time"

	"github.com/mochi-mqtt/server/v2/packets"
)

// Options say how to connect.
type Options struct {
	Address   string      // host:port
	TLS       *tls.Config // nil: without
	Version   byte        // 3 (MQTT 3.1), 4 (3.1.1) or 5
	Username  string      // "" with Password "": none
	Password  string
	ClientID  string        // "": the broker chooses; MQTT 3.1 has no such thing
	Keep      bool          // the session, over connections
	Expiry    uint32        // of the session, in seconds; MQTT 5, with Keep
	KeepAlive time.Duration // in seconds; 0: none
	Will      *Message
}

// Message is what is published. What stands below Properties is MQTT 5's.
type Message struct {
	Topic       string
	Payload     []byte
	QoS         byte
	Retain, Dup bool
	ID          uint16 // of the packet

	// Properties; the zero value is "not given".
	ContentType, ResponseTopic string
	CorrelationData            []byte
	Expiry                     uint32 // seconds
	Text                       bool   // payload format indicator 1
	SubscriptionIDs            []int
	User                       []Property
}

// Property is a user property.
type Property struct{ Key, Value string }

// Filter is a subscription.
type Filter struct {
	Filter            string
	QoS               byte
	RetainAsPublished bool // MQTT 5
}

// Refused is a broker's no, or its goodbye.
type Refused struct {
	What string // "connect"; "publish to a/b"; "subscribe to a/#"
	Code byte   // of the protocol's version
	text string
}

func (r Refused) Error() string { return fmt.Sprintf("%s: the broker says: %s", r.What, r.text) }

// The reasons that callers branch on.
var (
	ErrVersion      = errors.New("the broker does not speak this version of MQTT")
	ErrUnauthorized = errors.New("not authorised")
	ErrUnavailable  = errors.New("server unavailable")
)

// Unwrap is one of the reasons above, or nil.
func (r Refused) Unwrap() error {
	switch r.Code {
	case 0x01, 0x84:
		return ErrVersion
	case 0x04, 0x05, 0x86, 0x87, 0x8A, 0x8C:
		return ErrUnauthorized
	case 0x03, 0x88, 0x89, 0x8B:
		return ErrUnavailable
	}
	return nil
}

// connackV3 are the words of CONNACK in MQTT 3.1.1, section 3.2.2.3.
var connackV3 = map[byte]string{1: "unacceptable protocol version", 2: "client id rejected", 3: "server unavailable",
	4: "bad user name or password", 5: "not authorised"}

// Conn is one connection. Its methods may be called from any goroutine.
type Conn struct {
	options  Options
	conn     net.Conn
	incoming chan Message
	closed   chan struct{} // by us
	ended    chan struct{}
	window   int // so many messages may be unacknowledged
	largest  int // bytes of a packet that the broker takes

	writing sync.Mutex
	mu      sync.Mutex
	err     error // why it ended
	lastID  uint16
	waiting map[uint16]chan packets.Packet // for answers, by packet id
	held    map[uint16]bool                // QoS 2 messages that were received and not released
}

// ownWindow is how many messages this client has unacknowledged at most.
const ownWindow = 100

// Dial connects and logs in. The error is a Refused, or says why the broker was not reached.
func Dial(ctx context.Context, o Options) (*Conn, error) {
	conn, err := (&net.Dialer{}).DialContext(ctx, "tcp", o.Address)
	if err != nil {
		return nil, fmt.Errorf("connect: %w", err)
	}
	if o.TLS != nil {
		secure := tls.Client(conn, o.TLS)
		if err := secure.HandshakeContext(ctx); err != nil {
			conn.Close()
			return nil, fmt.Errorf("connect to %s with TLS: %w", o.Address, err)
		}
		conn = secure
	}
	c := &Conn{options: o, conn: conn, incoming: make(chan Message), closed: make(chan struct{}), ended: make(chan struct{}),
		window: ownWindow, largest: maxPacketBytes,
		waiting: map[uint16]chan packets.Packet{}, held: map[uint16]bool{}}
	stop := context.AfterFunc(ctx, func() { conn.Close() })
	reader := bufio.NewReader(conn)
	if err = c.login(reader); !stop() {
		err = errors.Join(ctx.Err(), err)
	}
	if err != nil {
		conn.Close()
		return nil, err
	}
	go c.read(reader)
	if o.KeepAlive > 0 {
		go c.ping()
	}
	return c, nil
}

func (c *Conn) login(reader *bufio.Reader) error {
	o := c.options
	connect := packets.ConnectParams{
		ProtocolName: []byte("MQTT"), ClientIdentifier: o.ClientID, Clean: !o.Keep, Keepalive: uint16(o.KeepAlive / time.Second),
		UsernameFlag: o.Username != "", Username: []byte(o.Username), PasswordFlag: o.Password != "", Password: []byte(o.Password),
	}
	if o.Version == 3 {
		connect.ProtocolName = []byte("MQIsdp")
	}
	pk := packets.Packet{FixedHeader: packets.FixedHeader{Type: packets.Connect}, Connect: connect}
	if o.Version == 5 {
		pk.Properties.SessionExpiryInterval, pk.Properties.SessionExpiryIntervalFlag = o.Expiry, o.Expiry > 0
		pk.Properties.ReceiveMaximum = ownWindow
	}
	if w := o.Will; w != nil {
		pk.Connect.WillFlag, pk.Connect.WillTopic, pk.Connect.WillPayload = true, w.Topic, w.Payload
		pk.Connect.WillQos, pk.Connect.WillRetain = w.QoS, w.Retain
	}
	if err := c.write(pk); err != nil {
		return fmt.Errorf("connect: %w", err)
	}
	ack, err := readPacket(reader, o.Version)
	switch {
	case err != nil:
		return fmt.Errorf("connect: the broker at %s closes the connection or does not speak MQTT there: %w", o.Address, err)
	case ack.FixedHeader.Type != packets.Connack:
		return fmt.Errorf("connect: the broker answers with %s", packets.PacketNames[ack.FixedHeader.Type])
	case ack.ReasonCode != 0:
		return c.refused("connect", ack)
	}
	if n := int(ack.Properties.ReceiveMaximum); n > 0 {
		c.window = min(c.window, n)
	}
	if n := ack.Properties.MaximumPacketSize; n > 0 {
		c.largest = min(c.largest, int(n))
	}
	if ack.Properties.ServerKeepAliveFlag {
		c.options.KeepAlive = time.Duration(ack.Properties.ServerKeepAlive) * time.Second
	}
	return nil
}

// refused puts a code into words: the broker's own where it gives some.
func (c *Conn) refused(what string, answer packets.Packet) Refused {
	text := answer.Properties.ReasonString
	if text == "" && answer.ReasonCode < 0x80 {
		text = connackV3[answer.ReasonCode]
	}
	if text == "" {
		text = reasons[answer.ReasonCode]
	}
	if text == "" {
		text = fmt.Sprintf("code %#02x", answer.ReasonCode)
	}
	return Refused{What: what, Code: answer.ReasonCode, text: text}
}

// reasons are the words of MQTT 5, section 2.4, that a client can meet.
var reasons = map[byte]string{
	0x80: "unspecified error", 0x81: "malformed packet", 0x82: "protocol error", 0x83: "implementation specific error",
	0x84: "unsupported protocol version", 0x85: "client identifier not valid", 0x86: "bad user name or password", 0x87: "not authorised",
	0x88: "server unavailable", 0x89: "server busy", 0x8A: "banned", 0x8B: "server shutting down", 0x8C: "bad authentication method",
	0x8D: "keep alive timeout", 0x8E: "session taken over", 0x8F: "topic filter invalid", 0x90: "topic name invalid",
	0x93: "receive maximum exceeded", 0x94: "topic alias invalid", 0x95: "packet too large", 0x96: "message rate too high",
	0x97: "quota exceeded", 0x98: "administrative action", 0x99: "payload format invalid", 0x9A: "retain not supported",
	0x9B: "QoS not supported", 0x9C: "use another server", 0x9D: "server moved", 0x9E: "shared subscriptions not supported",
	0x9F: "connection rate exceeded", 0xA1: "subscription identifiers not supported", 0xA2: "wildcard subscriptions not supported",
}

// begin sends a message. wait returns when the exchange is over: at once for QoS 0, else when the broker has acknowledged it.
func (c *Conn) begin(m Message) (wait func(context.Context) error, err error) {
	pk := packets.Packet{FixedHeader: packets.FixedHeader{Type: packets.Publish, Qos: m.QoS, Retain: m.Retain}, TopicName: m.Topic, Payload: m.Payload}
	if m.QoS == 0 {
		return func(context.Context) error { return nil }, c.write(pk)
	}
	id, answers, err := c.expect()
	if err != nil {
		return nil, err
	}
	pk.PacketID = id
	if err := c.write(pk); err != nil {
		c.forget(id)
		return nil, err
	}
	return func(ctx context.Context) error {
		defer c.forget(id)
		for {
			answer, err := c.await(ctx, answers)
			switch {
			case err != nil:
				return err
			case answer.ReasonCode >= 0x80:
				return c.refused("publish to "+m.Topic, answer)
			case answer.FixedHeader.Type != packets.Pubrec:
				return nil
			}
			if err := c.write(packets.Packet{FixedHeader: packets.FixedHeader{Type: packets.Pubrel, Qos: 1}, PacketID: id}); err != nil {
				return err
			}
		}
	}, nil
}

// Subscribe subscribes to all filters, or returns which one the broker refuses.
func (c *Conn) Subscribe(ctx context.Context, filters []Filter) error {
	pk := packets.Packet{FixedHeader: packets.FixedHeader{Type: packets.Subscribe, Qos: 1}}
	for _, f := range filters {
		pk.Filters = append(pk.Filters, packets.Subscription{Filter: f.Filter, Qos: f.QoS, RetainAsPublished: f.RetainAsPublished})
	}
	answer, err := c.ask(ctx, pk)
	if err != nil {
		return err
	}
	for i, code := range answer.ReasonCodes {
		if code >= 0x80 && i < len(filters) {
			answer.ReasonCode = code
			refused := c.refused("subscribe to "+filters[i].Filter, answer)
			if code == 0x80 && c.options.Version < 5 { // all that it can say
				refused.Code, refused.text = 0x87, "no: not allowed, or not valid"
			}
			return refused
		}
	}
	return nil
}

// Unsubscribe ends subscriptions. As with Subscribe, somebody must take what comes meanwhile, if anything can: see Listen.
func (c *Conn) Unsubscribe(ctx context.Context, filters []string) error {
	pk := packets.Packet{FixedHeader: packets.FixedHeader{Type: packets.Unsubscribe, Qos: 1}}
	for _, f := range filters {
		pk.Filters = append(pk.Filters, packets.Subscription{Filter: f})
	}
	_, err := c.ask(ctx, pk)
	return err
}

// Listen ends the subscriptions of unsubscribe, subscribes and hands on what comes, until ctx ends, the connection does, or granted or take return false. granted is
// called when the broker has the subscriptions; messages can come before: retained ones, and those of the session. A message is
// acknowledged when take has returned.
func (c *Conn) Listen(ctx context.Context, unsubscribe []string, filters []Filter, granted func() (more bool), take func(Message) (more bool, err error)) error {
	subscribed := make(chan error, 1)
	go func() {
		var err error
		if len(unsubscribe) > 0 {
			err = c.Unsubscribe(ctx, unsubscribe)
		}
		if err == nil && len(filters) > 0 {
			err = c.Subscribe(ctx, filters)
		}
		subscribed <- err
	}()
	for {
		select {
		case err := <-subscribed:
			if err != nil || !granted() {
				return err
			}
		case m := <-c.incoming:
			more, err := take(m)
			if err == nil {
				err = c.acknowledge(m)
			}
			if err != nil || !more {
				return err
			}
		case <-ctx.Done():
			return ctx.Err()
		case <-c.ended:
			return c.why()
		}
	}
}

// acknowledge says that a message is dealt with.
func (c *Conn) acknowledge(m Message) error {
	switch m.QoS {
	case 1:
		return c.write(packets.Packet{FixedHeader: packets.FixedHeader{Type: packets.Puback}, PacketID: m.ID})
	case 2:
		return c.write(packets.Packet{FixedHeader: packets.FixedHeader{Type: packets.Pubrec}, PacketID: m.ID})
	}
	return nil
}

// Pipeline publishes one message after the other and has as many unacknowledged as the broker allows.
type Pipeline struct {
	Conn     *Conn
	Patience time.Duration // for one acknowledgement
	waits    []func(context.Context) error
}

// Publish sends a message. The error may be that of one before.
func (p *Pipeline) Publish(ctx context.Context, m Message) error {
	if err := p.await(ctx, p.Conn.window-1); err != nil {
		return err
	}
	wait, err := p.Conn.begin(m)
	if err == nil {
		p.waits = append(p.waits, wait)
	}
	return err
}

// Finish returns when everything is acknowledged, or why something is not.
func (p *Pipeline) Finish(ctx context.Context) error { return p.await(ctx, 0) }

// await waits until no more than so many messages are unacknowledged.
func (p *Pipeline) await(ctx context.Context, left int) error {
	for len(p.waits) > left {
		wait := p.waits[0]
		p.waits = p.waits[1:]
		limited, cancel := context.WithTimeout(ctx, p.Patience)
		err := wait(limited)
		cancel()
		if errors.Is(err, context.DeadlineExceeded) {
			err = fmt.Errorf("the broker did not acknowledge within %s", p.Patience)
		}
		if err != nil {
			p.waits = nil
			return err
		}
	}
	return nil
}

// closePatience is how long Close waits for the broker. Closing a connection on which something was not read yet would
// take what was sent last away from the broker.
const closePatience = time.Second

// Close says goodbye, so that no will is sent, and returns when the connection is closed. It is called once.
func (c *Conn) Close() {
	close(c.closed)
	_ = c.write(packets.Packet{FixedHeader: packets.FixedHeader{Type: packets.Disconnect}}) // the connection is closed either way
	if half, ok := c.conn.(interface{ CloseWrite() error }); ok {
		_ = half.CloseWrite()
	}
	patience := time.AfterFunc(closePatience, func() { c.conn.Close() })
	defer patience.Stop()
	<-c.ended
}

// Ended is closed when the connection has ended, and Err says why.
func (c *Conn) Ended() <-chan struct{} { return c.ended }

// Err is for when Ended is closed.
func (c *Conn) Err() error { return c.why() }

func (c *Conn) why() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.err
}

// ask sends a packet and returns its answer.
func (c *Conn) ask(ctx context.Context, pk packets.Packet) (packets.Packet, error) {
	id, answers, err := c.expect()
	if err != nil {
		return packets.Packet{}, err
	}
	defer c.forget(id)
	pk.PacketID = id
	if err := c.write(pk); err != nil {
		return packets.Packet{}, err
	}
	return c.await(ctx, answers)
}

// expect takes a packet id that is free.
func (c *Conn) expect() (id uint16, answers chan packets.Packet, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for range 65535 {
		c.lastID++
		if c.lastID != 0 && c.waiting[c.lastID] == nil {
			answers = make(chan packets.Packet, 2) // PUBREC and PUBCOMP
			c.waiting[c.lastID] = answers
			return c.lastID, answers, nil
		}
	}
	return 0, nil, errors.New("too many messages are unacknowledged")
}

func (c *Conn) forget(id uint16) {
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.waiting, id)
}

func (c *Conn) await(ctx context.Context, answers chan packets.Packet) (packets.Packet, error) {
	select {
	case answer := <-answers:
		return answer, nil
	case <-ctx.Done():
		return packets.Packet{}, ctx.Err()
	case <-c.ended:
		select {
		case answer := <-answers: // it came before the end
			return answer, nil
		default:
			return packets.Packet{}, c.why()
		}
	}
}
