package session

import (
	"cmp"
	"slices"
)

// state is where a message stands between PUBLISH and its last acknowledgement.
type state uint8

const (
	free           state = iota
	published            // PUBLISH sent on this connection
	released             // PUBREL sent on this connection
	waitsPublish         // PUBLISH sent on an older connection, to be sent again
	waitsReleasing       // past PUBREC on an older connection, PUBREL to be sent again
)

// flight is one packet id in use.
type flight struct {
	entry
	order uint64 // of the PUBLISH; after PUBREC, of the PUBREC
	id    uint16
	state state
	past  bool // PUBREC

	bareBytes uint32 // cost of a message that is with the router; 0: that is counted with the tail, after a restart
}

func (f *flight) waits() bool { return f.state >= waitsPublish }

// holds reports whether the message is still the session's: it is not past PUBREC.
func (f *flight) holds() bool { return !f.past }

// flights is the table of packet ids in use. An id lives in the slot id modulo
// the table's length, a power of two. Ids are given out in sequence and one
// whose slot is taken is skipped, so there are no collisions to resolve; at
// 65,536 slots every id has its own. Half of the slots are kept free.
type flights struct {
	slots   []flight
	n       int
	waiting int // of them, not sent on this connection yet
	past    int // of them, past PUBREC
	removed int // since the table had its size
	lastID  uint16
	order   uint64
}

const maxIDs = 65535 // 0 is no packet id [MQTT-2.2.1-4]

// outstanding counts what the client has been sent on this connection and has
// not acknowledged.
func (t *flights) outstanding() int { return t.n - t.waiting }

// add gives e an unused id [MQTT-2.2.1-4]. Fewer than maxIDs must be in use.
func (t *flights) add(e entry) uint16 {
	if 2*(t.n+1) > len(t.slots) && len(t.slots) <= maxIDs {
		t.grow()
	}
	for {
		t.lastID++
		f := &t.slots[int(t.lastID)&(len(t.slots)-1)]
		if f.state != free || t.lastID == 0 {
			continue
		}
		t.order++
		*f = flight{entry: e, order: t.order, id: t.lastID, state: published}
		t.n++
		return t.lastID
	}
}

// put puts a flight with its id into the table, where it is not.
func (t *flights) put(f flight) {
	for 2*(t.n+1) > len(t.slots) && len(t.slots) <= maxIDs || t.slots[int(f.id)&(len(t.slots)-1)].state != free {
		t.grow()
	}
	t.slots[int(f.id)&(len(t.slots)-1)] = f
	t.n++
	t.waiting++
	t.past += btoi(f.past)
}

// grow doubles the table. What differs modulo n differs modulo 2n.
func (t *flights) grow() {
	slots := make([]flight, max(8, 2*len(t.slots)))
	for i := range t.slots {
		if f := &t.slots[i]; f.state != free {
			slots[int(f.id)&(len(slots)-1)] = *f
		}
	}
	t.slots, t.removed = slots, 0
}

// find returns nil for an id that is not in use. The pointer is good until the
// next add.
func (t *flights) find(id uint16) *flight {
	if len(t.slots) == 0 {
		return nil
	}
	f := &t.slots[int(id)&(len(t.slots)-1)]
	if f.state == free || f.id != id {
		return nil
	}
	return f
}

// sent notes that f is now outstanding on this connection.
func (t *flights) sent(f *flight, s state) {
	if f.waits() {
		t.waiting--
	}
	f.state = s
}

func (t *flights) remove(f *flight) {
	if f.waits() {
		t.waiting--
	}
	if f.past {
		t.past--
	}
	t.n--
	*f = flight{}
	switch t.removed++; {
	case t.n == 0 && len(t.slots) > keepSlots:
		t.slots, t.removed = nil, 0
	case t.removed >= len(t.slots):
		t.shrink()
	}
}

// letGo notes that the client has taken the message over: only the id is left, in the order of the PUBRECs.
func (t *flights) letGo(f *flight) {
	t.order++
	t.past++
	f.entry, f.past, f.order, f.bareBytes = entry{qos: f.qos}, true, t.order, 0
}

// shrink gives back what a burst has left of the table, as far as no two ids come into one slot.
func (t *flights) shrink() {
	t.removed = 0
	for len(t.slots) > keepSlots && 8*t.n <= len(t.slots) {
		slots := make([]flight, len(t.slots)/2)
		for i := range t.slots {
			f := &t.slots[i]
			if f.state == free {
				continue
			}
			to := &slots[int(f.id)&(len(slots)-1)]
			if to.state != free {
				return
			}
			*to = *f
		}
		t.slots = slots
	}
}

// connectionLost makes everything wait for the next connection.
func (t *flights) connectionLost() {
	for i := range t.slots {
		switch f := &t.slots[i]; f.state {
		case published:
			f.state = waitsPublish
		case released:
			f.state = waitsReleasing
		}
	}
	t.waiting = t.n
	if t.n == 0 {
		t.slots = nil
	}
}

// resendOrder lists the ids to send again: PUBRELs in the order of their
// PUBRECs [MQTT-4.6.0-4], then PUBLISHes in their own order [MQTT-4.6.0-1].
func (t *flights) resendOrder() []uint16 {
	if t.n == 0 {
		return nil
	}
	waiting := make([]*flight, 0, t.n)
	for i := range t.slots {
		if t.slots[i].waits() {
			waiting = append(waiting, &t.slots[i])
		}
	}
	slices.SortFunc(waiting, func(a, b *flight) int {
		return cmp.Or(-cmp.Compare(a.state, b.state), cmp.Compare(a.order, b.order))
	})
	ids := make([]uint16, len(waiting))
	for i, f := range waiting {
		ids[i] = f.id
	}
	return ids
}
