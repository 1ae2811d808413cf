package store

import (
	"context"
	"fmt"
	"maps"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

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
	mu       sync.Mutex
	queued   []*journal.Batch
	taken    *journal.Batch
	takes    int
	rewrites int
	done     chan error
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

func (f *fakeBroker) Rewrite() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.rewrites++
}

// mustKeep commits a batch through the whole way.
func mustKeep(t require.TestingT, s *Store, f *fakeBroker, b *journal.Batch) {
	f.put(b)
	s.Announce()
	select {
	case err := <-f.done:
		require.NoError(t, err)
	case <-time.After(patience):
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

// brokerModel says in the plainest way what the tables must hold.
type brokerModel struct {
	*gathered
	queues map[journal.SessionID][]journal.Stored
	last   map[journal.SessionID]uint64
	number int64
	used   journal.SessionID
}

// apply does what a batch says.
func (m *brokerModel) apply(b *journal.Batch) {
	for _, c := range b.Sessions {
		m.sessions[c.ID] = c
	}
	for _, c := range b.Subscriptions {
		key := fmt.Sprint(c.Session, " ", c.Filter)
		if m.subscriptions[key] = c; c.Options == nil {
			delete(m.subscriptions, key)
		}
	}
	for _, q := range b.Queues {
		m.queues[q.Session] = append(m.queues[q.Session], journal.Stored{Queue: q, Pack: b.Messages})
	}
	for _, c := range b.Trims {
		m.queues[c.Session] = slices.DeleteFunc(m.queues[c.Session], func(q journal.Stored) bool { return q.Last < c.Before })
	}
	for _, c := range b.Retained {
		if m.retained[c.Topic] = c; c.Message == nil {
			delete(m.retained, c.Topic)
		}
	}
	for _, id := range b.Ended {
		delete(m.sessions, id)
		m.queues[id] = nil
		maps.DeleteFunc(m.subscriptions, func(_ string, c journal.Subscription) bool { return c.Session == id })
	}
}

// draw makes a batch of a broker that behaves: what it says of a session comes from one that lives.
func (m *brokerModel) draw(t *rapid.T) *journal.Batch {
	m.number++
	blob := func(name string) []byte {
		return append([]byte{}, rapid.SliceOfN(rapid.Byte(), 0, 300).Draw(t, name)...)
	}
	b := &journal.Batch{Number: m.number, Messages: blob("messages")}
	for range rapid.IntRange(0, 3).Draw(t, "new sessions") {
		m.used++
		m.last[m.used] = 0
		b.Sessions = append(b.Sessions, journal.Session{ID: m.used, Client: fmt.Sprint("client ", m.used), Account: "anna", State: blob("state")})
	}
	for _, id := range slices.Sorted(maps.Keys(m.last)) {
		switch rapid.IntRange(0, 9).Draw(t, "what") {
		case 0:
			b.Ended = append(b.Ended, id)
			delete(m.last, id)
		case 1, 2, 3:
			first := m.last[id] + 1
			m.last[id] += uint64(rapid.IntRange(1, 4).Draw(t, "entries"))
			b.Queues = append(b.Queues, journal.Queue{Session: id, First: first, Last: m.last[id], Messages: int(m.last[id] - first + 1), Bytes: rapid.Int64Range(0, 1<<40).Draw(t, "bytes"), Entries: blob("entries")})
		case 4, 5:
			b.Trims = append(b.Trims, journal.Trim{Session: id, Before: rapid.Uint64Range(0, m.last[id]+1).Draw(t, "before")})
		case 6, 7:
			if _, durable := m.sessions[id]; !durable {
				continue
			}
			c := journal.Subscription{Session: id, Filter: rapid.SampledFrom([]string{"a", "b/#", "+/ü"}).Draw(t, "filter")}
			if rapid.Bool().Draw(t, "subscribe") {
				c.Options = blob("options")
			}
			b.Subscriptions = append(b.Subscriptions, c)
		case 8:
			if c, durable := m.sessions[id]; durable {
				c.State = blob("state")
				b.Sessions = append(b.Sessions, c)
			}
		}
	}
	if rapid.IntRange(0, 4).Draw(t, "clean") == 0 { // one that ends with its connection and cannot keep up
		m.used++
		m.last[m.used] = 1
		b.Queues = append(b.Queues, journal.Queue{Session: m.used, First: 1, Last: 1, Messages: 1, Entries: blob("entries")})
	}
	for range rapid.IntRange(0, 3).Draw(t, "retained") {
		c := journal.Retained{Topic: rapid.SampledFrom([]string{"a", "b", "c/ü", "d"}).Draw(t, "topic"), Account: rapid.SampledFrom([]string{"", "anna"}).Draw(t, "account")}
		if rapid.IntRange(0, 3).Draw(t, "clear") > 0 {
			c.Message = blob("message")
		}
		b.Retained = append(b.Retained, c)
	}
	return b
}

// restart forgets what ends with the process.
func (m *brokerModel) restart() {
	ends := func(id journal.SessionID) bool { _, durable := m.sessions[id]; return !durable }
	maps.DeleteFunc(m.queues, func(id journal.SessionID, _ []journal.Stored) bool { return ends(id) })
	maps.DeleteFunc(m.last, func(id journal.SessionID, _ uint64) bool { return ends(id) })
	m.waiting = map[journal.SessionID]journal.Waiting{}
	for id, list := range m.queues {
		if len(list) == 0 {
			continue
		}
		w := journal.Waiting{Session: id, First: list[0].First, Last: list[len(list)-1].Last}
		for _, q := range list {
			w.Messages += int64(q.Messages)
			w.Bytes += q.Bytes
		}
		m.waiting[id] = w
	}
}

func TestTheBrokersTablesHoldWhatTheModelHolds(t *testing.T) {
	dir, run := t.TempDir(), 0
	rapid.Check(t, func(t *rapid.T) {
		run++
		o := Options{Path: filepath.Join(dir, fmt.Sprint(run, ".db"))}
		m := &brokerModel{gathered: newGathered(), queues: map[journal.SessionID][]journal.Stored{}, last: map[journal.SessionID]uint64{}}
		for range rapid.IntRange(1, 4).Draw(t, "starts") {
			s, err := Open(context.Background(), o)
			require.NoError(t, err)
			got, next := load(t, s)
			m.restart()
			require.Equal(t, m.gathered, got)
			require.Greater(t, next.Batch, m.number)
			require.Greater(t, next.Session, m.used)
			m.number, m.used = next.Batch, next.Session
			f := newFakeBroker()
			s.Attach(f)
			for range rapid.IntRange(0, 6).Draw(t, "batches") {
				b := m.draw(t)
				mustKeep(t, s, f, b)
				m.apply(b)
				m.compareQueues(t, s)
			}
			require.NoError(t, s.Detach(context.Background()))
			require.NoError(t, s.Check(context.Background()))
			requireTidy(t, s)
			require.NoError(t, s.Close())
		}
	})
}

func (m *brokerModel) compareQueues(t *rapid.T, s *Store) {
	for _, id := range slices.Sorted(maps.Keys(m.queues)) {
		want := m.queues[id]
		after := uint64(0)
		if len(want) > 0 && rapid.Bool().Draw(t, "from the middle") {
			after = want[len(want)/2].Last
			want = want[len(want)/2+1:]
		}
		got, err := s.Read(context.Background(), id, after, 1<<30, nil)
		require.NoError(t, err)
		require.Len(t, got, len(want))
		for i := range want {
			require.Equal(t, normal(want[i]), normal(got[i]))
		}
	}
}

// normal makes no difference between no bytes and none.
func normal(q journal.Stored) journal.Stored {
	q.Entries, q.Pack = append([]byte{}, q.Entries...), append([]byte{}, q.Pack...)
	return q
}

// requireTidy looks for messages that nobody refers to, and for wrong counts of who does.
func requireTidy(t require.TestingT, s *Store) {
	for _, query := range []string{
		`SELECT count(*) FROM broker_pack WHERE batch NOT IN (SELECT batch FROM broker_queue)`,
		`SELECT count(*) FROM broker_queue WHERE batch NOT IN (SELECT batch FROM broker_pack)`,
		`SELECT count(*) FROM broker_share WHERE queues <> (SELECT count(*) FROM broker_queue WHERE broker_queue.batch = broker_share.batch)`,
		`SELECT count(*) FROM (SELECT batch FROM broker_queue GROUP BY batch HAVING count(*) > 1) WHERE batch NOT IN (SELECT batch FROM broker_share)`,
	} {
		var n int
		require.NoError(t, s.queryRow(context.Background(), query).Scan(&n))
		require.Zero(t, n, query)
	}
}

func TestALongQueueOfASessionThatEndsGoesInSteps(t *testing.T) {
	const queues = 2*sweepRows + 1
	fill := func(s *Store) {
		require.NoError(t, s.acquire(t.Context()))
		defer s.release()
		require.NoError(t, s.transact(func() error { // what many batches would have left
			for i := range uint64(queues) {
				b := &journal.Batch{Number: int64(i + 1), Messages: []byte("m"), Queues: []journal.Queue{queue(1, i+1, i+1), queue(2, i+1, i+1)}}
				if err := s.writeBatch(b); err != nil {
					return err
				}
			}
			return nil
		}))
	}
	gone := func(s *Store) func() bool {
		return func() bool {
			var n int
			require.NoError(t, s.queryRow(t.Context(), `SELECT count(*) FROM broker_queue WHERE session = 1`).Scan(&n))
			return n == 0
		}
	}
	t.Run("when it ends", func(t *testing.T) {
		s, f := attached(t, Options{})
		fill(s)
		mustKeep(t, s, f, &journal.Batch{Number: queues + 1, Ended: []journal.SessionID{1}})
		require.False(t, gone(s)())
		require.Eventually(t, gone(s), patience, time.Millisecond)
		list, err := s.Read(t.Context(), 2, 0, 1<<30, nil)
		require.NoError(t, err)
		assert.Len(t, list, queues, "another session's")
		requireTidy(t, s)
	})
	t.Run("when nobody's session is found at a start", func(t *testing.T) {
		s, _ := attached(t, Options{})
		fill(s)
		require.NoError(t, s.Detach(t.Context()))
		require.NoError(t, s.Close())
		s, _ = attached(t, s.options)
		require.Eventually(t, gone(s), patience, time.Millisecond)
		requireTidy(t, s)
	})
}
