package control

import (
	"context"
	"fmt"
	"math"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/plantops/plantops/store"
	"github.com/plantops/plantops/store/backup"
)

func TestGrowthIsMeasuredOverTheLastDays(t *testing.T) {
	start := time.Date(2026, 1, 7, 12, 0, 0, 0, time.UTC)
	hour := func(n int) time.Time { return start.Add(time.Duration(n) * time.Hour) }
	var list []sample
	for n := range 24 * 20 {
		list = addSample(list, hour(n), int64(n)*1000)
	}
	assert.LessOrEqual(t, len(list), 30)
	perDay, ok := growth(list, hour(24*20), 24*20*1000)
	assert.True(t, ok)
	assert.EqualValues(t, 24_000, perDay)

	_, ok = growth(nil, start, 1000)
	assert.False(t, ok, "nothing is known")
	_, ok = growth([]sample{{start.UnixMilli(), 0}}, hour(23), 1000)
	assert.False(t, ok, "too short")
	perDay, ok = growth([]sample{{start.UnixMilli(), 5000}}, hour(48), 1000)
	assert.True(t, ok)
	assert.EqualValues(t, -2000, perDay, "retention deletes more than comes")

	// A box that was off for a year has grown by nothing that says something about the days to come.
	_, ok = growth(list, hour(24*385), 24*20*1000)
	assert.False(t, ok)
	list = addSample(list, hour(24*385), 24*20*1000)
	assert.Len(t, list, 1)
	// Nor do samples from a clock that was ahead.
	list = addSample([]sample{{hour(9000).UnixMilli(), 1}, {hour(1).UnixMilli(), 2}}, hour(10), 3)
	assert.Equal(t, []sample{{hour(1).UnixMilli(), 2}, {hour(10).UnixMilli(), 3}}, list)
}

func TestStatusSaysHowLongTheDiskLasts(t *testing.T) {
	s, o, db, now := keeper(t, 3, 0)
	st, err := s.Status(t.Context())
	require.NoError(t, err)
	assert.Nil(t, st.Storage.GrowthPerDay, "nothing is known yet")
	assert.Equal(t, now.Add(-72*time.Hour).UnixMilli(), int64(st.Storage.Oldest))
	require.NoError(t, s.NoteGrowth(t.Context()))
	*now = now.Add(48 * time.Hour)
	addLarge(t, db, "large", *now, time.Minute, 0, 2000)
	st, err = s.Status(t.Context())
	require.NoError(t, err)
	require.NotNil(t, st.Storage.GrowthPerDay)
	assert.Greater(t, *st.Storage.GrowthPerDay, int64(10_000))
	for _, c := range []struct {
		room, perDay, days int64
		ends               bool
	}{{1e9, 1e6, 1000, true}, {1e15, 1, 0, false}, {1e9, 0, 0, false}, {1e9, -5, 0, false}, {0, 5, 0, true}} {
		seconds, ends := lasts(c.room, c.perDay)
		assert.Equal(t, c.ends, ends)
		if ends {
			assert.Equal(t, c.days, seconds/86400)
		}
	}

	doubt := "it is 1970"
	o.Doubt = func() string { return doubt }
	s = New(*o)
	require.NoError(t, s.NoteGrowth(t.Context()))
	st, err = s.Status(t.Context())
	require.NoError(t, err)
	assert.Nil(t, st.Storage.GrowthPerDay, "two times cannot be compared")
}

// addLarge stores n messages of many values at regular times.
func addLarge(t *testing.T, db *store.Store, device string, from time.Time, every time.Duration, first, n int) {
	t.Helper()
	const atATime = 100 // a record of the journal goes as a whole
	if n > atATime {
		addLarge(t, db, device, from, every, first, n-atATime)
		first, n = first+n-atATime, atATime
	}
	var batch []store.Message
	for i := first; i < first+n; i++ {
		m := store.Message{Kind: store.Telemetry, Device: device, Time: from.Add(time.Duration(i) * every).UnixMilli(), Received: from.UnixMilli()}
		for v := range 20 {
			m.Values = append(m.Values, store.Value{Metric: fmt.Sprint("m", v), Value: math.Sin(float64(20*i + v))}) // no codec makes that small
		}
		batch = append(batch, m)
	}
	_, err := db.Append(context.Background(), batch, nil)
	require.NoError(t, err)
	require.NoError(t, db.Flush(context.Background()), "into blocks, so that the size of the database stays what it is")
}

func TestADatabaseThatIsTooLargeLosesItsOldestReadingsSlowly(t *testing.T) {
	s, o, db, now := keeper(t, 0, 0)
	const messages = 10*24*12 - 1
	start := now.Add(-10 * 24 * time.Hour)
	addLarge(t, db, "large", start, 5*time.Minute, 0, messages)
	used := func() int64 {
		st, err := s.Status(t.Context())
		require.NoError(t, err)
		return st.Storage.UsedBytes
	}
	full := used()
	n, _, err := s.DeleteForSize(t.Context(), 1000*time.Hour)
	require.NoError(t, err)
	assert.Zero(t, n, "no bound is set")

	o.MaxBytes = full / 2
	doubt := "it is 1970"
	o.Doubt = func() string { return doubt }
	s = New(*o)
	n, _, err = s.DeleteForSize(t.Context(), 1000*time.Hour)
	require.NoError(t, err)
	assert.Zero(t, n, "the clock is in doubt")
	doubt = ""

	n, _, err = s.DeleteForSize(t.Context(), 0)
	require.NoError(t, err)
	assert.Zero(t, n, "a start gives no budget")
	st, err := s.Status(t.Context())
	require.NoError(t, err)
	assert.Contains(t, fmt.Sprint(st.Problems), "store.max_size is")
	for range 24 {
		_, _, err = s.DeleteForSize(t.Context(), time.Hour)
		require.NoError(t, err)
	}
	// A small journal is not cut, so that the file of this test does not become smaller: what goes is bounded all the same.
	left := rows(t, db)
	assert.Less(t, left, int64(messages), "it goes")
	assert.Greater(t, left, int64(messages)*8/10, "not all at once: the setting may be a mistake")
	oldest, _, err := db.OldestReading(t.Context(), time.UnixMilli(0))
	require.NoError(t, err)
	assert.Greater(t, oldest, start, "the oldest are gone")

	o.MaxBytes = 1
	s = New(*o)
	for range 24 * 100 {
		if n, _, err = s.DeleteForSize(t.Context(), 24*time.Hour); n == 0 {
			break
		}
		require.NoError(t, err)
	}
	newest, found, err := db.OldestReading(t.Context(), now.Add(-24*time.Hour))
	require.NoError(t, err)
	assert.True(t, found, "the last day stays")
	assert.WithinDuration(t, now.Add(-24*time.Hour), newest, 2*time.Hour)
}

func TestStatusTellsOfBackups(t *testing.T) {
	_, o, db, now := keeper(t, 1, 0)
	o.Backup = BackupPlan{Every: 24 * time.Hour, Dir: "/mnt/usb"}
	s := New(*o)
	look := func() Status {
		st, err := s.Status(t.Context())
		require.NoError(t, err)
		return st
	}
	assert.Zero(t, look().Backups.Last)
	assert.Equal(t, Moment(now.UnixMilli()), look().Backups.Next)

	made := now.UnixMilli()
	remember := func(text string) { require.NoError(t, db.SetSetting(t.Context(), backup.SettingSchedule, text)) }
	remember(fmt.Sprintf(`{"last":{"made":%d,"path":"/mnt/usb/a.db","bytes":7}}`, made))
	b := look().Backups
	assert.Equal(t, Backups{EverySeconds: 86400, Dir: "/mnt/usb", Last: Moment(made), Path: "/mnt/usb/a.db", SizeBytes: 7,
		Next: Moment(now.Add(24 * time.Hour).UnixMilli())}, b)

	*now = now.Add(50 * time.Hour)
	assert.Contains(t, look().Problems, "the newest backup is 2d old")
	require.NoError(t, s.NoteBackup(t.Context(), backup.Entry{Made: now.UnixMilli(), Path: "/tmp/b.db", Bytes: 8}))
	b = look().Backups
	assert.True(t, b.ByPerson)
	assert.Equal(t, "/tmp/b.db", b.Path)

	remember(fmt.Sprintf(`{"failed":%d,"error":"no room"}`, made))
	assert.Contains(t, look().Problems, "the last backup failed: no room")
	remember(fmt.Sprintf(`{"last":{"made":%d,"path":"/mnt/usb/a.db"},"after_error":"exit status 3"}`, now.UnixMilli()))
	assert.Contains(t, fmt.Sprint(look().Problems), "the command of backup.after failed, so that the newest backup is only here: exit status 3")
	o.Backup.Every = 0
	s = New(*o)
	assert.NotContains(t, fmt.Sprint(look().Problems), "backup", "nobody asked for any")
}
