package broker

import (
	"slices"
	"sync/atomic"
	"time"

	"github.com/plantops/plantops/broker/network"
	"github.com/plantops/plantops/broker/session"
)

// A QoS 0 message for which a session has no room is lost. So publishers wait for a subscriber that is behind as long as it
// takes anything, however little; TCP then slows them down. Who has taken nothing for stuckAfter is not waited for until it
// takes something, and loses the newest messages, it alone. Two clients that wait for each other are both stuck.
const (
	// A session is behind from here on. The other half is for publishers that come by at the same moment, and for those that do
	// not wait.
	behindMessages, behindBytes = maxWaiting / 2, maxWaitingBytes / 2
	// Publishers go on from here: to wake them for each message would cost more than the message.
	enoughMessages, enoughBytes = behindMessages - maxWaiting/16, behindBytes - maxWaitingBytes/16
	// Down to here it has caught up.
	roomyMessages, roomyBytes = maxWaiting / 8, maxWaitingBytes / 8

	// On a machine with two cores and a load of 15, a client that reads at full speed took nothing for 1.5 s now and then. Looks
	// are counted, not time: when this process gets no time to run, that says nothing about a client.
	stuckAfter    = 3 * time.Second
	progressEvery = stuckAfter / stuckLooks
	stuckLooks    = 12
	// lookAgain is how often a client that is stuck is looked at when there is something for it.
	lookAgain = 10 * time.Millisecond
	// readingsWait is how long what ingest stores waits for others in all, and for one of them from when it fell behind until
	// it has caught up: nobody's slowness becomes that of the devices.
	readingsWait = time.Second
	// quotaWaitBytes of a session make it behind when too much waits for all sessions of its account.
	quotaWaitBytes = 16 << 10
)

// backpressure says whether publishers wait for a session at QoS 0. It is guarded by the mu of its peer, except wait.
type backpressure struct {
	wait atomic.Pointer[wait] // what publishers wait for; nil: they need not
	*lag
}

// lag is what is known of a session that is, or was, behind.
type lag struct {
	behindSince time.Time // zero: it has caught up
	stuck       bool
	watched     *clientLink // whose progress is looked at
	seen        network.Progress
	looks       int       // since that was new
	looked      time.Time // last, while it is stuck
}

// wait is a time during which publishers wait for one session.
type wait struct {
	over  chan struct{} // closed at its end
	since time.Time     // the session is behind
}

// checkBackpressure is called after each change of a session, with p.mu held.
func (w *work) checkBackpressure(p *peer) {
	c := &p.backpressure
	messages, bytes := p.state.Backlog0()
	if p.link == nil || !p.hasMuch(messages, bytes) && c.wait.Load() == nil {
		w.r.release(p)
		if c.lag != nil {
			c.behindSince = time.Time{}
		}
		return
	}
	if c.lag == nil {
		c.lag = &lag{}
	}
	if c.watched != p.link {
		c.watched, c.seen, c.looks, c.stuck = p.link, p.link.Progress(), 0, false
		w.r.watch(p, p.link)
	}
	if c.stuck {
		if now := w.r.now(); now.Sub(c.looked) >= lookAgain {
			c.looked = now
			c.look(p.link)
		}
	}
	switch behind := p.isBehind(messages, bytes); {
	case c.wait.Load() != nil:
		if !behind && messages <= enoughMessages && bytes <= enoughBytes {
			w.r.release(p)
		}
	case behind && !c.stuck:
		if c.behindSince.IsZero() {
			c.behindSince = w.r.now()
		}
		w.r.waited.Add(1)
		c.wait.Store(&wait{over: make(chan struct{}), since: c.behindSince})
	}
}

// hasMuch says that a session has not caught up.
func (p *peer) hasMuch(messages, bytes int) bool {
	return messages > roomyMessages || bytes > roomyBytes || p.isBehind(messages, bytes)
}

// isBehind says that publishers should wait, for what waits in the session or for what its account has waiting.
func (p *peer) isBehind(messages, bytes int) bool {
	switch {
	case messages > behindMessages || bytes > behindBytes:
		return true
	case bytes > quotaWaitBytes:
		return p.usage.nearQuota()
	}
	return bytes > session.FreeBytes/2 && p.exhausted()
}

// release lets the publishers that wait for p go on. The caller holds p.mu.
func (r *router) release(p *peer) {
	if s := p.backpressure.wait.Swap(nil); s != nil {
		r.waited.Add(-1)
		close(s.over)
	}
}

// watch looks now and then whether a client takes anything, until it has caught up or l has ended.
func (r *router) watch(p *peer, l *clientLink) {
	time.AfterFunc(progressEvery, func() {
		p.mu.Lock()
		defer p.mu.Unlock()
		c := &p.backpressure
		if c.watched != l {
			return
		}
		if p.link != l || c.wait.Load() == nil && !p.hasMuch(p.state.Backlog0()) {
			c.watched, c.stuck = nil, false
			return
		}
		if c.looks++; !c.look(l) && c.looks >= stuckLooks {
			c.stuck = true
			r.release(p)
		}
		r.watch(p, l)
	})
}

// look reports whether the client has taken something since the last look that found that. The caller holds the mu of the peer.
func (c *lag) look(l *clientLink) (progress bool) {
	seen := l.Progress()
	if progress = seen != c.seen; progress {
		c.seen, c.looks, c.stuck = seen, 0, false
	}
	return progress
}

// waitForReaders makes a publisher wait until no subscriber that gets its next messages is behind: at QoS 0, or with pace at QoS 1
// and 2. It is called by the publisher's reader.
func (w *work) waitForReaders(l *clientLink, to *subscribers, qos byte, brings amount) {
	if w.r.waited.Load() > 0 && !l.peer.ingest && (qos == 0 || !to.ingest) {
		w.waitForEach(l, to, qos, brings)
	}
}

func (w *work) waitForEach(l *clientLink, to *subscribers, qos byte, brings amount) {
	var until time.Time // zero: as long as it takes
	if to.ingest {
		until = time.Now().Add(readingsWait)
	}
	var room [8]*peer
	behind, paced := room[:0], 0
	s := to.shard
	s.mu.Lock()
	to = w.r.routes.current(to)
	for i := range to.route.To {
		p := to.route.To[i].Who.peer
		if p == nil || p.backpressure.wait.Load() == nil && !p.isPaced() {
			continue
		}
		granted, wanted := to.route.To[i].Offer(), true
		if p == l.peer {
			granted, wanted = to.route.To[i].Own()
		}
		switch {
		case !wanted:
		case min(granted.QoS, qos) == 0:
			behind = append(behind, p)
		default:
			behind = append(behind, p)
			behind[paced], behind[len(behind)-1] = p, behind[paced]
			paced++
		}
	}
	w.r.routes.release(to)
	s.mu.Unlock()
	for i, p := range behind {
		if i < paced {
			w.keepPace(l.peer, p, brings)
		} else if !w.waitForReader(l, p, until) {
			return
		}
	}
}

// waitForReader waits for one subscriber, and reports whether to go on waiting for others.
func (w *work) waitForReader(l *clientLink, p *peer, until time.Time) bool {
	for {
		s := p.backpressure.wait.Load()
		if s == nil {
			return true
		}
		w.flush()
		var late <-chan time.Time
		if !until.IsZero() {
			left := min(time.Until(until), readingsWait-time.Since(s.since))
			if left <= 0 {
				return true
			}
			timer := time.NewTimer(left)
			defer timer.Stop()
			late = timer.C
		}
		select {
		case <-s.over:
		case <-late:
			return true
		case <-l.Done():
			return false
		}
	}
}

// pace is where publishers of QoS 1 and 2 wait for a session whose client reads fast: so what they send need not go to the disk and
// come back. Who reads slower than paceMessages in each paceLook is not waited for, and its tail takes what comes, until it has
// caught up. Nor does anybody wait who is waited for: two that wait for each other would read nothing. A peer's mu guards it,
// except shut and coming.
type pace struct {
	shut    atomic.Bool // publishers wait
	coming  coming      // what was let through and is not routed yet
	slow    bool        // its client was too slow
	watched bool
	waiting []*pass // in the order of their coming
	taken   uint64  // by its client, when it was looked at last
	proven  uint64  // what that must be for it to be given paceLooks
	owed    int     // messages that it is behind that pace
}

// pass is a publisher that waits, with the messages that it has read.
type pass struct {
	by      *peer
	brings  amount // the bytes are of payloads
	pace    *pace
	granted chan struct{} // has room for one
}

// coming is an amount that any goroutine may change.
type coming struct{ messages, bytes atomic.Int64 }

func (c *coming) add(sign int, a amount) {
	c.messages.Add(int64(sign * a.messages))
	c.bytes.Add(int64(sign * a.bytes))
}

const (
	// paceMessages, or so many KiB, in a paceLook are about what the disk takes.
	paceMessages, paceLook = 200, 10 * time.Millisecond
	// paceLooks is how long a client may take nothing, on a machine where others want the processor too, when it has shown that it is
	// fast: it has taken behindMessages since it was too slow. Others get firstLooks.
	paceLooks, firstLooks = 30, 10
	// Who has taken a few had the time to take more, as who has taken nothing may not have had: fewMessages in a paceLook count for
	// so many looks.
	fewMessages, fewLooks = paceMessages / 10, 4
)

// isPaced reports whether publishers of QoS 1 and 2 wait for the session. Any goroutine may ask.
func (p *peer) isPaced() bool {
	c := p.pace.Load()
	return c != nil && c.shut.Load()
}

// checkPace is called after each change of a session, with p.mu held.
func (w *work) checkPace(p *peer) {
	c := p.pace.Load()
	messages, bytes := p.state.Head()
	switch {
	case c != nil && c.shut.Load():
		w.r.grant(p, c, messages, bytes)
	case c != nil && c.slow:
		c.slow = messages > roomyMessages || bytes > enoughBytes || !p.state.TailEmpty()
	case p.link == nil:
		p.pace.Store(nil)
	case messages <= behindMessages && bytes <= behindBytes || p.ingest:
	default:
		if c == nil {
			c = &pace{}
			p.pace.Store(c)
		}
		if c.slow = !p.state.TailEmpty(); c.slow {
			return
		}
		c.taken, c.owed = p.state.Taken(), 0
		c.shut.Store(true)
		w.r.waited.Add(1)
		if !c.watched {
			c.watched = true
			w.r.watchPace(p, c)
		}
	}
}

// grant lets publishers go on, in their order, as far as the session has room, and all when it has enough. The caller holds the mu of
// the peer.
func (r *router) grant(p *peer, c *pace, messages, bytes int) {
	for len(c.waiting) > 0 && c.hasRoom(messages, bytes) {
		c.let(1)
	}
	if p.link == nil || len(c.waiting) == 0 && c.hasRoom(messages, bytes) {
		r.openPace(c)
	}
}

// hasRoom reports whether the session, which has so much, has room for more than what is coming.
func (c *pace) hasRoom(messages, bytes int) bool {
	return messages+int(c.coming.messages.Load()) <= enoughMessages && bytes+int(c.coming.bytes.Load()) <= enoughBytes
}

// let lets the first n publishers go on.
func (c *pace) let(n int) {
	for _, q := range c.waiting[:n] {
		c.letOne(q)
	}
	clear(c.waiting[:n])
	if c.waiting = c.waiting[n:]; len(c.waiting) == 0 {
		c.waiting = nil
	}
}

func (c *pace) letOne(q *pass) {
	c.coming.add(1, q.brings)
	q.granted <- struct{}{}
}

// letPaced lets those go on that are waited for by now.
func (c *pace) letPaced() {
	c.waiting = slices.DeleteFunc(c.waiting, func(q *pass) bool {
		paced := q.by.isPaced()
		if paced {
			c.letOne(q)
		}
		return paced
	})
}

// openPace lets all publishers go on. The caller holds the mu of the peer.
func (r *router) openPace(c *pace) {
	if c.shut.Swap(false) {
		r.waited.Add(-1)
		c.let(len(c.waiting))
	}
}

// watchPace looks whether a client is fast enough, while publishers wait for it or would.
func (r *router) watchPace(p *peer, c *pace) {
	time.AfterFunc(paceLook, func() {
		p.mu.Lock()
		defer p.mu.Unlock()
		if c.watched = c.shut.Load(); !c.watched {
			return
		}
		now, before := p.state.Stats(), c.taken
		c.taken = p.state.Taken()
		took := int(c.taken - before)
		took = max(took, took*(now.Bytes/max(now.Queued+now.InFlight, 1))/1024)
		looks := firstLooks
		if c.taken >= c.proven+behindMessages || len(c.waiting) == 0 {
			looks = paceLooks
		}
		if c.owed = max(0, c.owed+paceMessages-took); took > 0 && took <= fewMessages {
			c.owed += (fewLooks - 1) * paceMessages
		}
		if len(c.waiting) == 0 && took > 0 {
			c.owed = 0
		}
		if c.owed > looks*paceMessages {
			c.slow, c.proven = true, c.taken
			r.openPace(c)
		} else {
			c.letPaced()
			messages, bytes := p.state.Head()
			r.grant(p, c, messages, bytes) // who was let through has perhaps brought it nothing
		}
		r.watchPace(p, c)
	})
}

// keepPace has a publisher wait for one subscriber that reads fast.
func (w *work) keepPace(by, p *peer, brings amount) {
	if by == p || !p.isPaced() || by.isPaced() {
		return
	}
	w.flush()
	p.mu.Lock()
	c := p.pace.Load()
	if c == nil || !c.shut.Load() {
		p.mu.Unlock()
		return
	}
	q := &pass{by: by, brings: brings, pace: c, granted: make(chan struct{}, 1)}
	c.waiting = append(c.waiting, q)
	p.mu.Unlock()
	<-q.granted // soon: watchPace sees to that
	w.passed = append(w.passed, q)
}

// arrived takes notice that what the publisher was let through with is routed.
func (w *work) arrived() {
	for i, q := range w.passed {
		q.pace.coming.add(-1, q.brings)
		w.passed[i] = nil
	}
	w.passed = w.passed[:0]
}
