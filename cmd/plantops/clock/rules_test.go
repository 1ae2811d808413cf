package clock

import (
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

var (
	truth = time.Date(2026, 11, 30, 12, 0, 0, 0, time.UTC) // when the machine of these tests started
	built = time.Date(2026, 6, 1, 0, 0, 0, 0, time.UTC)
)

const (
	hour = time.Hour
	day  = 24 * hour
	year = 365 * day
)

// look is one look: so long after the start of the machine, with a wall clock that is off by so much.
type look struct {
	at, off time.Duration
	synced  bool
	unsure  bool
}

func TestWhenTimeIsBelieved(t *testing.T) {
	for name, c := range map[string]struct {
		newest time.Duration // arrival, against the start of the machine; zero: none
		looks  []look
	}{
		"a clock that is right":       {-hour, []look{{0, 0, false, false}, {day, 0, false, false}}},
		"the first start":             {0, []look{{0, 0, false, false}}},
		"1970, then NTP":              {-hour, []look{{0, -56 * year, false, true}, {hour, -56*year + time.Second, false, true}, {hour + 1, 0, false, false}}},
		"NTP slews it slowly":         {-hour, []look{{0, 0, false, false}, {hour, time.Second, false, false}, {2 * hour, 2 * time.Second, false, false}}},
		"a leap second":               {-hour, []look{{0, 0, false, false}, {time.Second, -time.Second, false, false}}},
		"two years ahead for 8 s":     {-hour, []look{{0, 0, false, false}, {hour, 2 * year, false, true}, {hour + 8*time.Second, 0, false, false}}},
		"ahead, and NTP says so":      {-hour, []look{{0, 0, false, false}, {hour, 9 * day, false, true}, {2 * hour, 9 * day, true, false}, {3 * hour, 9 * day, false, false}}},
		"ahead, and stays there":      {-hour, []look{{0, 0, false, false}, {hour, 9 * day, false, true}, {hour + day - 1, 9 * day, false, true}, {hour + day, 9 * day, false, false}}},
		"days behind":                 {-hour, []look{{0, -3 * day, false, true}, {hour, -3 * day, false, true}, {2 * day, -3 * day, false, true}, {2*day + 1, 0, false, false}}},
		"days behind for good":        {-hour, []look{{0, -3 * day, false, true}, {3 * day, -3 * day, false, false}}},
		"it was ahead when stored":    {2 * year, []look{{0, 0, false, true}, {day * 2, 0, false, true}, {3 * day, 0, true, false}, {4 * day, 0, true, false}}},
		"a year switched off":         {-year, []look{{0, 0, false, true}, {hour, 0, true, false}}},
		"a year switched off, no NTP": {-year, []look{{0, 0, false, true}, {day, 0, false, false}}},
		"years ahead at the start":    {-hour, []look{{0, 2 * year, false, true}, {hour, 0, false, false}}},
		"two jumps, and back":         {-hour, []look{{0, 0, false, false}, {1, 9 * day, false, true}, {2, 99 * day, false, true}, {3, time.Second, false, false}}},
		"back to before the newest":   {-hour, []look{{0, 0, false, false}, {hour, -9 * day, false, true}, {3 * day, -9 * day, false, true}}},
		"1970, then a wrong time":     {-hour, []look{{0, -56 * year, false, true}, {hour, 2 * year, false, true}, {2 * hour, 0, false, false}}},
		"days behind, then ahead":     {-hour, []look{{0, -3 * day, false, true}, {hour, 2 * year, false, true}, {hour + day, 2 * year, false, false}}},
		"the end of the authority":    {-hour, []look{{0, 11 * year, false, true}, {2 * day, 11 * year, false, true}, {3 * day, 0, false, false}}},
	} {
		t.Run(name, func(t *testing.T) {
			newest := time.Time{}
			if c.newest != 0 {
				newest = truth.Add(c.newest)
			}
			r := newRules(nil, 1, newest)
			r.floors = setBound(r.floors, built, "the build date")
			r.ceilings = setBound(r.ceilings, truth.Add(10*year), "the end of the certificate authority")
			for i, l := range c.looks {
				r.observe(truth.Add(l.at+l.off), bootPatience+l.at, l.synced)
				assert.Equal(t, l.unsure, r.doubt != "", "look %d: %s", i, r.doubt)
			}
		})
	}
}

func TestWhatArrivedOnAWrongLineIsShiftedOnceTheTimeIsSure(t *testing.T) {
	r := newRules(nil, 7, truth.Add(-hour))
	r.floors = setBound(r.floors, built, "the build date")
	first := r.observe(truth.Add(-56*year), 0, false)
	assert.Equal(t, int64(7), first)
	_, known := r.shift(first)
	assert.False(t, known, "nothing is known before the time is sure")

	second := r.observe(truth.Add(hour), hour, false)
	assert.Equal(t, int64(8), second)
	by, known := r.shift(first)
	require.True(t, known)
	assert.Equal(t, 56*year, by)
	by, known = r.shift(second)
	require.True(t, known)
	assert.Zero(t, by)
	_, known = r.shift(3)
	assert.False(t, known, "a line of another boot")
}

func TestASecondProcessOfOneBootGoesOnWithItsLines(t *testing.T) {
	start := func(known []Line, off, at time.Duration) rules {
		r := newRules(known, 10, truth.Add(-hour))
		r.floors = setBound(r.floors, built, "the build date")
		r.observe(truth.Add(at+off), at, false)
		return r
	}
	r := newRules(nil, 1, truth.Add(-hour))
	r.observe(truth.Add(bootPatience), bootPatience, false)
	r.observe(truth.Add(hour+9*day), hour, false)
	require.NotEmpty(t, r.doubt)

	again := start(r.lines, 9*day, 2*hour)
	assert.NotEmpty(t, again.doubt, "a restart makes no doubt go away")
	assert.Len(t, again.lines, 2)
	again.observe(truth.Add(3*hour), 3*hour, false)
	assert.Empty(t, again.doubt, "back on the line that the first process trusted")
	by, known := again.shift(2)
	require.True(t, known)
	assert.Equal(t, -9*day, by)

	r = newRules(nil, 1, truth.Add(-hour))
	r.floors = setBound(r.floors, built, "the build date")
	r.observe(truth.Add(-56*year), 0, false)
	again = start(r.lines, 0, hour)
	assert.Empty(t, again.doubt, "set while no process ran, from a time that was known to be wrong")
	by, known = again.shift(1)
	require.True(t, known)
	assert.Equal(t, 56*year, by)
}

// A Pi starts with the time at which it was stopped, and has three days to make up for.
func TestAMachineThatHasJustBeenStartedLooksForATimeServerFirst(t *testing.T) {
	start := func(off time.Duration) *rules {
		r := newRules(nil, 1, truth.Add(-3*day))
		r.floors = setBound(r.floors, built, "the build date")
		r.observe(truth.Add(off), 0, false)
		assert.NotEmpty(t, r.doubt)
		return &r
	}
	r := start(-3*day + time.Minute)
	r.observe(truth.Add(time.Minute), time.Minute, false)
	assert.NotEmpty(t, r.doubt, "set, but by whom?")
	r.observe(truth.Add(2*time.Minute), 2*time.Minute, true)
	assert.Empty(t, r.doubt)
	by, known := r.shift(1)
	require.True(t, known)
	assert.Equal(t, 3*day-time.Minute, by, "what came before is three days later")

	r = start(0) // it has a clock with a battery, and no network
	r.observe(truth.Add(bootPatience-1), bootPatience-1, false)
	assert.NotEmpty(t, r.doubt)
	r.observe(truth.Add(bootPatience), bootPatience, false)
	assert.Empty(t, r.doubt)
	by, known = r.shift(1)
	require.True(t, known)
	assert.Zero(t, by)

	first := newRules(nil, 1, time.Time{})
	first.observe(truth, 0, false)
	assert.Empty(t, first.doubt, "nothing was ever stored")
	again := newRules(nil, 1, truth.Add(time.Second))
	again.observe(truth.Add(time.Minute), time.Minute, false)
	assert.Empty(t, again.doubt, "messages came after the machine was started")
}

// The time at which a Pi begins was written down before the last message came: it goes past that one by itself.
func TestAClockThatCreepsPastTheNewestMessageIsNotSetByThat(t *testing.T) {
	r := newRules(nil, 1, truth.Add(-3*day))
	start := truth.Add(-3*day - 30*time.Second)
	r.observe(start, 0, false)
	assert.Contains(t, r.doubt, "before the newest stored message")
	r.observe(start.Add(time.Minute), time.Minute, false)
	assert.Equal(t, justStarted, r.doubt)
	again := r
	again.lines = append([]Line(nil), r.lines...)
	r.observe(truth.Add(2*time.Minute), 2*time.Minute, true)
	assert.Empty(t, r.doubt)
	by, known := r.shift(1)
	require.True(t, known)
	assert.Equal(t, 3*day+30*time.Second, by)
	again.observe(start.Add(bootPatience), bootPatience, false) // there is no time server
	assert.Empty(t, again.doubt)
}

func TestAClockThatJumpsAllTheTimeIsBounded(t *testing.T) {
	r := newRules(nil, 1, truth.Add(-hour))
	at := bootPatience
	right := r.observe(truth.Add(at), at, false)
	for i := range 10 * maxLines {
		at += time.Second
		r.observe(truth.Add(at+time.Duration(i+1)*day), at, false)
	}
	assert.Len(t, r.lines, maxLines)
	assert.NotEmpty(t, r.doubt)
	last := r.observe(truth.Add(at+time.Second), at+time.Second, false)
	assert.Empty(t, r.doubt, "back on the line that was trusted first")
	assert.Equal(t, int64(10*maxLines+2), last)
	_, known := r.shift(right)
	assert.True(t, known)
}
