package store

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"fmt"
	"os"
	"path/filepath"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/plantops/plantops/broker/journal"
	"github.com/plantops/plantops/store/aside"
)

// hooked is a statement whose runs a test replaces.
type hooked struct {
	preparedStatement
	run func(real func() error) error
}

func (h *hooked) ExecContext(ctx context.Context, args []driver.NamedValue) (result driver.Result, err error) {
	err = h.run(func() error {
		result, err = h.preparedStatement.ExecContext(ctx, args)
		return err
	})
	return result, err
}

// onCommit replaces COMMIT, of this writer only.
func onCommit(t *testing.T, s *Store, run func(real func() error) error) {
	t.Helper()
	require.NoError(t, s.acquire(t.Context()))
	defer s.release()
	s.w.commit.stmt = &hooked{s.w.commit.stmt, run}
}

// execute runs SQL between transactions.
func execute(t *testing.T, s *Store, text string) {
	t.Helper()
	require.NoError(t, s.acquire(t.Context()))
	defer s.release()
	require.NoError(t, s.w.run(t.Context(), text))
}

// syncError is what SQLite says of a COMMIT whose sync failed.
type syncError struct{}

func (syncError) Error() string { return "disk I/O error" }
func (syncError) Code() int     { return codeIO | 4<<8 }

func answered(t *testing.T, f *fakeBroker) error {
	t.Helper()
	select {
	case err := <-f.done:
		return err
	case <-time.After(patience):
		require.Fail(t, "no answer")
		return nil
	}
}

// attached is a store with a broker.
func attached(t *testing.T, o Options) (*Store, *fakeBroker) {
	t.Helper()
	s, f := openTest(t, o), newFakeBroker()
	load(t, s)
	s.Attach(f)
	require.Eventually(t, func() bool { return !s.broker.announced.Load() }, patience, time.Millisecond, "it asks once by itself")
	t.Cleanup(func() {
		if !s.closed {
			assert.NoError(t, s.Detach(context.Background()))
		}
	})
	return s, f
}

func oneRetained(number int64, topic string) *journal.Batch {
	return &journal.Batch{Number: number, Retained: []journal.Retained{{Topic: topic, Message: []byte("x")}}}
}

func retained(t *testing.T, s *Store) int {
	t.Helper()
	var n int
	require.NoError(t, s.queryRow(t.Context(), `SELECT count(*) FROM broker_retained`).Scan(&n))
	return n
}

func TestReadingsAndTheBrokersStateShareACommit(t *testing.T) {
	s, f := attached(t, Options{})
	commits := 0
	onCommit(t, s, func(real func() error) error { commits++; return real() })
	for i := range int64(20) {
		f.put(oneRetained(i+1, fmt.Sprint("t", i)))
		mustAppend(t, s, telemetry("bed-1", noon+i, Value{"ph", 6}))
		require.NoError(t, answered(t, f))
	}
	assert.Equal(t, 20, commits)
	assert.Equal(t, 20, retained(t, s))
	assert.Equal(t, Counts{Stored: 20}, totals(t, s))
}

func TestWhatComesDuringACommitIsInTheNextOne(t *testing.T) {
	s, f := attached(t, Options{})
	running, goOn, commits := make(chan struct{}), make(chan struct{}), atomic.Int64{}
	onCommit(t, s, func(real func() error) error {
		if commits.Add(1) == 1 {
			close(running)
			<-goOn
		}
		return real()
	})
	f.put(oneRetained(1, "a"))
	s.Announce()
	<-running
	stored := make(chan error, 10)
	for i := range int64(10) {
		go func() {
			_, err := s.Append(context.Background(), []Message{telemetry("bed-1", noon+i, Value{"ph", 6})}, nil)
			stored <- err
		}()
	}
	f.put(oneRetained(2, "b"))
	s.Announce()
	require.Eventually(t, func() bool {
		s.appends.mu.Lock()
		defer s.appends.mu.Unlock()
		return len(s.appends.list) == 10
	}, patience, time.Millisecond)
	close(goOn)
	for range 10 {
		require.NoError(t, <-stored)
	}
	require.NoError(t, answered(t, f))
	require.NoError(t, answered(t, f))
	assert.EqualValues(t, 2, commits.Load())
}

func TestAnIdleStoreCommitsForTheBrokerAtOnceAndThenRests(t *testing.T) {
	s, f := attached(t, Options{})
	commits := atomic.Int64{}
	onCommit(t, s, func(real func() error) error { commits.Add(1); return real() })
	f.put(oneRetained(1, "a"))
	s.Announce()
	require.NoError(t, answered(t, f))
	s.Announce() // nothing has changed
	require.Eventually(t, func() bool { return !s.broker.announced.Load() }, patience, time.Millisecond)
	require.NoError(t, s.acquire(t.Context()))
	s.release()
	assert.LessOrEqual(t, commits.Load(), int64(2))
	var stamps int
	require.NoError(t, s.queryRow(t.Context(), `SELECT count(*) FROM journal`).Scan(&stamps))
	assert.LessOrEqual(t, int64(stamps), commits.Load(), "a transaction without changes has no record")
}

func TestAFaultOfOnePartLeavesTheOtherAlone(t *testing.T) {
	t.Run("of the broker's", func(t *testing.T) {
		s, f := attached(t, Options{})
		execute(t, s, `CREATE TRIGGER poison BEFORE INSERT ON broker_retained BEGIN SELECT raise(ABORT, 'no'); END`)
		f.put(&journal.Batch{Number: 1, Sessions: []journal.Session{{ID: 1, Client: "a"}}, Retained: oneRetained(1, "a").Retained})
		assert.Equal(t, []Outcome{Stored}, mustAppend(t, s, telemetry("bed-1", noon, Value{"ph", 6})))
		require.ErrorContains(t, answered(t, f), "no")
		assert.Equal(t, []Outcome{Stored}, mustAppend(t, s, telemetry("bed-1", noon+1, Value{"ph", 6})))
		var sessions int
		require.NoError(t, s.queryRow(t.Context(), `SELECT count(*) FROM broker_session`).Scan(&sessions))
		assert.Zero(t, sessions, "nothing of a batch that failed")
		require.Error(t, answered(t, f), "it is tried again by itself")
		execute(t, s, `DROP TRIGGER poison`)
		for answered(t, f) != nil {
		}
		assert.Equal(t, 1, retained(t, s))
	})
	t.Run("of the broker's, when SQLite gives up the whole transaction", func(t *testing.T) {
		s, f := attached(t, Options{})
		execute(t, s, `CREATE TRIGGER poison BEFORE INSERT ON broker_retained BEGIN SELECT raise(ROLLBACK, 'no'); END`)
		f.put(oneRetained(1, "a"))
		s.AddRefused("bed-1", "acl", 1)
		assert.Equal(t, []Outcome{Stored}, mustAppend(t, s, telemetry("bed-1", noon, Value{"ph", 6})))
		require.Error(t, answered(t, f))
		assert.Equal(t, Counts{Stored: 1, Refused: 1}, totals(t, s))
		execute(t, s, `DROP TRIGGER poison`)
		for answered(t, f) != nil {
		}
		assert.Equal(t, 1, retained(t, s))
	})
	t.Run("of COMMIT, when both are in it", func(t *testing.T) {
		s, f := attached(t, Options{})
		failed := false
		onCommit(t, s, func(real func() error) error {
			if !failed {
				failed = true
				return fullError{}
			}
			return real()
		})
		f.put(oneRetained(1, "a"))
		assert.Equal(t, []Outcome{Stored}, mustAppend(t, s, telemetry("bed-1", noon, Value{"ph", 6})))
		require.ErrorIs(t, answered(t, f), ErrFull)
		require.NoError(t, answered(t, f))
		assert.Equal(t, Counts{Stored: 1}, totals(t, s))
	})
	t.Run("of the readings", func(t *testing.T) {
		s, f := attached(t, Options{})
		execute(t, s, `CREATE TRIGGER poison BEFORE INSERT ON device BEGIN SELECT raise(ABORT, 'no'); END;
			CREATE TRIGGER poison2 BEFORE INSERT ON quarantine BEGIN SELECT raise(ABORT, 'no'); END`)
		require.NoError(t, os.Mkdir(s.path+aside.Suffix, 0o700), "so that the side file cannot be written")
		f.put(oneRetained(1, "a"))
		s.Announce()
		_, err := s.Append(t.Context(), []Message{telemetry("bed-1", noon, Value{"ph", 6})}, nil)
		require.Error(t, err)
		require.NoError(t, answered(t, f))
		assert.Equal(t, 1, retained(t, s))
		require.NoError(t, os.Remove(s.path+aside.Suffix))
	})
}

// The end of a batch that nothing stands in takes no part of the disk: who waits for it waits for what came before it.
func TestABatchWithoutChangesWritesNothing(t *testing.T) {
	s, f := attached(t, Options{})
	stamp := func() (n int64) {
		require.NoError(t, s.queryRow(t.Context(), `SELECT coalesce(max(seq), 0) FROM journal`).Scan(&n))
		return n
	}
	mustKeep(t, s, f, oneRetained(1, "a"))
	before := stamp()
	mustKeep(t, s, f, &journal.Batch{Number: 2, Messages: []byte("of nobody")})
	assert.Equal(t, before, stamp())
	mustKeep(t, s, f, oneRetained(3, "b"))
	assert.NotEqual(t, before, stamp())
}

func TestTheFileIsToldOfNumbersInLargeSteps(t *testing.T) {
	s, f := attached(t, Options{})
	told := func() (session, batch int64) {
		require.NoError(t, s.queryRow(t.Context(), `SELECT session, batch FROM broker_next`).Scan(&session, &batch))
		return session, batch
	}
	const beyond = 3 * reservedNumbers
	mustKeep(t, s, f, &journal.Batch{Number: beyond, Sessions: []journal.Session{{ID: beyond, Client: "a"}}})
	session, batch := told()
	assert.Greater(t, session, int64(beyond))
	assert.Greater(t, batch, int64(beyond))
	mustKeep(t, s, f, &journal.Batch{Number: beyond + 1, Sessions: []journal.Session{{ID: beyond + 1, Client: "b"}}})
	again, then := told()
	assert.Equal(t, session, again)
	assert.Equal(t, batch, then)

	execute(t, s, `CREATE TRIGGER poison BEFORE INSERT ON broker_retained BEGIN SELECT raise(ABORT, 'no'); END`)
	f.put(oneRetained(batch, "a"))
	s.Announce()
	require.Error(t, answered(t, f))
	_, then = told()
	assert.Equal(t, batch, then, "it went with the rest")
	execute(t, s, `DROP TRIGGER poison`)
	for answered(t, f) != nil {
	}
	_, then = told()
	assert.Greater(t, then, batch)
}

func TestReadingsDoNotTryWhatTheBrokerWaitsWith(t *testing.T) {
	s, f := attached(t, Options{})
	execute(t, s, `CREATE TRIGGER poison BEFORE INSERT ON broker_retained BEGIN SELECT raise(ABORT, 'no'); END`)
	f.put(oneRetained(1, "a"))
	s.Announce()
	require.Error(t, answered(t, f))
	retry := func(at time.Time) (takes int) {
		require.NoError(t, s.acquire(t.Context()))
		defer s.release()
		s.broker.retry = at
		f.mu.Lock()
		defer f.mu.Unlock()
		return f.takes
	}
	before := retry(time.Now().Add(time.Hour))
	for i := range int64(3) {
		mustAppend(t, s, telemetry("bed-1", noon+i, Value{"ph", 6}))
	}
	execute(t, s, `DROP TRIGGER poison`)
	assert.Equal(t, before, retry(time.Time{}))
	s.Announce()
	for answered(t, f) != nil {
	}
	assert.Equal(t, 1, retained(t, s))
}

func TestWhatIsNobodysWaitsForADiskThatRefuses(t *testing.T) {
	s, f := attached(t, Options{})
	mustKeep(t, s, f, &journal.Batch{Number: 1, Queues: []journal.Queue{queue(1, 1, 1)}})
	execute(t, s, `CREATE TRIGGER poison BEFORE DELETE ON broker_queue BEGIN SELECT raise(ABORT, 'no'); END`)
	require.NoError(t, s.acquire(t.Context()))
	s.broker.sweep = append(s.broker.sweep, 1)
	s.release()
	mustKeep(t, s, f, oneRetained(2, "a"))
	require.Eventually(t, func() bool {
		require.NoError(t, s.acquire(t.Context()))
		defer s.release()
		return !s.broker.retry.IsZero()
	}, patience, time.Millisecond, "not again at once")
	execute(t, s, `DROP TRIGGER poison`)
	require.Eventually(t, func() bool {
		var n int
		require.NoError(t, s.queryRow(t.Context(), `SELECT count(*) FROM broker_queue`).Scan(&n))
		return n == 0
	}, patience, time.Millisecond)
}

func TestTheBrokerHearsOfAFileThatWasMadeAnew(t *testing.T) {
	s, f := attached(t, Options{})
	mustAppend(t, s, telemetry("bed-1", noon, Value{"ph", 6}))
	mustKeep(t, s, f, oneRetained(1, "a"))
	found := fmt.Errorf("%w: a reader says so", ErrDamaged)
	s.suspected.Store(&found)
	mustKeep(t, s, f, oneRetained(2, "b")) // also where no reading comes by
	f.mu.Lock()
	assert.Equal(t, 1, f.rewrites)
	f.mu.Unlock()
	assert.Equal(t, 2, retained(t, s))
}

type fullError struct{}

func (fullError) Error() string { return "database or disk is full" }
func (fullError) Code() int     { return codeFull }

func TestACommitThatFailedIsSettled(t *testing.T) {
	for name, stored := range map[string]bool{"it is in the file": true, "it is not in the file": false} {
		t.Run(name, func(t *testing.T) {
			s, f := attached(t, Options{})
			mustAppend(t, s, telemetry("bed-1", noon, Value{"ph", 6}))
			failing := true
			onCommit(t, s, func(real func() error) error {
				if !failing {
					return real()
				}
				failing = false
				if stored {
					require.NoError(t, real())
				}
				return syncError{}
			})
			f.put(oneRetained(1, "a"))
			s.AddRefused("bed-1", "acl", 3)
			batch := []Message{telemetry("bed-1", noon, Value{"ph", 6}), telemetry("bed-2", noon, Value{"ec", 6}), bad("bed-2", noon, "x")}
			assert.Equal(t, []Outcome{Duplicate, Stored, Quarantined}, mustAppend(t, s, batch...))
			if err := answered(t, f); stored {
				require.NoError(t, err)
			} else {
				require.Error(t, err)
				require.NoError(t, answered(t, f))
			}
			want := Counts{Stored: 2, Duplicate: 1, Quarantined: 1, Refused: 3}
			assert.Equal(t, want, totals(t, s))
			assert.Len(t, entries(t, s), 1)
			assert.Equal(t, 1, retained(t, s))
			_, err := s.AddDevice(t.Context(), "bed-3")
			require.NoError(t, err)
			require.NoError(t, s.Detach(t.Context()))
			require.NoError(t, s.Close())
			s = openTest(t, s.options)
			assert.Equal(t, want, totals(t, s))
			assert.NoError(t, s.Check(t.Context()))
		})
	}
}

// What could not be synced stands behind the end of the log, and a start after a power cut would find it there: something
// else must be written over it, also when the row that had the stamp is gone with the rest.
func TestWhatIsNotInTheFileIsWrittenOver(t *testing.T) {
	s, failing := openTest(t, Options{}), false
	onCommit(t, s, func(real func() error) error {
		if failing {
			failing = false
			return syncError{}
		}
		return real()
	})
	stamp := func() (n int64) {
		require.NoError(t, s.queryRow(t.Context(), `SELECT coalesce(max(seq), 0) FROM journal`).Scan(&n))
		return n
	}
	mustAppend(t, s, Message{Kind: Probe, Received: noon})
	before := stamp()
	failing = true
	_, err := s.Append(t.Context(), []Message{telemetry("new", noon, Value{"ph", 6})}, nil)
	require.Error(t, err)
	require.NotErrorIs(t, err, ErrInDoubt)
	assert.NotEqual(t, before, stamp())
	assert.Equal(t, []Outcome{Stored}, mustAppend(t, s, telemetry("new", noon, Value{"ph", 6})))
}

func TestACommitThatCannotBeSettledAtOnceIsAnsweredWhenItIsGivenAgain(t *testing.T) {
	for name, stored := range map[string]bool{"it is in the file": true, "it is not in the file": false} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s, f := attached(t, Options{})
			mustAppend(t, s, telemetry("bed-1", noon, Value{"ph", 6}))
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
				if stored {
					require.NoError(t, real())
				} else {
					require.NoError(t, s.w.rollback.run())
				}
				_, err := lock.ExecContext(t.Context(), `BEGIN IMMEDIATE`)
				require.NoError(t, err)
				return syncError{}
			})
			f.put(oneRetained(1, "a"))
			s.AddRefused("bed-1", "acl", 3)
			batch := []Message{telemetry("bed-1", noon, Value{"ph", 6}), telemetry("bed-2", noon, Value{"ec", 6})}
			outcomes, err := s.Append(t.Context(), batch, nil)
			require.ErrorIs(t, err, ErrInDoubt)
			assert.Empty(t, outcomes)
			assert.Empty(t, f.done, "nobody knows yet")
			_, err = s.AddDevice(t.Context(), "bed-3")
			require.ErrorIs(t, err, ErrInDoubt, "nothing is written on unsure ground")

			_, err = lock.ExecContext(t.Context(), `ROLLBACK`)
			require.NoError(t, err)
			require.NoError(t, lock.Close())
			assert.Equal(t, []Outcome{Duplicate, Stored}, mustAppend(t, s, batch...))
			for answered(t, f) != nil {
			}
			assert.Equal(t, Counts{Stored: 2, Duplicate: 1, Refused: 3}, totals(t, s))
			assert.Equal(t, 1, retained(t, s))
		})
	}
}

func TestTheBrokerWaitsForAFullDiskAsRoot(t *testing.T) {
	dir := mountDisk(t, "size=1m")
	s, f := attached(t, Options{Path: filepath.Join(dir, "plantops.db")})
	mustAppend(t, s, telemetry("bed-1", noon, Value{"ph", 6}))
	f.put(&journal.Batch{Number: 1, Messages: make([]byte, 4<<20), Queues: []journal.Queue{queue(1, 1, 1)}})
	for i := range int64(3) {
		assert.Equal(t, []Outcome{Stored}, mustAppend(t, s, telemetry("bed-1", noon+1+i, Value{"ph", 6})), "there is room for readings")
	}
	require.ErrorIs(t, answered(t, f), ErrFull)
	require.ErrorIs(t, answered(t, f), ErrFull, "again, by itself")
	require.NoError(t, syscall.Mount("tmpfs", dir, "tmpfs", syscall.MS_REMOUNT, "size=32m"))
	for answered(t, f) != nil {
	}
	assert.Equal(t, Counts{Stored: 4}, totals(t, s))
}
