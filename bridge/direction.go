package bridge

import (
	"fmt"
	"sync"
	"time"

	"github.com/eclipse/paho.golang/packets"
)

// sayEvery is how often what is not carried is said, for each direction.
const sayEvery = time.Minute

// mostTries is how often a message is sent again that a broker has no room for. With the waits between them that is minutes.
const mostTries = 8

// memory is what one direction knows across runs. One run at a time uses it, with the lock of its direction held.
type memory struct {
	// single is how many messages are sent one at a time: the broker has ended a connection for one of so many, and did not
	// say for which.
	single int
	// culprit is the message, and why, that it ended the connection for. It is not sent again.
	culprit *refusal
	tries   int // of the message that waits for room there
	said    time.Time
	unsaid  int64
}

// refusal is a message that a broker does not take.
type refusal struct {
	id    uint16
	topic string
	code  byte
}

// direction is the way of messages from one broker to the other, in one run.
type direction struct {
	*Bridge
	way      Direction
	from, to *end
	count    *counters

	mu     sync.Mutex
	memory *memory
	row    []*message // of QoS 1 and 2, in the order in which they have come, without an answer to from
	sent   int        // of them
	open   map[uint16]*message
	window int // of to: messages of QoS 1 and 2 that may be sent now
	// What has become of the messages of QoS 2 whose PUBREC has left.
	held    map[uint16]bool // to has it, and PUBREL is awaited from from
	settled map[uint16]bool // to knows nothing of it
	freed   map[uint16]int  // PUBRELs that were sent to free the id
}

// message is one message of QoS 1 or 2 on its way.
type message struct {
	id       uint16
	qos      byte // under which it has come
	publish  *packets.Publish
	answered bool
}

func newDirection(b *Bridge, way Direction, from, to *end) *direction {
	d := &direction{Bridge: b, way: way, from: from, to: to, count: &b.state.out, memory: &b.out, window: to.window,
		open: map[uint16]*message{}, held: map[uint16]bool{}, settled: map[uint16]bool{}, freed: map[uint16]int{}}
	if way == In {
		d.count, d.memory = &b.state.in, &b.in
	}
	return d
}

// published takes a message from the broker that has it.
func (d *direction) published(p *packets.Publish) error {
	there, fate := d.o.translate(d.way, p, d.to.o, d.remoteBox())
	if there != nil {
		there.QoS = min(there.QoS, d.to.maxQoS)
		there.Retain = there.Retain && !d.to.noRetain
	}
	d.mu.Lock()
	switch fate {
	case looped:
		d.count.looped.Add(1)
	case unfit:
		d.refused(p.Topic, "its topic cannot be used there")
	}
	if p.QoS == 0 {
		d.mu.Unlock()
		if there != nil {
			d.passing(there)
		}
		return nil
	}
	defer d.mu.Unlock()
	if len(d.row) >= receiveMaximum {
		return fmt.Errorf("it sent more than %d messages before the acknowledgement of the first", receiveMaximum)
	}
	if p.QoS > 2 || p.PacketID == 0 || d.open[p.PacketID] != nil {
		return fmt.Errorf("it sent a message with QoS %d and packet id %d, which cannot be", p.QoS, p.PacketID)
	}
	d.row = append(d.row, &message{id: p.PacketID, qos: p.QoS, publish: there, answered: there == nil})
	return d.advance()
}

// remoteBox is the name of the remote broker, if it is ours.
func (d *direction) remoteBox() string { return d.from.box + d.to.box }

// passing sends a message of QoS 0.
func (d *direction) passing(p *packets.Publish) {
	data := encode(p.ToControlPacket())
	ok := len(data) <= d.to.largest
	if ok {
		if ok = d.to.offer(data); ok {
			d.count.carried.Add(1)
			return
		}
		d.count.dropped.Add(1)
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if len(data) > d.to.largest {
		d.refused(p.Topic, fmt.Sprintf("it is larger than %d bytes", d.to.largest))
		return
	}
	d.say("QoS 0 messages are dropped: the other broker takes nothing", p.Topic, "")
}

// advance sends what may be sent and acknowledges what may be acknowledged; mu is held.
func (d *direction) advance() error {
	for d.sent < len(d.row) {
		m := d.row[d.sent]
		if !m.answered {
			if d.window == 0 || d.memory.single > 0 && len(d.open)+len(d.held) > 0 {
				break
			}
			d.forward(m)
		}
		d.sent++
	}
	for len(d.row) > 0 && d.row[0].answered {
		m := d.row[0]
		d.row[0] = nil
		d.row, d.sent = d.row[1:], d.sent-1
		kind := byte(packets.PUBACK)
		if m.qos == 2 {
			kind = packets.PUBREC
		}
		d.from.send(answer(kind, m.id)) // in the order in which they came [MQTT-4.6.0-2, MQTT-4.6.0-3]
	}
	return nil
}

// forward sends a message, or settles it when there is nothing to wait for; mu is held.
func (d *direction) forward(m *message) {
	p := m.publish
	data := encode(p.ToControlPacket())
	culprit := d.memory.culprit
	switch {
	case culprit != nil && culprit.id == m.id && culprit.topic == p.Topic:
		d.memory.culprit = nil
		d.refused(p.Topic, reason(culprit.code, ""))
		d.settle(m)
		return
	case len(data) > d.to.largest:
		d.refused(p.Topic, fmt.Sprintf("it is larger than %d bytes", d.to.largest))
		d.settle(m)
		return
	case p.QoS == 0:
		d.to.send(data)
		d.count.carried.Add(1)
		d.settle(m)
		return
	case p.QoS == 2 && !p.Duplicate:
		// It is new, so what the other broker may hold under its id is another message, of a session that from has lost. It would
		// take this one for that one.
		d.freed[m.id]++
		d.to.send(answer(packets.PUBREL, m.id))
	}
	d.open[m.id] = m
	d.window--
	d.to.send(data)
}

// settle ends a message that the other broker has answered, or never gets, so that no PUBREL of it need go there; mu is held.
func (d *direction) settle(m *message) {
	m.answered = true
	if m.qos == 2 {
		d.settled[m.id] = true
	}
}

// acknowledged takes the PUBACK or PUBREC of the broker that a message was sent to.
func (d *direction) acknowledged(kind byte, id uint16, code byte, text string) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	m := d.open[id]
	if m == nil || (kind == packets.PUBREC) != (m.publish.QoS == 2) {
		return nil // of an earlier connection
	}
	if noRoom(code) && d.memory.tries < mostTries {
		d.memory.tries++
		return fmt.Errorf("it has no room for a message to %s: %s", shortened(m.publish.Topic), reason(code, text))
	}
	delete(d.open, id)
	d.memory.tries = 0
	d.memory.single = max(0, d.memory.single-1)
	switch {
	case code >= 0x80:
		d.refused(m.publish.Topic, reason(code, text))
		d.window++
		d.settle(m)
	case kind == packets.PUBACK:
		d.count.carried.Add(1)
		d.window++
		d.settle(m)
	default:
		d.count.carried.Add(1)
		m.answered, d.held[id] = true, true
	}
	return d.advance()
}

// released takes the PUBREL of the broker that a message has come from.
func (d *direction) released(id uint16) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.settled[id] {
		delete(d.settled, id)
		d.from.send(answer(packets.PUBCOMP, id))
		return
	}
	d.to.send(answer(packets.PUBREL, id)) // also of an earlier run: then the other broker knows more
}

// completed takes the PUBCOMP of the broker that a message was sent to.
func (d *direction) completed(id uint16) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.freed[id] > 0 {
		if d.freed[id]--; d.freed[id] == 0 {
			delete(d.freed, id)
		}
		return nil
	}
	if d.held[id] {
		delete(d.held, id)
		d.window++
	}
	d.from.send(answer(packets.PUBCOMP, id))
	return d.advance()
}

// blamed looks for the message that the other broker ended the connection for. A message is to blame that was sent alone.
func (d *direction) blamed(code byte) {
	if !blames(code) {
		return
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.memory.single == 0 || len(d.open) != 1 {
		d.memory.single = max(d.memory.single, len(d.open))
		return
	}
	for id, m := range d.open {
		d.memory.culprit = &refusal{id: id, topic: m.publish.Topic, code: code}
	}
}

// refused counts a message that the other broker does not take for good, and says so; mu is held.
func (d *direction) refused(topic, why string) {
	d.count.refused.Add(1)
	d.state.leave(shortened(topic), why, d.o.Now())
	d.say("a message is not carried", topic, why)
}

// say logs once in a while; mu is held.
func (d *direction) say(what, topic, why string) {
	d.memory.unsaid++
	if now := time.Now(); now.Sub(d.memory.said) >= sayEvery {
		d.o.Log.Warn(what, "to", d.to.o.Name, "topic", shortened(topic), "reason", why, "count", d.memory.unsaid)
		d.memory.said, d.memory.unsaid = now, 0
	}
}

// shortened is a topic for the log.
func shortened(topic string) string {
	const most = 200
	if len(topic) > most {
		return fmt.Sprintf("%q…", topic[:most])
	}
	return topic
}
