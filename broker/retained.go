package broker

import (
	"container/list"
	"runtime"
	"sync"
	"time"

	"github.com/plantops/plantops/broker/access"
	"github.com/plantops/plantops/broker/refusal"
	"github.com/plantops/plantops/broker/session"
	"github.com/plantops/plantops/broker/topic"
)

const (
	// walkStep is how many retained messages are taken out of the store while the session's lock is held, for which its
	// publishers wait; it is over after some thousand visits too.
	walkStep = 64
	// walkSteps are done by whoever has made room for them; a goroutine of its own does the rest.
	walkSteps = 8
)

// retained is the store of retained messages.
type retained struct {
	mu    sync.RWMutex
	store session.Retained
	sweep *session.Cursor
}

// walk is how far the retained messages that a subscription has asked for have been delivered.
type walk struct {
	subscription session.Subscription
	cursor       *session.Cursor
	bytes        int
}

// walkBytes is what a walk costs beside its filter, which its cursor keeps in levels, with as many for the place where it is.
const walkBytes, walkLevelBytes = 320, 48

// walks are the walks that a session has before it, one for each filter, in order. They outlive the connection. The mu of the
// peer guards them.
type walks struct {
	order    list.List // of *walk
	byFilter map[string]*list.Element
	bytes    int         // that the account is charged
	walker   *clientLink // for whose connection a goroutine walks
}

// ask begins a walk for a subscription. The caller holds p.mu.
func (p *peer) ask(sub session.Subscription) {
	if p.due == nil {
		p.due = &walks{}
	}
	p.due.add(sub)
}

// add begins a walk. Where there is one for the filter it begins anew: all messages come again.
func (s *walks) add(sub session.Subscription) {
	one := &walk{subscription: sub, cursor: session.Match(sub.Filter), bytes: walkBytes + walkLevelBytes*topic.Levels(sub.Filter)}
	if there := s.byFilter[sub.Filter]; there != nil {
		there.Value = one
		return
	}
	if s.byFilter == nil {
		s.byFilter = map[string]*list.Element{}
	}
	s.byFilter[sub.Filter] = s.order.PushBack(one)
	s.bytes += one.bytes
}

// remove ends the walk for a filter, if there is one.
func (s *walks) remove(filter string) {
	if s == nil || s.byFilter[filter] == nil {
		return
	}
	there := s.byFilter[filter]
	s.bytes -= there.Value.(*walk).bytes
	s.order.Remove(there)
	if delete(s.byFilter, filter); len(s.byFilter) == 0 {
		s.byFilter = nil
	}
}

// clear ends all of them.
func (s *walks) clear() {
	if s != nil {
		*s = walks{walker: s.walker}
	}
}

// charged is what the account is charged for them, in bytes.
func (s *walks) charged() int {
	if s == nil {
		return 0
	}
	return s.bytes
}

func (s *walks) waiting() bool { return s != nil && len(s.byFilter) > 0 }

// set keeps m as the retained message of its topic. The store holds a copy of its own, without what hangs on the original.
func (t *retained) set(m *session.Message, o *session.Owner) session.Keeping {
	kept := *m
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.store.Set(&kept, o)
}

// keep makes m the retained message of its topic, if it is one for that. A refusal says why it cannot be kept: one that
// asks to be kept and cannot be is not published, except to ingest, which must lose nothing. u is nil for the broker's own.
func (r *router) keep(m *session.Message, u *usage) (refusal.Refusal, bool) {
	if !m.Retain {
		return refusal.Refusal{}, true
	}
	var owner *session.Owner
	if u != nil {
		owner = &u.owner
	}
	switch r.retained.set(m, owner) {
	case session.OwnerFull:
		return refusal.TooManyAccountRetained.By("max_retained_per_account", r.quotas.limits.MaxRetainedPerAccount), false
	case session.StoreFull:
		return refusal.TooManyRetained, false
	case session.OwnerGone:
		return refusal.AccountRemoved, false
	}
	return refusal.Refusal{}, true
}

// gone notes that a retained message is removed.
func (r *router) gone(k session.Kept) bool {
	if k.Owner != nil {
		r.ledger.retained(k.Topic)
	}
	return true
}

// all returns the messages of topics, empty where there is none.
func (t *retained) all(topics map[string]struct{}) map[string]session.Kept {
	all := make(map[string]session.Kept, len(topics))
	t.mu.RLock()
	defer t.mu.RUnlock()
	for topic := range topics {
		all[topic] = t.store.Kept(topic)
	}
	return all
}

// keepOnly is keep in the publish step of its topic, for a message that is not published.
func (r *router) keepOnly(to *subscribers, m *session.Message, u *usage) {
	to.shard.mu.Lock()
	defer to.shard.mu.Unlock()
	if _, kept := r.keep(m, u); kept && m.Retain { // nobody waits to hear of it
		r.ledger.retained(m.Topic)
	}
}

func (t *retained) len() int {
	t.mu.RLock()
	defer t.mu.RUnlock()
	return t.store.Len()
}

func (t *retained) bytes() int {
	t.mu.RLock()
	defer t.mu.RUnlock()
	return t.store.Bytes()
}

func (t *retained) next(c *session.Cursor, limit int, dst []session.Kept) []session.Kept {
	t.mu.RLock()
	defer t.mu.RUnlock()
	return t.store.Next(c, limit, dst)
}

// expire goes on looking for messages whose lifetime is over.
func (t *retained) expire(now time.Time, r *router) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.store.Len() == 0 {
		return
	}
	if t.sweep == nil || t.sweep.Done() {
		t.sweep = session.Everything()
	}
	t.store.Sweep(t.sweep, func(k session.Kept) bool { return k.Expired(now) && r.gone(k) })
}

// disown removes the messages that an account has retained and may not publish any more. When it is gone those are
// all, and no more can come: not from a connection that has not ended yet, either.
func (r *router) disown(u *usage, gone bool) {
	t, judge := &r.retained, publishers{router: r}
	for c := session.Everything(); !c.Done(); { // others get the lock in between
		t.mu.Lock()
		u.owner.Gone = u.owner.Gone || gone
		if u.owner.Messages == 0 {
			t.mu.Unlock()
			return
		}
		t.store.Sweep(c, func(k session.Kept) bool { return k.Owner == &u.owner && !judge.may(k) && r.gone(k) })
		t.mu.Unlock()
	}
}

// publishers judges who has published retained messages, by the rules of the moment. It remembers the last one.
type publishers struct {
	router *router
	owner  *session.Owner
	client string
	rights *access.Rights
}

// may reports whether the owner of a message may still publish it.
func (j *publishers) may(k session.Kept) bool {
	switch {
	case k.Owner == nil:
		return true
	case k.Owner != j.owner || k.Publisher != j.client:
		j.owner, j.client, j.rights = k.Owner, k.Publisher, &noRights
		if account, exists := j.router.account(k.Owner.Account); exists {
			j.rights = access.RightsOf(account, k.Publisher)
		}
	}
	return j.rights.MayPublish(k.Topic)
}

// deliverRetained delivers retained messages that are due, as many as the client's window and connection take now. It goes on
// when they have room again. Many filters that match little pass over the whole store many times: after some steps a
// goroutine goes on alone, so that the reader or writer that called need not, and notices when the connection ends.
func (w *work) deliverRetained(p *peer, now time.Time) {
	p.mu.Lock()
	l := p.link
	waiting := p.due.waiting() && l != nil && p.due.walker != l
	if waiting {
		p.due.walker = l // nobody else walks meanwhile
	}
	p.mu.Unlock()
	if waiting && w.walk(p, l, walkSteps, now) {
		r := w.r // w is of the round that is running
		r.walks.Go(func() {
			w := r.begin()
			for w.walk(p, l, walkSteps, w.r.now()) {
				runtime.Gosched() // others wait for the session's lock
			}
			w.finish()
		})
	}
}

// walk goes some steps for a connection and reports whether there is more to do. Otherwise it is the walker no more. After
// each step everybody who has got something is let write, whom the caller gave something before, too.
func (w *work) walk(p *peer, l *clientLink, steps int, now time.Time) (more bool) {
	w.flush()
	judge := publishers{router: w.r}
	for more = true; more && steps > 0; steps-- {
		p.mu.Lock()
		more = p.link == l && !l.over && !l.IsClosing()
		more = more && w.step(p, &judge, now)
		if !more && p.due != nil && p.due.walker == l {
			if p.due.walker = nil; !p.due.waiting() {
				p.due = nil
			}
		}
		p.mu.Unlock()
		w.settle()
		w.flush()
	}
	return more
}

// step reads a bounded part of the store and delivers what it finds, all while the caller holds p.mu: whatever is kept after
// that is delivered after it. It reports whether there is more to do at once.
func (w *work) step(p *peer, judge *publishers, now time.Time) (more bool) {
	room := min(p.state.Room(), walkStep)
	if room == 0 || !p.due.waiting() {
		return false
	}
	var found [walkStep]session.Kept
	due := p.due.order.Front().Value.(*walk)
	sub := &due.subscription
	offer := session.Offer{QoS: sub.QoS, RetainAsPublished: sub.RetainAsPublished, Retained: true, Scarce: p.exhausted()}
	if sub.ID > 0 {
		offer.SubscriptionIDs = []uint32{sub.ID}
	}
	messages := w.r.retained.next(due.cursor, room, found[:0])
	if due.cursor.Done() {
		p.due.remove(sub.Filter)
	}
	for _, k := range messages {
		if p.rights.MayRead(k.Topic) && judge.may(k) {
			w.out = p.state.Deliver(now, k.Message, offer, w.out[:0])
			w.apply(p)
		}
	}
	p.charge()
	return p.due.waiting() && p.state.Room() > 0
}

// eachRetained visits the retained messages that a filter matches until visit returns false.
func (r *router) eachRetained(filter string, visit func(session.Kept) bool) {
	var found [walkStep]session.Kept
	for c := session.Match(filter); !c.Done(); {
		for _, k := range r.retained.next(c, walkStep, found[:0]) {
			if !visit(k) {
				return
			}
		}
	}
}

// clear removes the retained message of a topic, and tells its subscribers.
func (r *router) clear(name string) {
	now := r.now()
	w := r.begin()
	w.pub = publication{to: r.subscribersOf(name), message: &session.Message{Topic: name, Retain: true, QoS: 1, Created: now}, now: now}
	r.route(w)
	w.finish()
}
