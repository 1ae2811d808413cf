package broker

import (
	"sync"
	"time"
)

const (
	maxTick     = time.Second
	minTick     = 10 * time.Millisecond
	systemEvery = 10 * time.Second
)

// run is the router's clock: one ticker for everything that is due at a time. It ends with stop.
func (r *router) run(stop <-chan struct{}) {
	tick := time.NewTicker(max(minTick, min(maxTick, r.stall/10)))
	defer tick.Stop()
	system := r.now()
	for {
		select {
		case <-stop:
			return
		case <-tick.C:
		}
		now := r.now()
		r.sweep(now)
		r.wake(now)
		r.retained.expire(now)
		if now.Sub(system) >= systemEvery {
			system = now
			r.updateSystem(now)
			r.publishSystem(now)
		}
	}
}

// sleepers are the sessions without a connection that have a time at which something is due.
type sleepers struct {
	mu  sync.Mutex
	all map[*peer]struct{}
}

func (s *sleepers) add(p *peer) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.all == nil {
		s.all = map[*peer]struct{}{}
	}
	s.all[p] = struct{}{}
}

func (s *sleepers) remove(p *peer) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.all, p)
}

func (s *sleepers) list() []*peer {
	s.mu.Lock()
	defer s.mu.Unlock()
	all := make([]*peer, 0, len(s.all))
	for p := range s.all {
		all = append(all, p)
	}
	return all
}

// wake publishes the wills that were delayed until now, and ends the sessions whose time is over.
func (r *router) wake(now time.Time) {
	all := r.sleepers.list()
	if len(all) == 0 {
		return
	}
	w := r.begin()
	defer w.finish()
	for _, p := range all {
		p.mu.Lock()
		if deadline := p.state.Deadline(); p.link == nil && !deadline.IsZero() && !now.Before(deadline) {
			w.out = p.state.Tick(now, w.out[:0])
			w.apply(p)
			if p.ended {
				r.traffic.expired.Add(1)
			}
		}
		if p.link != nil || p.state.Deadline().IsZero() {
			r.sleepers.remove(p) // under its lock: it may fall asleep again right afterwards
		}
		p.mu.Unlock()
	}
}
