package session

import (
	"encoding/binary"
	"fmt"
	"slices"
	"time"
)

// judge checks the effects of an event, one after the other, then what must
// hold between events.
func (w *world) judge() {
	for i := range w.out {
		w.effect(&w.out[i])
	}
	w.must(len(w.due) == 0, fmt.Sprint("every token that was due is settled ", len(w.due), w.s.Lasting(), w.exists))
	w.must(len(w.rels) == 0 && len(w.comps) == 0, "every PUBREL and PUBCOMP that was due has left")
	w.must(w.willSeen == btoi(w.willDue), "the will is published when it is due, once")
	if w.willDue {
		w.will, w.willAt, w.willDue, w.willSeen = nil, time.Time{}, false, 0
	}
	w.must(!w.endsNow, "the end is announced")
	w.must(len(w.pubacks) == 0 || !w.pubacks[0].done, "no PUBACK is kept back")
	for len(w.pubrecs) > 0 && w.pubrecs[0].void {
		w.pubrecs = w.pubrecs[1:]
	}
	w.must(len(w.pubrecs) == 0 || !w.pubrecs[0].done, "no PUBREC is kept back")
	w.balance()
	w.progress()
}

// balance checks the bounds and that exactly the open tokens are held.
func (w *world) balance() {
	bytes, tail, begun := 0, 0, 0
	for _, list := range [][]*parcel{w.pending, w.pending0, w.flying} {
		for _, p := range list {
			switch _, bare := w.s.outgoing.bare[p.seq]; {
			case bare && p.id > 0:
				begun++
			case p.id == 0 && w.inTail(p):
				tail++
			default:
				bytes += p.m.costBytes()
			}
		}
	}
	st := w.s.Stats()
	w.must(st.Queued == len(w.pending)+len(w.pending0), fmt.Sprint("queued ", st.Queued, len(w.pending), len(w.pending0)))
	messages, _, _ := w.s.Tail()
	w.must(messages == tail+begun, fmt.Sprint("the tail ", messages, tail, begun))
	w.must(w.s.Newest() == w.seq, "numbers")
	w.must(st.Queued-tail <= w.o.MaxQueued+maxLoad, "the head is bounded in messages")
	w.must(st.InFlight == len(w.flying)+len(w.released), "in flight")
	w.must(st.Bytes == bytes, "bytes")
	w.must(len(w.live) == len(w.pending)+len(w.pending0)+len(w.flying), "every open token is held")
	// The first message is let in whatever its size, and so are QoS 1 and 2 that the queue passes on.
	w.must(bytes <= w.o.MaxQueuedBytes+maxLoad*710 || len(w.pending)+len(w.pending0)+len(w.flying) == 1, "the head is bounded in bytes")
	for _, p := range append(append([]*parcel{}, w.pending...), w.flying...) {
		if w.s.Lasting() || p.id == 0 && w.inTail(p) {
			w.must(slices.ContainsFunc(w.kept, func(e Entry) bool { return e.Seq == p.seq && e.Message == p.m }), "it is with the router")
		}
	}
	w.must(len(w.s.heldIDs()) == len(w.held), "held QoS 2 ids")
	w.must(w.s.Deadline().Equal(w.deadline()), fmt.Sprint("deadline ", w.s.Deadline(), w.deadline(), w.willAt, w.endsAt, w.s.willDue, w.s.expires))
}

func (w *world) deadline() time.Time {
	switch {
	case w.connected || (w.willAt.IsZero() && w.endsAt.IsZero()):
		return time.Time{}
	case w.willAt.IsZero() || (!w.endsAt.IsZero() && w.endsAt.Before(w.willAt)):
		return w.endsAt
	}
	return w.willAt
}

// progress checks that nothing waits that could be sent.
func (w *world) progress() {
	if !w.connected || w.s.Paused() {
		return
	}
	w.must(len(w.pending0) == 0, "QoS 0 does not wait")
	old := func(p *parcel) bool { return p.epoch != w.epoch }
	w.must(!slices.ContainsFunc(w.released, old), "PUBREL does not wait")
	if w.outstanding() < w.window() {
		w.must(!slices.ContainsFunc(w.flying, old) || w.s.awaitsLoad(), "nothing waits to be sent again while the window is open")
		w.must(len(w.pending) == 0 || w.inTail(w.pending[0]) || w.s.awaitsLoad(), "nothing waits while the window is open")
	}
	if len(w.flying) == 0 && len(w.pending) > 0 && w.inTail(w.pending[0]) {
		w.must(w.s.WantsLoad(), "it asks for the tail")
	}
}

func (w *world) window() int {
	if w.conn.ReceiveMaximum > 0 {
		return min(w.o.Window, int(w.conn.ReceiveMaximum))
	}
	return w.o.Window
}

// outstanding counts what this connection has not acknowledged.
func (w *world) outstanding() (n int) {
	for _, list := range [][]*parcel{w.flying, w.released} {
		for _, p := range list {
			if p.epoch == w.epoch {
				n++
			}
		}
	}
	return n
}

func (w *world) effect(e *Effect) {
	w.must(w.connected || !e.IsPacket(), "no packet without a connection")
	switch e.Kind {
	case Publish:
		w.published(e)
	case Pubrel:
		w.pubrelSent(e)
	case Puback:
		w.must(len(w.pubacks) > 0 && w.pubacks[0].done, "a PUBACK is due")
		l := w.pubacks[0]
		w.must(l.id == e.PacketID && l.reason == e.Reason, "PUBACKs in order")
		w.pubacks = w.pubacks[1:]
	case Pubrec:
		w.pubrecSent(e)
	case Pubcomp:
		w.must(len(w.comps) > 0 && w.comps[0] == ack{e.PacketID, e.Reason}, "PUBCOMP is due")
		w.comps = w.comps[1:]
	case Close:
		w.must(w.closes, "the connection is to be closed")
	case Delivered:
		w.delivered(w.parcel(e))
	case Dropped:
		w.dropped(w.parcel(e), e)
	case Enqueued:
		w.must(w.newest != nil && e.Seq == w.newest.seq && e.Token == w.newest, "the newest is enqueued")
		w.kept = append(w.kept, e.Entry())
	case WillDue:
		w.willSeen++
		w.s.WillRouted()
		w.must(w.will != nil && e.Message.Created.Equal(w.now), "a will is due")
		w.must(e.Message.Expires.IsZero() == (w.will.Expiry == 0), "will expiry")
	case Ended:
		w.must(w.endsNow, "the session is to end")
		w.endsNow = false
	default:
		w.must(false, "unknown effect")
	}
}

func (w *world) published(e *Effect) {
	p := w.live[e.Message]
	w.must(p != nil, "a message that is open")
	w.must(!w.wasPaused || w.resuming, "nothing is sent in a pause")
	w.must(e.QoS == p.qos && e.Retain == p.retain, "QoS and RETAIN")
	w.packet(e)
	w.must(e.DUP && p.id != 0 || !p.m.Expired(w.now), "an expired message is not sent")
	switch {
	case p.qos == 0:
		w.must(w.pending0[0] == p && !e.DUP && e.PacketID == 0, "QoS 0 in order, plain")
		w.pending0 = w.pending0[1:]
		p.sent0 = true
		w.due = append(w.due, p)
		return
	case e.DUP && !p.doubt || p.id != 0:
		first := slices.IndexFunc(w.flying, func(p *parcel) bool { return p.epoch != w.epoch })
		w.must(first >= 0 && w.flying[first] == p && e.PacketID == p.id, "DUP only on what was sent, in order, same id")
	default:
		w.must(w.pending[0] == p, "in order")
		w.must(e.DUP == (p.doubt && p.qos == 1), "DUP for what may have been sent before")
		w.pending = w.pending[1:]
		inUse := func(q *parcel) bool { return q.id == e.PacketID }
		w.must(e.PacketID != 0 && !slices.ContainsFunc(w.flying, inUse) && !slices.ContainsFunc(w.released, inUse), "an unused packet id")
		p.id = e.PacketID
		w.flying = append(w.flying, p)
	}
	p.epoch = w.epoch
	w.must(w.outstanding() <= w.window(), "the window")
}

// packet reads a PUBLISH as the client does.
func (w *world) packet(e *Effect) {
	sent := e.AppendPacket(nil, w.conn.Version)
	w.must(w.conn.MaximumPacketSize == 0 || len(sent) <= int(w.conn.MaximumPacketSize), "Maximum Packet Size")
	_, n := binary.Uvarint(sent[1:])
	body := sent[1+n:]
	topic := string(body[2:][:binary.BigEndian.Uint16(body)])
	if e.QoS > 0 {
		body = body[2:]
	}
	var alias uint16
	if body = body[2+len(topic):]; w.conn.Version == 5 {
		length, n := binary.Uvarint(body)
		for p := body[n:][:length]; len(p) > 0; {
			switch p[0] {
			case 0x02:
				p = p[5:]
			case 0x23:
				alias, p = binary.BigEndian.Uint16(p[1:]), p[3:]
				w.must(alias > 0 && alias <= w.conn.TopicAliasMaximum && alias <= maxAliases, "no alias that the client does not take")
			default:
				w.must(false, "a property that nobody has asked for")
			}
		}
	}
	known := w.aliasOf(e.Message.Topic)
	w.must(alias == known || known == 0 && topic != "", "a topic has one alias, and keeps it")
	w.must(topic == "" || known == 0, "what the client knows is not said again")
	if alias > 0 && topic != "" {
		w.must(w.names[alias] == "", "an alias has one topic")
		w.names[alias] = topic
	}
	w.must(topic == e.Message.Topic || topic == "" && w.names[alias] == e.Message.Topic, "the topic")
	if len(w.names) < int(min(w.conn.TopicAliasMaximum, maxAliases)) && alias == 0 && len(topic) > 4 {
		w.must(w.conn.MaximumPacketSize > 0 && len(sent)+aliasBytes+1 > int(w.conn.MaximumPacketSize), "a topic gets an alias")
	}
}

// aliasOf is 0 for a topic that has none.
func (w *world) aliasOf(topic string) uint16 {
	for alias, name := range w.names {
		if name == topic {
			return alias
		}
	}
	return 0
}

func (w *world) pubrelSent(e *Effect) {
	if len(w.rels) > 0 {
		w.must(w.rels[0] == ack{e.PacketID, e.Reason}, "PUBREL as due")
		w.rels = w.rels[1:]
		return
	}
	w.must(w.resuming, "PUBREL again only when a connection resumes")
	first := slices.IndexFunc(w.released, func(p *parcel) bool { return p.epoch != w.epoch })
	w.must(first >= 0 && w.released[first].id == e.PacketID && e.Reason == Success, "PUBRELs in order")
	w.released[first].epoch = w.epoch
}

func (w *world) pubrecSent(e *Effect) {
	for len(w.pubrecs) > 0 && w.pubrecs[0].void {
		w.pubrecs = w.pubrecs[1:]
	}
	w.must(len(w.pubrecs) > 0 && w.pubrecs[0].done, "a PUBREC is due")
	l := w.pubrecs[0]
	w.must(l.id == e.PacketID && l.reason == e.Reason, "PUBRECs in order")
	w.pubrecs = w.pubrecs[1:]
	if w.conn.Version == 5 && e.Reason.Failed() {
		delete(w.held, l.id)
	}
}

// settled ends a token's story.
func (w *world) settled(p *parcel) {
	w.must(w.live[p.m] == p, "a token is settled once")
	delete(w.live, p.m)
	if i := slices.Index(w.due, p); i >= 0 {
		w.due = slices.Delete(w.due, i, i+1)
	}
	w.kept = slices.DeleteFunc(w.kept, func(e Entry) bool { return e.Message == p.m })
}

func (w *world) delivered(p *parcel) {
	w.must(slices.Contains(w.due, p) && (p.sent0 || p.id != 0), "delivered what the client took")
	w.must(!p.reason.Failed(), "not what it refused")
	w.settled(p)
}

func (w *world) dropped(p *parcel, e *Effect) {
	due := slices.Contains(w.due, p)
	switch e.Drop {
	case DropRefused:
		w.must(due && p.reason.Failed() && e.Reason == p.reason, "refused by the client")
	case DropEnded:
		w.must(due || !w.exists, "ended with the session")
	case DropOffline:
		w.must(p.qos == 0 && (due || !w.connected), "offline")
	case DropExpired:
		w.must(p.id == 0 && p.m.Expired(w.now), "expired before it was sent")
	case DropTooLarge:
		due := Effect{Kind: Publish, QoS: p.qos, Message: p.m, Expiry: p.m.secondsLeft(w.now)}
		if alias := w.aliasOf(p.m.Topic); alias > 0 {
			due.Alias, due.TopicKnown = alias, true
		}
		size := len(due.AppendPacket(nil, w.conn.Version))
		w.must(w.conn.MaximumPacketSize > 0 && size > int(w.conn.MaximumPacketSize), "too large")
	case DropQueueFull:
		w.crowdedOut(p)
	default:
		w.must(false, "unexpected reason")
	}
	if !due {
		w.withdraw(p)
	}
	w.settled(p)
}

// crowdedOut checks that p had to go.
func (w *world) crowdedOut(p *parcel) {
	bytes, n := 0, len(w.pending)+len(w.pending0)
	for _, list := range [][]*parcel{w.pending, w.pending0, w.flying} {
		for _, q := range list {
			bytes += q.m.costBytes()
		}
	}
	w.must(n > w.o.MaxQueued || bytes > w.o.MaxQueuedBytes, "the queue is full")
	w.must(p == w.newest && p.qos == 0, "only the newest, of QoS 0")
}

// withdraw takes a dropped parcel out of the lists.
func (w *world) withdraw(p *parcel) {
	is := func(q *parcel) bool { return q == p }
	w.pending = slices.DeleteFunc(w.pending, is)
	w.pending0 = slices.DeleteFunc(w.pending0, is)
	if slices.Contains(w.flying, p) {
		w.flying = slices.DeleteFunc(w.flying, is)
		w.must(p.epoch != w.epoch, "what this connection was sent is not dropped")
		if p.qos == 2 {
			p.epoch = w.epoch
			w.released = append(w.released, p)
			w.rels = append(w.rels, ack{p.id, Success})
		}
	}
}
