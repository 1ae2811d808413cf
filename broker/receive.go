package broker

import (
	"encoding/binary"
	"hash/crc32"
	"time"

	"github.com/mochi-mqtt/server/v2/packets"

	"github.com/plantops/plantops/broker/refusal"
	"github.com/plantops/plantops/broker/session"
	"github.com/plantops/plantops/broker/validate"
)

// receive takes a PUBLISH that is valid and allowed. It runs in the goroutine of the sender's reader. An error ends the
// connection.
func (r *router) receive(l *clientLink, pk *packets.Packet) error {
	ticket, verdict, err := r.takeTicket(l, pk)
	if verdict == session.Duplicate || err != nil {
		return err
	}
	w, p, now := l.work, l.peer, l.now
	to := r.subscribersFor(l, pk.TopicName)
	if r.ledger.full() && !r.awaitDisk(l, to.ingest) {
		r.abandon(w, p, ticket)
		return packets.ErrRejectPacket
	}
	w.waitForReaders(l, to, pk.FixedHeader.Qos, amount{1, len(pk.Payload)})
	w.pub = publication{to: to, from: p, account: p.usage, ticket: ticket, now: now, storeOnly: verdict == session.StoreOnly}
	if pk.FixedHeader.Qos > 0 {
		w.pub.link = l
		w.pub.exact = pk.FixedHeader.Qos == 2 && l.lasting
	}
	if to.ingest {
		return r.receiveForIngest(l, pk)
	}
	m := new(session.Message)
	fill(m, to.topic, p.id, pk, now)
	w.pub.message = m
	done := r.route(w)
	if done.refused {
		return r.refusePublish(l, pk, done.why, &ticket)
	}
	reason := session.Success
	if r.nobodyReads(l, done.unread, m.Retain) {
		reason = session.NobodyReads
	}
	switch c := w.pub.pledge; {
	case c != nil:
		c.reason = reason
		r.intake.list(c)
		r.fulfil(w, c)
	case pk.FixedHeader.Qos > 0:
		r.complete(w, p, ticket, reason)
	}
	w.settle()
	if w.urgent {
		w.waitForGroup(l)
	}
	return nil
}

// ingestPatience is how long a message that must be stored waits for the disk of other subscribers.
const ingestPatience = time.Second

// awaitDisk waits until what is pending for the disk has become less. It reports false when the connection is to end.
func (r *router) awaitDisk(l *clientLink, ingest bool) bool {
	l.work.flush()
	bound := r.stall
	if ingest {
		bound = min(bound, ingestPatience)
	}
	if r.ledger.awaitRoom(l, bound) || ingest {
		return true
	}
	r.refuseElsewhere(l, refusal.NotStoredInTime.With(r.stallText()))
	return false
}

// takeTicket gives a PUBLISH its place in the row of acknowledgements, whether it goes on or is refused; with QoS 0 there is
// none. Of a Duplicate, which came before, nothing is left to do; an error ends the connection.
func (r *router) takeTicket(l *clientLink, pk *packets.Packet) (t session.Ticket, verdict session.Verdict, err error) {
	w, p, qos := l.work, l.peer, pk.FixedHeader.Qos
	if qos == 0 {
		return t, session.Route, nil
	}
	print := fingerprint(pk.TopicName, pk.Payload)
	p.mu.Lock()
	if p.state.Repeated(pk.PacketID, qos, print) {
		p.mu.Unlock()
		return t, session.Duplicate, nil
	}
	if qos == 2 && p.state.HeldBytes() > session.FreeBytes && p.exhausted() {
		p.mu.Unlock()
		r.reportPublish(l.account, refusal.TooMuchWaits)
		return t, verdict, r.refuseConnection(l, validate.Violation(packets.Publish, refusal.TooMuchWaits), "")
	}
	t, verdict, w.out = p.state.Receive(pk.PacketID, qos, w.out[:0])
	w.apply(p)
	p.mu.Unlock()
	if verdict == session.TooMany {
		r.reportPublish(l.account, refusal.ReceiveMaximumExceeded)
		return t, verdict, packets.ErrRejectPacket
	}
	return t, verdict, nil
}

const (
	// maxBundle packets are dealt with in one go.
	maxBundle = 128
	// Messages of QoS 0 that are dealt with in one go, and bytes of their payloads before the last: those of a thousand publishers that
	// come by at the same moment have room in a session of which nobody knew yet that it is behind.
	maxBundle0, maxBundleBytes0 = (maxHead - behindMessages) / 1000, (maxWaitingBytes - behindBytes) / 1000
)

// bundle is what a client sent in a row and is dealt with in one go, with one look at each session: messages of one topic and
// one QoS, which need no receipt and are not retained, or the ids of PUBACKs. What comes of it is the same as one after the
// other.
type bundle struct {
	to       *subscribers
	qos      byte // 0 or 1
	bytes    int  // of payloads
	messages []bundled
	acks     []uint16
	owing    int // the message that something was owed for last
}

// bundled is a message of a bundle.
type bundled struct {
	message *session.Message
	id      uint16
	ticket  session.Ticket
	pledge  *receipt
}

// takes reports whether another message fits into a bundle that has one already.
func (b *bundle) takes(to *subscribers, qos byte, id uint16) bool {
	n := len(b.messages)
	if b.to != to || b.qos != qos {
		return false
	}
	if qos == 0 {
		return n < maxBundle0 && b.bytes < maxBundleBytes0
	}
	return n < maxBundle && b.messages[n-1].id+1 == id
}

// receiveBundle does what receive does, for all messages of a bundle. They have ids of their own.
func (r *router) receiveBundle(l *clientLink) error {
	w, p, now := l.work, l.peer, l.now
	b := &w.bundle
	w.waitForReaders(l, b.to, b.qos, amount{len(b.messages), b.bytes})
	r.received.Add(int64(len(b.messages)))
	r.traffic.payloadIn.Add(int64(b.bytes))
	w.pub = publication{to: b.to, from: p, account: p.usage, now: now}
	var err error
	straight, known := false, true
	if b.qos > 0 {
		w.pub.link = l
		straight, known, err = r.takeTickets(l, b)
	}
	unread := r.routeBundle(w)
	reason := session.Success
	for range b.messages {
		if r.nobodyReads(l, unread, false) {
			reason = session.NobodyReads
		}
	}
	switch {
	case straight:
		r.answerBundle(l, reason)
	case b.qos > 0:
		r.completeBundle(w, p, reason, known)
	}
	w.clearBundle()
	w.settle()
	if w.urgent {
		w.waitForGroup(l)
	}
	return err
}

// takeTickets does what takeTicket does, for a bundle; straight says that answerBundle does that, after the bundle is routed. It
// reports whether the session knows what stands in each message: where nothing of the client waits for a PUBACK that is not worth
// while, as most have theirs when the bundle is routed.
func (r *router) takeTickets(l *clientLink, b *bundle) (straight, known bool, err error) {
	w, p := l.work, l.peer
	p.mu.Lock()
	if straight = p.link == l && p.state.Straight(len(b.messages)); straight {
		p.mu.Unlock()
		return straight, false, nil
	}
	known = p.state.OwesPubacks()
	out, rest := w.out[:0], b.messages[:0]
	for _, m := range b.messages {
		if known && p.state.Repeated(m.id, b.qos, fingerprint(m.message.Topic, m.message.Payload)) {
			continue
		}
		var verdict session.Verdict
		if m.ticket, verdict, out = p.state.Receive(m.id, b.qos, out); verdict == session.TooMany {
			err = packets.ErrRejectPacket
			break
		}
		rest = append(rest, m)
	}
	clear(b.messages[len(rest):])
	b.messages, w.out = rest, out
	w.apply(p)
	p.mu.Unlock()
	if err != nil {
		r.reportPublish(l.account, refusal.ReceiveMaximumExceeded)
	}
	return false, known, err
}

// answerBundle acknowledges the messages of a bundle up to the first that must wait for the disk. That one gets its ticket now, and
// so do those behind it.
func (r *router) answerBundle(l *clientLink, reason session.Reason) {
	w, p := l.work, l.peer
	p.mu.Lock()
	if p.link == l { // else they are not acknowledged on this connection any more
		out := w.out[:0]
		for i := range w.bundle.messages {
			m, done := &w.bundle.messages[i], false
			if m.pledge == nil {
				if out, done = p.state.Answer(m.id, reason, out); done {
					continue
				}
			}
			p.state.Repeated(m.id, 1, fingerprint(m.message.Topic, m.message.Payload)) // it is not, they have ids of their own
			if m.ticket, _, out = p.state.Receive(m.id, 1, out); m.pledge != nil {
				m.pledge.ticket = m.ticket
				continue
			}
			out = p.state.Complete(m.ticket, reason, out)
		}
		w.out = out
		w.apply(p)
	}
	p.mu.Unlock()
	r.fulfilBundle(w, reason)
}

// completeBundle acknowledges the messages of a bundle as far as they need not wait for the disk.
func (r *router) completeBundle(w *work, p *peer, reason session.Reason, known bool) {
	b := &w.bundle
	p.mu.Lock()
	out := w.out[:0]
	for i := range b.messages {
		if m := &b.messages[i]; m.pledge == nil {
			out = p.state.Complete(m.ticket, reason, out)
		}
	}
	w.out = out
	w.apply(p)
	for i := range b.messages {
		if m := &b.messages[i]; !known && p.state.OwesPuback(m.ticket) {
			p.state.Remember(m.ticket, fingerprint(m.message.Topic, m.message.Payload))
		}
	}
	p.mu.Unlock()
	r.fulfilBundle(w, reason)
}

// fulfilBundle lets those of a bundle that wait for the disk be acknowledged.
func (r *router) fulfilBundle(w *work, reason session.Reason) {
	for i := range w.bundle.messages {
		if c := w.bundle.messages[i].pledge; c != nil {
			c.reason = reason
			r.intake.list(c)
			r.fulfil(w, c)
		}
	}
}

func (w *work) clearBundle() {
	b := &w.bundle
	clear(b.messages)
	b.to, b.bytes, b.owing, b.messages, b.acks = nil, 0, 0, b.messages[:0], b.acks[:0]
}

// acknowledgedBundle takes PUBACKs.
func (r *router) acknowledgedBundle(l *clientLink) {
	w, p, now := l.work, l.peer, l.now
	p.mu.Lock()
	out := w.out[:0]
	for _, id := range w.bundle.acks {
		out = p.state.Puback(now, id, session.Success, out)
		if n := len(out); n > 0 && (out[n-1].Kind == session.Close || isLarge(&out[n-1])) {
			w.out = out
			w.apply(p) // which may find that there is enough in the connection's queue
			out = w.out[:0]
		}
	}
	w.out = out
	w.apply(p)
	retained := p.due.waiting()
	p.mu.Unlock()
	w.clearBundle()
	w.settle()
	if retained {
		w.deliverRetained(p, now)
	}
}

func isLarge(e *session.Effect) bool {
	return e.Kind == session.Publish && len(e.Message.Payload) >= shareBytes
}

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// fingerprint is one of what a PUBLISH says. It is kept on disk with the id of a message of QoS 2, so it is the same in each
// process; a client that makes two alike deceives itself. Processors compute both sums of the payload, FNV-1a is of the topic.
func fingerprint(topic string, payload []byte) uint64 {
	hash := uint64(14695981039346656037)
	for i := range len(topic) {
		hash = (hash ^ uint64(topic[i])) * 1099511628211
	}
	return hash ^ (uint64(crc32.Checksum(payload, castagnoli))<<32 | uint64(crc32.ChecksumIEEE(payload)))
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
func (r *router) receiveForIngest(l *clientLink, pk *packets.Packet) error {
	w, p, pub := l.work, l.peer, &l.work.pub
	c := &receipt{account: p.account, ticket: pub.ticket, tally: pub.to.tally, since: pub.now, link: pub.link}
	c.left.Store(2) // this function and ingest
	fill(&c.message, pub.to.topic, p.id, pk, pub.now)
	c.bytes = len(c.message.Topic) + len(c.message.Payload) + len(c.message.Properties) + receiptBytes
	if l.untaken && c.link != nil { // not before the one that the sender will send again
		r.notTaken(w, c, p)
		return nil
	}
	if !r.intake.take(w, c) {
		w.flush()
		if !r.intake.wait(l, c, w.behind/(len(pk.TopicName)+len(pk.Payload)+1)) {
			l.untaken = true
			r.notTaken(w, c, p)
			return nil // what else was read with it is dealt with too
		}
		l.now = r.now() // what was read with it has waited too, and begins to wait for the store now
	}
	c.tally.received.Add(1)
	pub.message, pub.receipt = &c.message, c
	w.notePatience(l, pk.FixedHeader.Qos)
	if done := r.route(w); done.refused { // what its acknowledgement promises is that it is stored
		r.refused(l, done.why, pk.TopicName)
	}
	r.fulfil(w, c)
	w.settle()
	if w.urgent {
		w.waitForGroup(l)
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
