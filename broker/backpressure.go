package broker

import (
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

// waitForReaders makes a publisher wait until no subscriber that gets its next message at QoS 0 is behind. It is called by the
// publisher's reader.
func (w *work) waitForReaders(l *clientLink, to *subscribers, qos byte) {
	if w.r.waited.Load() > 0 && !l.peer.ingest {
		w.waitForEach(l, to, qos)
	}
}

func (w *work) waitForEach(l *clientLink, to *subscribers, qos byte) {
	var until time.Time // zero: as long as it takes
	if to.ingest {
		until = time.Now().Add(readingsWait)
	}
	var behind []*peer
	w.r.look(to.topic, func(to *subscribers) {
		for i := range to.route.To {
			t := &to.route.To[i]
			if t.Who.peer == nil || t.Who.peer.backpressure.wait.Load() == nil {
				continue
			}
			granted, wanted := t.Offer(), true
			if t.Who.peer == l.peer {
				granted, wanted = t.Own()
			}
			if wanted && min(granted.QoS, qos) == 0 {
				behind = append(behind, t.Who.peer)
			}
		}
	})
	for _, p := range behind {
		if !w.waitForReader(l, p, until) {
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
