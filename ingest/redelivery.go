package ingest

// redelivery recognises what the broker sends again although it is stored: its PUBACK was lost with the connection.
// Such a message is acknowledged and not stored again, so that every message has one outcome. It is judged when its
// turn to be stored comes, after everything that older connections have brought.
//
// A packet id tells messages apart for as long as the broker cannot have used it for another one. The embedded broker
// gives ids out in sequence, so that is true for the latest few thousand of 65535. Of another broker nothing is
// known; there the store recognises what it has.
type redelivery struct {
	session int // that the latest message belongs to
	stored  [1 << 16]bool
	latest  []uint16 // the ids that are set in stored, oldest first from next on
	next    int
}

// newRedelivery remembers so many ids.
func newRedelivery(size int) *redelivery { return &redelivery{latest: make([]uint16, 0, size)} }

// known says whether the message of an item is stored, and otherwise takes it as stored from now on.
func (r *redelivery) known(it *item) bool {
	if it.id == 0 {
		return false
	}
	if it.from.session != r.session { // the broker has forgotten the older one, and its ids
		r.session = it.from.session
		clear(r.stored[:])
		r.latest, r.next = r.latest[:0], 0
	}
	if r.stored[it.id] {
		return it.dup
	}
	r.stored[it.id] = true
	if len(r.latest) < cap(r.latest) {
		r.latest = append(r.latest, it.id)
		return false
	}
	r.stored[r.latest[r.next]] = false
	r.latest[r.next] = it.id
	r.next = (r.next + 1) % len(r.latest)
	return false
}

// fresh appends the items whose messages are not stored yet.
func (r *redelivery) fresh(items, fresh []item) []item {
	for i := range items {
		if !r.known(&items[i]) {
			fresh = append(fresh, items[i])
		}
	}
	return fresh
}
