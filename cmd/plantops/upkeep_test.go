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

func TestOldReadingsAreDeletedEveryHourWhileTheClockIsRight(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		began, sure := time.Now(), time.Now().Add(90*time.Minute)
		unsure := func() bool { return time.Now().Before(sure) }
		type call struct{ after, age time.Duration }
		var calls []call
		results := []struct {
			deleted int64
			err     error
		}{{3, nil}, {0, nil}, {2, store.ErrFull}}
		lines, err := inTime(t, 4*time.Hour+time.Minute, func(log *slog.Logger) func(context.Context) error {
			return retain(24*time.Hour, time.Now, unsure, log, func(_ context.Context, before time.Time) (int64, error) {
				r := results[len(calls)]
				calls = append(calls, call{time.Since(began), time.Since(before)})
				return r.deleted, r.err
			})
		})
		require.NoError(t, err)
		const day = 24 * time.Hour
		assert.Equal(t, []call{
			{2*time.Hour + retentionFirst, day}, {3*time.Hour + retentionFirst, day}, {4*time.Hour + retentionFirst, day},
		}, calls)
		require.Len(t, lines, 3)
		assert.Contains(t, lines[0], `level=INFO msg="deleted old readings" count=3`)
		assert.Contains(t, lines[1], "count=2")
		assert.Contains(t, lines[2], `level=WARN msg="cannot delete old readings" err="disk full"`)
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
