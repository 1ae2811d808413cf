package network

import (
	"cmp"
	"math"
	"sync"
	"time"
)

// A connection on which nothing comes waits without a goroutine, whose stack would be a third of what it costs: parking has its
// socket watched by one poller for all (poller_linux.go), and starts a goroutine for it when something has come, its read deadline
// is over, or it is closed or drained.

// parking are the connections of a network that wait so. Its lock comes after all others of this package.
type parking struct {
	mu         sync.Mutex
	quietAfter time.Duration // does not change

	begun  bool // the poller runs: somebody has been parked
	ended  bool
	due    instant // when the poller looks for read deadlines that are over
	places []place
	free   []int32 // numbers of empty places
	turns  int32
	poller poller
}

// place is where a connection waits. What the poller says of one that has left it since bears an older turn: the descriptor may be
// that of another connection by then.
type place struct {
	c    *Conn   // nil: it is empty
	by   instant // its read deadline
	turn int32
}

const (
	// quietAfter is how long nothing must come for a connection to be quiet. Who sends every second pays nothing for those who do not:
	// to wait without a goroutine, and to get one again, costs some microseconds.
	quietAfter = 2 * time.Second

	never = math.MaxInt64
	// sweepPause is the least between two looks for read deadlines that are over: so much later than they are.
	sweepPause = 100 * time.Millisecond
)

// park has c resumed when there is something for who serves it, and reports whether it does: then the caller has lost it. Else the
// caller goes on.
func (p *parking) park(c *Conn) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.ended || c.closing.Load() || c.draining.Load() { // who sets them calls wake afterwards
		return false
	}
	if !p.begun {
		p.begun, p.due = true, never
		p.poller.begin(p)
	}
	if !p.poller.works() {
		return false
	}
	by := cmp.Or(c.readDeadline(), never)
	n := int32(len(p.places))
	if last := len(p.free) - 1; last >= 0 {
		n, p.free = p.free[last], p.free[:last]
	} else {
		p.places = append(p.places, place{})
	}
	p.turns++
	p.places[n], c.parked = place{c, by, p.turns}, n+1
	if !p.poller.watch(c, n, p.turns) {
		p.leave(c)
		return false
	}
	if by < p.due {
		p.lookAt(by)
	}
	return true
}

// wake gives c a goroutine if it has none.
func (p *parking) wake(c *Conn) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if c.parked != 0 {
		p.leave(c)
		go c.run()
	}
}

// leave empties the place of c.
func (p *parking) leave(c *Conn) {
	n := c.parked - 1
	c.parked = 0
	p.places[n] = place{}
	p.free = append(p.free, n)
}

// event is one of the poller: something has come on the connection at a place.
type event struct{ place, turn int32 }

// happened wakes those of which the poller has told.
func (p *parking) happened(events []event) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, e := range events {
		if at := p.places[e.place]; at.c != nil && at.turn == e.turn {
			p.leave(at.c)
			go at.c.run()
		}
	}
}

// sweep wakes those whose read deadline is over.
func (p *parking) sweep() {
	p.mu.Lock()
	defer p.mu.Unlock()
	now, next := now(), instant(never)
	for _, at := range p.places {
		switch {
		case at.c == nil:
		case at.by <= now:
			p.leave(at.c)
			go at.c.run()
		default:
			next = min(next, at.by)
		}
	}
	p.lookAt(max(next, now.add(sweepPause)))
}

// lookAt has the poller sweep at a time.
func (p *parking) lookAt(due instant) {
	p.due = due
	if due == never {
		p.poller.wakeAt(time.Time{})
	} else {
		p.poller.wakeAt(due.time())
	}
}

// waiting is how many connections have no goroutine.
func (p *parking) waiting() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return len(p.places) - len(p.free)
}

// over is called when the poller ends. There should be nobody left who waits.
func (p *parking) over() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.ended = true
	for _, at := range p.places {
		if at.c != nil {
			p.leave(at.c)
			go at.c.run()
		}
	}
}

// close is for the end of the network. The connections have been closed before, which has woken them.
func (p *parking) close() {
	p.mu.Lock()
	p.ended = true
	begun := p.begun
	p.mu.Unlock()
	if begun {
		p.poller.end()
	}
}
