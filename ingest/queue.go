package ingest

import (
	"slices"
	"sync"
	"time"
)

// item is one message as it came from the broker, not yet decoded.
type item struct {
	topic    string
	payload  []byte
	received int64  // UTC ms
	id       uint16 // packet id; 0 for QoS 0, which nobody waits for
	dup      bool   // the broker says that it has sent it before
	from     *conn  // the connection that it must be acknowledged on
	retained bool   // a copy that the broker has kept, not sent when it was published
	account  string // that published it; empty: the broker does not say

	// put sets these: whether our clock was not to be trusted when it came, and which stretch of it that was.
	clockUnsure bool
	clockLine   int64
}

// maxQueuedBytes bounds the payloads that wait for a commit. Receive Maximum counts messages only, and a broker
// that is not ours may send large ones.
const maxQueuedBytes = 32 << 20

// maxBatchBytes bounds the payloads of one commit: what a message says may become a thousand rows, and all devices wait for
// the commit.
const maxBatchBytes = 1 << 20

// queue stands between the connection and the commits: what arrives while one commit runs waits here to be the next
// batch. When it is full, put waits, and TCP slows the broker down.
type queue struct {
	mu       sync.Mutex
	arrived  sync.Cond // items came, or the queue was closed
	space    sync.Cond // items went, or a connection or the queue was closed
	items    []item
	bytes    int
	capacity int
	batch    int           // so many are taken at once
	last     [8]int        // sizes of the last batches, a ring
	next     int           // in it
	whole    chan struct{} // has room for one: there is a whole batch, or there will be no more
	usual    chan struct{} // has room for one: there is as much as the largest of the last batches had
	closed   bool
	look     func() (at time.Time, unsure bool, line int64) // at our clock
}

func newQueue(capacity, batch int) *queue {
	q := &queue{capacity: capacity, batch: min(batch, capacity), whole: make(chan struct{}, 1), usual: make(chan struct{}, 1), look: func() (time.Time, bool, int64) { return time.Now(), false, 0 }}
	q.arrived.L, q.space.L = &q.mu, &q.mu
	return q
}

// put dates the items that have no date yet, adds them and returns how many it has taken: a closed queue takes nothing more, and one
// that is full waits only while an item's connection lives, except for QoS 0, which no broker sends again.
func (q *queue) put(items ...item) (taken int) {
	at, unsure, line := q.look() // now: a time server may be reached while they wait
	q.mu.Lock()
	defer q.mu.Unlock()
	for _, it := range items {
		if it.clockUnsure, it.clockLine = unsure, line; it.received == 0 {
			it.received = at.UnixMilli()
		}
		for q.full() && !q.closed && (it.id == 0 || !it.from.ended()) {
			q.came()
			q.space.Wait()
		}
		if q.closed || q.full() {
			continue
		}
		q.items = append(q.items, it)
		q.bytes += len(it.payload)
		taken++
	}
	q.came()
	return taken
}

// came tells those who wait for items.
func (q *queue) came() {
	if len(q.items) > 0 {
		q.arrived.Signal()
		q.tell()
	}
}

// tell says how much there is.
func (q *queue) tell() {
	if len(q.items) >= slices.Max(q.last[:]) {
		signal(q.usual)
	}
	if q.closed || len(q.items) >= q.batch || q.bytes >= maxBatchBytes {
		signal(q.whole)
	}
}

func signal(to chan struct{}) {
	select {
	case to <- struct{}{}:
	default:
	}
}

// await waits until there is something to take; some is false when the queue is closed and empty.
func (q *queue) await() (some bool) {
	q.mu.Lock()
	defer q.mu.Unlock()
	for len(q.items) == 0 && !q.closed {
		q.arrived.Wait()
	}
	for _, stale := range []chan struct{}{q.whole, q.usual} { // they may be of a batch that is taken
		select {
		case <-stale:
		default:
		}
	}
	q.tell()
	return len(q.items) > 0
}

// waits tells whether there is something now.
func (q *queue) waits() bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	return len(q.items) > 0
}

func (q *queue) full() bool {
	return len(q.items) >= q.capacity || q.bytes >= maxQueuedBytes
}

// take waits until there is something and appends up to limit items to batch, the oldest first, of about maxBatchBytes at
// most. It returns batch unchanged when the queue is closed and empty.
func (q *queue) take(batch []item, limit int) []item {
	q.mu.Lock()
	defer q.mu.Unlock()
	for len(q.items) == 0 && !q.closed {
		q.arrived.Wait()
	}
	n := 0
	for size := 0; n < min(limit, len(q.items)) && size < maxBatchBytes; n++ {
		size += len(q.items[n].payload)
		q.bytes -= len(q.items[n].payload)
	}
	q.last[q.next] = n
	q.next = (q.next + 1) % len(q.last)
	batch = append(batch, q.items[:n]...)
	rest := copy(q.items, q.items[n:])
	clear(q.items[rest:])
	q.items = q.items[:rest]
	q.space.Broadcast()
	return batch
}

// close ends the taking in; what is queued can still be taken out.
func (q *queue) close() {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.closed = true
	q.tell()
	q.arrived.Broadcast()
	q.space.Broadcast()
}

// release lets those who wait in put see that their connection has ended.
func (q *queue) release() {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.space.Broadcast()
}
