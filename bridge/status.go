package bridge

import (
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

// Status is how a bridge is, and what it has done since this process began.
type Status struct {
	Name, Address string
	// ClientID is that of its session at the local broker.
	ClientID  string
	Connected bool
	Since     time.Time // it has been connected, or away
	Why       string    // it is away
	Refused   []string  // what of its topics is not carried although it is connected, a sentence each
	Out, In   Count
	Last      Refusal // the last message that was not carried; zero: none was
}

// Refusal is a message that the broker which was to have it does not take.
type Refusal struct {
	Topic, Reason string
	At            time.Time
}

// Count counts messages of one direction.
type Count struct {
	Carried int64 // acknowledged by the other broker, or sent to it at QoS 0
	Refused int64 // by the other broker, for good
	Dropped int64 // of QoS 0, because the other broker took nothing
	Looped  int64 // had been here before
}

type counters struct{ carried, refused, dropped, looped atomic.Int64 }

func (c *counters) get() Count {
	return Count{c.carried.Load(), c.refused.Load(), c.dropped.Load(), c.looped.Load()}
}

// state is what Status tells.
type state struct {
	mu        sync.Mutex
	connected bool
	since     time.Time
	why       string
	refused   []string
	last      Refusal

	out, in counters
}

func (s *state) up(now time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.connected, s.since, s.why = true, now, ""
}

// away notes that the bridge is not connected; since counts from the first time.
func (s *state) away(now time.Time, why string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.connected || s.since.IsZero() {
		s.since = now
	}
	s.connected, s.why, s.refused = false, why, nil
}

// refuse adds what a broker does not let us subscribe.
func (s *state) refuse(what []string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.refused = append(s.refused, what...)
}

// leave notes a message that is not carried.
func (s *state) leave(topic, why string, now time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.last = Refusal{topic, why, now}
}

// Status returns how the bridge is.
func (b *Bridge) Status() Status {
	s := &b.state
	s.mu.Lock()
	defer s.mu.Unlock()
	return Status{Name: b.o.Name, Address: b.o.Remote.Address, ClientID: b.o.Local.ClientID, Connected: s.connected, Since: s.since,
		Why: s.why, Refused: slices.Clone(s.refused), Out: s.out.get(), In: s.in.get(), Last: s.last}
}
