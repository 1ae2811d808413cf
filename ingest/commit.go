package ingest

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/plantops/plantops/store"
)

// commitUntilDrained stores what is queued, batch by batch, and acknowledges each batch when it is committed. A batch
// is what arrived while the last commit ran, and while Options.Gather waited: an idle box commits at once, a busy one commits
// hundreds together. It returns nil when the queue is closed and empty, an error when ctx ended before the batch in hand could be stored.
func (s *Subscriber) commitUntilDrained(ctx context.Context) error {
	var (
		decoder  = newDecoder(s.o.ProbeTopic, s.o.Sources)
		again    = newRedelivery(2 * int(s.o.ReceiveMaximum))
		unread   = newUnread(s.o.Log)
		items    []item
		fresh    []item // of them, not stored yet
		outcomes []store.Outcome
		ids      []uint16
		busy     bool
	)
	for {
		clear(items) // let go of the payloads before the wait
		clear(fresh)
		if s.queue.await() {
			s.o.Gather(ctx, busy, s.queue.usual, s.queue.whole)
		}
		items = s.queue.take(items[:0], s.o.MaxBatch)
		if len(items) == 0 {
			return nil
		}
		fresh = fresh[:0]
		if s.o.Embedded {
			fresh = again.fresh(items, fresh)
		} else {
			fresh = append(fresh, items...)
		}
		s.count.received.Add(int64(len(fresh) - len(items))) // what comes again was counted when it came first
		if len(fresh) > 0 {
			batch := decoder.decodeAll(fresh)
			var err error
			if outcomes, err = s.append(ctx, batch, outcomes[:0]); err != nil {
				return fmt.Errorf("store the last %d messages: %w", s.Stats().Pending, err)
			}
			s.count.committed(outcomes, s.o.Now())
			unread.committed(batch, outcomes, s.o.Now())
		}
		busy = s.queue.waits() // and not what comes as an answer to this
		ids = acknowledge(items, ids)
	}
}

// acknowledge tells the broker that items are stored: in order, in one write per connection, and never on another
// connection than the one they came on (there the broker sends them again, and that is what it waits for). It
// returns ids for use as the next call's scratch.
func acknowledge(items []item, ids []uint16) []uint16 {
	for len(items) > 0 {
		from := items[0].from
		ids = ids[:0]
		n := 0
		for n < len(items) && items[n].from == from {
			if items[n].id != 0 {
				ids = append(ids, items[n].id)
			}
			n++
		}
		from.acknowledge(ids)
		items = items[n:]
	}
	return ids
}

const (
	firstAppendWait = 100 * time.Millisecond
	maxAppendWait   = time.Second
	faultLogEvery   = time.Minute
)

// append stores the batch, again and again until it works or ctx ends; what has its outcome already is not offered again.
// The log gets one line when the fault begins, one a minute while it lasts, one when it ends.
func (s *Subscriber) append(ctx context.Context, batch []store.Message, outcomes []store.Outcome) ([]store.Outcome, error) {
	var began, logged time.Time
	rest := batch
	for wait := firstAppendWait; ; wait = min(2*wait, maxAppendWait) {
		result, err := s.sink.Append(ctx, rest, outcomes)
		switch done := len(result) - len(outcomes); {
		case err == nil && done != len(rest):
			err = fmt.Errorf("%d outcomes for %d messages", done, len(rest))
		case errors.Is(err, store.ErrPartly):
			outcomes, rest = result, rest[done:]
		}
		if err == nil {
			if !began.IsZero() {
				s.count.commitErr.Store(nil)
				s.o.Log.Info("storing again", "took", s.o.Now().Sub(began).Round(time.Millisecond), "count", len(batch))
			}
			return result, nil
		}
		s.count.commitErr.Store(&err)
		now := s.o.Now()
		if began.IsZero() {
			began = now
		}
		if logged.IsZero() || now.Sub(logged) >= faultLogEvery {
			logged = now
			s.o.Log.Error("cannot store messages, none is acknowledged until it works again",
				"err", err, "count", s.Stats().Pending, "took", now.Sub(began).Round(time.Millisecond))
		}
		select {
		case <-time.After(wait):
		case <-ctx.Done():
			return outcomes, err
		}
	}
}
