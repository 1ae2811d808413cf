package store

import (
	"bytes"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func bad(device string, received int64, payload string) Message {
	return Message{Kind: Bad, Device: device, Topic: "devices/" + device + "/telemetry", Received: received, Payload: []byte(payload), Reason: "not JSON"}
}

func TestQuarantineIsBoundedAndWhatGoesIsCounted(t *testing.T) {
	const limit = 100_000
	s := openTest(t, Options{QuarantineBytes: limit})
	total := int64(0)
	for round := range int64(30) {
		var batch []Message
		for i := range int64(50) {
			batch = append(batch, bad([]string{"a", "b"}[i%2], noon+round, fmt.Sprintf("%0*d", i*10, total)))
			total++
		}
		mustAppend(t, s, batch...)
		sum, err := s.w.sumEntries.number()
		require.NoError(t, err)
		require.LessOrEqual(t, sum, int64(limit))
		require.Equal(t, sum, s.tx.quarantine.committed)
	}
	kept := entries(t, s)
	assert.Equal(t, total, kept[len(kept)-1].ID, "the newest is there")
	gone, err := s.QuarantineSummaries(t.Context())
	require.NoError(t, err)
	require.Len(t, gone, 2)
	assert.Equal(t, total, int64(len(kept))+gone[0].Count+gone[1].Count)
	assert.Equal(t, "a", gone[0].Device)
	assert.Equal(t, "not JSON", gone[0].Reason)
	assert.Equal(t, noon, gone[0].First)
	assert.Equal(t, Counts{Quarantined: total}, totals(t, s))
}

func TestOldEntriesAreSummarisedHourly(t *testing.T) {
	now, elapsed := time.UnixMilli(noon), time.Duration(0)
	s := openTest(t, Options{QuarantineAge: 24 * time.Hour, Now: func() time.Time { return now }, Elapsed: func() time.Duration { return elapsed }})
	var batch []Message
	for i := range int64(2 * evictEntries) {
		batch = append(batch, bad("a", noon+i, "x"))
	}
	mustAppend(t, s, batch...)
	now, elapsed = now.Add(24*time.Hour+300*time.Millisecond), 24*time.Hour+300*time.Millisecond
	mustAppend(t, s, Message{Kind: Heartbeat, Device: "a"})
	assert.Len(t, entries(t, s), 2*evictEntries-300)
	gone, err := s.QuarantineSummaries(t.Context())
	require.NoError(t, err)
	assert.Equal(t, []QuarantineSummary{{"a", "not JSON", 300, noon, noon + 299}}, gone)
}

// A box without a clock thinks that it is 1970 until it has reached a time server.
func TestEntriesOfAnUnsureTimeAreNotTooOld(t *testing.T) {
	now, elapsed := time.UnixMilli(5000), time.Duration(0)
	s := openTest(t, Options{QuarantineAge: 24 * time.Hour, Now: func() time.Time { return now }, Elapsed: func() time.Duration { return elapsed }})
	unsure := bad("a", 5000, "x")
	unsure.ClockUnsure = true
	mustAppend(t, s, unsure)
	now = time.UnixMilli(noon)
	mustAppend(t, s, bad("a", noon, "y"))
	assert.Len(t, entries(t, s), 2, "the clock was set")
	now, elapsed = now.Add(25*time.Hour), 25*time.Hour
	mustAppend(t, s, bad("a", now.UnixMilli(), "z"))
	assert.Len(t, entries(t, s), 1, "older than an entry that is too old")
}

// A clock that is years ahead, or unsure, must not empty the quarantine.
func TestAJumpOfTheClockMakesNoEntryTooOld(t *testing.T) {
	now, elapsed, unsure := time.UnixMilli(noon), time.Duration(0), false
	s := openTest(t, Options{QuarantineAge: 24 * time.Hour, Now: func() time.Time { return now },
		Elapsed: func() time.Duration { return elapsed }, Unsure: func() bool { return unsure }})
	for i := range int64(3) {
		mustAppend(t, s, bad("a", noon+i*time.Hour.Milliseconds(), "x"))
	}
	left := func(after time.Duration) int {
		elapsed += after
		mustAppend(t, s, Message{Kind: Heartbeat, Device: "a", Received: now.UnixMilli()})
		return len(entries(t, s))
	}
	now = now.Add(2 * 365 * 24 * time.Hour)
	assert.Equal(t, 3, left(time.Minute))
	unsure = true
	assert.Equal(t, 3, left(100*time.Hour))
	unsure = false
	assert.Equal(t, 3, left(time.Minute), "the hours of doubt give nothing away")
	assert.Equal(t, 1, left(61*time.Minute))
	assert.Equal(t, 0, left(61*time.Minute))
}

func TestReasonsInSummariesAreBounded(t *testing.T) {
	s := openTest(t, Options{QuarantineBytes: 1000})
	var batch []Message
	for i := range maxSummaryReasons + 300 {
		m := bad("a", noon, "x")
		m.Reason = fmt.Sprint("reason ", i)
		batch = append(batch, m)
	}
	for chunk := range slices.Chunk(batch, 500) {
		mustAppend(t, s, chunk...)
	}
	gone, err := s.QuarantineSummaries(t.Context())
	require.NoError(t, err)
	assert.LessOrEqual(t, len(gone), maxSummaryReasons+evictEntries)
	count := int64(len(entries(t, s)))
	for _, g := range gone {
		count += g.Count
	}
	assert.Equal(t, int64(len(batch)), count)
}

func TestQuarantineListsTheNewestInOrderOfArrival(t *testing.T) {
	s := openTest(t, Options{})
	var batch []Message
	for i := range int64(100) {
		batch = append(batch, bad("a", noon+i, fmt.Sprint(i)))
	}
	mustAppend(t, s, batch...)
	var payloads []string
	for q, err := range s.Quarantine(t.Context(), 40) {
		require.NoError(t, err)
		payloads = append(payloads, string(q.Payload))
	}
	require.Len(t, payloads, 40)
	assert.Equal(t, "60", payloads[0])
	assert.Equal(t, "99", payloads[39])

	n, err := s.PurgeQuarantine(t.Context(), 1, 2, 999)
	require.NoError(t, err)
	assert.Equal(t, int64(2), n)
	_, err = s.QuarantineEntry(t.Context(), 1)
	require.ErrorIs(t, err, ErrNotFound)
	n, err = s.PurgeQuarantine(t.Context())
	require.NoError(t, err)
	assert.Equal(t, int64(98), n)
	mustAppend(t, s, bad("a", noon, "after"))
	q, err := s.QuarantineEntry(t.Context(), 101)
	require.NoError(t, err, "ids are not used again")
	assert.Equal(t, QuarantineEntry{
		ID: 101, Time: noon, Device: "a", Topic: "devices/a/telemetry", Reason: "not JSON", Payload: []byte("after"), Size: 5,
	}, q)
	assert.Equal(t, Counts{Quarantined: 101}, totals(t, s), "purging does not change what happened")
}

func withoutTime(device string, values ...Value) Message {
	m := telemetry(device, noon, values...)
	m.TimeSource = FromArrival
	return m
}

func TestReplayKeepsTheEquation(t *testing.T) {
	there := telemetry("a", noon, Value{"ph", 6})
	for name, c := range map[string]struct {
		quarantined Message // with the first entry's id
		replay      Message
		outcome     Outcome
		counts      Counts
		left        int
	}{
		"stored": {
			bad("a", noon, "x"), telemetry("a", noon+1, Value{"ph", 6}), Stored, Counts{Stored: 2}, 0,
		},
		"duplicate": {
			bad("a", noon, "x"), there, Duplicate, Counts{Stored: 1, Duplicate: 1}, 0,
		},
		"heartbeat": {
			bad("a", noon, "x"), Message{Kind: Heartbeat, Device: "a"}, Stored, Counts{Stored: 2}, 0,
		},
		"still bad": {
			bad("a", noon, "x"), bad("a", noon, "x"), Quarantined, Counts{Stored: 1, Quarantined: 1}, 1,
		},
		"conflict": {
			bad("a", noon, "x"), telemetry("a", noon, Value{"ph", 7}), Quarantined, Counts{Stored: 1, Quarantined: 1}, 1,
		},
		"partly": {
			bad("a", noon, "x"), telemetry("a", noon, Value{"ph", 7}, Value{"co2", 400}), Stored, Counts{Stored: 2}, 1,
		},
		"of another device now": {
			bad("no+device", noon, "x"), telemetry("b", noon, Value{"ph", 7}), Stored, Counts{Stored: 2}, 0,
		},
		"rest of a stored message": {
			telemetry("a", noon, Value{"ph", 7}, Value{"co2", 400}), telemetry("a", noon+1, Value{"ph", 7}), Stored, Counts{Stored: 2}, 0,
		},
		"rest of a stored message without a time": {
			withoutTime("a", Value{"ph", 7}, Value{"ph", 8}), withoutTime("a", Value{"ph", 7}, Value{"ph", 8}), Quarantined, Counts{Stored: 2}, 1,
		},
	} {
		t.Run(name, func(t *testing.T) {
			s := openTest(t, Options{})
			mustAppend(t, s, there, c.quarantined)
			outcome, err := s.ReplayQuarantined(t.Context(), 1, c.replay)
			require.NoError(t, err)
			assert.Equal(t, c.outcome, outcome)
			assert.Equal(t, c.counts, totals(t, s))
			assert.Len(t, entries(t, s), c.left)
			sum, err := s.w.sumEntries.number()
			require.NoError(t, err)
			assert.Equal(t, sum, s.tx.quarantine.committed)
			if c.left == 0 {
				_, err = s.ReplayQuarantined(t.Context(), 1, c.replay)
				require.ErrorIs(t, err, ErrNotFound)
				return
			}
			rows := countRows(t, s)
			_, err = s.ReplayQuarantined(t.Context(), 1, c.replay)
			require.NoError(t, err)
			assert.Equal(t, c.counts, totals(t, s), "a second time changes nothing")
			assert.Equal(t, rows, countRows(t, s), "a second time stores nothing")
		})
	}
}

func TestSizeOfTheQuarantineIsKnownWhoeverChangesIt(t *testing.T) {
	a := openTest(t, Options{})
	mustAppend(t, a, bad("a", noon, "x"), bad("a", noon, "yy"), bad("a", noon, "zzz"))
	exact := func(after string) {
		mustAppend(t, a, bad("a", noon, "more"))
		sum, err := a.w.sumEntries.number()
		require.NoError(t, err)
		assert.Equal(t, sum, a.tx.quarantine.committed, after)
	}
	purged, err := a.PurgeQuarantine(t.Context(), 2, 3, 3, 99)
	require.NoError(t, err)
	assert.Equal(t, int64(2), purged)
	exact("purged")
	b := openTest(t, Options{Path: a.path})
	mustAppend(t, b, bad("b", noon, "of another process"))
	exact("another process")
}

func TestANoisyDeviceMakesRoomItself(t *testing.T) {
	var log bytes.Buffer
	s := openTest(t, Options{QuarantineBytes: 200_000, Log: slog.New(slog.NewTextHandler(&log, nil))})
	bad := func(device string) Message {
		return Message{Kind: Bad, Device: device, Topic: "devices/" + device + "/telemetry", Received: noon, Payload: make([]byte, 1000), Reason: "not JSON"}
	}
	mustAppend(t, s, bad("good"), bad("good"))
	for range 100 {
		mustAppend(t, s, slices.Repeat([]Message{bad("noisy")}, 10)...)
	}
	left := map[string]int{}
	for _, q := range entries(t, s) {
		left[q.Device]++
	}
	assert.Equal(t, 2, left["good"])
	assert.Greater(t, left["noisy"], 100)
	list, err := s.QuarantineSummaries(t.Context())
	require.NoError(t, err)
	require.Len(t, list, 1)
	assert.Equal(t, "noisy", list[0].Device)
	assert.EqualValues(t, 1000, int(list[0].Count)+left["noisy"])
	h, err := s.Health(t.Context())
	require.NoError(t, err)
	assert.EqualValues(t, len(entries(t, s)), h.Quarantined)
	count, newest, err := s.QuarantineGrowth(t.Context(), noon-1)
	require.NoError(t, err)
	assert.EqualValues(t, []int64{h.Quarantined, noon}, []int64{count, newest})
	assert.Equal(t, 2, strings.Count(log.String(), "went to the quarantine"), "the first of each device and reason")
}
