package store

import (
	"context"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/plantops/plantops/broker/journal"
)

// state is what a broker reads at a start; as a journal.Loader it gathers that.
type gathered struct {
	sessions      map[journal.SessionID]journal.Session
	subscriptions map[string]journal.Subscription
	waiting       map[journal.SessionID]journal.Waiting
	retained      map[string]journal.Retained
}

func newGathered() *gathered {
	return &gathered{map[journal.SessionID]journal.Session{}, map[string]journal.Subscription{}, map[journal.SessionID]journal.Waiting{}, map[string]journal.Retained{}}
}

func (g *gathered) Session(s journal.Session) error { g.sessions[s.ID] = s; return nil }

func (g *gathered) Subscription(s journal.Subscription) error {
	g.subscriptions[fmt.Sprint(s.Session, " ", s.Filter)] = s
	return nil
}

func (g *gathered) Waiting(w journal.Waiting) error { g.waiting[w.Session] = w; return nil }

func (g *gathered) Retained(r journal.Retained) error { g.retained[r.Topic] = r; return nil }

func load(t require.TestingT, s *Store) (*gathered, journal.Next) {
	g := newGathered()
	next, err := s.Load(context.Background(), g)
	require.NoError(t, err)
	return g, next
}

// fakeBroker is a journal.Source that hands out what a test puts in.
type fakeBroker struct {
	mu     sync.Mutex
	queued []*journal.Batch
	taken  *journal.Batch
	takes  int
	done   chan error
}

func newFakeBroker() *fakeBroker { return &fakeBroker{done: make(chan error, 10_000)} }

func (f *fakeBroker) put(b *journal.Batch) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.queued = append(f.queued, b)
}

func (f *fakeBroker) Take() *journal.Batch {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.taken != nil {
		panic("Take before Done")
	}
	if len(f.queued) == 0 {
		return nil
	}
	f.takes++
	f.taken, f.queued = f.queued[0], f.queued[1:]
	return f.taken
}

func (f *fakeBroker) Done(b *journal.Batch, err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if b != f.taken {
		panic("Done for another batch")
	}
	if f.taken = nil; err != nil {
		f.queued = append([]*journal.Batch{b}, f.queued...)
	}
	f.done <- err
}

// mustKeep commits a batch through the whole way.
func mustKeep(t require.TestingT, s *Store, f *fakeBroker, b *journal.Batch) {
	f.put(b)
	s.Announce()
	select {
	case err := <-f.done:
		require.NoError(t, err)
	case <-time.After(10 * time.Second):
		require.Fail(t, "no answer")
	}
}

func queue(id journal.SessionID, first, last uint64) journal.Queue {
	entries := []byte(fmt.Sprintf("entries %d to %d of %d", first, last, id))
	return journal.Queue{Session: id, First: first, Last: last, Messages: int(last - first + 1), Bytes: int64(last-first+1) * 100, Entries: entries}
}

func TestTheBrokersStateIsThereAfterARestart(t *testing.T) {
	s := openTest(t, Options{})
	g, next := load(t, s)
	assert.Equal(t, newGathered(), g)
	assert.Equal(t, journal.Next{Session: 1, Batch: 1}, next)
	f := newFakeBroker()
	s.Attach(f)
	mustKeep(t, s, f, &journal.Batch{
		Number: 1, Messages: []byte("messages"),
		Sessions:      []journal.Session{{ID: 1, Client: "a", Account: "anna", State: []byte("old")}, {ID: 2, Client: "b"}},
		Subscriptions: []journal.Subscription{{Session: 1, Filter: "a/#", Options: []byte{1}}, {Session: 1, Filter: "b", Options: []byte{}}, {Session: 2, Filter: "b", Options: []byte{2}}},
		Queues:        []journal.Queue{queue(1, 1, 3), queue(2, 1, 1), queue(9, 1, 2)},
		Retained:      []journal.Retained{{Topic: "a", Account: "anna", Message: []byte("x")}, {Topic: "b", Message: []byte("y")}},
	})
	mustKeep(t, s, f, &journal.Batch{
		Number: 2, Messages: []byte("more"),
		Sessions:      []journal.Session{{ID: 1, Client: "a", Account: "anna", State: []byte("new")}},
		Subscriptions: []journal.Subscription{{Session: 1, Filter: "a/#"}},
		Queues:        []journal.Queue{queue(1, 4, 5)},
		Retained:      []journal.Retained{{Topic: "b"}},
	})
	require.NoError(t, s.Detach(t.Context()))
	require.NoError(t, s.Close())

	s = openTest(t, s.options)
	g, next = load(t, s)
	want := newGathered()
	want.sessions[1] = journal.Session{ID: 1, Client: "a", Account: "anna", State: []byte("new")}
	want.sessions[2] = journal.Session{ID: 2, Client: "b", State: []byte{}}
	want.subscriptions["1 b"] = journal.Subscription{Session: 1, Filter: "b", Options: []byte{}}
	want.subscriptions["2 b"] = journal.Subscription{Session: 2, Filter: "b", Options: []byte{2}}
	want.waiting[1] = journal.Waiting{Session: 1, First: 1, Last: 5, Messages: 5, Bytes: 500}
	want.waiting[2] = journal.Waiting{Session: 2, First: 1, Last: 1, Messages: 1, Bytes: 100}
	want.retained["a"] = journal.Retained{Topic: "a", Account: "anna", Message: []byte("x")}
	assert.Equal(t, want, g)
	assert.Greater(t, next.Session, journal.SessionID(9), "also that of a session without a row")
	assert.Greater(t, next.Batch, int64(2))
	list, err := s.Read(t.Context(), 1, 0, 1<<20, nil)
	require.NoError(t, err)
	assert.Equal(t, []journal.Stored{{Queue: queue(1, 1, 3), Pack: []byte("messages")}, {Queue: queue(1, 4, 5), Pack: []byte("more")}}, list)
	list, err = s.Read(t.Context(), 1, 3, 1, list[:1])
	require.NoError(t, err)
	assert.Len(t, list, 2)
}
