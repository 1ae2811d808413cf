package broker

import (
	"time"

	"github.com/plantops/plantops/broker/session"
)

// This file gives the messages of a share group to its members.

// ready takes notice that a member has room again.
func (g *shareGroup) ready(w *work, p *peer) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.take(w, p)
}

// take lets a member that has room take its turn. The caller holds mu.
func (g *shareGroup) take(w *work, p *peer) {
	m := g.members[p]
	if m == nil {
		return
	}
	p.mu.Lock()
	sub, _ := p.state.Subscription(g.filter)
	m.lasts = p.state.Lasting() && sub.QoS > 0
	p.mu.Unlock()
	if !m.takes {
		m.takes = true
		g.takers = append(g.takers, p)
	}
	g.giveAll(w)
}

// giveAll gives away what waits, as long as there are takers. The caller holds mu.
func (g *shareGroup) giveAll(w *work) {
	now := w.r.now()
	for {
		s, ok := g.queue.First()
		if !ok || !g.give(w, s, now) {
			break
		}
		g.queue.Pop()
	}
	g.charge()
	g.eased()
}

// give gives a message to the first member in turn that can be sent it, and reports whether that settles it. Who cannot does
// not take part until it has room again. The caller holds mu.
func (g *shareGroup) give(w *work, s session.Shared, now time.Time) bool {
	if s.Message.Expired(now) || s.Message.QoS > 0 && g.giveLasting(w, s, now) {
		return true
	}
	tooLarge := 0
	for tooLarge < len(g.takers) {
		g.turn %= len(g.takers)
		p := g.takers[g.turn]
		switch g.offer(w, p, s, now, false) {
		case session.TakesNow:
			g.turn++
			return true
		case session.TakesLater:
			g.rest(g.turn)
		case session.TakesNever:
			tooLarge++
			g.turn++
		}
	}
	return tooLarge > 0 && g.giveLarge(w, s, now)
}

// giveLasting gives an acknowledged message to the first member in turn whose session lasts. One that ends with its connection
// has it in memory only, and when the power goes there would be members left that could have had it. The caller holds mu.
func (g *shareGroup) giveLasting(w *work, s session.Shared, now time.Time) bool {
	for tried := len(g.takers); tried > 0 && len(g.takers) > 0; tried-- {
		g.turn %= len(g.takers)
		p := g.takers[g.turn]
		if m := g.members[p]; m == nil || !m.lasts {
			g.turn++
			continue
		}
		switch g.offer(w, p, s, now, false) {
		case session.TakesNow:
			g.turn++
			return true
		case session.TakesLater:
			g.rest(g.turn)
		case session.TakesNever:
			g.turn++
		}
	}
	return false
}

// giveLarge gives a message that is too large for those who have room to one who has none: in its own queue it does not hold
// up those behind it. What is too large for everybody is nobody's.
func (g *shareGroup) giveLarge(w *work, s session.Shared, now time.Time) bool {
	for p, m := range g.members {
		if !m.takes && g.offer(w, p, s, now, true) != session.TakesNever {
			return true
		}
	}
	g.lose(w)
	return true
}

// offer sends a member a message, if it can be sent now or must wait, or says why not. It notes with the member when the
// group waits for it. The caller holds mu.
func (g *shareGroup) offer(w *work, p *peer, s session.Shared, now time.Time, wait bool) session.Taking {
	p.mu.Lock()
	defer p.mu.Unlock()
	sub, is := p.state.Subscription(g.filter)
	if !is || p.narrowed && !p.rights.MayRead(s.Message.Topic) { // it has just left, or may not take this one
		return session.TakesNever
	}
	o := session.Offer{QoS: sub.QoS, RetainAsPublished: sub.RetainAsPublished, Scarce: p.exhausted()}
	if sub.ID > 0 {
		o.SubscriptionIDs = []uint32{sub.ID}
	}
	taking, qos := p.state.Takes(now, s.Message, o), min(o.QoS, s.Message.QoS)
	if wait && qos == 0 && !p.state.Connected() { // there it would not wait
		return session.TakesNever
	}
	if taking == session.TakesNever || taking == session.TakesLater && !wait {
		if taking == session.TakesLater {
			p.isWaitedFor(g)
		}
		return taking
	}
	if o.Scarce = false; qos > 0 {
		o.Token = &lent{group: g, Shared: s}
	}
	w.out = p.state.Deliver(now, s.Message, o, w.out[:0])
	w.apply(p)
	g.given++
	return taking
}
