package broker

import (
	"math"
	"sync"
	"sync/atomic"
	"time"

	"github.com/plantops/plantops/broker/access"
	"github.com/plantops/plantops/broker/journal"
	"github.com/plantops/plantops/broker/session"
)

// peer is a client id: its session, which outlives connections, and the connection that it has at the moment.
type peer struct {
	id      string
	account string

	owner *clientLink // the newest connection of the id, which may have ended; nil: it has; guarded by sessions.mu
	usage *usage      // of its account; changed under sessions.mu and mu

	ingest   bool        // it is the backend's subscriber
	ended    bool        // the session has no state; guarded by mu, as is narrowed
	narrowed bool        // it may have subscriptions to what it may not read any more
	online   atomic.Bool // attached

	asleep      int32        // in sleepers.all, counted from 1; guarded by sleepers.mu
	charged     int32        // units of session.FreeBytes, that its account is charged; guarded by mu, as is the next
	chargedTail int32        // messages on disk, that its account is charged
	routeBytes  atomic.Int32 // what it costs in the routes of topics, see subscribers.go

	mu           sync.Mutex     // guards what follows; never two of them are held
	link         *clientLink    // attached; nil while away
	away         int64          // Unix time since when it is away, ns
	rights       *access.Rights // not changed
	due          *walks         // of retained messages; nil: none
	waiting      *[]*shareGroup // that wait for it to take messages; nil: none
	backpressure backpressure
	pace         atomic.Pointer[pace] // nil: it has not been behind on this connection
	losses       *losses              // of QoS 0; nil: none
	shelf        shelf

	tailBytes atomic.Int64 // of the tail; what chargedTail is of the session in messages

	// state lies in here: what stays for long is together, and not in the holes between what goes with the connections, which the
	// collector could not give back.
	state session.Session
}

const (
	// receiveMaximum is announced to MQTT 5 clients: so many of their messages may be unacknowledged.
	receiveMaximum = 1024

	// window is how many messages a client may have that it has not acknowledged. A burst takes a round of acknowledgements,
	// through every other client that is busy, for each window.
	window = 4096

	// The bounds of what waits for one client in memory; beyond them it waits on disk. Those who publish at QoS 0 and, while it
	// reads fast, at QoS 1 and 2 wait long before that: maxHead is for all who come by at the same moment, with what each has read.
	maxWaiting      = 8192
	maxWaitingBytes = 8 << 20
	maxHead         = 4 * maxWaiting
)

// losses are what of state.Overflowed has been counted.
type losses struct {
	counted uint64
	warned  time.Time // when a line about it was written
}

// keptEntry is an entry of a session that is not known to be on disk, and who waits for that.
type keptEntry struct {
	session.Entry // without Message when it is settled
	receipt       *receipt
}

// shelf is what the ledger knows of a peer. The peer's lock guards it, but for the first two.
type shelf struct {
	listed, lazyListed bool // guarded by ledger.mu

	written  bool              // its session is on disk or will be, not only entries
	stored   bool              // and that is known
	stateDue bool              // its state has changed
	lazyDue  bool              // the same, and it may wait
	loading  bool              // it is the loader's turn
	id       journal.SessionID // of its session; 0: nothing of it is on disk or shall be
	changed  *changedFilters   // nil: none

	pending []keptEntry // to be taken, by number
	taken   []keptEntry // with the committer
	onDisk  uint64      // entries up to here are on disk, or settled
	trimmed uint64      // those below are not, any more
	outbox  *outbox     // nil: nothing is held back
}

// changedFilters are those of subscriptions that have changed.
type changedFilters struct {
	filters []string
	bytes   int
}

// change notes that the subscriptions to some filters have changed.
func (s *shelf) change(filters ...string) {
	if s.changed == nil {
		s.changed = &changedFilters{}
	}
	s.changed.filters = append(s.changed.filters, filters...)
	for _, filter := range filters {
		s.changed.bytes += len(filter) + filterBytes
	}
}

func (p *peer) stats() session.Stats {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.state.Stats()
}

// What sessions are like: those of clients, with and without a disk to keep them, and that of ingest, of which nothing is dropped: what
// waits for it is bounded by credits.
var (
	ofClient   = session.Options{Window: window, MaxQueued: maxHead, MaxQueuedBytes: maxWaitingBytes, ReceiveMaximum: receiveMaximum}
	keptOne    = kept(ofClient).WithDefaults()
	unkeptOne  = ofClient.WithDefaults()
	thatOfOurs = session.Options{Window: 65535, MaxQueued: math.MaxInt32, MaxQueuedBytes: math.MaxInt32, ReceiveMaximum: receiveMaximum,
		RaiseQoS0: true}.WithDefaults()
)

func kept(o session.Options) session.Options {
	o.Kept = true
	return o
}

var noRights access.Rights

func newPeer(id string, u *usage, ingest bool) *peer {
	o := unkeptOne
	switch {
	case ingest:
		o = thatOfOurs
	case u.quotas.onDisk:
		o = keptOne
	}
	return &peer{id: id, account: u.owner.Account, usage: u, ingest: ingest, ended: true, rights: &noRights, state: session.Make(o)}
}

// charge brings what the account is charged for the session up to date. The caller holds p.mu.
func (p *peer) charge() {
	if p.ingest {
		return
	}
	_, bytes := p.state.Backlog()
	bytes += p.due.charged()
	if !p.ended { // routes let go of an ended one when they are used next
		bytes += int(p.routeBytes.Load())
	}
	tail, tailBytes, _ := p.state.Tail()
	if p.usage.quotas.onDisk {
		if more, moreBytes := int64(tail)-int64(p.chargedTail), int64(tailBytes)-p.tailBytes.Load(); more != 0 || moreBytes != 0 {
			p.usage.disk.add(more, moreBytes)
			p.usage.quotas.disk.add(more, moreBytes)
			p.chargedTail += int32(more)
			p.tailBytes.Add(moreBytes)
		}
	} else {
		bytes += tailBytes // it is in memory, too
		p.tailBytes.Store(int64(tailBytes))
	}
	if units := (bytes + p.state.WillBytes() + p.state.StateBytes()) / session.FreeBytes; units != int(p.charged) {
		p.usage.charge(units - int(p.charged))
		p.charged = int32(units)
	}
}

// exhausted says whether no more should wait for the client. The caller holds p.mu.
func (p *peer) exhausted() bool {
	if p.ingest {
		return false
	}
	_, is := p.usage.exhausted()
	return is
}

// A queue that grows fast has thousands of entries in each batch: their room goes from one batch to the next.
const fewKept, mostKept = 64, 16384

var spareKept, spareEntries sync.Pool // of []keptEntry and []session.Entry, behind pointers

// appendKept is append.
func appendKept(list []keptEntry, k keptEntry) []keptEntry {
	if n := len(list); n == cap(list) && n >= fewKept {
		if spare, _ := spareKept.Get().(*[]keptEntry); spare != nil && cap(*spare) > n {
			list = append(*spare, list...)
		}
	}
	return append(list, k)
}

// freeKept gives the room of a list back, of which nothing is needed any more.
func freeKept(list []keptEntry) {
	if n := cap(list); n >= 2*fewKept && n <= mostKept {
		clear(list)
		list = list[:0]
		spareKept.Put(&list)
	}
}

func freeEntries(list []session.Entry) {
	if n := cap(list); n > 0 && n <= mostKept {
		clear(list)
		list = list[:0]
		spareEntries.Put(&list)
	}
}

// settle takes notice that the entry of a lasting session is settled: where it is not on disk, it need not get there. The
// caller holds p.mu.
func (g *ledger) settle(w *work, p *peer, seq uint64) {
	s := &p.shelf
	if !g.drop(w, s.pending, seq) {
		g.drop(w, s.taken, seq)
	}
	for len(s.pending) > 0 && s.pending[0].Message == nil {
		s.pending[0] = keptEntry{}
		s.pending = s.pending[1:]
	}
	g.markLazily(p)
}

// drop reports whether seq is within entries.
func (g *ledger) drop(w *work, entries []keptEntry, seq uint64) bool {
	if len(entries) == 0 || seq < entries[0].Seq {
		return false
	}
	low, high := 0, len(entries)
	for low < high {
		if middle := (low + high) / 2; entries[middle].Seq < seq {
			low = middle + 1
		} else {
			high = middle
		}
	}
	if low < len(entries) && entries[low].Seq == seq {
		g.clear(w, &entries[low])
	}
	return true
}

// clear ends the wait for an entry.
func (g *ledger) clear(w *work, k *keptEntry) {
	if k.Message == nil {
		return
	}
	g.pending.Add(-int64(k.Cost()))
	if k.receipt != nil {
		w.kept = append(w.kept, k.receipt)
	}
	*k = keptEntry{Entry: session.Entry{Seq: k.Seq}}
}
