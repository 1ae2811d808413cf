package network

import (
	"sync"
	"time"
)

// Gathering writes the queue of a connection at most every so often, so that what comes in between leaves together: one write, one
// TLS record, and one time that its reader is woken.
type Gathering struct {
	pause time.Duration
	limit int

	mu    sync.Mutex
	last  time.Time // a queue was written
	c     *Conn     // whose queue waits; nil: none does
	timer *time.Timer
}

// NewGathering returns one with a least time between two writes, which a queue does not wait for when it has so many bytes.
func NewGathering(pause time.Duration, limitBytes int) *Gathering {
	return &Gathering{pause: pause, limit: limitBytes}
}

// Flush is Flush of c, now.
func (g *Gathering) Flush(c *Conn) {
	g.mu.Lock()
	g.last = time.Now()
	if g.c == c {
		g.c = nil
	}
	g.mu.Unlock()
	c.Flush()
}

// FlushLater is Flush of c, when the time since the last one is over. Until then others may put more into the queue.
func (g *Gathering) FlushLater(c *Conn) {
	g.mu.Lock()
	left := g.pause - time.Since(g.last)
	if left <= 0 || c.QueuedBytes() >= g.limit || g.c != nil && g.c != c {
		g.mu.Unlock()
		g.Flush(c)
		return
	}
	defer g.mu.Unlock()
	c.dirty.Store(false) // who must not wait flushes by itself
	if g.c == c {
		return
	}
	if g.c = c; g.timer == nil {
		g.timer = time.AfterFunc(left, g.due)
	} else {
		g.timer.Reset(left)
	}
}

// due ends the wait.
func (g *Gathering) due() {
	g.mu.Lock()
	c := g.c
	g.mu.Unlock()
	if c != nil {
		g.Flush(c)
	}
}
