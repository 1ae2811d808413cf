package control

import (
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/plantops/plantops/store"
	"github.com/plantops/plantops/store/keep"
	"github.com/plantops/plantops/store/storetest"
)

const (
	hourMS = int64(3_600_000)
	dayMS  = 24 * hourMS
)

func TestOneStepOfDeletingByAge(t *testing.T) {
	const due, day = 1000 * dayMS, dayMS
	for name, c := range map[string]struct {
		state               retentionState
		oldest, due, budget int64
		cutoff, left        int64
	}{
		"an hour of uptime, an hour of readings": {retentionState{due - hourMS, 0}, due - hourMS, due, hourMS, due, 0},
		"no uptime yet":                          {retentionState{due - hourMS, 0}, due - hourMS, due, 0, due - hourMS, 0},
		"finely":                                 {retentionState{0, 0}, due - 9*day, due, day, due - 9*day + hourMS, day - hourMS},
		"never more than what is due":            {retentionState{0, 0}, due - 60, due, day, due, day - 60},
		"nothing older":                          {retentionState{due - 400*day, 0}, due, due, 0, due, 0},
		"time without readings costs nothing":    {retentionState{due - 400*day, 0}, due - 2*day, due, hourMS, due - 2*day + hourMS, 0},
		"a person has confirmed":                 {retentionState{due - 400*day, due - 5*day}, due - 300*day, due, 0, due - 5*day, 0},
		"more was confirmed than is due":         {retentionState{due - 400*day, due + 5*day}, due - 300*day, due, 0, due, 0},
		"kept for longer than before":            {retentionState{due + 30*day, 0}, due + 30*day, due, day, due, day},
		"what is behind is gone already":         {retentionState{due - day, 0}, due - 5*day, due, 0, due - day, 0},
	} {
		cutoff, left := nextCutoff(c.state, c.oldest, c.due, c.budget)
		assert.Equal(t, c.cutoff, cutoff, name)
		assert.Equal(t, c.left, left, name)
	}
}

// keeper is a server with a clock that a test sets, and a reading an hour for so many days back.
func keeper(t *testing.T, days int, keep time.Duration) (s *Server, o *Options, db *store.Store, now *time.Time) {
	t.Helper()
	db = storetest.OpenWith(t, store.Options{Path: filepath.Join(t.TempDir(), "p.db")})
	at := time.UnixMilli(20_000 * dayMS)
	var batch []store.Message
	for i := range int64(days * 24) {
		batch = append(batch, store.Message{Kind: store.Telemetry, Device: "a", Time: at.UnixMilli() - (i+1)*hourMS, Received: at.UnixMilli(),
			Values: []store.Value{{Metric: "ph", Value: 1}}})
	}
	_, err := db.Append(t.Context(), batch, nil)
	require.NoError(t, err)
	o = &Options{Store: db, Keep: keep, Now: func() time.Time { return at }}
	return New(*o), o, db, &at
}

// seen is what a person confirms where there are no rules.
func seen(due Moment) Retention { return Retention{LaneRetention: LaneRetention{Due: due}} }

func rows(t *testing.T, db *store.Store) int64 {
	t.Helper()
	h, err := db.Health(t.Context())
	require.NoError(t, err)
	return h.Readings
}

func TestRetentionSetForTheFirstTimeWaitsForAPerson(t *testing.T) {
	s, _, db, now := keeper(t, 10, 48*time.Hour)
	n, _, err := s.DeleteOld(t.Context(), 0)
	require.NoError(t, err)
	assert.Zero(t, n)
	w, err := s.Retention(t.Context())
	require.NoError(t, err)
	assert.True(t, w.Waits)
	assert.Equal(t, int64(8*24), w.Messages)
	assert.Equal(t, now.Add(-240*time.Hour).UnixMilli(), int64(w.Oldest))
	assert.Equal(t, now.Add(-49*time.Hour).UnixMilli(), int64(w.Newest))

	n, _, err = s.DeleteOld(t.Context(), 24*time.Hour)
	require.NoError(t, err)
	assert.Equal(t, int64(24), n, "a day per day")

	require.ErrorIs(t, s.ConfirmRetention(t.Context(), seen(w.Due+Moment(hourMS))), ErrNothingToConfirm, "what is not due")
	require.NoError(t, s.ConfirmRetention(t.Context(), w.Retention))
	n, _, err = s.DeleteOld(t.Context(), 0)
	require.NoError(t, err)
	assert.Equal(t, int64(7*24), n)
	w, err = s.Retention(t.Context())
	require.NoError(t, err)
	assert.False(t, w.Waits)
	assert.Zero(t, w.Messages)
	require.ErrorIs(t, s.ConfirmRetention(t.Context(), w.Retention), ErrNothingToConfirm)
	assert.Equal(t, int64(48), rows(t, db))
}

// A clock that is two years ahead, and that nobody doubts, takes a day of readings per day.
func TestAJumpIsNotObeyed(t *testing.T) {
	s, o, db, now := keeper(t, 10, 5*24*time.Hour)
	require.NoError(t, s.ConfirmRetention(t.Context(), seen(Moment(now.Add(-5*24*time.Hour).UnixMilli()))))
	_, _, err := s.DeleteOld(t.Context(), 0)
	require.NoError(t, err)
	require.Equal(t, int64(5*24), rows(t, db))
	right := *now
	*now = now.Add(2 * 365 * 24 * time.Hour)
	for range 24 {
		_, _, err := s.DeleteOld(t.Context(), time.Hour)
		require.NoError(t, err)
	}
	assert.Equal(t, int64(4*24), rows(t, db))
	s = New(*o) // a restart gives no budget
	_, _, err = s.DeleteOld(t.Context(), 0)
	require.NoError(t, err)
	assert.Equal(t, int64(4*24), rows(t, db))
	*now = right
	for range 100 {
		_, _, err = s.DeleteOld(t.Context(), time.Hour)
		require.NoError(t, err)
	}
	assert.Equal(t, int64(4*24), rows(t, db), "the rest is not due")
}

func TestNothingIsDeletedNorConfirmedWhileTheClockIsInDoubt(t *testing.T) {
	_, o, db, now := keeper(t, 10, 48*time.Hour)
	doubt := "it is 1970"
	o.Doubt = func() string { return doubt }
	s := New(*o)
	due := Moment(now.Add(-48 * time.Hour).UnixMilli())
	assert.ErrorContains(t, s.ConfirmRetention(t.Context(), seen(due)), doubt)
	n, _, err := s.DeleteOld(t.Context(), 1000*time.Hour)
	require.NoError(t, err)
	assert.Zero(t, n)
	st, err := s.Status(t.Context())
	require.NoError(t, err)
	assert.Equal(t, doubt, st.ClockDoubt)
	assert.Contains(t, st.Problems, "the clock is not to be trusted: it is 1970")
	doubt = ""
	n, _, err = s.DeleteOld(t.Context(), 1000*time.Hour)
	require.NoError(t, err)
	assert.Equal(t, int64(8*24), n)
	assert.Equal(t, int64(48), rows(t, db))
}

// In steady state nothing waits: each hour of uptime takes the hour that has come due, for a year.
func TestDeletingByAgeKeepsUpWithTime(t *testing.T) {
	s, _, db, now := keeper(t, 5, 5*24*time.Hour)
	for i := range 200 {
		*now = now.Add(time.Hour)
		_, err := db.Append(t.Context(), []store.Message{{Kind: store.Telemetry, Device: "a", Time: now.UnixMilli(), Received: now.UnixMilli(),
			Values: []store.Value{{Metric: "ph", Value: float64(i)}}}}, nil)
		require.NoError(t, err)
		_, _, err = s.DeleteOld(t.Context(), time.Hour)
		require.NoError(t, err)
	}
	assert.InDelta(t, 5*24, rows(t, db), 2)
}

// house has readings of three devices, one an hour for 20 days back.
func house(t *testing.T, rules keep.Rules) (s *Server, o *Options, db *store.Store, now *time.Time) {
	t.Helper()
	_, o, db, now = keeper(t, 20, 10*24*time.Hour)
	for _, device := range []string{"bed-1", "bed-2"} {
		var batch []store.Message
		for i := range int64(20 * 24) {
			batch = append(batch, store.Message{Kind: store.Telemetry, Device: device, Time: now.UnixMilli() - (i+1)*hourMS, Received: now.UnixMilli(),
				Values: []store.Value{{Metric: "ph", Value: 1}}})
		}
		_, err := db.Append(t.Context(), batch, nil)
		require.NoError(t, err)
	}
	o.Rules = rules
	return New(*o), o, db, now
}

// daysOf is how many days of readings a device has.
func daysOf(t *testing.T, db *store.Store, device string) int {
	t.Helper()
	hours := 0
	for _, err := range db.Readings(t.Context(), store.Query{Devices: []string{device}}) {
		require.NoError(t, err)
		hours++
	}
	require.Zero(t, hours%24)
	return hours / 24
}

func deleteOld(t *testing.T, s *Server, budget time.Duration) int64 {
	t.Helper()
	n, _, err := s.DeleteOld(t.Context(), budget)
	require.NoError(t, err)
	return n
}

func TestEachRuleHasItsOwnTimeAndItsOwnDayPerDay(t *testing.T) {
	const day = 24 * time.Hour
	s, o, db, now := house(t, keep.Rules{{Device: "bed-1", Keep: 0}, {Device: "bed-*", Keep: 5 * day}})
	assert.Zero(t, deleteOld(t, s, 0))
	assert.EqualValues(t, 2*24, deleteOld(t, s, day), "a day of the rule, and a day of the others")
	assert.Equal(t, []int{20, 19, 19}, []int{daysOf(t, db, "bed-1"), daysOf(t, db, "bed-2"), daysOf(t, db, "a")})

	w, err := s.Retention(t.Context())
	require.NoError(t, err)
	require.Len(t, w.Rules, 2)
	assert.Equal(t, RuleRetention{Device: "bed-1"}, w.Rules[0])
	assert.Equal(t, []any{"bed-*", int64(5 * 86400), true, int64(14 * 24)},
		[]any{w.Rules[1].Device, w.Rules[1].KeepSeconds, w.Rules[1].Waits, w.Rules[1].Messages})
	assert.Equal(t, []any{true, int64(9 * 24)}, []any{w.Waits, w.Messages})
	messages, oldest, newest := w.All()
	assert.Equal(t, []any{int64(23 * 24), Moment(now.UnixMilli() - 19*dayMS), Moment(now.UnixMilli() - 5*dayMS - hourMS)}, []any{messages, oldest, newest})

	other := w.Retention
	other.Rules = other.Rules[1:]
	require.ErrorContains(t, s.ConfirmRetention(t.Context(), other), "store.retention_rules has changed")
	only := w.Retention // a person has seen what the rule takes, and of the others nothing
	only.Due = 0
	require.NoError(t, s.ConfirmRetention(t.Context(), only))
	s = New(*o)
	assert.EqualValues(t, 14*24, deleteOld(t, s, 0), "confirmed is confirmed after a start")
	assert.Equal(t, []int{20, 5, 19}, []int{daysOf(t, db, "bed-1"), daysOf(t, db, "bed-2"), daysOf(t, db, "a")})
	require.NoError(t, s.ConfirmRetention(t.Context(), w.Retention))
	assert.EqualValues(t, 9*24, deleteOld(t, s, 0))
	require.ErrorIs(t, s.ConfirmRetention(t.Context(), w.Retention), ErrNothingToConfirm)
	st, err := s.Status(t.Context())
	require.NoError(t, err)
	assert.False(t, st.Retention.AnyWaits())
	assert.Len(t, st.Retention.Rules, 2)
}

// What was kept by a rule comes under another one, or under none: that takes it a day per day, as if it had just been set.
func TestRulesThatChangeTakeNothingAtOnce(t *testing.T) {
	const day = 24 * time.Hour
	forever := keep.Rules{{Device: "bed-1", Keep: 0}}
	s, o, db, _ := house(t, forever)
	w, err := s.Retention(t.Context())
	require.NoError(t, err)
	require.NoError(t, s.ConfirmRetention(t.Context(), w.Retention))
	require.EqualValues(t, 2*10*24, deleteOld(t, s, 0))
	left := 20
	for name, rules := range map[string]keep.Rules{
		"none":     nil,
		"another":  {{Device: "bed-2", Keep: 0}},
		"a longer": {{Device: "bed-1*", Keep: 9 * day}},
		"more":     {{Device: "a", Keep: 0}, {Device: "bed-1", Keep: 9 * day}},
	} {
		o.Rules = forever
		assert.Zero(t, deleteOld(t, New(*o), 0), name)
		o.Rules = rules
		s := New(*o)
		assert.Zero(t, deleteOld(t, s, 0), name)
		st, err := s.Status(t.Context())
		require.NoError(t, err)
		assert.True(t, st.Retention.AnyWaits(), "%s: it is reported", name)
		left--
		assert.NotZero(t, deleteOld(t, s, day), name)
		assert.Equal(t, left, daysOf(t, db, "bed-1"), name)
	}

	// The same rule, but no longer for ever.
	o.Rules = forever
	assert.Zero(t, deleteOld(t, New(*o), 1000*day))
	o.Rules = keep.Rules{{Device: "bed-1", Keep: 10 * day}}
	assert.Zero(t, deleteOld(t, New(*o), 0))
	assert.Equal(t, left, daysOf(t, db, "bed-1"))
}

func TestRulesObeyTheClockAndDevicesThatAreGone(t *testing.T) {
	const day = 24 * time.Hour
	_, o, db, now := house(t, keep.Rules{{Device: "bed-*", Keep: 5 * day}})
	doubt := "it is 1970"
	o.Doubt = func() string { return doubt }
	s := New(*o)
	w, err := s.Retention(t.Context())
	require.NoError(t, err)
	require.ErrorContains(t, s.ConfirmRetention(t.Context(), w.Retention), doubt)
	assert.Zero(t, deleteOld(t, s, 1000*day))
	doubt = ""
	right := *now
	*now = now.Add(2 * 365 * day)
	assert.EqualValues(t, 3*24, deleteOld(t, s, day), "a jump takes a day of each device")
	*now = right
	_, err = db.PurgeDevice(t.Context(), "bed-1")
	require.NoError(t, err)
	assert.EqualValues(t, (14+9)*24, deleteOld(t, s, 1000*day))
	assert.Equal(t, []int{5, 10}, []int{daysOf(t, db, "bed-2"), daysOf(t, db, "a")})
}

func TestADeviceIsNotOnlineInTheFuture(t *testing.T) {
	now := time.UnixMilli(20_000 * dayMS)
	ms := now.UnixMilli()
	for name, c := range map[string]struct {
		seen, unsure int64
		online       bool
		shown        int64
		marked       bool
	}{
		"just now":                           {ms - 1000, 0, true, ms - 1000, false},
		"too long ago":                       {ms - 200_000, 0, false, ms - 200_000, false},
		"two years ahead":                    {ms + 730*dayMS, 0, false, ms + 730*dayMS, false},
		"a little ahead":                     {ms + 2000, 0, true, ms + 2000, false},
		"by a clock that is not trusted":     {ms - dayMS, ms - 1000, true, ms - 1000, true},
		"by one that was ahead, and is dead": {ms - dayMS, ms + 730*dayMS, false, ms + 730*dayMS, true},
		"never":                              {0, 0, false, 0, false},
	} {
		d := NewDeviceStatus(store.Device{LastSeen: c.seen, UnsureSeen: c.unsure}, 3*time.Minute, now)
		assert.Equal(t, c.online, d.Online, name)
		assert.Equal(t, Moment(c.shown), d.LastSeen, name)
		assert.Equal(t, c.marked, d.LastSeenUnsure, name)
	}
}
