package history

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"time"
	_ "time/tzdata" // the machine need not have them

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func place(t testing.TB, name string) *time.Location {
	t.Helper()
	l, err := time.LoadLocation(name)
	require.NoError(t, err)
	return l
}

// stretches of time in which clocks change: by an hour, at midnight, by half an hour, at a minute past midnight, by a day, not.
var changes = []struct{ place, from, to string }{
	{"Europe/Berlin", "2026-03-27", "2026-03-31"},
	{"Europe/Berlin", "2026-10-23", "2026-10-27"},
	{"America/Sao_Paulo", "2018-11-02", "2018-11-06"},
	{"America/Sao_Paulo", "2018-02-16", "2018-02-20"},
	{"Australia/Lord_Howe", "2026-04-03", "2026-04-07"},
	{"Australia/Lord_Howe", "2026-10-02", "2026-10-06"},
	{"America/St_Johns", "2010-11-05", "2010-11-09"},
	{"America/St_Johns", "2010-03-12", "2010-03-16"},
	{"Pacific/Apia", "2011-12-28", "2012-01-02"},
	{"Asia/Kolkata", "2026-02-27", "2026-03-03"},
	{"Asia/Kathmandu", "2026-02-27", "2026-03-03"},
	{"Europe/Berlin", "2028-12-29", "2029-01-03"},
	{"Europe/Berlin", "2052-12-29", "2053-01-03"}, // beyond what is listed: by a rule
	{"UTC", "2024-02-27", "2024-03-03"},
}

// wallClock is what a clock shows at a minute, in minutes since its own 1970.
func wallClock(ms int64, at *time.Location) int64 {
	t := time.UnixMilli(ms).In(at)
	date := time.Date(t.Year(), t.Month(), t.Day(), t.Hour(), t.Minute(), 0, 0, time.UTC)
	return date.Unix() / 60
}

// boundaries looks at a clock each minute; walls is what it shows from three days before a time on. For calendar spans it
// remembers the latest date that it has shown.
func boundaries(span Span, walls []int64, from int64) (list []int64) {
	number := func(wall int64) int64 { // of the bucket, by what the clock shows
		date := time.Unix(wall*60, 0).UTC()
		switch {
		case span.Months > 0:
			return int64((date.Year()*12 + int(date.Month()) - 1) / span.Months)
		case span.Days > 0 && span.Days%7 == 0:
			return (wall/1440 + 3) / int64(span.Days)
		case span.Days > 0:
			return wall / 1440 / int64(span.Days)
		default:
			return wall / int64(span.Length/time.Minute)
		}
	}
	const ahead = 3 * 1440
	latest := slices.Max(walls[:ahead])
	for i := ahead; i < len(walls); i++ {
		now, before := walls[i], walls[i-1]
		begins := number(now) > number(latest)
		if span.Length > 0 {
			begins = now%int64(span.Length/time.Minute) == 0 || now > before && number(now) != number(before)
		}
		if begins {
			list = append(list, from+int64(i-ahead)*60_000)
		}
		latest = max(latest, now)
	}
	return list
}

func TestBucketsAreThoseOfAClockThatIsLookedAtEachMinute(t *testing.T) {
	for _, c := range changes {
		at := place(t, c.place)
		first, err := time.ParseInLocation(time.DateOnly, c.from, at)
		require.NoError(t, err)
		last, err := time.ParseInLocation(time.DateOnly, c.to, at)
		require.NoError(t, err)
		from, to := first.UnixMilli(), last.UnixMilli()
		var walls []int64
		for ms := from - 3*dayMS; ms < to; ms += 60_000 {
			walls = append(walls, wallClock(ms, at))
		}
		for _, every := range []string{"1m", "15m", "30m", "1h", "2h", "3h", "4h", "6h", "12h", "1d", "2d", "1w", "2w", "1mo", "1y"} {
			span, err := ParseSpan(every)
			require.NoError(t, err)
			grid := NewGrid(span, at)
			var got []int64
			for ms := from; ms < to; {
				start, end := grid.Bucket(ms)
				require.LessOrEqual(t, start, ms)
				require.Greater(t, end, ms)
				if start >= from {
					got = append(got, start)
				}
				ms = end
			}
			if want := boundaries(span, walls, from); !slices.Equal(want, got) {
				require.Equal(t, moments(want, at), moments(got, at), "%s every %s", c.place, every)
			}
		}
	}
}

func moments(list []int64, at *time.Location) (texts []string) {
	for _, ms := range list {
		texts = append(texts, time.UnixMilli(ms).In(at).Format(time.RFC3339))
	}
	return texts
}

func TestHoursOfADayOnWhichTheClockChanges(t *testing.T) {
	for _, c := range []struct {
		place, day string
		hours      int
	}{
		{"Europe/Berlin", "2026-03-29", 23}, {"Europe/Berlin", "2026-10-25", 25}, {"Europe/Berlin", "2026-10-26", 24},
		{"America/Sao_Paulo", "2018-11-04", 23}, {"America/Sao_Paulo", "2018-02-17", 25}, {"Asia/Kolkata", "2026-03-29", 24},
	} {
		at := place(t, c.place)
		noon, err := time.ParseInLocation(time.DateTime, c.day+" 12:00:00", at)
		require.NoError(t, err)
		start, end := NewGrid(Every(day), at).Bucket(noon.UnixMilli())
		assert.Equal(t, int64(c.hours)*hourMS, end-start, "%s %s", c.place, c.day)
		hours := NewGrid(Every(time.Hour), at)
		n := 0
		for ms := start; ms < end; n++ {
			_, ms = hours.Bucket(ms)
		}
		assert.Equal(t, c.hours, n)
	}
}

func TestLengthsThatDoNotDivideADayAreCountedFrom1970(t *testing.T) {
	grid := NewGrid(Every(7*time.Hour), place(t, "Europe/Berlin"))
	start, end := grid.Bucket(1_700_000_000_000)
	assert.Zero(t, start%(7*hourMS))
	assert.Equal(t, 7*hourMS, end-start)
	start, end = grid.Bucket(-1)
	assert.Equal(t, []int64{-7 * hourMS, 0}, []int64{start, end})
}

// Whatever is asked for, and in whatever order, a time is in one bucket, and the next bucket begins where it ends.
func FuzzGrid(f *testing.F) {
	f.Add(int64(1_700_000_000_000), int64(3_600_000), 0, 0, uint8(0))
	f.Add(int64(1_835_820_000_000), int64(0), 1, 0, uint8(1))
	f.Add(int64(-62_135_596_800_001), int64(0), 0, 1, uint8(2))
	f.Add(int64(1)<<62, int64(0), 7, 0, uint8(6))
	f.Add(int64(-1)<<63, int64(0), 0, 1200, uint8(8))
	f.Fuzz(func(t *testing.T, at, length int64, days, months int, where uint8) {
		span := Span{Months: months}
		if months <= 0 || months > 1<<30 {
			span = Span{Days: days}
			if days <= 0 || days > 1<<30 {
				span = Every(time.Duration(length%1e12) * time.Millisecond)
			}
		}
		l := place(t, changes[int(where)%len(changes)].place)
		grid := NewGrid(span, l)
		at = min(max(at, -gridEnd), gridEnd)
		start, end := grid.Bucket(at)
		if at < start || at >= end {
			t.Fatalf("%+v at %s: %d is not from %d to %d", span, l, at, start, end)
		}
		for _, ms := range []int64{start, at, end - 1} {
			again := NewGrid(span, l)
			if ms < -gridEnd || ms > gridEnd {
				continue
			}
			if s, e := again.Bucket(ms); s != start || e != end {
				t.Fatalf("%+v at %s: %d is from %d to %d, but %d from %d to %d", span, l, at, start, end, ms, s, e)
			}
		}
		if end < gridEnd {
			if next, _ := grid.Bucket(end); next != end {
				t.Fatalf("%+v at %s: the bucket of %d ends at %d, the next begins at %d", span, l, at, end, next)
			}
		}
	})
}

func TestSpans(t *testing.T) {
	for text, want := range map[string]Span{
		"15m": {Length: 15 * time.Minute}, "1h": {Length: time.Hour}, "24h": {Days: 1}, "168h": {Days: 7}, "36h": {Length: 36 * time.Hour},
		"1d": {Days: 1}, "2w": {Days: 14}, "1mo": {Months: 1}, "1y": {Months: 12}, "1h30m": {Length: 90 * time.Minute}, "250ms": {Length: 250 * time.Millisecond},
	} {
		got, err := ParseSpan(text)
		require.NoError(t, err, text)
		assert.Equal(t, want, got, text)
		again, err := ParseSpan(got.String())
		require.NoError(t, err, got.String())
		assert.Equal(t, want, again, "%s as %s", text, got)
	}
	for _, text := range []string{"", "0s", "0d", "-1h", "1.5d", "d", "1 d", "99999d", "1us", "1500us", "1m1", "week"} {
		_, err := ParseSpan(text)
		assert.Error(t, err, text)
	}
	assert.Equal(t, []string{"1d", "1w", "1mo", "1y", "1h", "1h30m", "15m", "10s", "90ms"}, []string{
		Every(day).String(), Every(7 * day).String(), Span{Months: 1}.String(), Span{Months: 12}.String(), Every(time.Hour).String(),
		Every(90 * time.Minute).String(), Every(15 * time.Minute).String(), Every(10 * time.Second).String(), Every(90 * time.Millisecond).String()})
	assert.Equal(t, Span{Length: time.Millisecond}, Every(time.Microsecond))
}

func TestPointsAreTheShortestUsualSpanThatFits(t *testing.T) {
	berlin := place(t, "Europe/Berlin")
	from := time.Date(2026, 1, 1, 0, 0, 0, 0, berlin).UnixMilli()
	for _, c := range []struct {
		points int
		length time.Duration
		want   string
	}{
		{500, 365 * day, "1d"}, {365, 365 * day, "1d"}, {364, 365 * day, "2d"}, {53, 365 * day, "1w"}, {12, 365 * day, "1mo"}, {1, 365 * day, "1y"},
		{500, 30 * day, "2h"}, {500, day, "5m"}, {24, day, "1h"}, {1, day, "1d"}, {500, time.Hour, "10s"}, {0, time.Millisecond, "1ms"},
		{500, 0, "1ms"},
	} {
		r := Reduction{Points: c.points, Location: berlin}
		assert.Equal(t, c.want, r.Span(from, from+c.length.Milliseconds()).String(), "%+v", c)
	}
	random := rand.New(rand.NewPCG(3, 4))
	for range 150 {
		r := Reduction{Points: 1 + random.IntN(600), Location: place(t, changes[random.IntN(len(changes))].place)}
		from := random.Int64N(4e12)
		to := from + random.Int64N(int64(1)<<(1+random.IntN(45)))
		span := r.Span(from, to)
		n, grid := 0, NewGrid(span, r.Location)
		for at := from; at < to; n++ {
			_, at = grid.Bucket(at)
		}
		require.LessOrEqual(t, n, r.Points, "%+v from %d to %d: %s", r, from, to, span)
		if i := slices.Index(spans, span); i > 0 && to > from {
			require.False(t, NewGrid(spans[i-1], r.Location).atMost(int64(r.Points), from, to), fmt.Sprint("shorter than ", span))
		}
	}
}

func BenchmarkGrid(b *testing.B) {
	for _, every := range []string{"1h", "1d", "1mo"} {
		b.Run(every, func(b *testing.B) {
			span, _ := ParseSpan(every)
			grid := NewGrid(span, place(b, "Europe/Berlin"))
			at := int64(1_700_000_000_000)
			for b.Loop() {
				grid.Bucket(at)
				at += 300_000
			}
		})
	}
}
