package broker

import (
	"cmp"
	"slices"
	"sync"
	"time"

	"github.com/plantops/plantops/broker/refusal"
	"github.com/plantops/plantops/broker/route"
	"github.com/plantops/plantops/broker/session"
	"github.com/plantops/plantops/broker/topic"
)

// A share group has a queue, and its members take from it: one gets a message when it can be sent it at once, in turn with
// the others that can. So nothing waits for a member that does not read while another one does, and what a member was sent
// and has not acknowledged comes back when its session ends. A message that no member can be sent waits for all of them.

// What a session's change leads to in its groups, as consequences (see settle): their locks come before its own.
const (
	regrouped   session.Kind = 200 + iota // it has subscribed to a group, or left; Token is the filter
	mayTakeMore                           // it has room again; Token is the group that waits for it
)

// shares are the share groups that have members.
type shares struct {
	mu       sync.Mutex // taken last
	byFilter map[string]*shareGroup
}

// shareGroup is one of them. Its lock comes after that of a shard and before those of sessions; two groups' are never held.
type shareGroup struct {
	router *router
	filter string // with $share/GROUP/

	mu      sync.Mutex
	dead    bool // it has no members, and another one may be there for its filter
	members map[*peer]*member
	takers  []*peer // members that could be sent a message, as far as is known
	turn    int     // of them
	queue   session.ShareQueue
	keeper  *usage // the account that is charged with the queue: of some member
	charged int    // units of session.FreeBytes
	lost    int64
	warned  time.Time // when a line about it was written

	given       uint64        // messages to members
	released    chan struct{} // publishers wait for it, see waitForGroup; nil: they need not
	behindSince time.Time     // for so long
	givenUp     bool          // nobody waits, until little does in the queue
}

type member struct {
	usage *usage
	takes bool // it is among the takers
	// lasts says that its session outlived the connection when it was last looked at: what it is sent is on disk.
	lasts bool
}

// lent is the token of a message that a member was sent.
type lent struct {
	group *shareGroup
	session.Shared
}

// regroup notes that the session may have joined or left the share group of a filter. The caller holds p.mu.
func (w *work) regroup(p *peer, filter string) {
	w.after = append(w.after, consequence{from: p, Effect: session.Effect{Kind: regrouped, Token: filter}})
}

// isWaitedFor notes that a group waits for the client. The caller holds p.mu.
func (p *peer) isWaitedFor(g *shareGroup) {
	if p.waiting == nil {
		p.waiting = &[]*shareGroup{}
	}
	if !slices.Contains(*p.waiting, g) {
		*p.waiting = append(*p.waiting, g)
	}
}

// wakeGroups tells the groups that have found the client not able to take a message that it is now. The caller holds p.mu.
func (w *work) wakeGroups(p *peer) {
	if p.waiting == nil || !p.state.TakesMore() {
		return
	}
	for _, g := range *p.waiting {
		w.after = append(w.after, consequence{from: p, Effect: session.Effect{Kind: mayTakeMore, Token: g}})
	}
	p.waiting = nil
}

// regroup makes the session a member of the group of a filter, or takes it out, as its subscriptions say at this moment.
func (s *shares) regroup(w *work, p *peer, filter string) {
	g := s.lock(w.r, filter)
	defer g.mu.Unlock()
	p.mu.Lock()
	u, is := p.usage, p.state.Subscribed(filter)
	p.mu.Unlock()
	bare, _ := topic.Unshare(filter) // it was judged
	was := g.members[p]
	switch {
	case is && was == nil:
		if len(g.members) == 0 {
			w.r.routes.table.Subscribe(recipient{group: g}, bare, route.Options{QoS: 2})
		}
		g.members[p] = &member{usage: u}
		g.charge()
		g.take(w, p)
	case is:
		was.usage = u
	case was != nil:
		g.expel(p)
	}
	if len(g.members) > 0 {
		return
	}
	w.r.routes.table.Unsubscribe(recipient{group: g}, bare)
	g.dead = true
	s.mu.Lock()
	delete(s.byFilter, filter)
	s.mu.Unlock()
	g.queue = session.ShareQueue{} // as what waits in a session that ends
	g.release()
}

// lock returns the group of a filter, which is made if there is none, locked.
func (s *shares) lock(r *router, filter string) *shareGroup {
	for {
		s.mu.Lock()
		g := s.byFilter[filter]
		if g == nil {
			if s.byFilter == nil {
				s.byFilter = map[string]*shareGroup{}
			}
			g = &shareGroup{router: r, filter: filter, members: map[*peer]*member{}}
			s.byFilter[filter] = g
		}
		s.mu.Unlock()
		if g.mu.Lock(); !g.dead {
			return g
		}
		g.mu.Unlock()
	}
}

// expel takes a member out. The caller holds mu.
func (g *shareGroup) expel(p *peer) {
	if i := slices.Index(g.takers, p); i >= 0 {
		g.rest(i)
	}
	delete(g.members, p)
	g.discharge()
}

// rest takes a member out of the turn. The caller holds mu.
func (g *shareGroup) rest(i int) {
	if m := g.members[g.takers[i]]; m != nil {
		m.takes = false
	}
	g.takers = slices.Delete(g.takers, i, i+1)
	if i < g.turn {
		g.turn--
	}
}

// share gives a message to a member, or keeps it for one. It is called in the publish step.
func (r *router) share(w *work, g *shareGroup, m *session.Message, now time.Time) {
	g.mu.Lock()
	defer g.mu.Unlock()
	s := g.queue.Number(m)
	if g.queue.Len() == 0 && g.give(w, s, now) {
		return
	}
	full := g.queue.Len() >= maxWaiting || g.queue.Len() > 0 && g.queue.Bytes()+len(m.Payload) > maxWaitingBytes || g.exhausted()
	switch {
	case g.dead || !g.awaits(m): // nobody is there for whom it would wait
		return
	case m.QoS > 0 && g.leave(w, s, now, true):
		return
	case full:
		g.makeRoom(w, now)
	}
	g.queue.Put(s)
	g.charge()
	g.crowded(w, m)
}

// makeRoom takes the first message out of a queue that is full: it waits in the session of a member from now on, which has
// the disk for that. The caller holds mu.
func (g *shareGroup) makeRoom(w *work, now time.Time) {
	first, ok := g.queue.First()
	if !ok { // the account has too much elsewhere
		return
	}
	g.queue.Pop()
	if first.Message.QoS == 0 || !g.leave(w, first, now, false) {
		g.lose(w)
	}
}

// leave gives a message that no member can be sent now to one in whose session it waits: to one whose session lasts, where it
// is on disk, or to any. Those who are there are asked first, and then those with the least
// that waits: one that does not read gets little. The caller holds mu.
func (g *shareGroup) leave(w *work, s session.Shared, now time.Time, lasting bool) bool {
	type candidate struct {
		*peer
		away  bool
		waits int
	}
	var all []candidate
	for p := range g.members {
		p.mu.Lock()
		waits, _ := p.state.Backlog()
		tail, _, _ := p.state.Tail()
		fits := !lasting || p.state.Lasting()
		p.mu.Unlock()
		if fits {
			all = append(all, candidate{p, !p.online.Load(), waits + tail})
		}
	}
	slices.SortFunc(all, func(a, b candidate) int {
		if a.away != b.away {
			if b.away {
				return -1
			}
			return 1
		}
		return cmp.Compare(a.waits, b.waits)
	})
	for _, c := range all {
		if g.offer(w, c.peer, s, now, true) != session.TakesNever {
			return true
		}
	}
	return false
}

// returned takes back a message that a member does not get after all. Others get it, unless the member has refused it
// [MQTT-4.8.2-6], or may have it: then it would come twice at QoS 2 [MQTT-4.8.2-5].
func (r *router) returned(w *work, t *lent, end *session.Effect) {
	if end.Drop == session.DropRefused || end.Drop == session.DropExpired || end.QoS == 2 && end.PacketID > 0 {
		return
	}
	g := r.shares.alive(t.group)
	if g == nil {
		return
	}
	defer g.mu.Unlock()
	full := g.queue.Len() >= maxWaiting
	switch now := r.now(); {
	case end.Drop == session.DropQueueFull: // of a member for which a large message was to wait
		g.lose(w)
	case g.queue.Len() == 0 && g.give(w, t.Shared, now), g.leave(w, t.Shared, now, !full):
	case full:
		g.lose(w)
	default:
		g.queue.Put(t.Shared)
		g.giveAll(w)
	}
}

// alive locks a group, or the one that has taken its place; nil when there is none.
func (s *shares) alive(g *shareGroup) *shareGroup {
	for g != nil {
		if g.mu.Lock(); !g.dead {
			return g
		}
		g.mu.Unlock()
		s.mu.Lock()
		g = s.byFilter[g.filter]
		s.mu.Unlock()
	}
	return nil
}

// awaits reports whether there is a member for which a message may wait: one that is connected or, at QoS 1 and 2, comes
// back. The caller holds mu.
func (g *shareGroup) awaits(m *session.Message) bool {
	for p := range g.members {
		if p.online.Load() {
			return true
		}
		p.mu.Lock()
		sub, is := p.state.Subscription(g.filter)
		p.mu.Unlock()
		if is && min(sub.QoS, m.QoS) > 0 {
			return true
		}
	}
	return false
}

// exhausted reports whether no more may wait for the account that is charged with the queue. The caller holds mu.
func (g *shareGroup) exhausted() bool {
	if g.keeper == nil || g.queue.Bytes() < session.FreeBytes {
		return false
	}
	_, is := g.keeper.exhausted()
	return is
}

// charge brings what an account is charged for the queue up to date: that of some member. The caller holds mu.
func (g *shareGroup) charge() {
	if g.keeper == nil {
		for _, m := range g.members {
			g.keeper = m.usage
			break
		}
	}
	if units := g.queue.Bytes() / session.FreeBytes; g.keeper != nil && units != g.charged {
		g.keeper.charge(units - g.charged)
		g.charged = units
	}
}

// discharge lets go of the account that is charged when it has no member any more. The caller holds mu.
func (g *shareGroup) discharge() {
	for _, m := range g.members {
		if m.usage == g.keeper {
			return
		}
	}
	if g.keeper != nil {
		g.keeper.charge(-g.charged)
	}
	g.keeper, g.charged = nil, 0
	g.charge()
}

// lose counts a message for which there was no room with any member. The caller holds mu.
func (g *shareGroup) lose(w *work) {
	w.r.dropped.Add(1)
	g.lost++
	from := refusal.Source{}
	if g.keeper != nil {
		from.Account, from.Proved = g.keeper.owner.Account, true
	}
	if now := w.r.refusals.Count(refusal.SubscriberTooSlow, 1, from); now.Sub(g.warned) >= refusal.LineEvery {
		g.warned = now
		w.r.log.Warn("refused", "reason", refusal.SubscriberTooSlow.Reason, "user", from.Account,
			"filter", refusal.Clip(g.filter), "dropped", g.lost)
	}
}

// waitForGroup makes a publisher wait for the members of a group that has much waiting, as long as they take anything. Who is a
// member must read its own acknowledgements. A message for ingest waits no longer than readingsWait,
// from when the group fell behind.
func (w *work) waitForGroup(l *clientLink) {
	g := w.slowGroup
	w.slowGroup, w.urgent = nil, false
	if g == nil || l.peer.ingest {
		return
	}
	w.flush()
	tick := time.NewTicker(progressEvery)
	defer tick.Stop()
	taken, since := uint64(0), time.Now()
	reading := l.lastSubscribers != nil && l.lastSubscribers.ingest
	for {
		g.mu.Lock()
		released, one, behind := g.released, g.members[l.peer] != nil, w.r.now().Sub(g.behindSince)
		if g.given != taken {
			taken, since = g.given, time.Now()
		} else if time.Since(since) >= stuckAfter {
			g.givenUp = true
			g.release()
		}
		g.mu.Unlock()
		if released == nil || one || reading && behind >= readingsWait {
			return
		}
		select {
		case <-released:
			return
		case <-l.Done():
			return
		case <-tick.C:
		}
	}
}

// From here on a publisher waits for a group at the end of its round, and a little later before its next message.
const (
	waitMessages, waitBytes     = maxWaiting / 2, maxWaitingBytes / 2
	urgentMessages, urgentBytes = maxWaiting * 3 / 4, maxWaitingBytes * 3 / 4
)

// release lets the publishers that wait go on. The caller holds mu.
func (g *shareGroup) release() {
	if g.released != nil {
		close(g.released)
		g.released = nil
	}
}

// crowded makes the publisher of a message wait when much waits, unless there is a disk for what does. The caller holds mu.
func (g *shareGroup) crowded(w *work, m *session.Message) {
	messages, bytes := g.queue.Len(), g.queue.Bytes()
	if m.QoS > 0 && w.r.ledger.storage != nil || g.givenUp || messages <= waitMessages && bytes <= waitBytes {
		return
	}
	if g.released == nil {
		g.released, g.behindSince = make(chan struct{}), w.r.now()
	}
	w.slowGroup, w.urgent = g, w.urgent || messages > urgentMessages || bytes > urgentBytes
}

// eased lets publishers go on when little waits. The caller holds mu.
func (g *shareGroup) eased() {
	if g.queue.Len() <= roomyMessages && g.queue.Bytes() <= roomyBytes {
		g.givenUp = false
		g.release()
	}
}
