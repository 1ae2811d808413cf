package broker

import (
	"sync"
	"time"

	"github.com/plantops/plantops/broker/access"
	"github.com/plantops/plantops/broker/refusal"
	"github.com/plantops/plantops/broker/session"
)

const (
	// retainedStep is how many retained messages are taken out of the store at a time.
	retainedStep = 64
	// retainedSteps of them hold the session's lock, for which its publishers wait: some thousand visits each, under a
	// millisecond.
	retainedSteps = 8
)

// retained is the store of retained messages.
type retained struct {
	mu    sync.RWMutex
	store session.Retained
	sweep *session.Cursor
}

// retainedDelivery is how far the retained messages that a subscription has asked for have been delivered.
type retainedDelivery struct {
	subscription session.Subscription
	cursor       *session.Cursor
}

// set keeps m as the retained message of its topic. The store holds a copy of its own, without what hangs on the original.
func (t *retained) set(m *session.Message, o *session.Owner) session.Keeping {
	kept := *m
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.store.Set(&kept, o)
}

// keep makes m the retained message of its topic, if it is one for that. A refusal says why it cannot be kept: one that
// asks to be kept and cannot be is not published, except to ingest, which must lose nothing.
func (r *router) keep(m *session.Message, u *usage) (refusal.Refusal, bool) {
	if !m.Retain {
		return refusal.Refusal{}, true
	}
	switch r.retained.set(m, &u.owner) {
	case session.OwnerFull:
		return refusal.TooManyAccountRetained.By("max_retained_per_account", r.quotas.limits.MaxRetainedPerAccount), false
	case session.StoreFull:
		return refusal.TooManyRetained, false
	case session.OwnerGone:
		return refusal.AccountRemoved, false
	}
	return refusal.Refusal{}, true
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
func (t *retained) expire(now time.Time) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.store.Len() == 0 {
		return
	}
	if t.sweep == nil || t.sweep.Done() {
		t.sweep = session.Everything()
	}
	t.store.Sweep(t.sweep, func(k session.Kept) bool { return k.Expired(now) })
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
		t.store.Sweep(c, func(k session.Kept) bool { return k.Owner == &u.owner && !judge.may(k) })
		t.mu.Unlock()
	}
}

// publishers judges who has published retained messages, by the rules of the moment. It remembers the last one.
type publishers struct {
	router *router
	owner  *session.Owner
	client string
	rights access.Rights
}

// may reports whether the owner of a message may still publish it.
func (j *publishers) may(k session.Kept) bool {
	switch {
	case k.Owner == nil:
		return true
	case k.Owner != j.owner || k.Publisher != j.client:
		j.owner, j.client, j.rights = k.Owner, k.Publisher, access.Rights{}
		if account, exists := j.router.account(k.Owner.Account); exists {
			j.rights = access.RightsOf(account, k.Publisher)
		}
	}
	return j.rights.MayPublish(k.Topic)
}

// deliverRetained delivers retained messages that are due, as many as the client's window and connection take now. It goes on
// when they have room again. Many filters that match little pass over the whole store many times, so it lets go of the
// session in between.
func (w *work) deliverRetained(p *peer, now time.Time) {
	for more := true; more; {
		p.mu.Lock()
		more = w.deliverSomeRetained(p, now)
		p.mu.Unlock()
		w.settle()
	}
}

// deliverSomeRetained reports whether there is more to do at once. The caller holds p.mu.
func (w *work) deliverSomeRetained(p *peer, now time.Time) bool {
	var found [retainedStep]session.Kept
	judge := publishers{router: w.r}
	for range retainedSteps {
		room := min(p.state.Room(), retainedStep)
		if len(p.retainedDue) == 0 || room == 0 || p.link == nil || p.link.over {
			break
		}
		due := &p.retainedDue[0]
		sub := &due.subscription
		offer := session.Offer{QoS: sub.QoS, RetainAsPublished: sub.RetainAsPublished, Retained: true, Scarce: p.exhausted()}
		if sub.ID > 0 {
			offer.SubscriptionIDs = []uint32{sub.ID}
		}
		messages := w.r.retained.next(due.cursor, room, found[:0])
		if due.cursor.Done() {
			p.retainedDue = p.retainedDue[1:]
		}
		for _, k := range messages {
			if p.rights.MayRead(k.Topic) && judge.may(k) {
				w.out = p.state.Deliver(now, k.Message, offer, w.out[:0])
				w.apply(p)
			}
		}
	}
	if len(p.retainedDue) == 0 {
		p.retainedDue = nil
		return false
	}
	return p.state.Room() > 0 && p.link != nil && !p.link.over
}

// withoutFilter removes the delivery for a filter that is unsubscribed, or that begins anew.
func withoutFilter(due []retainedDelivery, filter string) []retainedDelivery {
	kept := due[:0]
	for _, d := range due {
		if d.subscription.Filter != filter {
			kept = append(kept, d)
		}
	}
	return kept
}

// eachRetained visits the retained messages that a filter matches until visit returns false.
func (r *router) eachRetained(filter string, visit func(session.Kept) bool) {
	var found [retainedStep]session.Kept
	for c := session.Match(filter); !c.Done(); {
		for _, k := range r.retained.next(c, retainedStep, found[:0]) {
			if !visit(k) {
				return
			}
		}
	}
}

// clear removes the retained message of a topic, and tells its subscribers.
func (r *router) clear(name string) {
	now := r.now()
	m := &session.Message{Topic: name, Retain: true, QoS: 1, Created: now}
	r.retained.set(m, nil)
	w := r.begin()
	r.publish(w, publication{to: r.subscribersOf(name), message: m, now: now})
	w.finish()
}
