// Package journaltest is a journal.Storage in memory for tests: its commits can be held up, refused, and cut off by a crash at
// any step.
package journaltest

import (
	"cmp"
	"context"
	"maps"
	"slices"
	"sync"

	"github.com/plantops/plantops/broker/journal"
)

// Storage keeps what was committed. Its methods may be called from any goroutine.
type Storage struct {
	mu      sync.Mutex
	state   state
	source  journal.Source
	wanted  chan struct{} // has room for one
	stop    chan struct{}
	stopped chan struct{}
	crashed bool
	before  func(*journal.Batch) error
	after   func(*journal.Batch)
	batches int
	reads   int
	refuse  error // of Read

	beforeRead func()
}

type state struct {
	next          journal.Next
	sessions      map[journal.SessionID]journal.Session
	subscriptions map[journal.SessionID]map[string][]byte
	queues        map[journal.SessionID][]journal.Stored
	retained      map[string]journal.Retained
}

// New returns an empty one.
func New() *Storage {
	return with(state{
		next:          journal.Next{Session: 1, Batch: 1},
		sessions:      map[journal.SessionID]journal.Session{},
		subscriptions: map[journal.SessionID]map[string][]byte{},
		queues:        map[journal.SessionID][]journal.Stored{},
		retained:      map[string]journal.Retained{},
	})
}

func with(s state) *Storage { return &Storage{state: s, wanted: make(chan struct{}, 1)} }

// Before sets what is asked before each commit: it may wait, and with an error nothing is committed.
func (s *Storage) Before(f func(*journal.Batch) error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.before = f
}

// After sets what is called between a commit and Done; it may wait.
func (s *Storage) After(f func(*journal.Batch)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.after = f
}

// RefuseReads makes Read fail; nil lets it go on.
func (s *Storage) RefuseReads(err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.refuse = err
}

// BeforeRead sets what is called before each Read; it may wait.
func (s *Storage) BeforeRead(f func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.beforeRead = f
}

// Crash returns what a new process finds. Nothing is committed here any more, and nobody hears of what was.
func (s *Storage) Crash() *Storage {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.crashed = true
	c := s.state
	c.sessions, c.retained = maps.Clone(c.sessions), maps.Clone(c.retained)
	c.subscriptions, c.queues = maps.Clone(c.subscriptions), maps.Clone(c.queues)
	for id, subs := range c.subscriptions {
		c.subscriptions[id] = maps.Clone(subs)
	}
	for id, q := range c.queues {
		c.queues[id] = slices.Clone(q)
	}
	return with(c)
}

// Counts returns how many sessions, queues and retained messages are kept, and how many batches were committed here.
func (s *Storage) Counts() (sessions, queues, retained, batches int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, q := range s.state.queues {
		queues += len(q)
	}
	return len(s.state.sessions), queues, len(s.state.retained), s.batches
}

// Damage changes a byte in the middle of each blob that which picks by what it is: "session", "queue", "pack", "retained",
// "subscription".
func (s *Storage) Damage(which func(what string, of journal.SessionID) bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	harm := func(what string, of journal.SessionID, blob []byte) []byte {
		if len(blob) == 0 || !which(what, of) {
			return blob
		}
		blob = slices.Clone(blob)
		blob[len(blob)/2] ^= 0x10
		return blob
	}
	for id, one := range s.state.sessions {
		one.State = harm("session", id, one.State)
		s.state.sessions[id] = one
	}
	for id, subs := range s.state.subscriptions {
		for filter, options := range subs {
			subs[filter] = harm("subscription", id, options)
		}
	}
	for id, q := range s.state.queues {
		for i := range q {
			q[i].Entries, q[i].Pack = harm("queue", id, q[i].Entries), harm("pack", id, q[i].Pack)
		}
	}
	for topic, one := range s.state.retained {
		one.Message = harm("retained", 0, one.Message)
		s.state.retained[topic] = one
	}
}

// Lose forgets everything, and says so.
func (s *Storage) Lose() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.state = state{s.state.next, map[journal.SessionID]journal.Session{}, map[journal.SessionID]map[string][]byte{},
		map[journal.SessionID][]journal.Stored{}, map[string]journal.Retained{}}
	s.source.Rewrite()
}

// Load is journal.Storage's.
func (s *Storage) Load(_ context.Context, l journal.Loader) (journal.Next, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, one := range s.state.sessions {
		if err := l.Session(one); err != nil {
			return journal.Next{}, err
		}
	}
	for id, subs := range s.state.subscriptions {
		for filter, options := range subs {
			if err := l.Subscription(journal.Subscription{Session: id, Filter: filter, Options: options}); err != nil {
				return journal.Next{}, err
			}
		}
	}
	for id, q := range s.state.queues {
		if len(q) == 0 {
			continue
		}
		w := journal.Waiting{Session: id, First: q[0].First, Last: q[len(q)-1].Last}
		for i := range q {
			w.Messages += int64(q[i].Messages)
			w.Bytes += q[i].Bytes
		}
		if err := l.Waiting(w); err != nil {
			return journal.Next{}, err
		}
	}
	for _, one := range s.state.retained {
		if err := l.Retained(one); err != nil {
			return journal.Next{}, err
		}
	}
	return s.state.next, nil
}

// Attach is journal.Storage's.
func (s *Storage) Attach(source journal.Source) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.source, s.stop, s.stopped = source, make(chan struct{}), make(chan struct{})
	go s.run(s.stop, s.stopped)
}

func (s *Storage) run(stop, stopped chan struct{}) {
	defer close(stopped)
	for {
		select {
		case <-s.wanted:
			s.commit()
		case <-stop:
			s.commit()
			return
		}
	}
}

// commit commits one batch, if there is one.
func (s *Storage) commit() {
	b := s.source.Take()
	if b == nil {
		return
	}
	s.mu.Lock()
	before, after := s.before, s.after
	s.mu.Unlock()
	if before != nil {
		if err := before(b); err != nil {
			s.done(b, err)
			return
		}
	}
	s.mu.Lock()
	if !s.crashed {
		s.batches++
		s.state.apply(b)
	}
	s.mu.Unlock()
	if after != nil {
		after(b)
	}
	s.done(b, nil)
}

func (s *Storage) done(b *journal.Batch, err error) {
	s.mu.Lock()
	crashed := s.crashed
	s.mu.Unlock()
	if !crashed {
		s.source.Done(b, err)
	}
}

func (s *state) apply(b *journal.Batch) {
	s.next.Batch = b.Number + 1
	see := func(id journal.SessionID) { s.next.Session = max(s.next.Session, id+1) }
	for _, one := range b.Sessions {
		see(one.ID)
		s.sessions[one.ID] = one
	}
	for _, one := range b.Subscriptions {
		see(one.Session)
		if s.subscriptions[one.Session] == nil {
			s.subscriptions[one.Session] = map[string][]byte{}
		}
		if s.subscriptions[one.Session][one.Filter] = one.Options; one.Options == nil {
			delete(s.subscriptions[one.Session], one.Filter)
		}
	}
	for _, q := range b.Queues {
		see(q.Session)
		s.queues[q.Session] = append(s.queues[q.Session], journal.Stored{Queue: q, Pack: b.Messages})
		slices.SortFunc(s.queues[q.Session], func(a, b journal.Stored) int { return cmp.Compare(a.First, b.First) })
	}
	for _, t := range b.Trims {
		s.queues[t.Session] = slices.DeleteFunc(slices.Clone(s.queues[t.Session]), func(q journal.Stored) bool { return q.Last < t.Before })
	}
	for _, r := range b.Retained {
		if s.retained[r.Topic] = r; r.Message == nil {
			delete(s.retained, r.Topic)
		}
	}
	for _, id := range b.Ended {
		see(id)
		delete(s.sessions, id)
		delete(s.subscriptions, id)
		delete(s.queues, id)
	}
}

// Detach is journal.Storage's.
func (s *Storage) Detach(ctx context.Context) error {
	s.mu.Lock()
	stop, stopped := s.stop, s.stopped
	s.stop = nil
	s.mu.Unlock()
	if stop == nil {
		return nil
	}
	close(stop)
	select {
	case <-stopped:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// Announce is journal.Storage's.
func (s *Storage) Announce() {
	select {
	case s.wanted <- struct{}{}:
	default:
	}
}

// Read is journal.Storage's.
func (s *Storage) Read(_ context.Context, id journal.SessionID, after uint64, limit int, dst []journal.Stored) ([]journal.Stored, error) {
	s.mu.Lock()
	wait := s.beforeRead
	s.mu.Unlock()
	if wait != nil {
		wait()
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.reads++
	if s.refuse != nil {
		return dst, s.refuse
	}
	for _, q := range s.state.queues[id] {
		if q.Last <= after {
			continue
		}
		if limit <= 0 {
			break
		}
		limit -= len(q.Entries) + len(q.Pack)
		dst = append(dst, q)
	}
	return dst, nil
}
