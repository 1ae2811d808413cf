package backup

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

type settings map[string]string

func (s settings) Setting(_ context.Context, name string) (string, error) { return s[name], nil }
func (s settings) SetSetting(_ context.Context, name, value string) error {
	s[name] = value
	return nil
}

// scheduled is a schedule whose backups are files with a number.
type scheduled struct {
	Schedule
	settings settings
	now      time.Time
	unsure   bool
	fail     error
	broken   atomic.Bool // as fail, from another goroutine
	n        int
	tries    atomic.Int64
}

func newScheduled(t *testing.T) *scheduled {
	s := &scheduled{settings: settings{}, now: time.Date(2026, 1, 7, 12, 0, 0, 0, time.UTC)}
	s.Schedule = Schedule{Every: 24 * time.Hour, Keep: 2, Dir: filepath.Join(t.TempDir(), "backups"), Settings: s.settings,
		Now: func() time.Time { return s.now }, Unsure: func() bool { return s.unsure }, Log: slog.New(slog.DiscardHandler),
		Make: func(_ context.Context, to string) (Result, error) {
			s.tries.Add(1)
			if s.broken.Load() {
				return Result{}, errors.New("no disk")
			}
			if s.fail != nil {
				return Result{}, s.fail
			}
			s.n++
			s.now = s.now.Add(time.Minute)
			text := fmt.Sprint("backup ", s.n)
			return Result{Path: to, Bytes: int64(len(text))}, os.WriteFile(to, []byte(text), 0o600)
		}}
	return s
}

func (s *scheduled) state(t *testing.T) State {
	state, _, err := Remembered(t.Context(), s.settings)
	require.NoError(t, err)
	return state
}

func (s *scheduled) files(t *testing.T) (list []string) {
	entries, err := os.ReadDir(s.Dir)
	require.NoError(t, err)
	for _, e := range entries {
		text, err := os.ReadFile(filepath.Join(s.Dir, e.Name()))
		require.NoError(t, err)
		list = append(list, string(text))
	}
	return list
}

func TestTheOldestBackupsGoWhateverTheClockSays(t *testing.T) {
	s := newScheduled(t)
	for _, days := range []int{0, 1, -400, 5} { // the clock was set in between
		s.now = s.now.Add(time.Duration(days) * 24 * time.Hour)
		require.NoError(t, s.Once(t.Context()))
	}
	assert.ElementsMatch(t, []string{"backup 3", "backup 4"}, s.files(t))
	s.unsure = true
	for range 3 {
		require.NoError(t, s.Once(t.Context()))
	}
	assert.Equal(t, []string{"backup 6", "backup 7"}, s.files(t))
	assert.FileExists(t, filepath.Join(s.Dir, "plantops-clock-unsure-3.db"))
}

func TestOnlyWhatTheScheduleMadeGoes(t *testing.T) {
	s := newScheduled(t)
	require.NoError(t, os.MkdirAll(s.Dir, 0o700))
	others := filepath.Join(s.Dir, Name(s.now.Add(-time.Hour))) // a person's, or another box's, by the same rule
	require.NoError(t, os.WriteFile(others, []byte("others"), 0o600))
	for range 4 {
		require.NoError(t, s.Once(t.Context()))
	}
	assert.Equal(t, []string{"others", "backup 3", "backup 4"}, s.files(t))

	changed := s.state(t).Made[0].Path
	require.NoError(t, os.WriteFile(changed, []byte("somebody else's"), 0o600))
	for range 3 {
		require.NoError(t, s.Once(t.Context()))
	}
	assert.Equal(t, []string{"others", "somebody else's", "backup 6", "backup 7"}, s.files(t), "the first kept is not its own any more")

	elsewhere := s.Dir
	s.Dir = filepath.Join(t.TempDir(), "usb")
	for range 3 {
		require.NoError(t, s.Once(t.Context()))
	}
	assert.Equal(t, []string{"backup 9", "backup 10"}[0], s.files(t)[0])
	s.Dir = elsewhere
	assert.Len(t, s.files(t), 4, "what is in a folder that is no longer used stays")
}

func TestABackupThatFailsRemovesNothing(t *testing.T) {
	s := newScheduled(t)
	s.Keep = 1
	require.NoError(t, s.Once(t.Context()))
	s.fail = errors.New("no room")
	require.ErrorIs(t, s.Once(t.Context()), s.fail)
	assert.Equal(t, []string{"backup 1"}, s.files(t))
	assert.Equal(t, "no room", s.state(t).Error)
	require.NotNil(t, s.state(t).Last)
	s.fail = nil
	require.NoError(t, s.Once(t.Context()))
	assert.Empty(t, s.state(t).Error)
	assert.Equal(t, []string{"backup 2"}, s.files(t))
}

func TestWhatAKilledProcessLeftIsRemoved(t *testing.T) {
	s := newScheduled(t)
	require.NoError(t, os.MkdirAll(s.Dir, 0o700))
	killed := filepath.Join(s.Dir, "plantops-killed.db")
	require.NoError(t, os.WriteFile(killed+partSuffix, []byte("half"), 0o600))
	require.NoError(t, set(t.Context(), s.settings, SettingSchedule, State{Making: killed}))
	require.NoError(t, s.Once(t.Context()))
	assert.Equal(t, []string{"backup 1"}, s.files(t))
}

// A kill between the last name of a backup and the note that it is there.
func TestABackupThatAKilledProcessFinishedGoesInItsTurn(t *testing.T) {
	s := newScheduled(t)
	require.NoError(t, s.Once(t.Context()))
	before := s.state(t)
	require.NoError(t, s.Once(t.Context()))
	killed := s.state(t)
	killed.Making, killed.Made, killed.Last = killed.Last.Path, before.Made, before.Last
	require.NoError(t, set(t.Context(), s.settings, SettingSchedule, killed))
	for n := 3; n < 6; n++ {
		require.NoError(t, s.Once(t.Context()))
		assert.Equal(t, []string{fmt.Sprint("backup ", n-1), fmt.Sprint("backup ", n)}, s.files(t))
	}
}

func TestWhenABackupIsDue(t *testing.T) {
	now := time.Date(2026, 1, 7, 12, 0, 0, 0, time.UTC)
	day := 24 * time.Hour
	last := func(ago time.Duration, unsure bool) State {
		return State{Last: &Entry{Made: now.Add(-ago).UnixMilli(), Unsure: unsure}}
	}
	failed := last(time.Hour, false)
	failed.Failed = 1
	for name, c := range map[string]struct {
		state  State
		unsure bool
		up     time.Duration
		want   bool
	}{
		"never":                                    {State{}, false, 0, true},
		"an hour ago":                              {last(time.Hour, false), false, 0, false},
		"a day ago":                                {last(day, false), false, 0, true},
		"the last failed":                          {failed, false, 0, true},
		"in the future, after a start":             {last(-400*day, false), false, time.Hour, false},
		"in the future, and up for a day":          {last(-400*day, false), false, day, true},
		"the clock is in 1970 after a power cut":   {last(-400*day, false), true, time.Hour, false},
		"unsure for a day":                         {last(time.Hour, false), true, day, true},
		"the last was made by a clock in the past": {last(400*day, true), false, time.Hour, false},
	} {
		assert.Equal(t, c.want, isDue(c.state, now, c.unsure, c.up, day), name)
	}
}

func TestTheScheduleKeepsItsTimes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newScheduled(t)
		s.Keep, s.Schedule.Now = 1000, time.Now
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan error, 1)
		go func() { ended <- s.Run(ctx) }()
		time.Sleep(10*24*time.Hour + time.Hour)
		synctest.Wait()
		assert.EqualValues(t, 11, s.tries.Load())
		s.broken.Store(true)
		time.Sleep(3 * 24 * time.Hour)
		synctest.Wait()
		tries := s.tries.Load() - 11
		assert.Greater(t, tries, int64(5))
		assert.Less(t, tries, int64(20), "less and less often")
		cancel()
		require.NoError(t, <-ended)
	})
}

func TestTheUsersCommandIsToldTheFileAndIsBounded(t *testing.T) {
	t.Setenv("PLANTOPS_MQTT_BACKEND_PASSWORD", "secret")
	s := newScheduled(t)
	said := filepath.Join(t.TempDir(), "said")
	s.After = `echo "$PLANTOPS_BACKUP $PLANTOPS_MQTT_BACKEND_PASSWORD" > ` + said
	require.NoError(t, s.Once(t.Context()))
	text, err := os.ReadFile(said)
	require.NoError(t, err)
	assert.Equal(t, s.state(t).Last.Path+" \n", string(text))
	assert.Empty(t, s.state(t).AfterError)

	s.After = "echo no route to the NAS >&2; exit 3"
	require.NoError(t, s.Once(t.Context()), "there is a backup")
	assert.Equal(t, `exit status 3: "no route to the NAS"`, s.state(t).AfterError)

	began := time.Now()
	err = runAfter(t.Context(), "sleep 1000 & sleep 1000", "file", 50*time.Millisecond)
	require.ErrorContains(t, err, "it was ended after 50ms")
	assert.Less(t, time.Since(began), 30*time.Second)
}
