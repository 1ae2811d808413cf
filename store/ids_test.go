package store

import (
	"context"
	"errors"
	"fmt"
	"math"
	"os"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// madeAnew makes the file of a store anew, as if it were damaged.
func madeAnew(t *testing.T, s *Store) {
	t.Helper()
	require.NoError(t, s.acquire(t.Context()))
	defer s.release()
	require.NoError(t, s.rebuild(t.Context(), errors.New("test")))
}

func names(t *testing.T, s *Store) (list []string) {
	t.Helper()
	for r, err := range s.Readings(t.Context(), Query{}) {
		require.NoError(t, err)
		list = append(list, fmt.Sprintf("%s %s %v", r.Device, r.Metric, r.Value))
	}
	return list
}

func TestReadingsThatComeBackAreNeverAnotherDevices(t *testing.T) {
	s := openTest(t, Options{})
	mustAppend(t, s, telemetry("bed-1", noon, Value{"a", 1}), telemetry("bed-2", noon, Value{"b", 2}))
	madeAnew(t, s)
	_, err := s.PurgeDevice(t.Context(), "bed-2")
	require.NoError(t, err)
	mustAppend(t, s, telemetry("bed-3", noon+1, Value{"c", 3}))
	require.NoError(t, s.regainAll(t.Context()))
	assert.Equal(t, []string{"bed-1 a 1", "bed-3 c 3"}, names(t, s), "what was purged stays so")
	list, err := s.Devices(t.Context())
	require.NoError(t, err)
	assert.Len(t, list, 2)
}

func TestANewNameHasNoIDOfADamagedTable(t *testing.T) {
	s := openTest(t, Options{})
	mustAppend(t, s, telemetry("bed-1", noon, Value{"a", 1}), telemetry("bed-2", noon, Value{"b", 2}))
	require.NoError(t, s.acquire(t.Context()), "upkeep in a quiet moment writes too")
	require.NoError(t, s.w.run(t.Context(), `PRAGMA foreign_keys = off`))
	// What nobody knows but the readings.
	require.NoError(t, s.w.run(t.Context(), `DELETE FROM counter WHERE device = 2; DELETE FROM metric WHERE id = 2; DELETE FROM device WHERE id = 2`))
	require.NoError(t, s.w.run(t.Context(), `PRAGMA wal_checkpoint(TRUNCATE)`))
	roots := map[string]int64{}
	for _, table := range []string{"boot", "device", "metric"} {
		root, err := s.w.number(`SELECT rootpage FROM sqlite_schema WHERE name = '` + table + `'`)
		require.NoError(t, err)
		roots[table] = root
	}
	s.release()
	require.NoError(t, s.Close())
	content, err := os.ReadFile(s.path)
	require.NoError(t, err)
	for _, table := range []string{"device", "metric"} {
		clear(content[(roots[table]-1)*pageBytes : roots[table]*pageBytes])
	}
	require.NoError(t, os.WriteFile(s.path, content, 0o600))
	s, err = Open(t.Context(), s.options)
	require.NoError(t, err)
	defer func() { assert.NoError(t, s.Close()) }()
	madeAnewIfNot(t, s)
	mustAppend(t, s, telemetry("bed-3", noon+1, Value{"c", 3}))
	require.NoError(t, s.regainAll(t.Context()))
	assert.ElementsMatch(t, []string{"bed-1 a 1", "salvaged-2 salvaged_2 2", "bed-3 c 3"}, names(t, s))
}

func madeAnewIfNot(t *testing.T, s *Store) {
	list, err := s.Salvages(t.Context())
	require.NoError(t, err)
	if len(list) == 0 {
		madeAnew(t, s)
	}
}

func TestAnEntryHasNoIDOfOneThatWasPurgedBeforeTheDamage(t *testing.T) {
	s := openTest(t, Options{})
	mustAppend(t, s, bad("bed-1", noon, "x"), bad("bed-1", noon, "y"))
	_, err := s.PurgeQuarantine(t.Context(), 2)
	require.NoError(t, err)
	madeAnew(t, s)
	mustAppend(t, s, bad("bed-1", noon, "z"))
	assert.EqualValues(t, 3, entries(t, s)[1].ID)
}

func TestPurgingKeepsTheEquation(t *testing.T) {
	s := openTest(t, Options{})
	most := telemetry("bed-1", noon, Value{"a", 1})
	most.Numbering = Numbering{Boot: "b", Dropped: math.MaxInt64}
	other := most
	other.Device = "bed-2"
	mustAppend(t, s, most, other)
	s.AddRefused("bed-1", "not allowed", 3)
	for _, name := range []string{"bed-1", "bed-2"} {
		_, err := s.PurgeDevice(t.Context(), name)
		require.NoError(t, err)
	}
	require.NoError(t, s.Flush(t.Context()))
	assert.Equal(t, Counts{Stored: 2, Refused: 3}, totals(t, s))
	require.NoError(t, s.load(t.Context()))
	assert.Equal(t, Counts{Stored: 2, Refused: 3}, totals(t, s), "as the file has it")
}

func TestADeviceThatIsRegisteredAgainIsNotForgotten(t *testing.T) {
	s := openTest(t, Options{})
	mustAppend(t, s, telemetry("bed-1", noon, Value{"a", 1}))
	_, err := s.AddDevice(t.Context(), "bed-1")
	require.NoError(t, err)
	require.ErrorIs(t, s.forgetDevice(t.Context(), "bed-1"), ErrExists)
}

func TestReadersDoNotSeeThatTheFileIsMadeAnew(t *testing.T) {
	s := openTest(t, Options{})
	mustAppend(t, s, telemetry("bed-1", noon, Value{"a", 1}))
	ctx, stop := context.WithCancel(t.Context())
	var readers sync.WaitGroup
	for range 2 {
		readers.Go(func() {
			for ctx.Err() == nil {
				_, err := s.Salvages(t.Context())
				assert.NoError(t, err)
				_, err = s.Health(t.Context())
				assert.NoError(t, err)
				_, _, err = s.ClockLines(t.Context(), "boot")
				assert.NoError(t, err)
				_, err = s.Redate(t.Context(), 1, time.Second)
				assert.NoError(t, err)
			}
		})
	}
	for range 3 {
		madeAnew(t, s)
	}
	stop()
	readers.Wait()
}

// A reading that came again before the old file gave it back is one reading, with what each of the two has.
func TestAReadingThatComesAgainBeforeItIsBackIsCountedOnce(t *testing.T) {
	for name, again := range map[string]func(*Message){
		"in the journal": func(*Message) {},
		"as a row":       func(m *Message) { m.ClockUnsure, m.ClockLine = true, 7 },
	} {
		t.Run(name, func(t *testing.T) {
			s := openTest(t, Options{})
			mustAppend(t, s, telemetry("bed-1", noon, Value{"a", 1}, Value{"b", 2}), telemetry("bed-1", noon+1, Value{"a", 1}))
			flush(t, s)
			madeAnew(t, s)
			m := telemetry("bed-1", noon, Value{"a", 1})
			again(&m)
			require.Equal(t, []Outcome{Stored}, mustAppend(t, s, m))
			require.NoError(t, s.regainAll(t.Context()))
			assert.Equal(t, []string{"bed-1 a 1", "bed-1 b 2", "bed-1 a 1"}, names(t, s))
			e, err := s.Examine(t.Context(), nil)
			require.NoError(t, err)
			assert.Empty(t, e.Findings)
			assert.EqualValues(t, 2, e.Readings)
			h, err := s.Health(t.Context())
			require.NoError(t, err)
			assert.EqualValues(t, 2, h.Readings)

			assert.Equal(t, []Outcome{Duplicate, Quarantined, Stored}, mustAppend(t, s, telemetry("bed-1", noon, Value{"a", 1}, Value{"b", 2}),
				telemetry("bed-1", noon, Value{"b", 3}), telemetry("bed-1", noon, Value{"c", 4})), "wherever a value stands")
			assert.Equal(t, []string{"bed-1 a 1", "bed-1 b 2", "bed-1 c 4", "bed-1 a 1"}, names(t, s))
			n, err := s.DeleteBefore(t.Context(), time.UnixMilli(noon+2))
			require.NoError(t, err)
			if name == "in the journal" { // a row of an unsure clock stays
				assert.EqualValues(t, 2, n)
				assert.Zero(t, countRows(t, s))
			}
		})
	}
}

// So is one whose metrics came one after the other.
func TestAReadingInPartsThatIsBackIsCountedOnce(t *testing.T) {
	for name, again := range map[string][]Message{
		"nothing came meanwhile": nil,
		"a part came again":      {telemetry("bed-1", noon+2, Value{"a", 1})},
		"another one came":       {telemetry("bed-1", noon+1, Value{"a", 1})},
	} {
		t.Run(name, func(t *testing.T) {
			s := openTest(t, Options{})
			mustAppend(t, s, telemetry("bed-1", noon, Value{"a", 1}), telemetry("bed-1", noon+2, Value{"a", 1}))
			flush(t, s)
			mustAppend(t, s, telemetry("bed-1", noon, Value{"b", 1}), telemetry("bed-1", noon+2, Value{"b", 1}))
			flush(t, s)
			madeAnew(t, s)
			if len(again) > 0 {
				mustAppend(t, s, again...)
			}
			require.NoError(t, s.regainAll(t.Context()))
			want := int64(2)
			if name == "another one came" {
				want++
			}
			e, err := s.Examine(t.Context(), nil)
			require.NoError(t, err)
			assert.Empty(t, e.Findings)
			assert.Equal(t, want, e.Readings)
			h, err := s.Health(t.Context())
			require.NoError(t, err)
			assert.EqualValues(t, want, h.Readings)
			n, err := s.DeleteBefore(t.Context(), time.UnixMilli(noon+3))
			require.NoError(t, err)
			assert.EqualValues(t, want, n)
			assert.Zero(t, countRows(t, s))
		})
	}
}
