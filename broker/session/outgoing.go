package session

import (
	"math"
	"time"
)

// Offer says how a message is to be delivered to one session.
type Offer struct {
	QoS               byte // granted to the subscription
	RetainAsPublished bool
	Retained          bool     // sent because of a new subscription
	Scarce            bool     // the account holds as much memory as it may: the session may hold FreeBytes
	Awaited           bool     // publishers wait for the session: it may hold awaitedShare times as much for those who are on their way
	SubscriptionIDs   []uint32 // of all matching subscriptions; not changed afterwards
	// Token, when not nil, comes back exactly once, in a Delivered or a
	// Dropped. Use a pointer: then nothing is allocated. What went into
	// the tail brings it back to Load; at the session's end it does not.
	Token any
}

// entry is one delivery.
type entry struct {
	message *Message
	token   any
	ids     []uint32
	seq     uint64 // of QoS 1 and 2
	qos     byte
	retain  bool
	doubted bool // it may have been sent before a restart
}

func (e *entry) costBytes() int { return costBytes(e.message, e.ids) }

// outgoing is what is on its way to the client. QoS 1 and 2 are numbered as they come. They wait in a queue of which the head
// is in memory; its tail, the entries above loaded, is with the router, which has got each of them in an Enqueued.
type outgoing struct {
	*underway        // nothing while it has none of that
	seq       uint64 // of the newest entry
	sent      uint64 // of the newest that has left the queue
	loaded    uint64 // up to here they are in memory, or settled
	doubted   uint64 // up to here they may have been sent before a restart
	tailBytes int
	tail      int32  // entries in the tail
	lastID    uint16 // that of flights, where there are none
}

// underway is what most sessions have none of: those of clients that only publish, or are away.
type underway struct {
	bytes     int // in queues and flights
	bytes0    int // of them, in queue0
	flights   flights
	resend    []uint16          // ids in use that the connection has yet to see
	queue     ring[entry]       // the head: QoS 1 and 2, never sent
	queue0    ring[entry]       // QoS 0, empty unless paused
	bare      map[uint64]uint16 // flights whose messages are with the router: ids by number; see unload
	bareBytes int               // of those
	expires   time.Time         // nothing in the queue before that
}

// nothing is that of all sessions that have none. Nobody changes it: who puts something in calls begin before.
var nothing underway

func (b *outgoing) isUnderWay() bool { return b.underway != &nothing }

// begin makes room for something that is underway.
func (b *outgoing) begin() {
	if !b.isUnderWay() {
		b.underway = &underway{flights: flights{lastID: b.lastID}}
	}
}

// newestID is the packet id that was given out last.
func (b *outgoing) newestID() uint16 {
	if b.isUnderWay() {
		return b.flights.lastID
	}
	return b.lastID
}

// Deliver hands the session a message. QoS 0 goes out at once or, while the
// connection is paused, when it resumes. QoS 1 and 2 keep their order and wait
// for the window, the connection and the client's return; what the head has no
// room for goes to the tail.
func (s *Session) Deliver(now time.Time, m *Message, o Offer, out []Effect) []Effect {
	e := entry{message: m, token: o.Token, ids: o.SubscriptionIDs, qos: min(m.QoS, o.QoS)} // [MQTT-3.8.4-8]
	if m.QoS == 0 && s.options.RaiseQoS0 {
		e.qos = min(1, o.QoS)
	}
	e.retain = o.Retained || (m.Retain && o.RetainAsPublished) // [MQTT-3.3.1-12, -13]
	switch {
	case !s.exists || s.ghost:
		return s.drop(&e, DropEnded, 0, out)
	case e.qos == 0:
		return s.deliverAtMostOnce(now, &e, &o, out)
	}
	b := &s.outgoing
	b.seq++
	e.seq = b.seq
	if s.lasting {
		out = append(out, enqueued(&e))
	}
	ready := s.connected && !s.paused && s.isWindowOpen()
	switch {
	case b.loaded+1 != e.seq || s.lasting && !s.connected: // what is away needs no memory
	case ready && s.fits(&e, &o): // so nothing waits before it
		b.loaded = e.seq
		return s.send(now, &e, out)
	default:
		var room bool
		if room, out = s.room(now, &e, &o, out); room {
			b.loaded = e.seq
			s.push(&e)
			return out
		}
	}
	b.tail++
	b.tailBytes += e.costBytes()
	if !s.lasting {
		out = append(out, enqueued(&e))
	}
	return out
}

func enqueued(e *entry) Effect {
	return Effect{Kind: Enqueued, Seq: e.seq, Message: e.message, QoS: e.qos, Retain: e.retain, SubscriptionIDs: e.ids, Token: e.token}
}

// trim gives back the room of what is empty: a client may be away for long.
func (b *outgoing) trim() {
	if !b.isUnderWay() {
		return
	}
	if b.queue.n+b.queue0.n+b.flights.n+len(b.resend)+len(b.bare) == 0 {
		b.lastID, b.underway = b.flights.lastID, &nothing
		return
	}
	if b.queue.n == 0 {
		b.queue = ring[entry]{}
	}
	if b.queue0.n == 0 {
		b.queue0 = ring[entry]{}
	}
	if b.flights.n == 0 {
		b.flights.slots, b.flights.removed = nil, 0
	}
	if len(b.resend) == 0 {
		b.resend = nil
	}
}

func (s *Session) deliverAtMostOnce(now time.Time, e *entry, o *Offer, out []Effect) []Effect {
	b := &s.outgoing
	switch {
	case !s.connected:
		return s.drop(e, DropOffline, 0, out)
	case o.Scarce && !s.fits(e, o):
		return s.drop(e, DropQueueFull, 0, out)
	case !s.paused:
		return s.send(now, e, out)
	}
	var room bool
	if room, out = s.room(now, e, &Offer{}, out); !room {
		return s.drop(e, DropQueueFull, 0, out)
	}
	b.begin()
	b.bytes += e.costBytes()
	b.bytes0 += e.costBytes()
	b.queue0.push(*e)
	return out
}

// FreeBytes is what a session may hold in memory when its account holds too much: a client
// that reads is not cut off by others that do not.
const FreeBytes = 4096

// awaitedShare of the bound of bytes is for all who publish at the same moment, before they wait.
const awaitedShare = 4

// fits reports whether the bytes of e may be held. What is larger than the
// limit by itself fits when nothing else is held, unless memory is scarce.
func (s *Session) fits(e *entry, o *Offer) bool {
	before, limit := s.outgoing.bytes, s.options.MaxQueuedBytes
	switch {
	case o.Scarce:
		return before+e.costBytes() <= FreeBytes
	case o.Awaited:
		limit *= awaitedShare
	}
	return before == 0 || before+e.costBytes() <= limit
}

// room reports whether e may wait in memory, when what has expired there has made room.
func (s *Session) room(now time.Time, e *entry, o *Offer, out []Effect) (bool, []Effect) {
	b := &s.outgoing
	has := func() bool { return b.queue.n+b.queue0.n < s.options.MaxQueued && s.fits(e, o) }
	if !has() && !b.expires.IsZero() && !now.Before(b.expires) {
		out = s.purge(now, out)
	}
	return has(), out
}

// push puts e at the end of the head.
func (s *Session) push(e *entry) {
	b := &s.outgoing
	b.begin()
	b.bytes += e.costBytes()
	b.queue.push(*e)
	b.expires = sooner(b.expires, e.message.Expires)
}

// sooner is the earlier of two times, of which the zero one is never.
func sooner(a, b time.Time) time.Time {
	if a.IsZero() || !b.IsZero() && b.Before(a) {
		return b
	}
	return a
}

// purge drops what has expired in the queue.
func (s *Session) purge(now time.Time, out []Effect) []Effect {
	b := &s.outgoing
	b.expires = time.Time{}
	for range b.queue.n {
		e := s.shift(&b.queue)
		if e.message.Expired(now) {
			out = s.drop(&e, DropExpired, 0, out)
			continue
		}
		s.push(&e)
	}
	return out
}

// send sends e for the first time, or drops it when it is too late or too
// large. QoS 1 and 2 are charged to the session from here on.
func (s *Session) send(now time.Time, e *entry, out []Effect) []Effect {
	m := e.message
	if e.qos > 0 {
		s.outgoing.sent = e.seq
	}
	if m.Expired(now) {
		return s.drop(e, DropExpired, 0, out) // [MQTT-3.3.2-5]
	}
	out, fits := s.publish(now, e, 0, e.doubted && e.qos == 1, out)
	if !fits {
		return s.drop(e, DropTooLarge, 0, out)
	}
	if e.qos == 0 {
		s.stats.delivered++
		return s.settle(e, Effect{Kind: Delivered}, out)
	}
	s.outgoing.begin()
	s.outgoing.bytes += e.costBytes()
	out[len(out)-1].PacketID = s.outgoing.flights.add(*e)
	return out
}

// publish sends the PUBLISH of an entry, unless it is larger than the client takes [MQTT-3.1.2-24].
func (s *Session) publish(now time.Time, e *entry, id uint16, dup bool, out []Effect) (_ []Effect, fits bool) {
	out = append(out, packet(now, e, id, dup))
	if s.aliases == nil && s.maxPacketSize == 0 {
		return out, true
	}
	p := &out[len(out)-1]
	if s.shorten(p); s.fitsPacket(p) {
		if s.aliases != nil {
			s.aliases.sent(p)
		}
		return out, true
	}
	*p = Effect{}
	return out[:len(out)-1], false
}

func packet(now time.Time, e *entry, id uint16, dup bool) Effect {
	return Effect{
		Kind: Publish, QoS: e.qos, DUP: dup, Retain: e.retain, PacketID: id,
		Expiry: e.message.secondsLeft(now), Message: e.message, SubscriptionIDs: e.ids,
	}
}

func (s *Session) fitsPacket(p *Effect) bool {
	return s.maxPacketSize == 0 || p.packetBytes(s.version) <= int(s.maxPacketSize)
}

// tooLarge reports whether publish would not send it now.
func (s *Session) tooLarge(now time.Time, e *entry) bool {
	if s.maxPacketSize == 0 {
		return false
	}
	p := packet(now, e, 0, false)
	s.shorten(&p)
	return !s.fitsPacket(&p)
}

// Room returns how many QoS 1 and 2 messages would be sent at once. Retained
// messages are delivered at the connection's pace by offering no more.
func (s *Session) Room() int {
	b := &s.outgoing
	if !s.connected || s.paused || b.loaded != b.seq { // what is in the tail goes first
		return 0
	}
	return max(0, int(s.window)-b.flights.outstanding())
}

// isWindowOpen reports whether the client may be sent another QoS 1 or 2 message.
func (s *Session) isWindowOpen() bool { return s.outgoing.flights.outstanding() < int(s.window) }

// Pause stops sending messages: the connection's own queue is full enough.
// Acknowledgements still go out.
func (s *Session) Pause() { s.paused = true }

// Paused reports whether the session waits for Resume.
func (s *Session) Paused() bool { return s.connected && s.paused }

// Resume sends what is due, about room bytes of it: first what an older
// connection left unacknowledged, then what waits. What does not fit leaves
// the session paused until the next Resume.
func (s *Session) Resume(now time.Time, room int, out []Effect) []Effect {
	if !s.connected || room <= 0 {
		return out
	}
	out, room = s.sendAgain(now, room, out)
	out, room = s.sendQueue(now, room, out)
	b := &s.outgoing
	for b.queue0.n > 0 && room > 0 {
		e := s.shift(&b.queue0)
		room -= e.costBytes()
		out = s.send(now, &e, out)
	}
	open := s.isWindowOpen()
	s.paused = b.queue0.n > 0 || (open && (b.queue.n > 0 && len(b.bare) == 0 || len(b.resend) > 0 && !s.awaitsLoad()))
	return out
}

// advance fills the window after an acknowledgement.
func (s *Session) advance(now time.Time, out []Effect) []Effect {
	if s.paused {
		return out
	}
	out, _ = s.sendAgain(now, math.MaxInt, out)
	out, _ = s.sendQueue(now, math.MaxInt, out)
	return out
}

// sendAgain walks the ids that the connection has not seen: PUBREL for those
// past PUBREC, PUBLISH with DUP for the others [MQTT-4.4.0-1, MQTT-3.3.1-1],
// within the window [MQTT-3.3.4-9]. Delivery has begun, so expiry no longer
// matters [MQTT-4.3.3-7].
func (s *Session) sendAgain(now time.Time, room int, out []Effect) ([]Effect, int) {
	b := &s.outgoing
	for len(b.resend) > 0 && room > 0 {
		f := b.flights.find(b.resend[0])
		switch {
		case f == nil || !f.waits(): // settled meanwhile
		case f.state == waitsPublish && f.message == nil: // until it is loaded
			return out, room
		case f.state == waitsReleasing:
			b.flights.sent(f, released)
			out = append(out, Effect{Kind: Pubrel, PacketID: f.id})
		case !s.isWindowOpen():
			return out, room
		default:
			var fits bool
			if out, fits = s.publish(now, &f.entry, f.id, true, out); !fits {
				out = s.dropFlight(f, DropTooLarge, 0, out)
				break
			}
			b.flights.sent(f, published)
			room -= f.costBytes()
		}
		b.resend = b.resend[1:]
	}
	return out, room
}

// sendQueue sends new messages while the window is open. That it is open, and
// room left, means that nothing is to be sent again.
func (s *Session) sendQueue(now time.Time, room int, out []Effect) ([]Effect, int) {
	b := &s.outgoing
	for b.queue.n > 0 && room > 0 && s.isWindowOpen() {
		e := s.shift(&b.queue)
		room -= e.costBytes()
		out = s.send(now, &e, out)
	}
	return out, room
}

// shift takes the first entry out of a queue.
func (s *Session) shift(queue *ring[entry]) entry {
	e := queue.pop()
	s.outgoing.bytes -= e.costBytes()
	if queue == &s.outgoing.queue0 {
		s.outgoing.bytes0 -= e.costBytes()
	}
	return e
}
