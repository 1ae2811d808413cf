package broker

import "time"

// A publisher that is faster than a subscriber waits for it, for a moment: a subscriber that reads at full speed would
// lose what a bounded queue cannot hold. One that is slower than that is not waited for: it loses the newest
// messages, and nobody else is slowed down.
const (
	crowdMessages = maxWaiting / 2
	crowdBytes    = maxWaitingBytes / 2
	// A subscriber has crowdPatience to get rid of half of that, and must have been sent something in each crowdPulse.
	crowdPatience = 3 * crowdPulse
	crowdPulse    = 100 * time.Millisecond
	// narrowWindow: who takes fewer messages at a time does not read at full speed.
	narrowWindow = 32
)

// crowd says whether somebody waits for a session.
type crowd struct {
	gone chan struct{} // closed when there is room again or nobody need wait any more; nil when there is no crowd
	slow bool          // nobody waits, until nothing does in the session
	sent uint64        // messages sent to the client
}

// crowding is called after each change of a session, with p.mu held.
func (w *work) crowding(p *peer) {
	messages, bytes := p.state.Backlog()
	switch {
	case p.link == nil || messages <= crowdMessages/2 && bytes <= crowdBytes/2:
		p.crowd.disperse()
		if messages == 0 {
			p.crowd.slow = false
		}
	case messages > crowdMessages || bytes > crowdBytes:
		if p.ingest || p.narrow || p.crowd.slow {
			return
		}
		if p.crowd.gone == nil {
			p.crowd.gone = make(chan struct{})
		}
		w.crowded = p
	}
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
	w.crowded = nil
	if p == nil || p == l.peer { // it must read its own acknowledgements
		return
	}
	p.mu.Lock()
	gone, sent := p.crowd.gone, p.crowd.sent
	p.mu.Unlock()
	if gone == nil {
		return
	}
	w.flush()
	pulse := time.NewTicker(crowdPulse)
	defer pulse.Stop()
	for left := crowdPatience; ; {
		select {
		case <-gone:
			return
		case <-l.done():
			return
		case <-pulse.C:
		}
		left -= crowdPulse
		p.mu.Lock()
		if p.crowd.gone == gone && (left <= 0 || p.crowd.sent == sent) {
			p.crowd.slow = true
			p.crowd.disperse()
		}
		sent = p.crowd.sent
		p.mu.Unlock()
	}
}
