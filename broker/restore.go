package broker

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"

	"github.com/plantops/plantops/broker/access"
	"github.com/plantops/plantops/broker/journal"
	"github.com/plantops/plantops/broker/refusal"
	"github.com/plantops/plantops/broker/session"
)

// loadBytes is about what is read of a queue's tail at a time.
const loadBytes = 256 << 10

// loader brings the tails of queues back, one session after the other, when their clients can take them.
type loader struct {
	mu     sync.Mutex
	queue  []*peer
	failed []*peer       // to be tried again
	wake   chan struct{} // has room for one
}

// want puts a peer into the row, if it is not there. The caller holds p.mu.
func (t *loader) want(p *peer) {
	if p.shelf.loading {
		return
	}
	p.shelf.loading = true
	t.mu.Lock()
	t.queue = append(t.queue, p)
	t.mu.Unlock()
	select {
	case t.wake <- struct{}{}:
	default:
	}
}

// retry is called by the clock.
func (t *loader) retry() {
	t.mu.Lock()
	t.queue, t.failed = append(t.queue, t.failed...), nil
	more := len(t.queue) > 0
	t.mu.Unlock()
	if more {
		select {
		case t.wake <- struct{}{}:
		default:
		}
	}
}

func (t *loader) next() *peer {
	t.mu.Lock()
	defer t.mu.Unlock()
	if len(t.queue) == 0 {
		t.queue = nil
		return nil
	}
	p := t.queue[0]
	t.queue[0] = nil
	t.queue = t.queue[1:]
	return p
}

// load is the loader's goroutine. It ends with stop.
func (r *router) load(stop <-chan struct{}) {
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	go func() {
		<-stop
		cancel()
	}()
	for {
		select {
		case <-r.loader.wake:
		case <-stop:
			return
		}
		for p := r.loader.next(); p != nil && ctx.Err() == nil; p = r.loader.next() {
			w := r.begin()
			if err := r.loadSome(ctx, w, p); err != nil && ctx.Err() == nil {
				r.log.Error("messages that wait for a client could not be read", "client", p.id, "user", p.account, "err", err)
				r.loader.mu.Lock()
				r.loader.failed = append(r.loader.failed, p)
				r.loader.mu.Unlock()
			}
			w.finish()
		}
	}
}

// loadSome gives a session the next part of its tail, from disk or, what has not got there, from memory. After an error it is
// still the peer's turn.
func (r *router) loadSome(ctx context.Context, w *work, p *peer) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.state.WantsLoad() {
		p.shelf.loading = false
		return nil
	}
	_, _, after := p.state.Tail()
	id, upTo, limit := p.shelf.id, p.shelf.onDisk, loadBytes
	if p.exhausted() {
		limit = session.FreeBytes
	}
	var entries []session.Entry
	if after >= upTo || r.ledger.storage == nil {
		entries, upTo = r.ledger.inMemory(w, p, after, limit)
	} else {
		p.mu.Unlock()
		stored, err := r.ledger.storage.Read(ctx, id, after, limit, nil)
		if err == nil {
			entries, upTo = r.decode(p, stored, after, upTo)
		}
		p.mu.Lock()
		if err != nil {
			return err
		}
		if _, _, now := p.state.Tail(); p.shelf.id != id || now != after || !p.state.WantsLoad() {
			entries, upTo = nil, after // it has begun anew meanwhile, or is away
		}
	}
	if p.narrowed {
		entries = w.readable(p, entries)
	}
	now, l := r.now(), p.link
	if upTo > after {
		w.out = p.state.Load(now, entries, upTo, w.out[:0])
		w.apply(p)
		r.ledger.markLazily(p) // what is in memory of a session that does not last need not be on disk
	}
	if p.shelf.loading = false; p.state.WantsLoad() { // who came back meanwhile was told that it is loading
		r.loader.want(p)
	}
	if l != nil && p.state.Paused() {
		p.mu.Unlock()
		w.resume(p, l, now)
		p.mu.Lock()
	}
	return nil
}

// readable leaves out what the client may not read any more. The caller holds p.mu.
func (w *work) readable(p *peer, entries []session.Entry) []session.Entry {
	return slices.DeleteFunc(entries, func(e session.Entry) bool {
		may := p.rights.MayRead(e.Message.Topic)
		if !may {
			w.handBack(p, &keptEntry{Entry: e})
		}
		return !may
	})
}

// decode makes entries of what was read above after. Where nothing was read, there is nothing up to onDisk any more.
func (r *router) decode(p *peer, stored []journal.Stored, after, onDisk uint64) (entries []session.Entry, upTo uint64) {
	upTo = after
	for i := range stored {
		var err error
		if entries, err = session.ReadEntries(entries, stored[i].Entries, stored[i].Pack, after, r.ledger.moment()); err != nil {
			r.log.Error("of the messages that wait for a client some are damaged and lost", "client", p.id, "user", p.account, "err", err)
		}
		upTo = max(upTo, stored[i].Last)
	}
	for i := range entries {
		if e := &entries[i]; e.Group != "" {
			e.Token = r.shares.lent(e)
		}
	}
	if len(stored) == 0 {
		upTo = onDisk
	}
	return entries, upTo
}

// inMemory returns entries above after that are not known to be on disk. Those of a session that does not last need not get
// there any more. The caller holds p.mu.
func (g *ledger) inMemory(w *work, p *peer, after uint64, limit int) (entries []session.Entry, upTo uint64) {
	upTo = after
	for _, list := range [][]keptEntry{p.shelf.taken, p.shelf.pending} {
		for i := range list {
			k := &list[i]
			if k.Seq <= after {
				continue
			}
			if limit <= 0 {
				return entries, upTo
			}
			upTo = k.Seq
			if k.Message == nil {
				continue
			}
			limit -= k.Cost()
			entries = append(entries, k.Entry)
			if !p.state.Lasting() {
				g.clear(w, k)
			}
		}
	}
	if !p.state.Lasting() {
		for len(p.shelf.pending) > 0 && p.shelf.pending[0].Message == nil {
			p.shelf.pending = p.shelf.pending[1:]
		}
	}
	return entries, p.state.Newest()
}

// rewrite has everything that is in memory written again, if some of it may be lost on disk.
func (g *ledger) rewrite() {
	if !g.lost.Swap(false) {
		return
	}
	sessions, topics := 0, 0
	g.r.sessions.each(func(p *peer) {
		p.mu.Lock()
		defer p.mu.Unlock()
		if !p.shelf.written {
			return
		}
		sessions++
		p.shelf.change(p.state.AppendFilters(nil)...)
		g.markState(p)
	})
	t := &g.r.retained
	for c := session.Everything(); !c.Done(); { // others get the lock in between
		t.mu.Lock()
		t.store.Sweep(c, func(k session.Kept) bool {
			if k.Owner != nil {
				topics++
				g.retained(k.Topic)
			}
			return false
		})
		t.mu.Unlock()
	}
	g.r.log.Warn("the database was made anew: sessions and retained messages are written again", "sessions", sessions, "retained", topics)
}

// restoring takes the state of the broker at a start.
type restoring struct {
	r             *router
	moment        session.Moment
	sessions      []journal.Session
	subscriptions map[journal.SessionID][]journal.Subscription
	waiting       map[journal.SessionID]journal.Waiting
	damaged       []error
	judge         publishers
	w             *work
}

func (t *restoring) Session(s journal.Session) error {
	t.sessions = append(t.sessions, s)
	return nil
}

func (t *restoring) Subscription(s journal.Subscription) error {
	t.subscriptions[s.Session] = append(t.subscriptions[s.Session], s)
	return nil
}

func (t *restoring) Waiting(w journal.Waiting) error {
	t.waiting[w.Session] = w
	return nil
}

func (t *restoring) Retained(of journal.Retained) error {
	m, err := session.ReadMessage(of.Message, t.moment)
	if err != nil {
		t.damaged = append(t.damaged, fmt.Errorf("retained message of %q: %w", of.Topic, err))
		return nil
	}
	if _, exists := t.r.account(of.Account); !exists {
		t.r.ledger.retained(of.Topic)
		return nil
	}
	owner := &t.r.sessions.usageOf(of.Account).owner
	if !t.judge.may(session.Kept{Message: m, Owner: owner}) { // rights can change while nothing runs
		t.r.ledger.retained(of.Topic)
		return nil
	}
	if t.r.retained.set(m, owner) != session.Stored {
		t.damaged = append(t.damaged, fmt.Errorf("retained message of %q: there is no room for it", of.Topic))
		t.r.ledger.retained(of.Topic)
	}
	return nil
}

// restore makes the broker what it was when it ended, by what is on disk.
func (r *router) restore(ctx context.Context) error {
	if r.ledger.storage == nil {
		return nil
	}
	t := &restoring{r: r, moment: r.ledger.moment(), subscriptions: map[journal.SessionID][]journal.Subscription{},
		waiting: map[journal.SessionID]journal.Waiting{}, judge: publishers{router: r}, w: r.begin()}
	next, err := r.ledger.storage.Load(ctx, t)
	if err != nil {
		return fmt.Errorf("read sessions and retained messages: %w", err)
	}
	r.ledger.lastID, r.ledger.next = next.Session-1, max(next.Batch, 1)
	r.ledger.done = r.ledger.next - 1
	slices.SortFunc(t.sessions, func(a, b journal.Session) int { return cmp.Compare(b.ID, a.ID) }) // of two the newer counts
	for _, s := range t.sessions {
		gone, err := t.restore(s)
		if err != nil {
			t.damaged = append(t.damaged, fmt.Errorf("session of %q: %w", s.Client, err))
		}
		if gone {
			r.ledger.ended = append(r.ledger.ended, s.ID)
		}
		delete(t.waiting, s.ID)
		delete(t.subscriptions, s.ID)
	}
	// What is left is of sessions that ended with their connections.
	left := map[journal.SessionID]struct{}{}
	for id := range t.waiting {
		left[id] = struct{}{}
	}
	for id := range t.subscriptions {
		left[id] = struct{}{}
	}
	r.ledger.ended = append(r.ledger.ended, slices.Sorted(maps.Keys(left))...)
	if err := errors.Join(t.damaged...); err != nil {
		r.log.Error("some of what was kept is damaged and lost", "count", len(t.damaged), "err", err)
	}
	t.w.finish()
	r.quotas.lookAround(0)
	r.ledger.storage.Attach(&r.ledger)
	r.ledger.attached = true
	return nil
}

// restore brings one session back. gone says that nothing of it stays.
func (t *restoring) restore(s journal.Session) (gone bool, err error) {
	r := t.r
	account, exists := r.account(s.Account)
	if !exists {
		return true, nil
	}
	u := r.sessions.usageOf(s.Account)
	p := newPeer(s.Client, u, false)
	waiting := t.waiting[s.ID]
	renew, err := p.state.Restore(s.State, waiting.Last, t.moment)
	if err != nil {
		return true, err
	}
	if !p.state.Worth() {
		return true, nil
	}
	p.ended, p.rights, p.away = false, u.sameRights(access.RightsOf(account, s.Client)), r.now().UnixNano()
	p.shelf.id, p.shelf.written, p.shelf.stored = s.ID, true, true
	p.shelf.onDisk = max(waiting.Last, p.state.Newest())
	p.shelf.trimmed = waiting.First
	p.state.Waiting(int(waiting.Messages), int(waiting.Bytes))
	if before := r.sessions.byID[s.Client]; before != nil { // there can only be one
		return true, errors.New("there are two")
	}
	r.sessions.byID[s.Client] = p
	u.sessions++
	p.charge()
	if renew {
		r.ledger.markState(p)
	}
	if !p.state.Deadline().IsZero() {
		r.sleepers.add(p)
	}
	if !p.state.Lasting() {
		return false, nil
	}
	var damaged []error
	for _, of := range t.subscriptions[s.ID] {
		sub, err := session.ReadSubscription(of.Filter, of.Options)
		if err != nil {
			damaged = append(damaged, fmt.Errorf("%q: %w", of.Filter, err))
			continue
		}
		if !p.rights.MayRead(sub.Filter) { // as SUBSCRIBE would be told now; rights can change while nothing runs
			p.narrowed = true
			p.shelf.change(sub.Filter)
			r.ledger.mark(p)
			r.log.Warn("subscription ended", "reason", refusal.SubscribeNotAllowed.Reason, "user", s.Account, "client", s.Client, "filter", refusal.Clip(sub.Filter))
			continue
		}
		p.usage.subscriptions.Add(weight(sub.Filter))
		t.w.enter(p, sub)
	}
	return false, errors.Join(damaged...)
}

// lent is the token for an entry that was read from disk; nil when its group is no more.
func (s *shares) lent(e *session.Entry) any {
	s.mu.Lock()
	g := s.byFilter[e.Group]
	s.mu.Unlock()
	if g == nil {
		return nil
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	return &lent{group: g, Shared: g.queue.Number(e.Message)}
}

// handBack gives a message of the tail of a session that has ended back to its group. The caller holds p.mu.
func (w *work) handBack(p *peer, k *keptEntry) {
	if t, shared := k.Token.(*lent); shared && k.Message != nil {
		end := session.Effect{Kind: session.Dropped, Drop: session.DropEnded, Token: t}
		w.after = append(w.after, consequence{from: p, Effect: end})
	}
}

// rest is where the messages of its groups are on disk of a session that has ended: those above tail, and those whose sending
// at QoS 1 had begun.
type rest struct {
	peer        *peer
	id          journal.SessionID
	after, upTo uint64
	tail        uint64
	begun       map[uint64]struct{}
}

// restOf returns nil when there can be none. It is called with the effects of the session's end in w.out, before the ledger
// forgets it. The caller holds p.mu.
func (w *work) restOf(p *peer, ended *session.Effect) *rest {
	s := &p.shelf
	if w.r.ledger.storage == nil || s.onDisk < s.trimmed || !sharesAny(ended.Subscriptions) {
		return nil
	}
	t := &rest{peer: p, upTo: s.onDisk, tail: ended.Seq, begun: map[uint64]struct{}{}}
	t.after = max(s.trimmed, 1) - 1
	for i := range w.out {
		if e := &w.out[i]; e.Kind == session.Dropped && e.Token == nil && e.PacketID > 0 && e.QoS == 1 {
			t.begun[e.Seq] = struct{}{}
		}
	}
	if len(t.begun) == 0 && t.upTo <= t.tail {
		return nil
	}
	return t
}

func sharesAny(filters map[string]session.Subscription) bool {
	for _, sub := range filters {
		if sub.Shared() {
			return true
		}
	}
	return false
}

// rescue reads them and gives them to other members; then nothing of the session need stay on disk. What cannot be read stays
// there.
func (r *router) rescue(t *rest) {
	w := r.begin()
	defer w.finish()
	for after := t.after; after < t.upTo; {
		stored, err := r.ledger.storage.Read(context.Background(), t.id, after, loadBytes, nil)
		if err != nil {
			r.log.Error("messages of a share group that waited for one that is gone could not be read",
				"client", t.peer.id, "user", t.peer.account, "err", err)
			return
		}
		entries, upTo := r.decode(t.peer, stored, after, t.upTo)
		for i := range entries {
			_, begun := t.begun[entries[i].Seq]
			if token, shared := entries[i].Token.(*lent); shared && (begun || entries[i].Seq > t.tail) {
				r.returned(w, token, &session.Effect{Drop: session.DropEnded})
			}
		}
		w.settle()
		w.flush()
		after = upTo
	}
	r.ledger.sayEnded(t.id)
}
