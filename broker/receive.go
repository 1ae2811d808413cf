package broker

import (
	"encoding/binary"
	"hash/maphash"
	"time"

	"github.com/mochi-mqtt/server/v2/packets"

	"github.com/plantops/plantops/broker/refusal"
	"github.com/plantops/plantops/broker/session"
)

// receive takes a PUBLISH that is valid and allowed. It runs in the goroutine of the sender's reader. An error ends the
// connection.
func (r *router) receive(l *clientLink, pk *packets.Packet) error {
	ticket, known, err := r.takeTicket(l, pk)
	if known || err != nil {
		return err
	}
	w, p, now := l.work, l.peer, l.now
	to := r.subscribersFor(l, pk.TopicName)
	w.waitForReaders(l, to, pk.FixedHeader.Qos)
	if to.ingest {
		return r.receiveForIngest(l, to, pk, ticket, now)
	}
	m := new(session.Message)
	fill(m, to.topic, p.id, pk, now)
	done := r.publish(w, publication{to: to, message: m, from: p, account: p.usage, now: now})
	if done.refused {
		return r.refusePublish(l, pk, done.why, &ticket)
	}
	reason := session.Success
	if r.nobodyReads(l, done.unread, m.Retain) {
		reason = session.NobodyReads
	}
	if pk.FixedHeader.Qos > 0 {
		r.complete(w, p, ticket, reason)
	}
	w.settle()
	if w.urgent {
		w.waitForFull(l)
	}
	return nil
}

// takeTicket gives a PUBLISH its place in the row of acknowledgements, whether it goes on or is refused; with QoS 0 there is
// none. known says that it came before, and that nothing is left to do; an error ends the connection.
func (r *router) takeTicket(l *clientLink, pk *packets.Packet) (t session.Ticket, known bool, err error) {
	w, p, qos := l.work, l.peer, pk.FixedHeader.Qos
	if qos == 0 {
		return t, false, nil
	}
	print := r.print(pk)
	p.mu.Lock()
	if p.state.Repeated(pk.PacketID, qos, print) {
		p.mu.Unlock()
		return t, true, nil
	}
	if qos == 2 && !pk.FixedHeader.Dup {
		p.state.Reused(pk.PacketID)
	}
	var verdict session.Verdict
	t, verdict, w.out = p.state.Receive(pk.PacketID, qos, w.out[:0])
	w.apply(p)
	p.mu.Unlock()
	if verdict == session.TooMany {
		r.reportPublish(l.account.Name, refusal.ReceiveMaximumExceeded)
		return t, false, packets.ErrRejectPacket
	}
	return t, verdict == session.Duplicate, nil
}

// print is a fingerprint of what a PUBLISH says.
func (r *router) print(pk *packets.Packet) uint64 {
	var hash maphash.Hash
	hash.SetSeed(r.seed)
	_, _ = hash.WriteString(pk.TopicName) // it never fails
	_ = hash.WriteByte(0)                 // no topic has it
	_, _ = hash.Write(pk.Payload)
	return hash.Sum64()
}

// acknowledged takes what a client says about deliveries to it, and the PUBREL for its own.
func (r *router) acknowledged(l *clientLink, pk *packets.Packet) error {
	w, p, now := l.work, l.peer, l.now
	reason := session.Reason(pk.ReasonCode)
	p.mu.Lock()
	out := w.out[:0]
	switch pk.FixedHeader.Type {
	case packets.Puback:
		out = p.state.Puback(now, pk.PacketID, reason, out)
	case packets.Pubrec:
		out = p.state.Pubrec(now, pk.PacketID, reason, out)
	case packets.Pubrel:
		out = p.state.Pubrel(pk.PacketID, out)
	case packets.Pubcomp:
		out = p.state.Pubcomp(now, pk.PacketID, out)
	}
	w.out = out
	w.apply(p)
	retained := p.due.waiting()
	p.mu.Unlock()
	w.settle()
	if retained {
		w.deliverRetained(p, now)
	}
	return nil
}

func (r *router) setExpiry(p *peer, d time.Duration) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.state.SetExpiry(d)
}

// receiveForIngest takes a message that must be stored. It waits for a credit, and is not acknowledged before ingest
// has acknowledged it.
func (r *router) receiveForIngest(l *clientLink, to *subscribers, pk *packets.Packet, ticket session.Ticket, now time.Time) error {
	w, p := l.work, l.peer
	c := &receipt{account: p.account, ticket: ticket, tally: to.tally, since: now}
	fill(&c.message, to.topic, p.id, pk, now)
	c.bytes = len(c.message.Topic) + len(c.message.Payload) + len(c.message.Properties) + receiptBytes
	if pk.FixedHeader.Qos > 0 {
		c.link = l
	}
	if l.untaken && c.link != nil { // not before the one that the sender will send again
		r.notTaken(w, c, p)
		return nil
	}
	if !r.intake.take(c) {
		w.flush()
		if !r.intake.wait(l, c) {
			l.untaken = true
			r.notTaken(w, c, p)
			return nil // what else was read with it is dealt with too
		}
	}
	c.tally.received.Add(1)
	done := r.publish(w, publication{to: to, message: &c.message, receipt: c, from: p, account: p.usage, now: now})
	if done.refused { // what its acknowledgement promises is that it is stored
		r.refused(l, done.why, pk.TopicName)
	}
	w.settle()
	if w.urgent {
		w.waitForFull(l)
	}
	return nil
}

// notTaken ends a message that has got no credit: its connection ends first. The sender has it still, and will send it again; or,
// without acknowledgements, it is refused.
func (r *router) notTaken(w *work, c *receipt, p *peer) {
	if c.link == nil {
		r.notStored(c)
		return
	}
	r.abandon(w, p, c.ticket)
}

// receiptBytes is what a message on its way into the store costs besides its own bytes.
const receiptBytes = 512

// fill makes the message of a PUBLISH.
func fill(m *session.Message, topic, publisher string, pk *packets.Packet, now time.Time) {
	m.Topic, m.Payload, m.Publisher, m.Created = topic, pk.Payload, publisher, now
	m.QoS, m.Retain = pk.FixedHeader.Qos, pk.FixedHeader.Retain
	if pk.ProtocolVersion == 5 {
		m.Properties = appendProperties(nil, &pk.Properties)
		if s := pk.Properties.MessageExpiryInterval; s > 0 {
			m.Expires = now.Add(time.Duration(s) * time.Second)
		}
	}
}

// appendProperties encodes the properties that travel with a message to its subscribers, as session.Message wants them.
func appendProperties(dst []byte, p *packets.Properties) []byte {
	if p.PayloadFormatFlag {
		dst = append(dst, packets.PropPayloadFormat, p.PayloadFormat)
	}
	if p.ContentType != "" {
		dst = appendString(append(dst, packets.PropContentType), p.ContentType)
	}
	if p.ResponseTopic != "" {
		dst = appendString(append(dst, packets.PropResponseTopic), p.ResponseTopic)
	}
	if len(p.CorrelationData) > 0 {
		dst = appendString(append(dst, packets.PropCorrelationData), string(p.CorrelationData))
	}
	for _, u := range p.User {
		dst = appendString(appendString(append(dst, packets.PropUser), u.Key), u.Val)
	}
	return dst
}

func appendString(dst []byte, s string) []byte {
	return append(binary.BigEndian.AppendUint16(dst, uint16(len(s))), s...)
}
