package main

import (
	"context"
	"errors"
	"log/slog"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/plantops/plantops/control"
	"github.com/plantops/plantops/store"
)

// inTime runs a part for a while of fake time and returns what it logged, one line each.
func inTime(t *testing.T, span time.Duration, part func(log *slog.Logger) func(context.Context) error) (lines []string, err error) {
	t.Helper()
	var text strings.Builder
	ctx, cancel := context.WithTimeout(context.Background(), span)
	defer cancel()
	err = part(slog.New(slog.NewTextHandler(&text, nil)))(ctx)
	return strings.Split(strings.TrimSpace(text.String()), "\n"), err
}

// fakeRetainer plays the server that judges how much may go.
type fakeRetainer struct {
	began   time.Time
	calls   []retainCall
	results []error
	waiting control.WaitingRetention
}

type retainCall struct{ at, budget time.Duration }

func (f *fakeRetainer) DeleteOld(_ context.Context, budget time.Duration) (int64, time.Time, error) {
	err := f.results[len(f.calls)]
	f.calls = append(f.calls, retainCall{time.Since(f.began), budget})
	if len(f.calls) == 2 {
		return 0, time.Time{}, err
	}
	return int64(len(f.calls)), f.began, err
}

func (f *fakeRetainer) Retention(context.Context) (control.WaitingRetention, error) {
	return f.waiting, nil
}

func TestOldReadingsAreDeletedEveryHourAndWhenAPersonConfirms(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		confirmed := make(chan struct{}, 1)
		f := &fakeRetainer{began: time.Now(), results: []error{nil, nil, store.ErrFull, nil}}
		time.AfterFunc(90*time.Minute, func() { confirmed <- struct{}{} })
		lines, err := inTime(t, 3*time.Hour-time.Minute, func(log *slog.Logger) func(context.Context) error {
			return retain(f, confirmed, log)
		})
		require.NoError(t, err)
		assert.Equal(t, []retainCall{
			{retentionFirst, retentionFirst}, {time.Hour + retentionFirst, time.Hour}, {90 * time.Minute, 30*time.Minute - retentionFirst},
			{150 * time.Minute, time.Hour},
		}, f.calls)
		require.Len(t, lines, 4)
		assert.Contains(t, lines[0], `level=INFO msg="deleted old readings" count=1`)
		assert.Contains(t, lines[1], "count=3")
		assert.Contains(t, lines[2], `level=WARN msg="cannot delete old readings" err="disk full"`)
	})
}

func TestWhatWaitsToBeDeletedIsSaidAtTheStartAndOnceADay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := &fakeRetainer{began: time.Now(), results: make([]error, 100)}
		f.waiting = control.WaitingRetention{Messages: 7, Newest: 90_000_000, Retention: control.Retention{LaneRetention: control.LaneRetention{Waits: true, Oldest: 1000}}}
		lines, err := inTime(t, 50*time.Hour, func(log *slog.Logger) func(context.Context) error { return retain(f, nil, log) })
		require.NoError(t, err)
		var said []string
		for _, line := range lines {
			if strings.Contains(line, "retention confirm") {
				said = append(said, line)
			}
		}
		require.Len(t, said, 3)
		assert.Contains(t, said[0], "count=7 from=1970-01-01T00:00:01.000Z to=1970-01-02T01:00:00.000Z")
		f.calls, f.waiting.Doubt = nil, "1970"
		lines, err = inTime(t, time.Hour, func(log *slog.Logger) func(context.Context) error { return retain(f, nil, log) })
		require.NoError(t, err)
		assert.NotContains(t, strings.Join(lines, ""), "confirm", "while the clock is in doubt nothing is due")
	})
}

func TestLowDiskIsSaidWhenItBeginsEveryHourAndWhenItEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		began := time.Now()
		space := func() (store.Space, error) {
			s := store.Space{FreeBytes: 50 << 30, TotalBytes: 100 << 30}
			switch minute := int(time.Since(began).Minutes()); {
			case minute == 5 || minute == 6:
				return s, errors.New("no such disk")
			case minute >= 10 && minute < 150:
				s.FreeBytes = 1 << 30
			}
			return s, nil
		}
		lines, err := inTime(t, 5*time.Hour, func(log *slog.Logger) func(context.Context) error {
			return watchSpace("/data/plantops.db", space, log)
		})
		require.NoError(t, err)
		require.Len(t, lines, 5)
		assert.Contains(t, lines[0], "no such disk")
		for i, at := range []time.Duration{10 * time.Minute, 70 * time.Minute, 130 * time.Minute} {
			assert.Contains(t, lines[1+i], "level=WARN msg=\"the disk of the database is nearly full")
			assert.Contains(t, lines[1+i], `path=/data/plantops.db free="1.0 GiB" of="100.0 GiB"`)
			assert.Contains(t, lines[1+i], "time="+began.Add(at).Format("2006-01-02T15:04:05.000"))
		}
		assert.Contains(t, lines[4], "has room again")
	})
}
