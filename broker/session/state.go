package session

import (
	"encoding/binary"
	"fmt"
	"slices"
	"time"
)

// Flags of a session's blob.
const (
	stateConnected = 1 << iota
	stateSure
	stateWill
	stateWillWaits
	stateWillRetain
)

// Flags of an id in it.
const (
	idPast   = 4 // a flight past PUBREC
	idKnown  = 1 // a fingerprint follows
	idStored = 2 // completed
)

// WillPatience is how long the will of a client waits, which was connected when the broker was lost: it may be back at once.
const WillPatience = 30 * time.Second

// Worth reports whether anything of the session must outlive the broker: the session itself, or a will.
func (s *Session) Worth() bool { return s.exists && s.lasting || s.will != nil || s.leaving != nil }

// AppendState appends what must outlive the broker, beside subscriptions and entries, as a blob: how long the session and its
// will still have, the ids of both directions, which entries are settled.
func (s *Session) AppendState(dst []byte, t Moment) []byte {
	start, b, will := len(dst), &s.outgoing, s.will
	if will == nil {
		will = s.leaving
	}
	flags := flag(s.connected, stateConnected) | flag(!t.Unsure, stateSure) | flag(will != nil, stateWill) |
		flag(s.willDue != 0 || s.will == nil, stateWillWaits) | flag(will != nil && will.Message.Retain, stateWillRetain)
	dst = append(dst, format, flags, s.version)
	dst = binary.AppendVarint(dst, t.Wall.UnixMilli())
	left := s.expiry
	if !s.lasting {
		left = 0
	} else if !s.connected && left != Forever {
		left = max(s.expires.time().Sub(t.Now), time.Millisecond)
	}
	dst = appendSpan(dst, left)
	if will != nil {
		dst = append(dst, will.Message.QoS)
		dst = appendBytes(dst, will.Message.Topic)
		dst = appendBytes(dst, will.Message.Payload)
		dst = appendBytes(dst, will.Message.Properties)
		dst = appendBytes(dst, will.Message.Publisher)
		dst = appendSpan(dst, will.Delay)
		dst = appendSpan(dst, will.Expiry)
		dst = appendSpan(dst, s.willDue.time().Sub(t.Now))
	}
	if !s.lasting {
		return seal(dst, start)
	}
	dst = binary.AppendUvarint(dst, b.seq)
	dst = binary.AppendUvarint(dst, b.sent)
	dst = binary.AppendUvarint(dst, b.doubted)
	dst = binary.AppendUvarint(dst, uint64(b.newestID()))
	dst = binary.AppendUvarint(dst, uint64(b.flights.n))
	for i := range b.flights.slots {
		f := &b.flights.slots[i]
		if f.state == free {
			continue
		}
		dst = append(dst, f.qos|flag(f.past, idPast))
		dst = binary.AppendUvarint(dst, uint64(f.id))
		dst = binary.AppendUvarint(dst, b.flights.order-f.order)
		if !f.past {
			dst = binary.AppendUvarint(dst, b.seq-f.seq)
		}
	}
	held := 0
	for _, h := range s.heldIDs() {
		held += btoi(h.routed)
	}
	dst = binary.AppendUvarint(dst, uint64(held))
	for id, h := range s.heldIDs() {
		if !h.routed {
			continue
		}
		dst = append(dst, flag(h.known, idKnown)|flag(h.done, idStored), byte(h.reason))
		dst = binary.AppendUvarint(dst, uint64(id))
		dst = binary.LittleEndian.AppendUint64(dst, h.print)
	}
	return seal(dst, start)
}

func btoi(b bool) int {
	if b {
		return 1
	}
	return 0
}

// Restore makes a new session what the blob says, without a connection: who was connected when it was written is lost now.
// newest is the highest number of an entry that is on disk, 0 if there is none. What waits on disk is told to Waiting.
// A session that has only left a will is none that its client can go on with. renew says that the blob should be written anew:
// what it says of the time that is left would be true again at each start.
func (s *Session) Restore(blob []byte, newest uint64, t Moment) (renew bool, err error) {
	r, err := open("session", blob)
	if err != nil {
		return false, err
	}
	flags := r.byte()
	s.version = r.byte()
	passed := t.since(r.signed(), flags&stateSure > 0)
	was := flags&stateConnected > 0
	if was {
		passed = 0
	}
	renew = was || flags&stateSure == 0 && !t.Unsure
	s.exists, s.expiry = true, r.span()
	s.lasting = s.options.Kept && s.expiry > 0
	s.lasted = s.lasting
	if flags&stateWill > 0 {
		w := &Will{Message: Message{QoS: r.byte(), Retain: flags&stateWillRetain > 0}}
		m := &w.Message
		m.Topic, m.Payload, m.Properties, m.Publisher = string(r.bytes()), slices.Clone(r.bytes()), slices.Clone(r.bytes()), string(r.bytes())
		w.Delay, w.Expiry = r.span(), r.span()
		left := r.span() - passed
		if was && flags&stateWillWaits == 0 {
			left = max(w.Delay, WillPatience)
		}
		s.will, s.willDue = w, instantOf(t.Now.Add(max(left, 0)))
	}
	if s.expiry != Forever {
		s.expires = instantOf(t.Now.Add(max(s.expiry-passed, 0)))
	}
	if !s.lasting {
		s.ghost, s.expires = true, s.willDue
		return renew, r.err()
	}
	if err := s.restoreOutgoing(r, newest, was); err != nil {
		return false, err
	}
	for n := r.number(); n > 0 && !r.bad; n-- {
		f := r.byte()
		h := &held{reason: Reason(r.byte()), known: f&idKnown > 0, done: f&idStored > 0, again: f&idStored == 0, routed: true}
		id := uint16(r.number())
		if len(r.b) < 8 {
			r.bad = true
			break
		}
		h.print = binary.LittleEndian.Uint64(r.b)
		r.b = r.b[8:]
		h.ticket.id = id
		if s.in().held == nil {
			s.incoming.held = map[uint16]*held{}
		}
		s.incoming.held[id] = h
	}
	return renew, r.err()
}

func (s *Session) restoreOutgoing(r *reader, newest uint64, was bool) error {
	b := &s.outgoing
	b.seq, b.sent, b.doubted, b.lastID = r.number(), r.number(), r.number(), uint16(r.number())
	seq := b.seq
	if b.seq = max(seq, newest); was {
		b.doubted = b.seq
	}
	n := r.number()
	if n > 0 {
		b.begin()
		b.flights.order = 1 << 40 // more than there were
	}
	if n > maxIDs {
		return fmt.Errorf("session: %w", ErrDamaged)
	}
	for ; n > 0 && !r.bad; n-- {
		what := r.byte()
		f := flight{entry: entry{qos: what & 3}, past: what&idPast > 0, id: uint16(r.number()), state: waitsPublish}
		f.order = b.flights.order - r.number()
		if !f.past {
			f.seq = seq - r.number()
		}
		if f.past {
			f.state = waitsReleasing
		} else {
			if b.bare == nil {
				b.bare = map[uint64]uint16{}
			}
			b.bare[f.seq] = f.id
		}
		if f.id == 0 || f.qos == 0 || b.flights.find(f.id) != nil {
			r.bad = true
			break
		}
		b.flights.put(f)
	}
	b.loaded = s.Needed() - 1
	return r.err()
}

// Waiting says what is on disk for a session that was restored.
func (s *Session) Waiting(messages, bytes int) {
	b := &s.outgoing
	if b.loaded < b.seq {
		b.tail, b.tailBytes = int32(max(0, min(messages, int(b.seq-b.loaded))-len(b.bare))), bytes
	}
}
