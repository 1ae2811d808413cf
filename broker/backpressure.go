package broker

import "time"

// A publisher that is faster than a subscriber waits for it, for a moment: a subscriber that reads at full speed would
// lose what a bounded queue cannot hold. One that is slower than that is not waited for: it loses the newest
// messages, and nobody else is slowed down.
const (
	// From here on a publisher waits at the end of its round, and a little later before its next message.
	waitMessages, waitBytes     = maxWaiting / 2, maxWaitingBytes / 2
	urgentMessages, urgentBytes = maxWaiting * 3 / 4, maxWaitingBytes * 3 / 4
	// Down to here the subscriber has progressChecks, and it must be sent something before each of them.
	roomyMessages, roomyBytes = maxWaiting / 8, maxWaitingBytes / 8
	progressChecks            = 3
	progressEvery             = 100 * time.Millisecond
	// quotaWaitBytes of a session are waited for when too much waits for all sessions of its account.
	quotaWaitBytes = 16 << 10
	// A backlog that has grown for longer than longestBurst, while less left the session than now waits in it, is no burst
	// of a fast reader's: the reader does not read, and nobody waits for it even once.
	longestBurst = time.Second
	// smallWindow: who takes fewer messages at a time does not read at full speed.
	smallWindow = 32
)

// backpressure says whether publishers wait for a session. It is guarded by the mu of its peer.
type backpressure struct {
	released   chan struct{} // closed when there is room again or nobody need wait any more; nil when nobody has to
	givenUp    bool          // nobody waits, until nothing waits in the session
	sent       uint64        // messages sent to the client
	sentBefore uint64        // of them, at the last check of progress
	checksLeft int
	byQuota    bool // because of its account: over when there is room for that

	grows     time.Time // since then the backlog has not been small; zero: it is
	grewAfter uint64    // messages sent before that
}

// checkBackpressure is called after each change of a session, with p.mu held.
func (w *work) checkBackpressure(p *peer) {
	messages, bytes := p.state.Backlog()
	var byQuota, urgent bool
	if bytes > quotaWaitBytes && messages > 0 && !p.ingest {
		byQuota, urgent = p.usage.nearQuota()
	}
	switch c := &p.backpressure; {
	case p.link == nil || !byQuota && messages <= roomyMessages && bytes <= roomyBytes:
		c.release()
		c.grows = time.Time{}
		if messages == 0 {
			c.givenUp = false
		}
	case p.ingest || p.smallWindow || c.givenUp:
	case !byQuota && messages <= waitMessages && bytes <= waitBytes:
		if c.byQuota {
			c.release()
		}
		if c.grows.IsZero() {
			c.grows, c.grewAfter = w.r.now(), c.sent
		}
	default:
		if c.released == nil && c.isStuck(w.r.now(), messages) {
			c.givenUp = true
			return
		}
		if c.released == nil {
			c.released, c.sentBefore, c.checksLeft, c.byQuota = make(chan struct{}), c.sent, progressChecks, byQuota
			p.checkProgress(c.released)
		}
		w.slowReader, w.urgent = p, urgent || messages > urgentMessages || bytes > urgentBytes
	}
}

// checkProgress lets publishers wait as long as the subscriber makes progress, but not for ever.
func (p *peer) checkProgress(released chan struct{}) {
	time.AfterFunc(progressEvery, func() {
		p.mu.Lock()
		defer p.mu.Unlock()
		c := &p.backpressure
		if c.released != released {
			return
		}
		if c.checksLeft--; c.checksLeft <= 0 || c.sent == c.sentBefore {
			c.givenUp = true
			c.release()
			return
		}
		c.sentBefore = c.sent
		p.checkProgress(released)
	})
}

// isStuck reports whether the client has taken next to nothing while its backlog grew.
func (b *backpressure) isStuck(now time.Time, messages int) bool {
	return !b.grows.IsZero() && now.Sub(b.grows) > longestBurst && b.sent-b.grewAfter < uint64(messages)
}

// release lets the publishers that wait go on.
func (b *backpressure) release() {
	if b.released != nil {
		close(b.released)
		b.released = nil
	}
}

// waitForReader makes a publisher wait for the subscriber that w has found behind, if any. It is called by the publisher's
// reader, at the end of a round or, where it is urgent, after a message.
func (w *work) waitForReader(l *clientLink) {
	w.awaitGroup(l)
	p := w.slowReader
	w.slowReader, w.urgent = nil, false
	if p == nil {
		return
	}
	if p == l.peer || l.peer.ingest { // it must read its own acknowledgements; everybody waits for those of ingest
		return
	}
	p.mu.Lock()
	released := p.backpressure.released
	p.mu.Unlock()
	if released == nil {
		return
	}
	w.flush()
	select {
	case <-released:
	case <-l.Done():
	}
}
