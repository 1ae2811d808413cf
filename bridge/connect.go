package bridge

import (
	"bufio"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"time"

	"github.com/eclipse/paho.golang/packets"
)

const (
	dialTimeout = 10 * time.Second
	// receiveMaximum is announced to either broker: so many of its messages may be on their way to the other one.
	receiveMaximum = 128
	// subscribeID is the packet id of our SUBSCRIBE, unsubscribeID that of our UNSUBSCRIBE. The other ids are those under which messages come, and go on; brokers give
	// the last ones out as the last.
	subscribeID   = 65535
	unsubscribeID = subscribeID - 1

	retainedAlways byte = packets.RetainSendOnSubscribe
	retainedNew    byte = packets.RetainSendOnSubscribeIfNew
	retainedNever  byte = packets.RetainDoNotSend
)

// connect makes the connection to a broker and takes up our session there. The errors are endErrors.
func (b *Bridge) connect(ctx context.Context, o *Broker) (*end, error) {
	e, err := b.dial(ctx, o)
	if err == nil {
		if err = e.login(&b.o); err == nil {
			return e, nil
		}
		e.cut()
	}
	return nil, &endError{o, err, false}
}

func (b *Bridge) dial(ctx context.Context, o *Broker) (*end, error) {
	ctx, cancel := context.WithTimeout(ctx, dialTimeout)
	defer cancel()
	var dialer net.Dialer // obeys no proxy variables
	socket, err := dialer.DialContext(ctx, "tcp", o.Address)
	if err != nil {
		return nil, err
	}
	e := newEnd(o, socket, b.o.Patience)
	if o.TLS != nil {
		config, err := o.TLS()
		if err != nil {
			socket.Close()
			return nil, err
		}
		if config.ServerName == "" {
			config = config.Clone()
			config.ServerName, _, _ = net.SplitHostPort(o.Address)
		}
		secure := tls.Client(socket, config)
		if err := secure.HandshakeContext(ctx); err != nil {
			socket.Close()
			return nil, fmt.Errorf("TLS handshake: %w", err)
		}
		e.conn = secure
	}
	e.in = bufio.NewReaderSize(e.conn, 16<<10) // a TLS record
	return e, nil
}

// login sends CONNECT and takes the CONNACK.
func (e *end) login(o *Options) error {
	window, largest, details := uint16(receiveMaximum), uint32(e.o.MaxPacketBytes), byte(1)
	expiry := uint32(o.SessionExpiry / time.Second)
	connect := &packets.Connect{
		ProtocolName: "MQTT", ProtocolVersion: 5, ClientID: e.o.ClientID, KeepAlive: uint16(o.KeepAlive / time.Second),
		UsernameFlag: e.o.Username != "", Username: e.o.Username,
		PasswordFlag: e.o.Password != "", Password: []byte(e.o.Password),
		Properties: &packets.Properties{ReceiveMaximum: &window, MaximumPacketSize: &largest, SessionExpiryInterval: &expiry,
			RequestProblemInfo: &details, User: []packets.User{{Key: HopProperty, Value: o.Box}}},
	}
	packet := packets.NewControlPacket(packets.CONNECT)
	packet.Content = connect
	if err := e.sendNow(packet); err != nil {
		return err
	}
	if err := e.conn.SetReadDeadline(time.Now().Add(e.patience)); err != nil {
		return err
	}
	if first, err := e.in.Peek(1); err == nil && first[0] != packets.CONNACK<<4 {
		return errors.New("its answer is no CONNACK: it may be no MQTT broker")
	}
	p, err := e.receive(e.patience)
	if err != nil {
		return err
	}
	ack := p.Content.(*packets.Connack)
	if ack.ReasonCode != 0 {
		return &refusedError{code: ack.ReasonCode, text: ack.Properties.ReasonString}
	}
	for _, u := range ack.Properties.User {
		if u.Key == HopProperty && u.Value != o.Box {
			e.box = u.Value
		}
	}
	return e.take(ack, o.KeepAlive)
}

// take remembers what a CONNACK allows.
func (e *end) take(ack *packets.Connack, keepalive time.Duration) error {
	p := ack.Properties
	e.present, e.keepalive = ack.SessionPresent, keepalive
	if p.ServerKeepAlive != nil && *p.ServerKeepAlive > 0 {
		e.keepalive = time.Duration(*p.ServerKeepAlive) * time.Second // [MQTT-3.1.2-21]
	}
	if p.ReceiveMaximum != nil {
		e.window = int(*p.ReceiveMaximum)
	}
	if p.MaximumPacketSize != nil {
		e.largest = int(*p.MaximumPacketSize)
	}
	if p.MaximumQOS != nil {
		e.maxQoS = *p.MaximumQOS
	}
	e.noRetain = p.RetainAvailable != nil && *p.RetainAvailable == 0
	if e.window == 0 || e.largest == 0 { // [MQTT 5, 3.2.2.3.3 and 3.2.2.3.6]
		return errors.New("its CONNACK allows no message at all")
	}
	return nil
}

// subscribePacket asks for filters; retained is retainedAlways, retainedNew or retainedNever.
func subscribePacket(filters []filter, retained byte) *packets.ControlPacket {
	p := packets.NewControlPacket(packets.SUBSCRIBE)
	s := p.Content.(*packets.Subscribe)
	s.PacketID = subscribeID
	for _, f := range filters {
		s.Subscriptions = append(s.Subscriptions, packets.SubOptions{Topic: f.text, QoS: f.qos, RetainHandling: retained,
			NoLocal: true, RetainAsPublished: true})
	}
	return p
}

// unsubscribePacket asks for no more of some filters.
func unsubscribePacket(filters []string) *packets.ControlPacket {
	p := packets.NewControlPacket(packets.UNSUBSCRIBE)
	u := p.Content.(*packets.Unsubscribe)
	u.PacketID, u.Topics = unsubscribeID, filters
	return p
}

// subscribeNow sends a SUBSCRIBE before the connection is served, and waits for the answer. Messages that come before it are
// not acknowledged: they come again.
func (e *end) subscribeNow(subscribe *packets.ControlPacket) error {
	if err := e.sendNow(subscribe); err != nil {
		return &endError{e.o, err, false}
	}
	for {
		p, err := e.receive(e.patience)
		if err != nil {
			return &endError{e.o, err, false}
		}
		if d, ok := p.Content.(*packets.Disconnect); ok {
			return &endError{e.o, &endedError{code: d.ReasonCode, text: d.Properties.ReasonString}, false}
		}
		if p.Type == packets.SUBACK {
			return nil
		}
	}
}
