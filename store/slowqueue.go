package store

import (
	"runtime"
	"slices"
	"sync"
)

// maxLoginsWaiting is how many logins wait for the slow hash of one account; more are refused. It is above what the broker
// lets log in at a time, because a hundred clients with one account that come back together are no attack: the first of
// them pays.
const maxLoginsWaiting = 1000

// Wait says how a login waits for its slow hash. The zero value waits for as long as it takes.
type Wait struct {
	Gone <-chan struct{} // closed when nobody wants the answer any more: the login fails at once
	Rank int             // of several that wait for one account the lowest is next, of equals the first
}

// slowQueue lets one slow hash run at a time: one costs megabytes and tens of milliseconds. Passwords take turns, so a
// flood of guesses for one account delays the logins of another one by one hash. The zero value is ready.
type slowQueue struct {
	mu      sync.Mutex
	running bool
	waiting map[*password][]*waiter // in the order in which they will be called
	turn    []*password             // those with waiters, next one first
}

type waiter struct {
	rank   int
	called chan bool // true: it has the turn and must leave; false: the right password has become known
}

// enter waits for the turn of a login. Without an error mine says whether it has it; if not, p is known by now.
func (q *slowQueue) enter(p *password, w Wait) (mine, ok bool) {
	q.mu.Lock()
	if !q.running {
		q.running = true
		q.mu.Unlock()
		return true, true
	}
	all := q.waiting[p]
	if len(all) >= maxLoginsWaiting {
		q.mu.Unlock()
		return false, false
	}
	me := &waiter{rank: w.Rank, called: make(chan bool, 1)}
	place := slices.IndexFunc(all, func(other *waiter) bool { return other.rank > me.rank })
	if place < 0 {
		place = len(all)
	}
	if len(all) == 0 {
		q.turn = append(q.turn, p)
	}
	q.keep(p, slices.Insert(all, place, me))
	q.mu.Unlock()

	select {
	case mine = <-me.called:
		return mine, true
	case <-w.Gone:
		q.giveUp(p, me)
		return false, false
	}
}

// giveUp removes a waiter, who may have been called at the same moment.
func (q *slowQueue) giveUp(p *password, me *waiter) {
	q.mu.Lock()
	defer q.mu.Unlock()
	all := q.waiting[p]
	if i := slices.Index(all, me); i >= 0 {
		q.keep(p, slices.Delete(all, i, i+1))
		if len(all) == 1 {
			q.turn = slices.DeleteFunc(q.turn, func(other *password) bool { return other == p })
		}
	} else if <-me.called {
		q.next()
	}
}

// leave ends a turn. known says that from now on p tells right from wrong without a slow hash: nobody need wait for it.
func (q *slowQueue) leave(p *password, known bool) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if known && len(q.waiting[p]) > 0 {
		for _, w := range q.waiting[p] {
			w.called <- false
		}
		q.keep(p, nil)
		q.turn = slices.DeleteFunc(q.turn, func(other *password) bool { return other == p })
	}
	q.next()
}

// next calls who is next. The caller holds mu.
func (q *slowQueue) next() {
	q.running = len(q.turn) > 0
	if !q.running {
		return
	}
	p := q.turn[0]
	q.turn = q.turn[1:]
	all := q.waiting[p]
	q.keep(p, all[1:])
	if len(all) > 1 {
		q.turn = append(q.turn, p)
	}
	all[0].called <- true
}

func (q *slowQueue) keep(p *password, all []*waiter) {
	if q.waiting == nil {
		q.waiting = map[*password][]*waiter{}
	}
	if len(all) == 0 {
		delete(q.waiting, p)
		return
	}
	q.waiting[p] = all
}

// freeHash gives the memory of a slow hash back before the next one takes as much. A dozen wrong passwords would otherwise
// let the heap grow by 114 MiB with the collector as lazy as the server sets it (measured; so it is 19).
func freeHash() { runtime.GC() }
