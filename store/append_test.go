package store

import (
	"context"
	"database/sql"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

const noon = int64(1_767_787_200_000) // 2026-01-07T12:00:00Z

// openTest is storetest.Open for tests that look inside.
func openTest(t *testing.T, o Options) *Store {
	t.Helper()
	if o.Path == "" {
		o.Path = filepath.Join(t.TempDir(), "plantops.db")
	}
	if o.Now == nil {
		o.Now = func() time.Time { return time.UnixMilli(noon) }
	}
	s, err := Open(t.Context(), o)
	require.NoError(t, err)
	t.Cleanup(func() { assert.NoError(t, s.Close()) })
	return s
}

func telemetry(device string, at int64, values ...Value) Message {
	return Message{Device: device, Topic: "devices/" + device + "/telemetry", Time: at, Received: at, Values: values, Payload: []byte("{}")}
}

func mustAppend(t *testing.T, s *Store, batch ...Message) []Outcome {
	t.Helper()
	outcomes, err := s.Append(t.Context(), batch, nil)
	require.NoError(t, err)
	return outcomes
}

func entries(t *testing.T, s *Store) (list []QuarantineEntry) {
	t.Helper()
	for q, err := range s.Quarantine(t.Context(), 0) {
		require.NoError(t, err)
		list = append(list, q)
	}
	return list
}

func totals(t *testing.T, s *Store) Counts {
	t.Helper()
	c, err := s.Totals(t.Context())
	require.NoError(t, err)
	return c
}

func TestConflictingValueGoesToQuarantineWithItsBytes(t *testing.T) {
	s := openTest(t, Options{})
	first := telemetry("bed-1", noon, Value{"temperature", 22.5})
	other := telemetry("bed-1", noon, Value{"temperature", 22.6}, Value{"ph", 6})
	third := telemetry("bed-1", noon, Value{"temperature", 22.6})
	other.Payload, third.Payload = []byte("one\x00\xff"), []byte("two")
	assert.Equal(t, []Outcome{Stored, Stored, Quarantined, Duplicate}, mustAppend(t, s, first, other, third, first))

	list := entries(t, s)
	require.Len(t, list, 2)
	assert.Equal(t, []byte("one\x00\xff"), list[0].Payload)
	assert.Equal(t, "conflict", list[0].Reason)
	assert.Equal(t, "bed-1", list[1].Device)
	assert.Equal(t, Counts{Stored: 2, Duplicate: 1, Quarantined: 1}, totals(t, s))
	latest, err := s.Latest(t.Context(), "bed-1")
	require.NoError(t, err)
	assert.Equal(t, []Reading{
		{Device: "bed-1", Metric: "ph", Time: noon, Value: 6, Received: noon},
		{Device: "bed-1", Metric: "temperature", Time: noon, Value: 22.5, Received: noon},
	}, latest)
}

func TestMetricTwiceInAMessageIsAConflictEveryTime(t *testing.T) {
	s := openTest(t, Options{})
	m := telemetry("a", noon, Value{"ph", 6}, Value{"ph", 7})
	assert.Equal(t, []Outcome{Stored, Quarantined}, mustAppend(t, s, m, m))
	assert.Len(t, entries(t, s), 2)
	m.Values[1].Value = 6
	assert.Equal(t, []Outcome{Duplicate}, mustAppend(t, s, m))
}

func TestWhatCannotBeStoredGoesToQuarantine(t *testing.T) {
	many := make([]Value, maxMetrics+1)
	for i := range many {
		many[i] = Value{fmt.Sprint("m", i), 1}
	}
	for name, c := range map[string]struct {
		message Message
		device  string
		reason  string
	}{
		"bad":                {Message{Kind: Bad, Device: "a", Reason: "not JSON"}, "a", "not JSON"},
		"bad without reason": {Message{Kind: Bad, Device: "a"}, "a", reasonNone},
		"no device":          {telemetry("", noon, Value{"ph", 6}), "", reasonNoDevice},
		"device id":          {telemetry("a+b", noon, Value{"ph", 6}), "", reasonDeviceID},
		"reserved id":        {telemetry("plantops-ingest", noon, Value{"ph", 6}), "", reasonDeviceID},
		"not a number":       {telemetry("a", noon, Value{"ph", math.NaN()}), "a", reasonNotFinite},
		"infinite":           {telemetry("a", noon, Value{"ph", math.Inf(1)}), "a", reasonNotFinite},
		"empty metric":       {telemetry("a", noon, Value{"", 1}), "a", reasonMetricName},
		"long metric":        {telemetry("a", noon, Value{strings.Repeat("x", 129), 1}), "a", reasonMetricName},
		"metric not UTF-8":   {telemetry("a", noon, Value{"\xff", 1}), "a", reasonMetricName},
		"too many metrics":   {telemetry("a", noon, many...), "a", reasonMetrics},
	} {
		t.Run(name, func(t *testing.T) {
			s := openTest(t, Options{})
			c.message.Received = noon
			good := telemetry("good", noon, Value{"ph", 7})
			assert.Equal(t, []Outcome{Stored, Quarantined, Duplicate}, mustAppend(t, s, good, c.message, good))
			list := entries(t, s)
			require.Len(t, list, 1)
			assert.Equal(t, c.device, list[0].Device)
			assert.Equal(t, c.reason, list[0].Reason)
			d, err := s.Device(t.Context(), c.device)
			require.NoError(t, err)
			assert.Equal(t, Counts{Quarantined: 1}, d.Counts)
			assert.Len(t, s.state.metrics, 1, "names of refused messages")
		})
	}
}

func TestDeviceCannotBringUnlimitedMetricNames(t *testing.T) {
	s := openTest(t, Options{})
	var batch []Message
	for i := range maxMetrics {
		batch = append(batch, telemetry("a", noon+int64(i), Value{fmt.Sprint("m", i), 1}))
	}
	mustAppend(t, s, batch...)
	assert.Equal(t, int64(maxMetrics), totals(t, s).Stored)
	one := telemetry("a", noon+1000, Value{"one more", 1})
	assert.Equal(t, []Outcome{Quarantined}, mustAppend(t, s, one))
	one.Device = "b"
	assert.Equal(t, []Outcome{Stored}, mustAppend(t, s, one), "another device has its own bound")
	one.Device, one.Time = "a", noon+2000
	assert.Equal(t, []Outcome{Stored}, mustAppend(t, s, one), "the name is known now")

	require.NoError(t, s.Close())
	s = openTest(t, Options{Path: s.path})
	assert.Equal(t, []Outcome{Quarantined}, mustAppend(t, s, telemetry("a", noon+3000, Value{"after restart", 1})))
}

func TestRowCannotGrowBeyondTheBoundByMerging(t *testing.T) {
	s := openTest(t, Options{})
	message := func(device, prefix string, n int) Message {
		m := telemetry(device, noon)
		for i := range n {
			m.Values = append(m.Values, Value{fmt.Sprint(prefix, i), 1})
		}
		return m
	}
	mustAppend(t, s, message("a", "x", 200), message("b", "y", 200))
	assert.Equal(t, []Outcome{Quarantined, Stored}, mustAppend(t, s, message("a", "y", 57), message("a", "y", 56)))
}

func TestMessagesWithoutTimeGetOneOfTheirOwn(t *testing.T) {
	s := openTest(t, Options{})
	m := telemetry("a", 0, Value{"ph", 6})
	m.TimeSource, m.Received = FromArrival, noon
	given := telemetry("a", noon+2, Value{"ph", 6})
	assert.Equal(t, []Outcome{Stored, Stored, Stored, Stored}, mustAppend(t, s, given, m, m, m))
	var times []int64
	for r, err := range s.Readings(t.Context(), Query{}) {
		require.NoError(t, err)
		times = append(times, r.Time-noon)
		assert.Equal(t, r.Time != noon+2, r.TimeSource == FromArrival)
	}
	assert.Equal(t, []int64{0, 1, 2, 3}, times)
}

func TestSearchForAFreeTimeIsBounded(t *testing.T) {
	s := openTest(t, Options{})
	var batch []Message
	for i := range int64(maxArrivalSteps + 10) {
		batch = append(batch, telemetry("a", noon+i, Value{"ph", 6}))
	}
	mustAppend(t, s, append(batch, telemetry("a", noon+5000, Value{"ph", 6}))...)
	m := telemetry("a", 0, Value{"ph", 6})
	m.TimeSource, m.Received = FromArrival, noon
	assert.Equal(t, []Outcome{Stored}, mustAppend(t, s, m))
	d, err := s.Device(t.Context(), "a")
	require.NoError(t, err)
	assert.Equal(t, noon+5001, d.LastReading)
}

func TestHeartbeatIsStoredAndSeen(t *testing.T) {
	s := openTest(t, Options{})
	assert.Equal(t, []Outcome{Stored}, mustAppend(t, s, Message{Kind: Heartbeat, Device: "a", Received: noon - 1}))
	assert.Equal(t, []Outcome{Stored}, mustAppend(t, s, Message{Kind: Heartbeat, Device: "a", Received: noon}))
	d, err := s.Device(t.Context(), "a")
	require.NoError(t, err)
	assert.Equal(t, Device{ID: "a", Created: noon, LastSeen: noon, Counts: Counts{Stored: 2}}, d)
}

func TestLastSeenFollowsAClockThatIsPutRight(t *testing.T) {
	s := openTest(t, Options{})
	heard := func(at int64, unsure bool) int64 {
		mustAppend(t, s, Message{Kind: Heartbeat, Device: "a", Received: at, ClockUnsure: unsure})
		d, err := s.Device(t.Context(), "a")
		require.NoError(t, err)
		return d.LastSeen
	}
	assert.Equal(t, noon+1_000_000, heard(noon+1_000_000, false))
	assert.Equal(t, noon, heard(noon, false), "the clock was ahead")
	assert.Equal(t, noon, heard(5000, true), "no clock at all: what was known holds")
}

func TestFailedCommitStoresNothingAndTheNextOneWorks(t *testing.T) {
	for name, c := range map[string]struct {
		fault  error
		hinder func(t *testing.T, s *Store) (relieve func())
	}{
		"file may not grow": {ErrFull, func(t *testing.T, s *Store) func() {
			execute(t, s, `PRAGMA max_page_count = 1`)
			return func() { execute(t, s, `PRAGMA max_page_count = 1000000`) }
		}},
		"locked by another program": {ErrLocked, func(t *testing.T, s *Store) func() {
			db, err := sql.Open("sqlite", s.path)
			require.NoError(t, err)
			conn, err := db.Conn(t.Context())
			require.NoError(t, err)
			_, err = conn.ExecContext(t.Context(), `BEGIN IMMEDIATE`)
			require.NoError(t, err)
			return func() {
				_, err := conn.ExecContext(t.Context(), `ROLLBACK`)
				require.NoError(t, err)
				require.NoError(t, conn.Close())
				require.NoError(t, db.Close())
			}
		}},
	} {
		t.Run(name, func(t *testing.T) { testFailedCommit(t, openTest(t, Options{}), c.fault, c.hinder) })
	}
}

func TestFullDiskAsRoot(t *testing.T) {
	dir := mountDisk(t, "size=512k")
	ballast := filepath.Join(dir, "ballast")
	testFailedCommit(t, openTest(t, Options{Path: filepath.Join(dir, "plantops.db")}), ErrFull, func(t *testing.T, _ *Store) func() {
		_ = os.WriteFile(ballast, make([]byte, 1<<20), 0o600) // as much as there is room for
		return func() { require.NoError(t, os.Remove(ballast)) }
	})
}

func testFailedCommit(t *testing.T, s *Store, fault error, hinder func(*testing.T, *Store) func()) {
	known := telemetry("known", noon, Value{"ph", 6})
	mustAppend(t, s, known)
	before := totals(t, s)
	batch := []Message{known, {Kind: Bad, Device: "known", Payload: make([]byte, 10_000), Received: noon + 5}}
	batch = append(batch, telemetry("known", noon+1, Value{"its second", 1}))
	for i := range int64(100) {
		m := telemetry(fmt.Sprint("new-", i), noon+i, Value{"ph", 6}, Value{fmt.Sprint("metric-", i), 1})
		m.TimeSource = FromArrival
		batch = append(batch, m)
	}
	s.AddRefused("known", "acl", 3)

	relieve := hinder(t, s)
	for range 2 {
		outcomes, err := s.Append(t.Context(), batch, []Outcome{Duplicate})
		require.ErrorIs(t, err, fault)
		require.ErrorContains(t, err, s.path)
		assert.Equal(t, []Outcome{Duplicate}, outcomes, "as they came")
		assert.Len(t, s.state.devices, 2)
		assert.Len(t, s.state.metrics, 1)
		assert.Equal(t, 1, s.state.devices["known"].metrics, "names that it brought")
		assert.Empty(t, entries(t, s))
	}
	before.Refused = 3
	assert.Equal(t, before, totals(t, s))

	relieve()
	outcomes := mustAppend(t, s, batch...)
	assert.Equal(t, []Outcome{Duplicate, Quarantined, Stored}, outcomes[:3])
	want := Counts{Stored: 102, Duplicate: 1, Quarantined: 1, Refused: 3}
	assert.Equal(t, want, totals(t, s))
	assert.Equal(t, int64(10_000+len("no reason given")+entryOverheadBytes), s.tx.quarantine.committed)
	require.NoError(t, s.Close())
	s = openTest(t, Options{Path: s.path})
	assert.Equal(t, want, totals(t, s))
	d, err := s.Device(t.Context(), "new-7")
	require.NoError(t, err)
	assert.Equal(t, noon+7, d.LastReading, "the failed attempts left no trace in the times of arrival")
	assert.NoError(t, s.Check(t.Context()))
}

func TestRefusedCountsAreThereAtOnceAndAfterARestart(t *testing.T) {
	s := openTest(t, Options{})
	mustAppend(t, s, Message{Kind: Heartbeat, Device: "a", Received: noon})
	s.AddRefused("a", "acl", 2)
	s.AddRefused("who?", "password", 1)
	check := func(s *Store) {
		t.Helper()
		assert.Equal(t, Counts{Stored: 1, Refused: 3}, totals(t, s))
		d, err := s.Device(t.Context(), "a")
		require.NoError(t, err)
		assert.Equal(t, Counts{Stored: 1, Refused: 2}, d.Counts)
		reasons, err := s.Refusals(t.Context())
		require.NoError(t, err)
		assert.Equal(t, map[string]int64{"acl": 2, "password": 1}, reasons)
	}
	check(s)
	require.NoError(t, s.Flush(t.Context()))
	assert.Empty(t, s.state.refused)
	check(s)
	require.NoError(t, s.Close())
	check(openTest(t, Options{Path: s.path}))
}

func TestRefusedCountsAreCommittedWhenNothingElseHappens(t *testing.T) {
	s := openTest(t, Options{})
	s.AddRefused("", "password", 1)
	reader := openTest(t, Options{Path: s.path, ReadOnly: true})
	require.Eventually(t, func() bool { return totals(t, reader).Refused == 1 }, patience, 20*time.Millisecond)
}

func TestRefusedCountsWaitForWhoIsBusy(t *testing.T) {
	s := openTest(t, Options{})
	s.AddRefused("", "password", 1)
	require.NoError(t, s.acquire(t.Context()))
	s.idle.Stop()
	s.whenIdle() // the timer fires while somebody writes, who may not commit
	s.release()
	reader := openTest(t, Options{Path: s.path, ReadOnly: true})
	require.Eventually(t, func() bool { return totals(t, reader).Refused == 1 }, patience, 20*time.Millisecond)
}

// The race detector judges it: the timer's function is not ordered after Open by anything else.
func TestTheTimerOfAQuietStoreComesAfterOpen(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := openTest(t, Options{})
		s.writing <- struct{}{}
		time.Sleep(2 * idleAfter) // in the bubble
		s.release()
		require.NoError(t, s.Close())
	})
}

func TestAnotherProcessMayWriteToo(t *testing.T) {
	a := openTest(t, Options{})
	b := openTest(t, Options{Path: a.path})
	for i := range int64(3) {
		mustAppend(t, a, telemetry(fmt.Sprint("a", i), noon, Value{fmt.Sprint("from a ", i), 1}))
		mustAppend(t, b, telemetry(fmt.Sprint("b", i), noon, Value{fmt.Sprint("from b ", i), 1}), telemetry("a0", noon+1+i, Value{"ph", 1}))
	}
	_, err := b.AddDevice(t.Context(), "c")
	require.NoError(t, err)
	mustAppend(t, a, Message{Kind: Heartbeat, Device: "c", Received: noon})
	assert.Equal(t, Counts{Stored: 10}, totals(t, a))
	_, known := a.Account("c")
	assert.True(t, known)
}

func TestDamagedRowDoesNotHoldUpTheBatch(t *testing.T) {
	s := openTest(t, Options{})
	m := telemetry("a", noon, Value{"ph", 6})
	m.ClockUnsure, m.ClockLine = true, 1 // which makes it a row
	mustAppend(t, s, m)
	execute(t, s, `UPDATE reading SET body = x'ffff'`)
	assert.Equal(t, []Outcome{Quarantined, Stored}, mustAppend(t, s, m, telemetry("b", noon, Value{"ph", 6})))
}

func TestReadersDuringWrites(t *testing.T) {
	s := openTest(t, Options{})
	mustAppend(t, s, telemetry("d1", noon-1, Value{"ph", 6}))
	ctx, cancel := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	read := func(do func() error) {
		wg.Go(func() {
			for ctx.Err() == nil {
				if err := do(); err != nil {
					assert.ErrorIs(t, err, context.Canceled)
				}
			}
		})
	}
	read(func() error { _, err := s.Devices(ctx); return err })
	read(func() error { s.AddRefused("d1", "acl", 1); _, err := s.Totals(ctx); return err })
	read(func() error { _, err := s.Latest(ctx, "d1"); return err })
	read(func() error { _, err := s.Health(ctx); return err })
	read(func() error {
		var last int64
		for r, err := range s.Readings(ctx, Query{}) {
			if err != nil {
				return err
			}
			assert.LessOrEqual(t, last, r.Time)
			last = r.Time
		}
		return nil
	})
	for i := range int64(20) {
		var batch []Message
		for d := range int64(5) {
			batch = append(batch, telemetry(fmt.Sprint("d", d), noon+i, Value{fmt.Sprint("m", i%7), float64(d)}))
		}
		mustAppend(t, s, batch...)
	}
	cancel()
	wg.Wait()
	assert.Equal(t, int64(101), totals(t, s).Stored)
}

func TestClosedStoreSaysSo(t *testing.T) {
	s := openTest(t, Options{})
	require.NoError(t, s.Close())
	_, err := s.Append(t.Context(), nil, nil)
	require.ErrorIs(t, err, ErrClosed)
	require.NoError(t, s.Close(), "a second time")
	open, err := filepath.Glob("/proc/self/fd/*")
	require.NoError(t, err)
	for _, fd := range open {
		name, _ := os.Readlink(fd)
		assert.False(t, strings.HasPrefix(name, s.path), "%s is still open", name)
	}
}

func TestAProbeIsWrittenAndNotCounted(t *testing.T) {
	s := openTest(t, Options{})
	wal := func() int64 {
		health, err := s.Health(t.Context())
		require.NoError(t, err)
		return health.WALBytes
	}
	before := wal()
	assert.Equal(t, []Outcome{Proved}, mustAppend(t, s, Message{Kind: Probe, Received: noon}))
	assert.Greater(t, wal(), before, "something was written")
	assert.Zero(t, totals(t, s))
}
