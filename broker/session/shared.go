package session

import (
	"slices"
	"time"
)

// Shared is one message for a share group.
type Shared struct {
	Message *Message
	Number  uint64 // in the order in which they came; that of a message that comes back stays
}

// ShareQueue holds the messages of a share group that no member has: those that none could be sent, and those that a
// member has given back. They keep their order. The zero value is empty.
type ShareQueue struct {
	entries []Shared // from head on
	head    int
	last    uint64
	bytes   int
}

// Len returns how many messages wait.
func (q *ShareQueue) Len() int { return len(q.entries) - q.head }

// Bytes returns what they are charged with.
func (q *ShareQueue) Bytes() int { return q.bytes }

// Number gives a message its place in the order, without queueing it.
func (q *ShareQueue) Number(m *Message) Shared {
	q.last++
	return Shared{m, q.last}
}

// Put queues a message: a new one, and one that comes back goes before those that came after it.
func (q *ShareQueue) Put(s Shared) {
	q.bytes += s.Message.costBytes()
	switch {
	case q.Len() == 0 || q.entries[len(q.entries)-1].Number < s.Number:
		q.entries = append(q.entries, s)
	case q.head > 0 && s.Number < q.entries[q.head].Number:
		q.head--
		q.entries[q.head] = s
	default:
		at, _ := slices.BinarySearchFunc(q.entries[q.head:], s.Number, func(e Shared, n uint64) int {
			if e.Number < n {
				return -1
			}
			return 1
		})
		q.entries = slices.Insert(q.entries, q.head+at, s)
	}
}

// First returns the message that has waited longest.
func (q *ShareQueue) First() (s Shared, ok bool) {
	if q.Len() == 0 {
		return Shared{}, false
	}
	return q.entries[q.head], true
}

// Pop removes the first message; there must be one.
func (q *ShareQueue) Pop() {
	e := &q.entries[q.head]
	q.bytes -= e.Message.costBytes()
	*e = Shared{}
	q.head++
	switch {
	case q.head == len(q.entries) && cap(q.entries) > keepSlots:
		q.entries, q.head = nil, 0
	case q.head == len(q.entries):
		q.entries, q.head = q.entries[:0], 0
	case q.head >= keepSlots && q.head > len(q.entries)/2:
		q.entries = slices.Delete(q.entries, 0, q.head)
		q.head = 0
	}
}

// Taking says whether a session could be sent a message now.
type Taking uint8

// The answers of Takes.
const (
	TakesNow Taking = iota
	TakesLater
	TakesNever // it is too large for the client
)

// Takes reports whether Deliver would send the message at once.
func (s *Session) Takes(now time.Time, m *Message, o Offer) Taking {
	e := entry{message: m, ids: o.SubscriptionIDs, qos: min(m.QoS, o.QoS)}
	b := &s.outgoing
	switch {
	case s.tooLarge(now, &e):
		return TakesNever
	case !s.connected || s.paused:
		return TakesLater
	case e.qos == 0:
		return TakesNow
	case !s.isWindowOpen() || b.loaded != b.seq || !s.fits(&e, &Offer{}):
		return TakesLater
	case o.Scarce && b.bytes > 0 && !s.fits(&e, &o):
		return TakesLater // what it has unacknowledged makes room
	}
	return TakesNow
}

// TakesMore reports whether the session may have room where Takes has said that it has none.
func (s *Session) TakesMore() bool { return s.Room() > 0 && s.outgoing.loaded == s.outgoing.seq }
