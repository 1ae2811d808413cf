package store

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// byHand is a store that puts nothing into blocks unless it is told to.
func byHand(t *testing.T, o Options) *Store {
	s := openTest(t, o)
	s.stopCompaction()
	return s
}

// What is counted in the transaction that writes the counters of its device is newer than what that writes.
func TestCountsThatComeWhileCountersAreWrittenStay(t *testing.T) {
	s := byHand(t, Options{})
	mustAppend(t, s, telemetry("a", noon, Value{"ph", 6}))
	mustAppend(t, s, telemetry("b", noon, Value{"ph", 6}))
	first := true
	s.w.updateCounter.stmt = &hooked{s.w.updateCounter.stmt, func(real func() error) error {
		if first {
			first = false
			s.AddRefused("a", "acl", 3)
			s.AddRefused("b", "acl", 4)
		}
		return real()
	}}
	require.NoError(t, compacted(t.Context(), s))
	require.False(t, first)
	mustAppend(t, s, telemetry("c", noon, Value{"ph", 6}))
	require.NoError(t, compacted(t.Context(), s))
	want := totals(t, s)
	assert.EqualValues(t, 7, want.Refused)
	crash(t, s)
	assert.Equal(t, want, totals(t, openTest(t, Options{Path: s.path})))
}

// A step is chosen before its transaction finds out that another process has written.
func TestABlockIsKnownWhenAnotherProcessHasWrittenBefore(t *testing.T) {
	s := byHand(t, Options{})
	other := byHand(t, Options{Path: s.path})
	mustAppend(t, s, telemetry("a", noon, Value{"ph", 6}), telemetry("a", noon+1, Value{"ph", 6}))
	mustAppend(t, other, telemetry("b", noon, Value{"ph", 6}))
	require.NoError(t, compacted(t.Context(), s))
	assert.Equal(t, []Outcome{Duplicate, Quarantined},
		mustAppend(t, s, telemetry("a", noon, Value{"ph", 6}), telemetry("a", noon, Value{"ph", 7})))
	assert.EqualValues(t, 3, countRows(t, s))
}

// Of a full disk only deleting makes room, so each of its steps may use what is held for that.
func TestOldReadingsAreDeletedFromAFullDisk(t *testing.T) {
	s := byHand(t, Options{})
	mustAppend(t, s, telemetry("a", noon, Value{"ph", 6}))
	require.NoError(t, compacted(t.Context(), s))
	require.NoError(t, os.WriteFile(s.path+reserveSuffix, []byte("room"), 0o600))
	onCommit(t, s, func(real func() error) error {
		if _, err := os.Stat(s.path + reserveSuffix); err == nil {
			return fullError{}
		}
		return real()
	})
	deleted, err := s.DeleteBefore(t.Context(), time.UnixMilli(noon+1))
	require.NoError(t, err)
	assert.EqualValues(t, 1, deleted)
}

// After an error of a sync the pages of the log may never be written: what is stored is certain only in the database itself, and a
// reader may hold up that it gets there.
func TestWhatCouldNotBeSyncedIsInDoubtUntilItIsInTheDatabase(t *testing.T) {
	s := byHand(t, Options{})
	mustAppend(t, s, telemetry("a", noon, Value{"ph", 6}))
	reader, err := s.View(t.Context())
	require.NoError(t, err)
	s.writing <- struct{}{}
	require.NoError(t, s.w.log.Close())
	s.release()
	batch := []Message{telemetry("a", noon+1, Value{"ph", 6})}
	_, err = s.Append(t.Context(), batch, nil)
	require.ErrorIs(t, err, ErrInDoubt)
	require.NoError(t, reader.Close())
	assert.Equal(t, []Outcome{Stored}, mustAppend(t, s, batch...))
	assert.Equal(t, Counts{Stored: 2}, totals(t, s))
	assert.EqualValues(t, 2, countRows(t, s))
}

// What compaction takes from the journal it puts into blocks, so a power cut may take both back; what else is in its commit must not be.
func TestCompactionWaitsForNoSyncUnlessSomebodyDoes(t *testing.T) {
	s := byHand(t, Options{})
	mustAppend(t, s, telemetry("a", noon, Value{"ph", 6}))
	unsynced := func() (asked bool) {
		s.writing <- struct{}{}
		log := s.w.log
		s.w.log = nil // to sync it is an error
		s.release()
		require.NoError(t, compacted(t.Context(), s))
		s.writing <- struct{}{}
		defer s.release()
		if s.w.log == nil {
			s.w.log = log
			return false
		}
		require.NoError(t, log.Close()) // it was opened again
		return true
	}
	assert.False(t, unsynced())
	var blocks int
	require.NoError(t, s.queryRow(t.Context(), `SELECT count(*) FROM block`).Scan(&blocks))
	assert.Equal(t, 1, blocks)
	mustAppend(t, s, telemetry("a", noon+1, Value{"ph", 6}))
	s.AddRefused("a", "acl", 3)
	assert.True(t, unsynced(), "refused messages are not given again")
	assert.Equal(t, Counts{Stored: 2, Refused: 3}, totals(t, s))
}

// Readings that are in no block yet are in memory too, so a journal that is damaged costs a running server none.
func TestAJournalThatIsDamagedIsWrittenFromMemory(t *testing.T) {
	s := byHand(t, Options{})
	const devices, rounds = 5, 2 // so few that all records are on one page
	for i := range int64(rounds) {
		for d := range devices {
			mustAppend(t, s, telemetry(fmt.Sprint("d", d), noon+i, Value{"ph", float64(i)}))
		}
		if i == rounds/2 {
			flush(t, s, "d0", "d1")
		}
	}
	require.NoError(t, s.Close())
	s = byHand(t, Options{Path: s.path})
	want := totals(t, s)
	var root int64
	require.NoError(t, s.queryRow(t.Context(), `SELECT rootpage FROM sqlite_schema WHERE name = 'journal'`).Scan(&root))
	file, err := os.OpenFile(s.path, os.O_WRONLY, 0)
	require.NoError(t, err)
	defer func() { _ = file.Close() }() // not before the store: that would end the locks of this process
	_, err = file.WriteAt(bytes.Repeat([]byte{0xA5}, pageBytes), (root-1)*pageBytes)
	require.NoError(t, err)
	require.NoError(t, s.acquire(t.Context()))
	require.NoError(t, s.rebuild(t.Context(), errors.New("test")))
	s.release()
	require.NoError(t, s.regainAll(t.Context()))
	assert.EqualValues(t, devices*rounds, countRows(t, s))
	assert.Equal(t, want, totals(t, s))
	salvages, err := s.Salvages(t.Context())
	require.NoError(t, err)
	assert.Empty(t, salvages[0].Lost)
	assert.Empty(t, salvages[0].Missing)
	crash(t, s)
	assert.EqualValues(t, devices*rounds, countRows(t, openTest(t, Options{Path: s.path})))
}
