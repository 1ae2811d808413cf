package session

import "time"

// loadShare of the bounds of the head is when it is low: then more of the tail is wanted.
const loadShare = 4

// Lasting reports whether the session outlives its connection and the router keeps it on disk, see Options.Kept.
func (s *Session) Lasting() bool { return s.lasting }

// Tail returns what waits with the router: how many entries, those of flights included of which the message is there, what they
// are charged with, and the number above which they are.
func (s *Session) Tail() (messages, bytes int, after uint64) {
	b := &s.outgoing
	return int(b.tail) + len(b.bare), b.tailBytes + b.bareBytes, b.loaded
}

// TailEmpty reports whether everything that waits is in memory.
func (s *Session) TailEmpty() bool { return s.outgoing.loaded == s.outgoing.seq }

// Newest is the number of the newest entry.
func (s *Session) Newest() uint64 { return s.outgoing.seq }

// WantsLoad reports whether entries of the tail are wanted now: give them to Load.
func (s *Session) WantsLoad() bool {
	b := &s.outgoing
	if !s.connected || b.loaded == b.seq {
		return false
	}
	return len(b.bare) > 0 || loadShare*b.queue.n <= s.options.MaxQueued && loadShare*b.bytes <= s.options.MaxQueuedBytes
}

// awaitsLoad reports whether what is to be sent again next has to be loaded first.
func (s *Session) awaitsLoad() bool {
	b := &s.outgoing
	for _, id := range b.resend {
		if f := b.flights.find(id); f != nil && f.waits() {
			return f.state == waitsPublish && f.message == nil
		}
	}
	return false
}

// Load takes the next entries of the tail, in order, up to the number upTo: what is not among them is not there any more.
// The session is paused afterwards, and Resume sends what is due.
func (s *Session) Load(now time.Time, entries []Entry, upTo uint64, out []Effect) []Effect {
	b := &s.outgoing
	for i := range entries {
		e := entry{message: entries[i].Message, token: entries[i].Token, ids: entries[i].SubscriptionIDs, seq: entries[i].Seq,
			qos: entries[i].QoS, retain: entries[i].Retain}
		if e.seq <= b.loaded || e.seq > upTo {
			continue
		}
		if id, flies := b.bare[e.seq]; flies {
			f := b.flights.find(id)
			s.takeBack(f)
			f.entry, f.bareBytes = e, 0
			b.bytes += e.costBytes()
			continue
		}
		if e.seq <= b.sent { // settled before
			continue
		}
		b.tail = max(0, b.tail-1)
		b.tailBytes = max(0, b.tailBytes-e.costBytes())
		e.doubted = e.seq <= b.doubted
		s.push(&e)
	}
	b.loaded = max(b.loaded, upTo)
	for seq, id := range b.bare {
		if seq > b.loaded {
			continue
		}
		f := b.flights.find(id)
		s.takeBack(f)
		if out = s.dropBegun(f, DropLost, 0, out); f.qos == 1 {
			b.flights.remove(f)
			continue
		}
		b.flights.letGo(f)
		f.state = waitsReleasing // Resume sends the PUBREL: CONNACK comes first
	}
	if b.loaded == b.seq {
		b.tail, b.tailBytes = 0, 0
	}
	if s.connected && (b.queue.n > 0 || len(b.resend) > 0) {
		s.paused = true
	}
	return out
}

// unload leaves all entries of a lasting session to the router, which has them, while its client is away.
func (s *Session) unload() {
	b := &s.outgoing
	for i := range b.flights.slots {
		f := &b.flights.slots[i]
		if f.state == free || f.past || f.message == nil {
			continue
		}
		if b.bare == nil {
			b.bare = map[uint64]uint16{}
		}
		b.bare[f.seq] = f.id
		f.bareBytes = uint32(f.costBytes())
		b.bytes -= int(f.bareBytes)
		b.bareBytes += int(f.bareBytes)
		f.entry = entry{seq: f.seq, qos: f.qos}
	}
	for b.queue.n > 0 {
		e := s.shift(&b.queue)
		b.tail++
		b.tailBytes += e.costBytes()
	}
	if b.isUnderWay() {
		b.queue, b.resend, b.expires = ring[entry]{}, nil, time.Time{}
	}
	b.loaded = s.Needed() - 1
}

// Needed is the lowest number of which the router must still have the entry; it only grows.
func (s *Session) Needed() uint64 {
	b := &s.outgoing
	if !s.lasting {
		return b.loaded + 1
	}
	needed := b.sent + 1
	for i := range b.flights.slots {
		if f := &b.flights.slots[i]; f.state != free && !f.past {
			needed = min(needed, f.seq)
		}
	}
	return needed
}
