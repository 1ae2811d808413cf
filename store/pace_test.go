package store

import (
	"context"
	"fmt"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// slow is a store whose next commit is an hour away, with what waits for it: some readings, and a change of the broker.
type slow struct {
	*Store
	f       *fakeBroker
	commits atomic.Int64
	stored  chan error
}

const waiters = 5

func newSlow(t *testing.T) *slow {
	t.Helper()
	store, f := attached(t, Options{MinCommitInterval: time.Hour, FullBatch: 3})
	s := &slow{Store: store, f: f, stored: make(chan error, waiters)}
	s.Hasten()
	mustAppend(t, s.Store, telemetry("bed-1", noon, Value{"ph", 6}))
	onCommit(t, s.Store, func(real func() error) error { s.commits.Add(1); return real() })
	f.put(oneRetained(1, "a"))
	s.Announce()
	for i := range int64(waiters) {
		go func() {
			_, err := s.Append(context.Background(), []Message{telemetry("bed-1", noon+1+i, Value{"ph", 6})}, nil)
			s.stored <- err
		}()
	}
	require.Eventually(t, func() bool {
		s.appends.mu.Lock()
		defer s.appends.mu.Unlock()
		return len(s.appends.list) == waiters
	}, patience, time.Millisecond)
	assert.Zero(t, s.commits.Load())
	assert.Empty(t, s.stored)
	assert.Empty(t, s.f.done)
	return s
}

// all waits until all that waited is stored.
func (s *slow) all(t *testing.T) {
	t.Helper()
	for range waiters {
		select {
		case err := <-s.stored:
			require.NoError(t, err)
		case <-time.After(patience):
			require.Fail(t, "not stored")
		}
	}
	require.NoError(t, answered(t, s.f))
	assert.Equal(t, 1, retained(t, s.Store))
}

func TestWhatComesBeforeTheNextCommitIsInIt(t *testing.T) {
	for name, begin := range map[string]func(t *testing.T, s *slow){
		"a full batch": func(t *testing.T, s *slow) {
			batch := make([]Message, 3)
			for i := range batch {
				batch[i] = telemetry("bed-2", noon+int64(i), Value{"ph", 6})
			}
			mustAppend(t, s.Store, batch...)
		},
		"what is imported": func(t *testing.T, s *slow) {
			m := telemetry("bed-2", noon, Value{"ph", 6})
			m.Kind = History
			mustAppend(t, s.Store, m)
		},
		"nothing more will come": func(_ *testing.T, s *slow) { s.Hasten() },
		"a stop":                 func(_ *testing.T, s *slow) { s.Hurry() },
	} {
		t.Run(name, func(t *testing.T) {
			s := newSlow(t)
			begin(t, s)
			s.all(t)
			assert.Equal(t, int64(1), s.commits.Load())
			assert.Equal(t, int64(waiters+1), totals(t, s.Store).Stored-int64(batchOf(name)), "each once")
		})
	}
}

// batchOf is how many readings began the commit.
func batchOf(name string) int {
	return map[string]int{"a full batch": 3, "what is imported": 1}[name]
}

func TestAnAppendThatIsGivenUpBeforeTheNextCommitIsNotStored(t *testing.T) {
	s := newSlow(t)
	ctx, cancel := context.WithCancel(t.Context())
	given := make(chan error, 1)
	go func() {
		_, err := s.Append(ctx, []Message{telemetry("bed-3", noon, Value{"ph", 6})}, nil)
		given <- err
	}()
	require.Eventually(t, func() bool {
		s.appends.mu.Lock()
		defer s.appends.mu.Unlock()
		return len(s.appends.list) == waiters+1
	}, patience, time.Millisecond)
	cancel()
	require.ErrorIs(t, <-given, context.Canceled)
	s.Hasten()
	s.all(t)
	assert.Equal(t, int64(waiters+1), totals(t, s.Store).Stored)
}

func TestCloseDoesNotWaitForTheNextCommit(t *testing.T) {
	s := openTest(t, Options{MinCommitInterval: time.Hour})
	mustAppend(t, s, telemetry("bed-1", noon, Value{"ph", 6}))
	ended := make(chan error, 1)
	go func() {
		_, err := s.Append(context.Background(), []Message{telemetry("bed-1", noon+1, Value{"ph", 6})}, nil)
		ended <- err
	}()
	require.Eventually(t, func() bool {
		s.appends.mu.Lock()
		defer s.appends.mu.Unlock()
		return len(s.appends.list) == 1
	}, patience, time.Millisecond)
	require.NoError(t, s.Close())
	select {
	case err := <-ended: // whichever came first
		if err != nil {
			assert.ErrorIs(t, err, ErrClosed)
		}
	case <-time.After(patience):
		require.Fail(t, "it waits still", fmt.Sprint(len(s.appends.list)))
	}
}
