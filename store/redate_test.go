package store

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

const yearMS = int64(365 * 24 * 3600 * 1000)

// marked is a message without a time of its own that came on a line of a clock that was not set.
func unsureArrival(device string, at, line int64) Message {
	return Message{Kind: Telemetry, Device: device, Topic: "devices/" + device + "/telemetry", Received: at, TimeSource: FromArrival,
		Values: []Value{{"ph", float64(at)}}, ClockUnsure: true, ClockLine: line, Payload: []byte("{}")}
}

func readingsOf(t *testing.T, s *Store, device string) (list []Reading) {
	t.Helper()
	for r, err := range s.Readings(t.Context(), Query{Devices: []string{device}}) {
		require.NoError(t, err)
		list = append(list, r)
	}
	return list
}

func TestWhatCameOnAWrongLineIsDatedByTheShift(t *testing.T) {
	s := openTest(t, Options{})
	const boot = 1_000_000 // ms since 1970
	shift := noon - boot
	taken := telemetry("a", noon+1, Value{"ph", 7}) // where a row wants to go
	own := unsureArrival("a", boot+5, 3)
	own.TimeSource, own.Time = FromDevice, noon-99
	aged := unsureArrival("a", boot+6, 3)
	aged.TimeSource, aged.Time = FromAge, boot-2000
	broken := bad("b", boot+7, "x")
	broken.ClockUnsure, broken.ClockLine = true, 3
	mustAppend(t, s, taken, unsureArrival("a", boot+1, 3), unsureArrival("a", boot+2, 3), own, aged, broken,
		unsureArrival("c", boot+3, 4), Message{Kind: Heartbeat, Device: "b", Received: boot + 8, ClockUnsure: true, ClockLine: 3})

	n, err := s.Redate(t.Context(), 3, time.Duration(shift)*time.Millisecond)
	require.NoError(t, err)
	assert.Equal(t, int64(5), n)
	var times []int64
	for _, r := range readingsOf(t, s, "a") {
		assert.False(t, r.ClockUnsure)
		times = append(times, r.Time-noon)
		if r.Value != 7 {
			assert.Equal(t, int64(0), (r.Received-noon-int64(r.Value)+boot)/100, "the arrival is near")
		}
	}
	assert.ElementsMatch(t, []int64{1, 2, 3, -99, -2000}, times)
	assert.True(t, readingsOf(t, s, "c")[0].ClockUnsure, "another line")
	q := entries(t, s)[0]
	assert.Equal(t, noon+7, q.Time)
	assert.False(t, q.ClockUnsure)
	b, err := s.Device(t.Context(), "b")
	require.NoError(t, err)
	assert.Equal(t, noon+8, b.LastSeen)
	assert.Zero(t, b.UnsureSeen)

	n, err = s.Redate(t.Context(), 3, time.Duration(shift)*time.Millisecond)
	require.NoError(t, err)
	assert.Zero(t, n, "nothing is shifted twice")
	require.NoError(t, s.Check(t.Context()))
}

// The clock was two years ahead when the device died.
func TestADeviceThatDiedWhileTheClockWasAheadIsSeenWhenItWas(t *testing.T) {
	s := openTest(t, Options{})
	mustAppend(t, s, telemetry("a", noon, Value{"ph", 1}))
	ahead := noon + 2*yearMS
	mustAppend(t, s, unsureArrival("a", ahead+5000, 2))
	d, err := s.Device(t.Context(), "a")
	require.NoError(t, err)
	assert.Equal(t, ahead+5000, d.UnsureSeen)
	_, err = s.Redate(t.Context(), 2, -time.Duration(2*yearMS)*time.Millisecond)
	require.NoError(t, err)
	d, err = s.Device(t.Context(), "a")
	require.NoError(t, err)
	assert.Equal(t, noon+5000, d.LastSeen)
	assert.Equal(t, noon+5000, d.LastReading)
	assert.Zero(t, d.UnsureSeen)
}

// Rows that stand dense move by less than they are long: none may step over another.
func TestDenseRowsKeepTheirDistance(t *testing.T) {
	for _, shift := range []int64{700, -700} {
		t.Run(fmt.Sprint(shift), func(t *testing.T) {
			s := openTest(t, Options{})
			var batch []Message
			for i := range int64(3 * redateRows) {
				batch = append(batch, unsureArrival("a", noon+i, 1))
			}
			mustAppend(t, s, batch...)
			n, err := s.Redate(t.Context(), 1, time.Duration(shift)*time.Millisecond)
			require.NoError(t, err)
			assert.Equal(t, int64(len(batch)), n)
			list := readingsOf(t, s, "a")
			require.Len(t, list, len(batch))
			for i, r := range list {
				require.Equal(t, noon+int64(i)+shift, r.Time)
				require.Equal(t, float64(noon+int64(i)), r.Value)
			}
		})
	}
}

func TestARedatingThatWasBrokenOffGoesOn(t *testing.T) {
	s := openTest(t, Options{})
	var batch []Message
	for i := range int64(2*redateRows + 10) {
		batch = append(batch, unsureArrival("a", 5000+i*10, 1))
	}
	mustAppend(t, s, batch...)
	n, err := s.redateChunk(t.Context(), func() (int64, error) { return s.redateReadings(1, noon) }) // and then the power is cut
	require.NoError(t, err)
	require.Equal(t, int64(redateRows), n)
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	_, err = s.Redate(ended, 1, time.Duration(noon)*time.Millisecond)
	require.Error(t, err)

	again := openTest(t, Options{Path: s.path})
	n, err = again.Redate(t.Context(), 1, time.Duration(noon)*time.Millisecond)
	require.NoError(t, err)
	assert.Equal(t, int64(redateRows+10), n)
	list := readingsOf(t, again, "a")
	require.Len(t, list, len(batch))
	for i, r := range list {
		require.Equal(t, noon+5000+int64(i)*10, r.Time)
	}
}

func TestMarkedRowsAreNotDeletedByAge(t *testing.T) {
	s := openTest(t, Options{})
	mustAppend(t, s, unsureArrival("a", 5000, 1), telemetry("a", 6000, Value{"ph", 1}), unsureArrival("a", 7000, 1), unsureArrival("b", 5000, 1))
	n, err := s.DeleteBefore(t.Context(), time.UnixMilli(noon))
	require.NoError(t, err)
	assert.Equal(t, int64(1), n)
	assert.Len(t, readingsOf(t, s, "a"), 2)
	assert.Len(t, readingsOf(t, s, "b"), 1)
}

func TestLinesOfTheClockOutliveARestart(t *testing.T) {
	s := openTest(t, Options{})
	lines, next, err := s.ClockLines(t.Context(), "boot-1")
	require.NoError(t, err)
	assert.Empty(t, lines)
	assert.Equal(t, int64(1), next)
	known := []ClockLine{{1, time.UnixMilli(-5), false}, {2, time.UnixMilli(noon), true}}
	require.NoError(t, s.RememberClock(t.Context(), "boot-1", known))
	mustAppend(t, s, unsureArrival("a", 5000, 7)) // a line that nobody came to write down
	lines, next, err = s.ClockLines(t.Context(), "boot-1")
	require.NoError(t, err)
	assert.Equal(t, known, lines)
	assert.Equal(t, int64(8), next)
	require.NoError(t, s.RememberClock(t.Context(), "boot-2", []ClockLine{{8, time.UnixMilli(noon), false}}))
	lines, _, err = s.ClockLines(t.Context(), "boot-1")
	require.NoError(t, err)
	assert.Empty(t, lines, "of another boot")
}

// The clock of a machine that jumps all the time forgets its oldest lines, but not the one that is trusted.
func TestLinesThatTheClockForgotAreNotKept(t *testing.T) {
	s := openTest(t, Options{})
	remember := func(numbers ...int64) (kept []int64) {
		lines := make([]ClockLine, len(numbers))
		for i, n := range numbers {
			lines[i] = ClockLine{n, time.UnixMilli(noon), false}
		}
		require.NoError(t, s.RememberClock(t.Context(), "boot-1", lines))
		known, _, err := s.ClockLines(t.Context(), "boot-1")
		require.NoError(t, err)
		for _, l := range known {
			kept = append(kept, l.Number)
		}
		return kept
	}
	for _, lines := range [][]int64{{1, 2, 3, 4}, {1, 3, 4, 5}, {1, 4, 5, 6}, {5, 6, 7}, {7}} {
		assert.Equal(t, lines, remember(lines...))
	}
}

func TestNewestArrivalIsOfATimeThatWasSure(t *testing.T) {
	s := openTest(t, Options{})
	assert.True(t, s.NewestArrival().IsZero())
	mustAppend(t, s, Message{Kind: Heartbeat, Device: "a", Received: noon})
	mustAppend(t, s, unsureArrival("a", noon+yearMS, 1), Message{Kind: Probe, Received: noon + yearMS, ClockUnsure: true, ClockLine: 1})
	assert.Equal(t, noon, s.NewestArrival().UnixMilli())
	mustAppend(t, s, Message{Kind: Heartbeat, Device: "a", Received: noon + 999})
	assert.Equal(t, noon, s.NewestArrival().UnixMilli(), "a second is near enough")
	mustAppend(t, s, Message{Kind: Heartbeat, Device: "a", Received: noon + 1000})
	again := openTest(t, Options{Path: s.path})
	assert.Equal(t, noon+1000, again.NewestArrival().UnixMilli())
}

// Summaries and lists of fields that could not be read are never dated again: a wrong clock must not get into them.
func TestASummaryIsNotDatedByAWrongClock(t *testing.T) {
	for name, at := range map[string]int64{"1970": 5000, "years ahead": noon + 2*yearMS} {
		t.Run(name, func(t *testing.T) {
			s := openTest(t, Options{QuarantineBytes: 1000})
			mustAppend(t, s, Message{Kind: Heartbeat, Device: "a", Received: noon})
			for range 30 {
				wrong := bad("a", at, "x")
				wrong.ClockUnsure, wrong.ClockLine, wrong.Skipped = true, 1, []Skipped{{Field: "f", Text: "t"}}
				mustAppend(t, s, wrong)
			}
			gone, err := s.QuarantineSummaries(t.Context())
			require.NoError(t, err)
			require.Len(t, gone, 1)
			assert.Equal(t, []int64{noon, noon}, []int64{gone[0].First, gone[0].Last})
			d, err := s.Device(t.Context(), "a")
			require.NoError(t, err)
			assert.Equal(t, noon, d.SkippedAt)
		})
	}
}
