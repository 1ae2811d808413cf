package ingest

import (
	"sync/atomic"
	"time"

	"github.com/plantops/plantops/store"
)

// Stats is what a subscriber has done since it was made. Each message received ends up as exactly one of Stored,
// Duplicate and Quarantined; until then it is Pending.
type Stats struct {
	Connected   bool // subscribed right now
	Received    int64
	Stored      int64
	Duplicate   int64
	Quarantined int64
	Pending     int64
	LastCommit  time.Time // zero before the first
	CommitErr   error     // why the batch in hand cannot be stored; nil when all is well
}

type counters struct {
	connected                               atomic.Bool
	received, stored, duplicate, quarantine atomic.Int64
	lastCommit                              atomic.Int64 // Unix nanoseconds; 0 before the first
	commitErr                               atomic.Pointer[error]
}

// Stats returns the counts. They are read one after the other while work goes on: each is right, and Pending is
// never negative.
func (s *Subscriber) Stats() Stats {
	c := &s.count
	st := Stats{
		Connected:   c.connected.Load(),
		Stored:      c.stored.Load(),
		Duplicate:   c.duplicate.Load(),
		Quarantined: c.quarantine.Load(),
	}
	st.Received = c.received.Load() // after the outcomes, which never run ahead of it
	st.Pending = st.Received - st.Stored - st.Duplicate - st.Quarantined
	if at := c.lastCommit.Load(); at != 0 {
		st.LastCommit = time.Unix(0, at)
	}
	if err := c.commitErr.Load(); err != nil {
		st.CommitErr = *err
	}
	return st
}

// committed counts the outcomes of one batch.
func (c *counters) committed(outcomes []store.Outcome, at time.Time) {
	var stored, duplicate, quarantined, probes int64
	for _, o := range outcomes {
		switch o {
		case store.Stored:
			stored++
		case store.Duplicate:
			duplicate++
		case store.Quarantined:
			quarantined++
		case store.Proved:
			probes++
		}
	}
	c.received.Add(-probes)
	c.stored.Add(stored)
	c.duplicate.Add(duplicate)
	c.quarantine.Add(quarantined)
	c.lastCommit.Store(at.UnixNano())
}
