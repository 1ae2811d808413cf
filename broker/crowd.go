package broker

import "time"

// A publisher that is faster than a subscriber waits for it, for a moment: a subscriber that reads at full speed would
// lose what a bounded queue cannot hold. One that is slower than that is not waited for: it loses the newest
// messages, and nobody else is slowed down.
const (
	// From here on a publisher waits before it reads on, and a little later before its next message.
	crowdMessages, crowdBytes = maxWaiting / 2, maxWaitingBytes / 2
	pressMessages, pressBytes = maxWaiting * 3 / 4, maxWaitingBytes * 3 / 4
	// Down to here the subscriber has crowdPatience, and it must be sent something in each crowdPulse.
	roomyMessages, roomyBytes = maxWaiting / 8, maxWaitingBytes / 8
	crowdPatience             = 3
	crowdPulse                = 100 * time.Millisecond
	// tightBytes is what makes a crowd of a session when too much waits for all sessions of its account.
	tightBytes = 16 << 10
	// A backlog that has grown for longer than crowdBurst, while less left the session than now waits in it, is no burst
	// of a fast reader's: the reader does not read, and nobody waits for it even once.
	crowdBurst = time.Second
	// narrowWindow: who takes fewer messages at a time does not read at full speed.
	narrowWindow = 32
)

// crowd says whether somebody waits for a session.
type crowd struct {
	gone    chan struct{} // closed when there is room again or nobody need wait any more; nil when there is no crowd
	slow    bool          // nobody waits, until nothing waits in the session
	sent    uint64        // messages sent to the client
	already uint64        // of them, at the last pulse
	left    int           // pulses
	tight   bool          // because of its account: it is gone when there is room for that

	grows     time.Time // since then the backlog has not been small; zero: it is
	grewAfter uint64    // messages sent before that
}

// crowding is called after each change of a session, with p.mu held.
func (w *work) crowding(p *peer) {
	messages, bytes := p.state.Backlog()
	var tight, pressed bool
	if bytes > tightBytes && messages > 0 && !p.ingest {
		tight, pressed = p.holding.tight()
	}
	switch c := &p.crowd; {
	case p.link == nil || !tight && messages <= roomyMessages && bytes <= roomyBytes:
		c.disperse()
		c.grows = time.Time{}
		if messages == 0 {
			c.slow = false
		}
	case p.ingest || p.narrow || c.slow:
	case !tight && messages <= crowdMessages && bytes <= crowdBytes:
		if c.tight {
			c.disperse()
		}
		if c.grows.IsZero() {
			c.grows, c.grewAfter = w.r.now(), c.sent
		}
	default:
		if c.gone == nil && c.stuck(w.r.now(), messages) {
			c.slow = true
			return
		}
		if c.gone == nil {
			c.gone, c.already, c.left, c.tight = make(chan struct{}), c.sent, crowdPatience, tight
			p.pulse(c.gone)
		}
		w.crowded, w.pressed = p, pressed || messages > pressMessages || bytes > pressBytes
	}
}

// pulse looks after a crowd until it is gone.
func (p *peer) pulse(gone chan struct{}) {
	time.AfterFunc(crowdPulse, func() {
		p.mu.Lock()
		defer p.mu.Unlock()
		c := &p.crowd
		if c.gone != gone {
			return
		}
		if c.left--; c.left <= 0 || c.sent == c.already {
			c.slow = true
			c.disperse()
			return
		}
		c.already = c.sent
		p.pulse(gone)
	})
}

// stuck reports whether the client has taken next to nothing while its backlog grew.
func (c *crowd) stuck(now time.Time, messages int) bool {
	return !c.grows.IsZero() && now.Sub(c.grows) > crowdBurst && c.sent-c.grewAfter < uint64(messages)
}

func (c *crowd) disperse() {
	if c.gone != nil {
		close(c.gone)
		c.gone = nil
	}
}

// yield waits for the session that w has found crowded, if any. It is called by readers, when everything is done.
func (w *work) yield(l *link) {
	p := w.crowded
	if p == nil {
		return
	}
	w.crowded, w.pressed = nil, false
	if p == l.peer || l.peer.ingest { // it must read its own acknowledgements; everybody waits for those of ingest
		return
	}
	p.mu.Lock()
	gone := p.crowd.gone
	p.mu.Unlock()
	if gone == nil {
		return
	}
	w.flush()
	select {
	case <-gone:
	case <-l.Done():
	}
}
