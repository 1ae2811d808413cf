package broker

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"os"
	"slices"
	"sync"

	mqtt "github.com/mochi-mqtt/server/v2"
	"github.com/mochi-mqtt/server/v2/packets"

	"github.com/plantops/plantops/broker/network"
	"github.com/plantops/plantops/broker/session"
	"github.com/plantops/plantops/broker/validate"
)

// roundBytes are read at most before what came of them is sent.
const roundBytes = 16 << 10

// round is what a reader has while it has something to do. An idle connection has none.
type round struct {
	in     [roundBytes]byte
	packet packets.Packet
	work   work
}

var rounds = sync.Pool{New: func() any { return new(round) }}

// errLeft ends the loop of a client that has said goodbye.
var errLeft = errors.New("the client has left")

// serve reads from a connection until it ends, and returns why; nil when the client said goodbye. network.ErrQuiet says that it has not
// ended, and is to be called again when something comes.
func (l *clientLink) serve() error {
	for {
		if l.AwaitInput() {
			return network.ErrQuiet
		}
		switch err := l.round(); err {
		case nil:
		case errLeft:
			return nil
		default:
			return err
		}
	}
}

// round deals with everything that has come. Where the network waits in Read, on websockets, it does not return while all is well.
func (l *clientLink) round() (err error) {
	r := rounds.Get().(*round)
	l.work, r.work.r = &r.work, l.hook.router
	read := 0
	for {
		if read >= roundBytes || read > 0 && l.Kind() == network.WebSocket {
			l.endRound()
			read = 0
		}
		n, failed := l.Read(r.in[:])
		if err = l.take(r.in[:n], &r.packet); err != nil {
			break
		}
		if read += n; failed == network.ErrNoInput {
			break
		}
		if failed != nil && (n == 0 || failed != network.ErrDrained) { // which comes again
			l.endReading(failed)
			err = failed
			break
		}
	}
	l.endRound()
	r.packet = packets.Packet{}
	r.work.rest()
	l.work = nil
	rounds.Put(r)
	return err
}

// rest leaves of w what the next round, of another connection, can use.
func (w *work) rest() {
	w.clearBundle()
	w.pub, w.routing, w.slowGroup, w.urgent = publication{}, false, nil, false
	w.out, w.after, w.dirty, w.kept, w.buf = w.out[:0], w.after[:0], w.dirty[:0], w.kept[:0], w.buf[:0]
}

// partial is a packet that has not come completely.
type partial struct {
	began bool
	first byte
	shift int8  // of the length's next byte; negative: the length is known
	left  int32 // the length, then what is missing of the body
	body  []byte
}

// take decodes the packets in what was read and acts on each. Their form has been judged: a length has four bytes at most.
func (l *clientLink) take(p []byte, pk *packets.Packet) error {
	u := &l.partial
	for len(p) > 0 {
		switch {
		case !u.began:
			n, err := l.takePlain(p)
			if err != nil {
				return err
			}
			if n > 0 {
				p = p[n:]
				continue
			}
			*u = partial{began: true, first: p[0]}
			p = p[1:]
			continue
		case u.shift >= 0:
			u.left |= int32(p[0]&0x7f) << u.shift
			if u.shift += 7; p[0] < 0x80 {
				u.shift = -1
			}
			if p = p[1:]; u.shift >= 0 || u.left > 0 {
				continue
			}
		default: // mochi's packets lie in the bytes that they are decoded from, and messages stay
			n := min(int(u.left), len(p))
			if u.body == nil && n < int(u.left) {
				u.body = make([]byte, 0, u.left)
			}
			if u.body == nil {
				u.body = slices.Clone(p[:n])
			} else {
				u.body = append(u.body, p[:n]...)
			}
			p = p[n:]
			if u.left -= int32(n); u.left > 0 {
				continue
			}
		}
		first, body := u.first, u.body
		*u = partial{}
		if err := l.takeBundle(); err != nil {
			return err
		}
		if err := l.decode(first, body, pk); err != nil {
			return err
		}
		l.work.behind = len(p)
		if err := l.dispatch(pk); err != nil {
			return err
		}
		if l.evicted.Load() || l.revoked.Load() { // else what was read is dealt with, though we have ended the connection
			return net.ErrClosed
		}
	}
	return l.takeBundle()
}

// takePlain puts the packet that p begins with into the bundle, when it is what most packets are: a PUBLISH to the topic of the
// last one with nothing but a payload, which need not be stored, or a PUBACK without a reason. It returns the packet's length,
// 0 for all others. mochi decodes them to the same, see FuzzPlain.
func (l *clientLink) takePlain(p []byte) (n int, err error) {
	if !l.attached || len(p) < 4 {
		return 0, nil
	}
	b, first := &l.work.bundle, p[0]
	if first == packets.Puback<<4 {
		if p[1] != 2 {
			return 0, nil
		}
		if len(b.messages) > 0 || len(b.acks) == maxBundle {
			if err = l.takeBundle(); err != nil {
				return 0, err
			}
		}
		b.acks = append(b.acks, binary.BigEndian.Uint16(p[2:]))
		return 4, nil
	}
	id, payload, n := plainPublish(p, l.lastTopic, l.screen.Version)
	if n == 0 {
		return 0, nil
	}
	r, qos := l.work.r, first>>1&3
	to := r.subscribersFor(l, l.lastTopic)
	if to.ingest || r.ledger.full() || qos == 0 && r.waited.Load() > 0 { // it may have to wait for something
		return 0, nil
	}
	if len(b.acks) > 0 || len(b.messages) > 0 && !b.takes(to, qos, id) {
		if err = l.takeBundle(); err != nil {
			return 0, err
		}
	}
	m := newMessage(payload)
	m.Topic, m.Publisher, m.Created, m.QoS = to.topic, l.peer.id, l.now, qos
	b.to, b.qos, b.bytes = to, qos, b.bytes+len(payload)
	b.messages = append(b.messages, bundled{message: m, id: id})
	return n, nil
}

// smallBytes of payload make a message that fills a size of memory which the allocator has.
const smallBytes = 72

// newMessage makes a message with a copy of its payload: a small one in one piece of memory.
func newMessage(payload []byte) *session.Message {
	if len(payload) > smallBytes {
		return &session.Message{Payload: slices.Clone(payload)}
	}
	m := new(struct {
		session.Message
		room [smallBytes]byte
	})
	m.Payload = append(m.room[:0:len(payload)], payload...)
	return &m.Message
}

// plainPublish takes apart a PUBLISH of QoS 0 or 1 to a topic, without DUP, RETAIN and properties. n is its length; 0: it is
// another packet, or not complete.
func plainPublish(p []byte, topic string, version byte) (id uint16, payload []byte, n int) {
	const long = 2 // bytes of the topic's length and of a packet id
	if p[0]&^2 != packets.Publish<<4 || topic == "" {
		return 0, nil, 0
	}
	at, n := 2, 2+int(p[1])
	if p[1] >= 0x80 {
		if p[2] >= 0x80 {
			return 0, nil, 0
		}
		at, n = 3, 3+int(p[1]&0x7f)+int(p[2])<<7
	}
	if n > len(p) || n < at+long+len(topic) || int(binary.BigEndian.Uint16(p[at:])) != len(topic) {
		return 0, nil, 0
	}
	at += long
	if string(p[at:at+len(topic)]) != topic {
		return 0, nil, 0
	}
	at += len(topic)
	if p[0]&2 != 0 {
		if n < at+long {
			return 0, nil, 0
		}
		id = binary.BigEndian.Uint16(p[at:])
		if at += long; id == 0 {
			return 0, nil, 0
		}
	}
	if version == 5 {
		if n == at || p[at] != 0 {
			return 0, nil, 0
		}
		at++
	}
	return id, p[at:n], n
}

// takeBundle deals with what takePlain has put aside.
func (l *clientLink) takeBundle() (err error) {
	if len(l.work.bundle.messages)+len(l.work.bundle.acks) == 0 {
		return nil
	}
	defer dieOfPanic()
	b, r := &l.work.bundle, l.hook.router
	r.traffic.packetsIn.Add(int64(len(b.messages) + len(b.acks)))
	if len(b.acks) > 0 {
		r.acknowledgedBundle(l)
	} else {
		err = r.receiveBundle(l)
	}
	if err == nil && (l.evicted.Load() || l.revoked.Load()) {
		err = net.ErrClosed
	}
	return err
}

// decode has mochi take a packet apart. It may panic, see dieOfPanic.
func (l *clientLink) decode(first byte, body []byte, pk *packets.Packet) error {
	*pk = packets.Packet{ProtocolVersion: l.screen.Version}
	if err := pk.FixedHeader.Decode(first); err != nil {
		return err
	}
	pk.FixedHeader.Remaining = len(body)
	switch pk.FixedHeader.Type {
	case packets.Connect:
		return pk.ConnectDecode(body)
	case packets.Publish:
		return pk.PublishDecode(body)
	case packets.Puback:
		return pk.PubackDecode(body)
	case packets.Pubrec:
		return pk.PubrecDecode(body)
	case packets.Pubrel:
		return pk.PubrelDecode(body)
	case packets.Pubcomp:
		return pk.PubcompDecode(body)
	case packets.Subscribe:
		return pk.SubscribeDecode(body)
	case packets.Unsubscribe:
		return pk.UnsubscribeDecode(body)
	case packets.Disconnect:
		return pk.DisconnectDecode(body)
	case packets.Pingreq:
		return nil
	}
	return fmt.Errorf("packet of type %d", pk.FixedHeader.Type)
}

// endReading tells the client why nothing more is read from it, if we can and it does not know.
func (l *clientLink) endReading(err error) {
	defer dieOfPanic()
	fault, wrong := err.(*validate.PacketFault)
	switch {
	case wrong:
		_ = l.hook.refuseConnection(l, fault, "") // the loop ends with the fault itself
	case err == network.ErrDrained:
		l.hook.sessions.end(l, packets.ErrSessionTakenOver)
	case errors.Is(err, os.ErrDeadlineExceeded) && l.attached && l.isTold() && !l.IsClosing(): // [MQTT-3.1.2-22]
		_ = l.mochi().WritePacket(packets.Packet{FixedHeader: packets.FixedHeader{Type: packets.Disconnect},
			ReasonCode: packets.ErrKeepAliveTimeout.Code}) // the connection ends either way
	}
}

// endRound sends what came of the packets that were read together: acknowledgements, also those of other publishers, and
// deliveries, with one write for each connection. Then the publisher waits for a share group that cannot follow.
func (l *clientLink) endRound() {
	defer dieOfPanic()
	w := l.work
	w.flushFor(l)
	w.waitForGroup(l)
}

// linkOf returns nil for a client without a connection of ours.
func linkOf(cl *mqtt.Client) *clientLink {
	l, _ := cl.Net.Conn.(*clientLink)
	return l
}
