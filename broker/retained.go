package broker

import (
	"sync"
	"time"

	"github.com/plantops/plantops/broker/session"
)

const (
	maxRetained      = 100_000
	maxRetainedBytes = 32 << 20
	// walkStep is how many retained messages are taken out of the store at a time.
	walkStep = 64
)

// retained is the store of retained messages.
type retained struct {
	mu    sync.RWMutex
	store session.Retained
	sweep *session.Cursor
	full  limiter
}

// walk is the way through the retained messages that a subscription has asked for.
type walk struct {
	subscription session.Subscription
	cursor       *session.Cursor
}

// set keeps m as the retained message of its topic. The store holds a copy of its own, without what hangs on the original.
func (t *retained) set(r *router, m *session.Message) {
	kept := *m
	t.mu.Lock()
	ok := t.store.Set(&kept)
	t.mu.Unlock()
	if ok {
		return
	}
	if more, due := t.full.allow("", r.now()); due {
		r.log.Warn("too many retained messages, one was not kept", "topic", clip(m.Topic), "more", more)
	}
}

func (t *retained) len() int {
	t.mu.RLock()
	defer t.mu.RUnlock()
	return t.store.Len()
}

func (t *retained) next(c *session.Cursor, limit int, dst []*session.Message) []*session.Message {
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
	t.store.Sweep(now, t.sweep)
}

// feed delivers retained messages that are due, as many as the client's window and connection take now. It goes on
// when they have room again. The caller holds p.mu.
func (w *work) feed(p *peer, now time.Time) {
	var found [walkStep]*session.Message
	for len(p.walks) > 0 {
		room := min(p.state.Room(), walkStep)
		if room == 0 || p.link == nil || p.link.over {
			return
		}
		due := &p.walks[0]
		sub := &due.subscription
		offer := session.Offer{QoS: sub.QoS, RetainAsPublished: sub.RetainAsPublished, Retained: true}
		if sub.ID > 0 {
			offer.SubscriptionIDs = []uint32{sub.ID}
		}
		messages := w.r.retained.next(due.cursor, room, found[:0])
		if due.cursor.Done() {
			p.walks = p.walks[1:]
		}
		for _, m := range messages {
			if p.rights.mayRead(m.Topic) {
				w.out = p.state.Deliver(now, m, offer, w.out[:0])
				w.apply(p)
			}
		}
	}
	p.walks = nil
}

// withoutFilter removes the walk of a filter that is unsubscribed, or that begins anew.
func withoutFilter(walks []walk, filter string) []walk {
	kept := walks[:0]
	for _, w := range walks {
		if w.subscription.Filter != filter {
			kept = append(kept, w)
		}
	}
	return kept
}
