package store

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/plantops/plantops/broker/journal"
)

// Whoever holds the writing token commits, and each transaction takes along what waits: refused counts, and all that the
// broker has changed. So readings and the broker's state share a transaction and a sync, and what comes while one runs is in
// the next. The broker has a goroutine of its own, which commits for it when nobody else does, answers it after every commit
// that had a part of it, and tries again after a fault.

const (
	firstBrokerWait = 100 * time.Millisecond
	maxBrokerWait   = 10 * time.Second
	faultLogEvery   = time.Minute

	// What is nobody's any more is deleted in steps, for which readings wait.
	sweepRows  = 500
	sweepPause = 20 * time.Millisecond
)

var _ journal.Storage = (*Store)(nil)

// brokerSide is what the store knows of the broker. Who holds the writing token has it; channels and announced are everybody's.
type brokerSide struct {
	source    journal.Source // nil: none is attached
	running   bool           // commitForBroker
	announced atomic.Bool
	wake      chan struct{}
	hand      chan struct{} // the writing token, with a batch that is to be answered
	stop      chan struct{}
	stopped   chan struct{}

	taken *journal.Batch // by the running transaction; later: not answered yet
	fault error          // why nothing of it is on disk

	next  journal.Next        // numbers that are reserved: from here on the file must be told
	told  journal.Next        // the same, by the running transaction
	ended []journal.SessionID // by the running transaction, with entries left
	sweep []journal.SessionID // that are nobody's and have entries left
	freed map[int64]int64     // how many queues the running transaction has deleted, by their batch

	began, logged time.Time // of a fault that lasts
	wait          time.Duration
	retry         time.Time
}

// Attach implements journal.Storage.
func (s *Store) Attach(source journal.Source) {
	s.writing <- struct{}{}
	b := &s.broker
	if s.closed || b.source != nil || s.options.ReadOnly {
		s.log.Error("the broker's state is not kept: the store is closed, opened read-only, or another broker's")
		s.release()
		return
	}
	b.source, b.running = source, true
	b.hand, b.stop, b.stopped = make(chan struct{}, 1), make(chan struct{}), make(chan struct{})
	b.began, b.logged, b.wait, b.retry = time.Time{}, time.Time{}, 0, time.Time{}
	go s.commitForBroker()
	s.startCompaction()
	s.release()
	s.Announce() // what is nobody's may wait to be deleted
}

// Detach implements journal.Storage.
func (s *Store) Detach(ctx context.Context) error {
	if err := s.acquire(ctx); err != nil {
		return fmt.Errorf("keep the broker's state: %w", err)
	}
	b := &s.broker
	if b.source == nil {
		s.release()
		return nil
	}
	b.retry = time.Time{}
	err := s.transact(nil)
	if err == nil && b.taken != nil {
		err = b.fault
	}
	s.answerBroker()
	s.leaveBroker()
	if err != nil {
		return fmt.Errorf("keep the broker's state: %w", err)
	}
	return nil
}

// leaveBroker ends the goroutine and gives the writing token back.
func (s *Store) leaveBroker() {
	b := &s.broker
	running := b.running
	b.source, b.running = nil, false
	s.release()
	if running {
		close(b.stop)
		<-b.stopped
	}
}

// Announce implements journal.Storage.
func (s *Store) Announce() {
	s.broker.announced.Store(true)
	select {
	case s.broker.wake <- struct{}{}:
	default:
	}
}

// commitForBroker commits what the broker announces when nobody else does.
func (s *Store) commitForBroker() {
	b := &s.broker
	defer close(b.stopped)
	again := time.NewTimer(time.Hour)
	defer again.Stop()
	for {
		select {
		case <-b.stop:
			return
		case <-b.hand:
			s.answerBroker()
		case <-b.wake:
			if !s.acquireForBroker() {
				return
			}
			s.serveBroker()
		case <-again.C:
			if !s.acquireForBroker() {
				return
			}
			s.serveBroker()
			s.sweepSome()
		}
		again.Reset(b.pause())
		<-s.writing
	}
}

// pause is how long the goroutine may sleep when nobody wakes it.
func (b *brokerSide) pause() time.Duration {
	switch {
	case b.announced.Load():
		return max(time.Until(b.retry), 0)
	case len(b.sweep) > 0:
		return sweepPause
	}
	return time.Hour
}

// acquireForBroker waits until a commit may begin and for the writing token, and answers for who has it meanwhile.
func (s *Store) acquireForBroker() bool {
	for {
		left, sooner := s.pace.Left()
		var due <-chan time.Time
		token := s.writing
		if left > 0 {
			due, token = time.After(left), nil
		} else {
			sooner = nil
		}
		select {
		case <-s.broker.stop:
			return false
		case <-s.broker.hand:
			s.answerBroker()
			<-s.writing
		case <-due:
		case <-sooner:
		case token <- struct{}{}:
			return true
		}
	}
}

// serveBroker commits what was announced, with the readings that wait, and answers.
func (s *Store) serveBroker() {
	b := &s.broker
	if list := s.appends.takeAll(); len(list) > 0 {
		s.pace.Begin()
		s.serveAll(list)
		s.pace.End()
	} else if b.announced.Load() && s.brokerDue() {
		s.pace.Begin()
		defer s.pace.End()
		err := s.ready()
		if err == nil {
			err = s.transact(nil)
		}
		if err != nil && (b.taken == nil || s.doubt != nil) { // or else the answer says it
			s.brokerFault(err)
		}
		s.idle.Reset(idleAfter)
	}
	s.answerBroker()
}

// brokerDue reports whether the next transaction is to take what the broker has.
func (s *Store) brokerDue() bool {
	b := &s.broker
	return b.source != nil && (b.retry.IsZero() || !time.Now().Before(b.retry))
}

// takeFromBroker writes what the broker has changed into the running transaction. What cannot be written leaves the rest of
// the transaction as it is; an error means that SQLite has given up all of it.
func (s *Store) takeFromBroker() error {
	b := &s.broker
	b.announced.Store(false)
	b.fault, b.told, b.ended = nil, b.next, b.ended[:0]
	if b.taken = b.source.Take(); b.taken == nil {
		return nil
	}
	err := s.w.savepoint.run()
	if err == nil {
		err = s.writeBatch(b.taken)
	}
	if err == nil {
		return s.w.releaseSavepoint.run()
	}
	b.fault = err
	if s.w.toSavepoint.run() != nil || s.w.releaseSavepoint.run() != nil {
		return err
	}
	return nil
}

// answerBroker tells the broker what became of the batch that it gave last. No transaction is running.
func (s *Store) answerBroker() {
	b := &s.broker
	if b.taken == nil || s.doubt != nil {
		return
	}
	batch, err := b.taken, b.fault
	b.taken, b.fault = nil, nil
	if err != nil {
		err = s.suspect(s.explainWrite(err))
		s.brokerFault(err)
	} else {
		b.next, b.sweep = b.told, append(b.sweep, b.ended...)
		if !b.began.IsZero() {
			s.log.Info("keeping the broker's state again", "took", time.Since(b.began).Round(time.Millisecond))
		}
		b.began, b.logged, b.wait, b.retry = time.Time{}, time.Time{}, 0, time.Time{}
	}
	if b.source != nil {
		b.source.Done(batch, err)
	}
}

// brokerFault says why the broker's state cannot be kept, once a minute, and when that is tried again.
func (s *Store) brokerFault(err error) {
	b := &s.broker
	now := time.Now()
	if b.began.IsZero() {
		b.began = now
	}
	if b.logged.IsZero() || now.Sub(b.logged) >= faultLogEvery {
		b.logged = now
		s.log.Error("cannot keep the broker's state, nothing that it should outlive is acknowledged until it works again",
			"err", err, "took", now.Sub(b.began).Round(time.Millisecond))
	}
	b.wait = min(max(2*b.wait, firstBrokerWait), maxBrokerWait)
	b.retry = now.Add(b.wait)
	s.Announce()
}

// waiting is an Append that waits for the right to write; whoever gets that stores it too.
type waiting struct {
	batch    []Message
	outcomes []Outcome
	err      error
	done     chan struct{} // closed when outcomes and err are there
}

// appendQueue are those that wait. The zero value is ready.
type appendQueue struct {
	mu   sync.Mutex
	list []*waiting
}

func (q *appendQueue) add(w *waiting) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.list = append(q.list, w)
}

// remove reports whether w was still there: nobody stores it then.
func (q *appendQueue) remove(w *waiting) bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	i := slices.Index(q.list, w)
	if i >= 0 {
		q.list = slices.Delete(q.list, i, i+1)
	}
	return i >= 0
}

func (q *appendQueue) takeAll() []*waiting {
	q.mu.Lock()
	defer q.mu.Unlock()
	list := q.list
	q.list = nil
	return list
}

// appendLater is Append while somebody writes, or no commit may begin yet.
func (s *Store) appendLater(ctx context.Context, w *waiting) ([]Outcome, error) {
	s.appends.add(w)
	s.pace.Wait(ctx, w.done)
	select {
	case <-w.done:
		return w.outcomes, w.err
	case <-ctx.Done():
		if s.appends.remove(w) {
			return w.outcomes, fmt.Errorf("store %d messages: %w", len(w.batch), ctx.Err())
		}
	case s.writing <- struct{}{}:
		if s.appends.remove(w) {
			defer s.release()
			return s.serve(w.batch, w.outcomes)
		}
		s.release()
	}
	<-w.done
	return w.outcomes, w.err
}

// serve stores a batch and those that wait. The caller has the right to write.
func (s *Store) serve(batch []Message, outcomes []Outcome) ([]Outcome, error) {
	s.pace.Begin()
	defer s.pace.End()
	others := s.appends.takeAll()
	if len(others) == 0 {
		return s.appendHere(batch, outcomes)
	}
	own := &waiting{batch: batch, outcomes: outcomes, done: make(chan struct{})}
	s.serveAll(append(others, own))
	return own.outcomes, own.err
}

// serveAll stores several batches in one transaction, or where that does not work each for itself. The caller has the right
// to write.
func (s *Store) serveAll(list []*waiting) {
	if len(list) > 1 && s.doubt == nil && len(s.answers) == 0 && s.ready() == nil {
		results := make([][]Outcome, len(list))
		err := s.transact(func() error {
			for i, w := range list {
				var err error
				if results[i], err = s.appendBatch(w.batch, w.outcomes); err != nil {
					return err
				}
			}
			return s.evict()
		})
		if err == nil {
			for i, w := range list {
				w.outcomes = results[i]
				close(w.done)
			}
			s.idle.Reset(idleAfter)
			return
		}
		if errors.Is(err, ErrInDoubt) {
			for i, w := range list {
				s.keepAnswer(w.batch, results[i][len(w.outcomes):])
			}
		}
	}
	for _, w := range list {
		w.outcomes, w.err = s.appendHere(w.batch, w.outcomes)
		close(w.done)
	}
}

// release gives the right to write back. A batch of the broker is answered first, by its own goroutine: who has stored a
// reading does not wait for that.
func (s *Store) release() {
	b := &s.broker
	switch {
	case s.doubt != nil && b.running:
		s.Announce() // somebody must find out, also when nothing else is written
	case b.taken != nil && b.running:
		b.hand <- struct{}{}
		return
	default:
		s.answerBroker()
	}
	<-s.writing
}
