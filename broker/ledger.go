package broker

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"

	"github.com/plantops/plantops/broker/journal"
	"github.com/plantops/plantops/broker/session"
)

// maxPendingBytes may wait for the disk: publishers wait when it is more.
const maxPendingBytes = 32 << 20

// filterBytes is what a change of a subscription costs beside its filter, until it is on disk.
const filterBytes = 64

// ledger is what the broker's state must have on disk and has not yet. It is the journal.Source of the committer. Without a
// storage nothing is taken: what is pending stays in memory.
type ledger struct {
	r        *router
	storage  journal.Storage // nil: none
	attached bool            // to it
	pending  atomic.Int64    // bytes of entries that are not on disk
	lost     atomic.Bool     // some of what was on disk may not be there any more

	// step is held for reading by what changes several sessions, or sessions and retained messages, at once: it is in one
	// batch. It comes before all other locks.
	step sync.RWMutex

	mu        sync.Mutex // may be taken when a peer's lock is held, not the other way round
	next      int64      // number of the batch that takes what changes now
	done      int64      // of the last that is on disk
	lastID    journal.SessionID
	dirty     []*peer // to be taken with the next batch
	lazy      []*peer // to be taken within a second
	lazyDue   bool
	announced bool
	topics    map[string]struct{} // of retained messages
	ended     []journal.SessionID
	promises  []*receipt // kept by the next batch
	waiting   []commitWait
	room      chan struct{} // closed when something has come to the disk; nil when nobody waits for that
	kept      []*receipt    // of batches that are on disk, for release
	gated     []*peer       // with an outbox
	wake      chan struct{} // release has something to do; has room for one

	taken *taking // with the committer; its goroutine's
}

// commitWait is somebody who waits for a batch.
type commitWait struct {
	number int64
	done   chan struct{}
}

// taking is a batch that is with the committer.
type taking struct {
	number   int64
	lazies   bool // what may wait is with it
	peers    []takenPeer
	topics   map[string]struct{}
	ended    []journal.SessionID
	promises []*receipt
}

type takenPeer struct {
	p       *peer
	id      journal.SessionID
	state   []byte // nil: not among what is taken
	whole   bool   // it was
	filters []string
	subs    []journal.Subscription
	entries []session.Entry
	last    uint64 // that was pending
	trim    uint64 // 0: none
	before  uint64 // what trimmed was
}

func (g *ledger) moment() session.Moment {
	return session.Moment{Now: g.r.now(), Wall: g.r.wall(), Unsure: g.r.unsure()}
}

// identify gives a peer's session a name on disk. The caller holds p.mu.
func (g *ledger) identify(p *peer) {
	if p.shelf.id == 0 {
		g.mu.Lock()
		g.lastID++
		p.shelf.id = g.lastID
		g.mu.Unlock()
		p.shelf.trimmed = p.state.Needed()
	}
}

// mark notes that a peer has something to be written, and returns the number of the batch that will have it. The caller
// holds p.mu and has made the change.
func (g *ledger) mark(p *peer) int64 {
	g.mu.Lock()
	if !p.shelf.listed {
		p.shelf.listed = true
		g.dirty = append(g.dirty, p)
	}
	n := g.next
	g.unlockAnnouncing()
	return n
}

// markState is mark for a change of the session's own state. Without storage it returns 0.
func (g *ledger) markState(p *peer) int64 {
	if g.storage == nil {
		return 0
	}
	g.identify(p)
	p.shelf.stateDue = true
	return g.mark(p)
}

// subscribed notes that a subscription of a session has come, changed or gone, and returns the number of the batch that will
// have it; 0: there is nothing to wait for. The caller holds p.mu.
func (g *ledger) subscribed(p *peer, filter string) int64 {
	if !p.state.Lasting() || !g.attached {
		return 0
	}
	p.shelf.change(filter)
	g.identify(p)
	return g.mark(p)
}

// markLazily is for what may be lost: acknowledgements of QoS 1, after which a message comes again.
func (g *ledger) markLazily(p *peer) {
	if g.storage == nil || p.shelf.id == 0 || p.shelf.lazyDue {
		return
	}
	p.shelf.lazyDue = true
	g.mu.Lock()
	if !p.shelf.lazyListed {
		p.shelf.lazyListed = true
		g.lazy = append(g.lazy, p)
	}
	g.mu.Unlock()
}

// unlockAnnouncing gives mu back and tells the storage that there is something to commit.
func (g *ledger) unlockAnnouncing() {
	first := !g.announced
	g.announced = true
	g.mu.Unlock()
	if first {
		g.storage.Announce()
	}
}

// number is that of the batch that takes what changes now. The caller holds step: it stays so.
func (g *ledger) number() int64 {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.next
}

// tick is called by the clock: what is lazy is due, and what the disk refused is tried again.
func (g *ledger) tick() {
	if g.storage == nil {
		return
	}
	g.rewrite()
	g.mu.Lock()
	due := len(g.lazy)+len(g.dirty)+len(g.topics)+len(g.ended) > 0
	g.lazyDue = g.lazyDue || len(g.lazy) > 0
	g.mu.Unlock()
	if due {
		g.storage.Announce()
	}
}

// enqueue takes an entry of a session's queue. The caller holds p.mu.
func (g *ledger) enqueue(w *work, p *peer, e *session.Effect) {
	k := keptEntry{Entry: e.Entry()}
	if t, shared := k.Token.(*lent); shared {
		k.Group = t.group.filter
	}
	g.pending.Add(int64(k.Cost()))
	if g.storage == nil {
		p.shelf.pending = append(p.shelf.pending, k)
		return
	}
	k.receipt = w.owe(k.Message)
	p.shelf.pending = appendKept(p.shelf.pending, k)
	g.identify(p)
	g.mark(p)
}

// endSession forgets what is on disk of a session that has ended, and returns its name there, for sayEnded. The caller holds
// p.mu.
func (g *ledger) endSession(w *work, p *peer) journal.SessionID {
	s := &p.shelf
	for _, list := range [][]keptEntry{s.taken, s.pending} {
		for i := range list {
			w.handBack(p, &list[i])
			g.clear(w, &list[i])
		}
	}
	id := s.id
	g.mu.Lock() // Take may be about to take it off its lists
	defer g.mu.Unlock()
	*s = shelf{listed: s.listed, lazyListed: s.lazyListed, outbox: s.outbox, loading: s.loading}
	return id
}

// sayEnded has all go that is on disk of a session.
func (g *ledger) sayEnded(id journal.SessionID) {
	if id == 0 {
		return
	}
	g.mu.Lock()
	g.ended = append(g.ended, id)
	g.unlockAnnouncing()
}

// retained notes that the retained message of a topic has changed. The caller holds step.
func (g *ledger) retained(topic string) {
	if g.storage == nil {
		return
	}
	g.mu.Lock()
	if g.topics == nil {
		g.topics = map[string]struct{}{}
	}
	g.topics[topic] = struct{}{}
	g.unlockAnnouncing()
}

// promise has c wait for the batch that takes what changes now. c may be nil.
func (g *ledger) promise(c *receipt) {
	if c == nil {
		return
	}
	g.mu.Lock()
	g.promises = append(g.promises, c)
	g.mu.Unlock()
}

// Take is asked by the committer. See journal.Source.
func (g *ledger) Take() *journal.Batch {
	t := g.moment()
	g.step.Lock()
	g.mu.Lock()
	peers := g.dirty
	for _, p := range peers {
		p.shelf.listed = false
	}
	g.dirty = nil
	lazies := g.lazyDue
	if lazies {
		for _, p := range g.lazy {
			p.shelf.lazyListed = false
		}
		peers, g.lazy, g.lazyDue = append(peers, g.lazy...), nil, false
	}
	k := &taking{number: g.next, lazies: lazies, topics: g.topics, ended: g.ended, promises: g.promises}
	g.topics, g.ended, g.promises, g.announced = nil, nil, nil, false
	if len(peers)+len(k.topics)+len(k.ended)+len(k.promises)+len(g.waiting) == 0 {
		g.mu.Unlock()
		g.step.Unlock()
		return nil
	}
	g.next++
	g.mu.Unlock()
	for _, p := range peers {
		p.mu.Lock()
		k.take(p, t)
		p.mu.Unlock()
	}
	b := &journal.Batch{Number: k.number, Ended: k.ended}
	retained := g.r.retained.all(k.topics) // messages do not change
	g.step.Unlock()
	g.taken = k
	k.encode(b, retained, t)
	return b
}

// take takes what a peer has to be written. The caller holds p.mu.
func (k *taking) take(p *peer, t session.Moment) {
	s := &p.shelf
	if s.id == 0 {
		return
	}
	one := takenPeer{p: p, id: s.id, before: s.trimmed}
	whole := s.stateDue || s.lazyDue && k.lazies
	if whole {
		if s.written || p.state.Worth() {
			one.state, one.whole, s.written = p.state.AppendState(nil, t), true, true
		}
		s.stateDue, s.lazyDue = false, s.lazyDue && !k.lazies
	}
	if s.changed != nil && p.state.Lasting() {
		one.filters = s.changed.filters
		for _, filter := range one.filters {
			sub := journal.Subscription{Session: s.id, Filter: filter}
			if of, there := p.state.Subscription(filter); there {
				sub.Options = session.AppendSubscription(nil, of)
			}
			one.subs = append(one.subs, sub)
		}
	}
	s.changed = nil
	if n := len(s.pending); n > 0 {
		one.last = s.pending[n-1].Seq
		if spare, _ := spareEntries.Get().(*[]session.Entry); spare != nil {
			one.entries = *spare
		}
		for i := range s.pending {
			if s.pending[i].Message != nil {
				one.entries = append(one.entries, s.pending[i].Entry)
			}
		}
		switch {
		case len(one.entries) == 0:
		case len(s.taken) == 0:
			s.taken = s.pending
		default: // a peer may be in both lists of Take, and what holds no step may come in between
			s.taken = append(s.taken, s.pending...)
		}
		s.pending = nil
	}
	if whole && s.onDisk >= s.trimmed { // what the state on disk speaks of stays
		if needed := p.state.Needed(); needed > s.trimmed {
			one.trim, s.trimmed = needed, needed
		}
	}
	k.peers = append(k.peers, one)
}

// newPack returns one with room for the messages of the longest queue, which has most of them.
func (k *taking) newPack(t session.Moment) *session.Pack {
	var longest []session.Entry
	queues := 0
	for i := range k.peers {
		if n := len(k.peers[i].entries); n > 0 {
			queues++
			if n > len(longest) {
				longest = k.peers[i].entries
			}
		}
	}
	return session.NewPack(t, longest, queues > 1)
}

// encode writes what was taken into b.
func (k *taking) encode(b *journal.Batch, retained map[string]session.Kept, t session.Moment) {
	pack := k.newPack(t)
	for i := range k.peers {
		one := &k.peers[i]
		if one.state != nil {
			b.Sessions = append(b.Sessions, journal.Session{ID: one.id, Client: one.p.id, Account: one.p.account, State: one.state})
		}
		b.Subscriptions = append(b.Subscriptions, one.subs...)
		if n := len(one.entries); n > 0 {
			q := journal.Queue{Session: one.id, First: one.entries[0].Seq, Last: one.entries[n-1].Seq, Messages: n,
				Entries: session.AppendEntries(nil, one.entries, pack)}
			for j := range one.entries {
				q.Bytes += int64(one.entries[j].Cost())
			}
			b.Queues = append(b.Queues, q)
		}
		if one.trim > 0 {
			b.Trims = append(b.Trims, journal.Trim{Session: one.id, Before: one.trim})
		}
		freeEntries(one.entries)
		one.state, one.subs, one.entries = nil, nil, nil
	}
	b.Messages = pack.Bytes
	for topic, kept := range retained {
		of := journal.Retained{Topic: topic}
		if kept.Message != nil {
			of.Account, of.Message = kept.Owner.Account, session.AppendMessage(nil, kept.Message, t)
		}
		b.Retained = append(b.Retained, of)
	}
}

// Done is told by the committer. See journal.Source.
func (g *ledger) Done(_ *journal.Batch, err error) {
	k := g.taken
	g.taken = nil
	if err != nil {
		g.putBack(k)
		return
	}
	kept := k.promises
	for i := range k.peers {
		one := &k.peers[i]
		one.p.mu.Lock()
		if s := &one.p.shelf; s.id == one.id {
			for _, e := range s.taken {
				if e.Message == nil {
					continue
				}
				g.pending.Add(-int64(e.Cost()))
				if e.receipt != nil {
					kept = append(kept, e.receipt)
				}
			}
			freeKept(s.taken)
			s.taken, s.onDisk, s.stored = nil, max(s.onDisk, one.last), s.stored || one.whole
			if one.p.state.WantsLoad() {
				g.r.loader.want(one.p)
			}
		}
		one.p.mu.Unlock()
	}
	g.mu.Lock()
	g.done = k.number
	g.kept = append(g.kept, kept...)
	waiting := g.waiting[:0]
	for _, w := range g.waiting {
		if w.number > g.done {
			waiting = append(waiting, w)
			continue
		}
		close(w.done)
	}
	clear(g.waiting[len(waiting):])
	g.waiting = waiting
	if g.room != nil {
		close(g.room)
		g.room = nil
	}
	g.mu.Unlock()
	select {
	case g.wake <- struct{}{}:
	default:
	}
}

// putBack makes what was taken due again, before what has come since.
func (g *ledger) putBack(k *taking) {
	for i := range k.peers {
		one := &k.peers[i]
		one.p.mu.Lock()
		if s := &one.p.shelf; s.id == one.id {
			if s.stateDue = true; len(one.filters) > 0 {
				s.change(one.filters...)
			}
			s.pending, s.taken = append(s.taken, s.pending...), nil
			s.trimmed = min(s.trimmed, one.before) // it may be there twice
			g.mu.Lock()
			if !s.listed {
				s.listed = true
				g.dirty = append(g.dirty, one.p)
			}
			g.mu.Unlock()
		}
		one.p.mu.Unlock()
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	for topic := range k.topics {
		if g.topics == nil {
			g.topics = map[string]struct{}{}
		}
		g.topics[topic] = struct{}{}
	}
	g.ended = append(k.ended, g.ended...)
	g.promises = append(k.promises, g.promises...)
}

// Rewrite is told by the committer. See journal.Source.
func (g *ledger) Rewrite() { g.lost.Store(true) }

// close has what has changed last written.
func (g *ledger) close() error {
	if g.storage == nil || !g.attached {
		return nil
	}
	g.rewrite()
	ctx, cancel := context.WithTimeout(context.Background(), closeWait)
	defer cancel()
	if err := g.storage.Detach(ctx); err != nil {
		return fmt.Errorf("write sessions down: %w", err)
	}
	return nil
}
