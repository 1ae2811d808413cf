package store

import (
	"context"
	"database/sql"
	"errors"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// refusedOnce has the broker take part in the next transaction and COMMIT refuse that, so that what is in it beside that runs
// twice.
func refusedOnce(t *testing.T, s *Store, f *fakeBroker, number int64) {
	t.Helper()
	failed := false
	onCommit(t, s, func(real func() error) error {
		if !failed {
			failed = true
			return fullError{}
		}
		return real()
	})
	f.put(oneRetained(number, "a"))
	t.Cleanup(func() {
		assert.True(t, failed)
		for answered(t, f) != nil {
		}
	})
}

func TestWhatRunsTwiceCountsOnce(t *testing.T) {
	t.Run("purged entries", func(t *testing.T) {
		s, f := attached(t, Options{})
		mustAppend(t, s, bad("bed-1", noon, "x"), bad("bed-1", noon, "y"))
		refusedOnce(t, s, f, 1)
		n, err := s.PurgeQuarantine(t.Context(), entries(t, s)[0].ID)
		require.NoError(t, err)
		assert.EqualValues(t, 1, n)
	})
	t.Run("deleted readings", func(t *testing.T) {
		s, f := attached(t, Options{})
		mustAppend(t, s, telemetry("bed-1", noon, Value{"ph", 6}), telemetry("bed-2", noon, Value{"ph", 6}), telemetry("bed-2", noon+2, Value{"ph", 6}))
		refusedOnce(t, s, f, 1)
		n, err := s.DeleteBefore(t.Context(), time.UnixMilli(noon+1))
		require.NoError(t, err)
		assert.EqualValues(t, 2, n)
		assert.EqualValues(t, 1, countRows(t, s))
	})
	t.Run("readings that are brought back", func(t *testing.T) {
		path := filledFile(t)
		s, f := attached(t, Options{Path: path})
		require.NoError(t, s.acquire(t.Context()))
		require.NoError(t, s.rebuild(t.Context(), errors.New("test")))
		s.release()
		refusedOnce(t, s, f, 1)
		require.NoError(t, s.regainAll(t.Context()))
		var expected, found int64
		require.NoError(t, s.queryRow(t.Context(), `SELECT sum(expected), sum(found) FROM salvage_device`).Scan(&expected, &found))
		assert.EqualValues(t, 2*damageDevices*damageRows/3, expected)
		assert.Equal(t, expected, found)
	})
}

// What was looked for and found is committed with a stamp of its own: also where that commit fails, it is found again.
func TestADoubtOutlivesADoubtfulAnswer(t *testing.T) {
	s, f := attached(t, Options{})
	commits := 0
	onCommit(t, s, func(real func() error) error {
		if commits++; commits > 2 {
			return real()
		}
		require.NoError(t, real())
		return syncError{}
	})
	f.put(oneRetained(1, "a"))
	s.Announce()
	require.NoError(t, answered(t, f))
	assert.Equal(t, 1, retained(t, s))
}

func TestABatchInDoubtIsSettledWhenNobodyComes(t *testing.T) {
	s, f := attached(t, Options{})
	other, err := sql.Open("sqlite", s.path)
	require.NoError(t, err)
	defer func() { assert.NoError(t, other.Close()) }()
	lock, err := other.Conn(t.Context())
	require.NoError(t, err)
	failing := true
	onCommit(t, s, func(real func() error) error {
		if !failing {
			return real()
		}
		failing = false
		require.NoError(t, real())
		_, err := lock.ExecContext(context.Background(), `BEGIN IMMEDIATE`)
		require.NoError(t, err)
		return syncError{}
	})
	f.put(oneRetained(1, "a"))
	_, err = s.Append(t.Context(), []Message{telemetry("bed-1", noon, Value{"ph", 6})}, nil)
	require.ErrorIs(t, err, ErrInDoubt)
	require.Eventually(t, func() bool {
		require.NoError(t, s.acquire(t.Context()))
		defer s.release()
		return !s.broker.began.IsZero()
	}, 30*time.Second, time.Millisecond, "it looks by itself")
	_, err = lock.ExecContext(t.Context(), `ROLLBACK`)
	require.NoError(t, err)
	require.NoError(t, lock.Close())
	require.NoError(t, answered(t, f))
}

// Who gets the right to write while another one has taken his batch along must not store it again.
func TestABatchThatAnotherOneTookIsNotStoredTwice(t *testing.T) {
	s := openTest(t, Options{})
	require.NoError(t, s.acquire(t.Context()))
	returned := make(chan []Outcome)
	w := &waiting{batch: []Message{telemetry("bed-1", noon, Value{"ph", 6})}, done: make(chan struct{})}
	go func() {
		outcomes, _ := s.appendLater(context.Background(), w, true)
		returned <- outcomes
	}()
	require.Eventually(t, func() bool { return len(s.appends.takeAll()) == 1 }, patience, time.Millisecond)
	s.release()
	require.Never(t, func() bool { return totals(t, s) != Counts{} }, 100*time.Millisecond, time.Millisecond)
	w.outcomes = []Outcome{Stored}
	close(w.done)
	assert.Equal(t, []Outcome{Stored}, <-returned)
	assert.Zero(t, countRows(t, s))
}
