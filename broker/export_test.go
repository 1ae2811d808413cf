package broker

import (
	"time"

	"github.com/plantops/plantops/broker/session"
)

// Held is what an account is charged for, or what a count of everything finds.
type Held struct {
	Sessions, Connections, Subscriptions, Queued, Retained, RetainedBytes int
}

// Charged returns what each account is charged for. The functions go on telling when the account was removed.
func (b *Broker) Charged() map[string]func() Held {
	s, t := b.hook.sessions, &b.hook.router.retained
	s.mu.Lock()
	defer s.mu.Unlock()
	all := map[string]func() Held{}
	for name, h := range s.usages {
		all[name] = func() Held {
			s.mu.Lock()
			defer s.mu.Unlock()
			t.mu.RLock()
			defer t.mu.RUnlock()
			return Held{h.sessions, h.connections, int(h.subscriptions.Load()), int(h.queued.Load()), h.owner.Messages, h.owner.Bytes}
		}
	}
	return all
}

// Counted counts what each account holds, and what waits for all of them.
func (b *Broker) Counted() (all map[string]Held, queued int) {
	s, t := b.hook.sessions, &b.hook.router.retained
	all = map[string]Held{}
	add := func(h *usage, more func(*Held)) {
		held := all[h.owner.Account]
		more(&held)
		all[h.owner.Account] = held
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, p := range s.byID {
		p.mu.Lock()
		add(p.usage, func(h *Held) {
			h.Sessions++
			if !p.owner.hasEnded() {
				h.Connections++
			}
			if p.ingest {
				return
			}
			h.Subscriptions += p.state.Subscriptions()
			h.Queued += (p.state.Stats().Bytes + p.state.WillBytes() + p.state.StateBytes() + p.memoryTail() + p.due.charged() + int(p.routeBytes.Load())) / session.FreeBytes * session.FreeBytes
			if !p.owner.hasEnded() { // of one that has ended nothing is queued, a moment later
				h.Queued += p.owner.QueuedBytes() / session.FreeBytes * session.FreeBytes
			}
		})
		p.mu.Unlock()
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	for c := session.Everything(); !c.Done(); {
		t.store.Sweep(c, func(k session.Kept) bool {
			if k.Owner != nil {
				held := all[k.Owner.Account]
				held.Retained++
				held.RetainedBytes += k.Owner.Bytes / max(k.Owner.Messages, 1) // all of one size, see the test
				all[k.Owner.Account] = held
			}
			return false
		})
	}
	return all, int(b.hook.router.quotas.queued.Load())
}

// RetainedCount returns how many retained messages there are.
func (b *Broker) RetainedCount() int { return b.hook.router.retained.len() }

// FillRetained leaves room for so many more retained messages in all, and a share to nobody.
func (b *Broker) FillRetained(left int) {
	t := &b.hook.router.retained
	t.mu.Lock()
	defer t.mu.Unlock()
	t.store.MaxMessages, t.store.Assured = t.store.Len()+left, 0
}

// memoryTail is what of the tail is in memory.
func (p *peer) memoryTail() int {
	if p.usage.quotas.onDisk {
		return 0
	}
	_, bytes, _ := p.state.Tail()
	return bytes
}

// LazyDue reports whether the next batch takes what may wait.
func (b *Broker) LazyDue() bool {
	g := &b.hook.router.ledger
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.lazyDue
}

// Waited returns how many sessions publishers wait for.
func (b *Broker) Waited() int { return int(b.hook.router.waited.Load()) }

// SystemTopics is how many topics there are under $SYS.
const SystemTopics = systemTopics

// UpdateSystem does what the clock does for $SYS, now.
func (b *Broker) UpdateSystem(now time.Time) {
	b.hook.router.updateSystem(now)
	b.hook.router.publishSystem(now)
}

// LockRetained locks the store of retained messages.
func (b *Broker) LockRetained() (unlock func()) {
	b.hook.router.retained.mu.Lock()
	return b.hook.router.retained.mu.Unlock
}

// Walks returns how many walks of retained messages a client has before it.
func (b *Broker) Walks(clientID string) int {
	p := b.hook.sessions.peer(clientID)
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.due == nil {
		return 0
	}
	return p.due.order.Len()
}

// SetQuietAfter has connections wait without a goroutine after so long without input. It is called before Start.
func (b *Broker) SetQuietAfter(d time.Duration) { b.network.SetQuietAfter(d) }
