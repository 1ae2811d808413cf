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
	ingest  bool // it is the backend's subscriber

	owner *clientLink // the newest connection of the id, which may have ended; nil: it has; guarded by sessions.mu
	usage *usage      // of its account; changed under sessions.mu and mu

	online     atomic.Bool  // attached
	routeBytes atomic.Int64 // what it costs in the routes of topics, see subscribers.go

	mu           sync.Mutex // guards what follows; never two of them are held
	state        *session.Session
	link         *clientLink // attached; nil while away
	away         time.Time   // since when it is away
	ended        bool        // the session has no state
	rights       access.Rights
	narrowed     bool          // it may have subscriptions to what it may not read any more
	due          walks         // of retained messages
	waiting      []*shareGroup // that wait for it to take messages
	backpressure backpressure
	lost         uint64    // of state.Overflowed, that has been counted
	warned       time.Time // when a line about it was written
	charged      int       // units of session.FreeBytes, that its account is charged
	chargedTail  waitingOnDisk
	shelf        shelf

	tailBytes atomic.Int64 // what chargedTail is of the session

	// room is where state is: what stays for long lies together, and not in the holes between what goes with the connections, which
	// the collector could not give back.
	room session.Session
}

const (
	// receiveMaximum is announced to MQTT 5 clients: so many of their messages may be unacknowledged.
	receiveMaximum = 1024

	// window is how many messages a client may have that it has not acknowledged. A burst takes a round of acknowledgements,
	// through every other client that is busy, for each window.
	window = 4096

	// The bounds of what waits for one client in memory; beyond them it waits on disk.
	maxWaiting      = 8192
	maxWaitingBytes = 8 << 20
)

// keptEntry is an entry of a session that is not known to be on disk, and who waits for that.
type keptEntry struct {
	session.Entry // without Message when it is settled
	receipt       *receipt
}

// shelf is what the ledger knows of a peer. The peer's lock guards it, but for the first two.
type shelf struct {
	listed, lazyListed bool // guarded by ledger.mu

	id       journal.SessionID // of its session; 0: nothing of it is on disk or shall be
	written  bool              // as a session, not only entries
	stateDue bool              // its state has changed
	lazyDue  bool              // the same, and it may wait
	filters  []string          // subscriptions that have changed

	filterBytes int         // of those
	pending     []keptEntry // to be taken, by number
	taken       []keptEntry // with the committer
	onDisk      uint64      // entries up to here are on disk, or settled
	trimmed     uint64      // those below are not, any more
	outbox      outbox
	loading     bool // it is the loader's turn
}

func (p *peer) stats() session.Stats {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.state.Stats()
}

func newPeer(id string, u *usage, ingest bool) *peer {
	o := session.Options{Window: window, MaxQueued: maxWaiting, MaxQueuedBytes: maxWaitingBytes, ReceiveMaximum: receiveMaximum,
		Kept: u.quotas.onDisk && !ingest}
	if ingest { // what waits for it is bounded by credits; nothing of it is dropped
		o.Window, o.MaxQueued, o.MaxQueuedBytes = 65535, math.MaxInt32, math.MaxInt32
		o.RaiseQoS0 = true
	}
	p := &peer{id: id, account: u.owner.Account, usage: u, ingest: ingest, ended: true, room: session.Make(id, o)}
	p.state = &p.room
	return p
}

// charge brings what the account is charged for the session up to date. The caller holds p.mu.
func (p *peer) charge() {
	if p.ingest {
		return
	}
	_, bytes := p.state.Backlog()
	bytes += p.due.bytes
	if !p.ended { // routes let go of an ended one when they are used next
		bytes += int(p.routeBytes.Load())
	}
	tail, tailBytes, _ := p.state.Tail()
	if p.usage.quotas.onDisk {
		if now := (waitingOnDisk{int64(tail), int64(tailBytes)}); now != p.chargedTail {
			p.usage.disk.add(now.messages-p.chargedTail.messages, now.bytes-p.chargedTail.bytes)
			p.usage.quotas.disk.add(now.messages-p.chargedTail.messages, now.bytes-p.chargedTail.bytes)
			p.chargedTail = now
			p.tailBytes.Store(now.bytes)
		}
	} else {
		bytes += tailBytes // it is in memory, too
		p.tailBytes.Store(int64(tailBytes))
	}
	if units := (bytes + p.state.WillBytes() + p.state.StateBytes()) / session.FreeBytes; units != p.charged {
		p.usage.charge(units - p.charged)
		p.charged = units
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
