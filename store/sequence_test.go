package store

import (
	"fmt"
	"math"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// numberedMessage is one of a device without a clock: taken at noon + at, however long it was on its way.
func numberedMessage(boot string, sequence, at, age int64, value float64) Message {
	m := telemetry("a", noon+at, Value{"ph", value})
	m.Received, m.TimeSource = noon+at+age, FromAge
	m.Numbering = Numbering{Boot: boot, Sequence: sequence}
	return m
}

func timesOf(t *testing.T, s *Store) (times []int64) {
	t.Helper()
	for r, err := range s.Readings(t.Context(), Query{}) {
		require.NoError(t, err)
		times = append(times, r.Time-noon)
	}
	return times
}

func TestNumberedMessageIsStoredOnceWhateverItsAge(t *testing.T) {
	s := openTest(t, Options{})
	assert.Equal(t, []Outcome{Stored, Duplicate}, mustAppend(t, s, numberedMessage("x", 0, 0, 5, 6), numberedMessage("x", 0, 30, 9000, 6)))
	assert.Equal(t, []Outcome{Stored, Stored}, mustAppend(t, s, numberedMessage("y", 0, 60, 0, 6), numberedMessage("x", 1, 90, 0, 6)), "another start, another number")
	for range 2 {
		require.NoError(t, s.Close())
		s = openTest(t, Options{Path: s.path})
		assert.Equal(t, []Outcome{Duplicate, Duplicate}, mustAppend(t, s, numberedMessage("x", 0, 500, 0, 6), numberedMessage("y", 0, 500, 0, 6)))
	}
	other := numberedMessage("x", 0, 700, 0, 6)
	other.Device = "b"
	assert.Equal(t, []Outcome{Stored}, mustAppend(t, s, other), "another device")
	assert.Equal(t, []int64{0, 60, 90, 700}, timesOf(t, s))
	assert.Equal(t, Counts{Stored: 4, Duplicate: 5}, totals(t, s))
}

func TestAgesThatMeetInAMillisecondAreReadingsOfTheirOwn(t *testing.T) {
	s := openTest(t, Options{})
	mustAppend(t, s, telemetry("a", noon+1, Value{"ph", 6}))
	assert.Equal(t, []Outcome{Stored, Stored, Stored}, mustAppend(t, s, numberedMessage("x", 1, 0, 100, 6), numberedMessage("x", 2, 0, 7, 6), numberedMessage("x", 3, -5, 7, 6)))
	assert.Equal(t, []int64{-5, 0, 1, 2}, timesOf(t, s))
	for r, err := range s.Readings(t.Context(), Query{From: noon + 2}) {
		require.NoError(t, err)
		assert.Equal(t, FromAge, r.TimeSource)
	}
}

func TestOneNumberWithTwoMeaningsIsAConflict(t *testing.T) {
	s := openTest(t, Options{})
	first, other := numberedMessage("x", 7, 0, 0, 6), numberedMessage("x", 7, 10, 0, 6.5)
	other.Payload = []byte("other")
	assert.Equal(t, []Outcome{Stored, Quarantined, Duplicate}, mustAppend(t, s, first, other, first))
	list := entries(t, s)
	require.Len(t, list, 1)
	assert.Equal(t, "conflict", list[0].Reason)
	assert.Equal(t, "other", string(list[0].Payload))
	assert.Equal(t, []int64{0}, timesOf(t, s))

	outcome, err := s.ReplayQuarantined(t.Context(), list[0].ID, other)
	require.NoError(t, err)
	assert.Equal(t, Quarantined, outcome, "it stays what it is")
	assert.Len(t, entries(t, s), 1)
}

// What was kept the first time it came is not kept a second time, and is not lost to a replay.
func TestNumberedMessageInQuarantineIsReplayed(t *testing.T) {
	s := openTest(t, Options{})
	unread := numberedMessage("x", 7, 0, 0, 6)
	unread.Kind, unread.Values, unread.Reason, unread.Payload = Bad, nil, "no reading", []byte("{}")
	assert.Equal(t, []Outcome{Quarantined, Duplicate}, mustAppend(t, s, unread, unread))
	list := entries(t, s)
	require.Len(t, list, 1)
	outcome, err := s.ReplayQuarantined(t.Context(), list[0].ID, numberedMessage("x", 7, 0, 0, 6))
	require.NoError(t, err)
	assert.Equal(t, Stored, outcome)
	assert.Empty(t, entries(t, s))
	assert.Equal(t, []int64{0}, timesOf(t, s))
}

func TestDroppedReadingsAreCountedOncePerMessage(t *testing.T) {
	s := openTest(t, Options{})
	first, second, silent := numberedMessage("x", 7, 0, 0, 6), numberedMessage("x", 8, 10, 0, 6), numberedMessage("x", 9, 20, 0, 6)
	first.Numbering.Dropped, second.Numbering.Dropped = 3, 40
	anonymous := telemetry("a", noon+30, Value{"ph", 6})
	anonymous.Numbering.Dropped = 500
	dropped := func() int64 {
		d, err := s.Device(t.Context(), "a")
		require.NoError(t, err)
		return d.Dropped
	}
	mustAppend(t, s, first, first, second, silent)
	mustAppend(t, s, first)
	assert.Equal(t, int64(43), dropped())
	mustAppend(t, s, anonymous)
	require.NoError(t, s.Close())
	s = openTest(t, Options{Path: s.path})
	assert.Equal(t, int64(543), dropped())
	many := numberedMessage("x", 10, 40, 0, 6)
	many.Numbering.Dropped = math.MaxInt64
	mustAppend(t, s, many)
	assert.Equal(t, int64(math.MaxInt64), dropped(), "no overflow")
}

func TestWhatIsRememberedOfADeviceIsBounded(t *testing.T) {
	s := openTest(t, Options{})
	rows := func() (n int64) {
		require.NoError(t, s.queryRow(t.Context(), `SELECT count(*) FROM boot`).Scan(&n))
		return n
	}
	boot := func(i int) string { return fmt.Sprint("boot-", i) }
	var batch []Message
	for i := range maxBoots {
		batch = append(batch, numberedMessage(boot(i), 0, int64(i), 0, 6))
	}
	mustAppend(t, s, batch...)
	assert.Equal(t, []Outcome{Duplicate}, mustAppend(t, s, numberedMessage(boot(0), 0, 100, 0, 6)), "and is the one heard last")
	mustAppend(t, s, numberedMessage(boot(maxBoots), 0, 200, 0, 6))
	assert.Equal(t, int64(maxBoots), rows())
	assert.Equal(t, []Outcome{Duplicate, Stored}, mustAppend(t, s, numberedMessage(boot(0), 0, 300, 0, 6), numberedMessage(boot(1), 0, 300, 0, 6)), "the one not heard for longest is forgotten")

	batch = batch[:0]
	for i := range 1000 {
		batch = append(batch, numberedMessage(fmt.Sprint("new-", i), 0, int64(1000+i), 0, 6))
	}
	mustAppend(t, s, batch...)
	assert.Equal(t, int64(maxBoots), rows())
	assert.Equal(t, []Outcome{Duplicate, Duplicate}, mustAppend(t, s, batch[999], batch[999-maxBoots+1]))
}

func TestAFailedCommitMarksNoNumber(t *testing.T) {
	s := openTest(t, Options{})
	mustAppend(t, s, numberedMessage("x", 0, 0, 0, 6))
	execute(t, s, `PRAGMA max_page_count = 1`)
	batch := []Message{numberedMessage("x", 1, 1, 0, 6), {Kind: Bad, Device: "a", Payload: make([]byte, 100_000), Received: noon}}
	_, err := s.Append(t.Context(), batch, nil)
	require.ErrorIs(t, err, ErrFull)
	execute(t, s, `PRAGMA max_page_count = 1000000`)
	assert.Equal(t, []Outcome{Stored, Quarantined}, mustAppend(t, s, batch...))
}

func TestADamagedListOfNumbersHoldsNothingUp(t *testing.T) {
	s := openTest(t, Options{Path: filepath.Join(t.TempDir(), "a.db")})
	mustAppend(t, s, numberedMessage("x", 0, 0, 0, 6))
	execute(t, s, `UPDATE boot SET seen = x'01ff'`)
	assert.Equal(t, []Outcome{Stored}, mustAppend(t, s, numberedMessage("x", 1, 1, 0, 6)))
	assert.Equal(t, []Outcome{Duplicate}, mustAppend(t, s, numberedMessage("x", 1, 1, 0, 6)))
}
