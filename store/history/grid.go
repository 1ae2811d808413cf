package history

import (
	"math"
	"time"
)

const (
	dayMS  = int64(24 * time.Hour / time.Millisecond)
	hourMS = dayMS / 24

	// gridEnd bounds the times of a grid, in both directions: so that nothing overflows.
	gridEnd = math.MaxInt64 / 4

	// widestOffset is more than any place is ahead of UTC or behind.
	widestOffset = 36 * hourMS
)

// Grid divides time into buckets of one span, by the clock and the calendar of a place.
//
// Days, weeks and months begin when the wall clock shows their first midnight, or passes it: so a day may have 23 or 25 hours,
// and none is counted twice where a clock goes back across midnight. Lengths that divide a day begin whenever the wall clock
// shows a multiple of them since midnight, or passes one: an hour that the clock repeats is two buckets, one that it leaves out
// is none, and of six hours one bucket has five or seven. Other lengths are counted from 1970-01-01 UTC.
//
// It is not safe for concurrent use.
type Grid struct {
	span  Span
	place *time.Location

	start, end int64   // of the bucket that was asked for last
	known      stretch // that was looked up last
}

// stretch is a time, from first to end, in which a clock kept its distance from UTC.
type stretch struct{ first, end, offset int64 }

// NewGrid returns the grid of a span, which must not be zero, at a place; nil is UTC.
func NewGrid(span Span, place *time.Location) *Grid {
	if place == nil {
		place = time.UTC
	}
	return &Grid{span: span, place: place}
}

// Bucket returns the bounds of the bucket of a time, UTC ms; end is not in it.
func (g *Grid) Bucket(t int64) (start, end int64) {
	if g.start <= t && t < g.end {
		return g.start, g.end
	}
	t = min(max(t, -gridEnd), gridEnd)
	length := g.span.Length.Milliseconds()
	switch {
	case g.span.Months > 0:
		g.start, g.end = g.calendar(t, g.monthOf(t), g.firstOfMonths)
	case g.span.Days > 0:
		g.start, g.end = g.calendar(t, g.daysOf(t), g.firstOfDays)
	case dayMS%length == 0:
		g.start, g.end = g.wall(t, length)
	default:
		g.start = floor(t, length)
		g.end = g.start + length
	}
	return g.start, g.end
}

// floor is the largest multiple of length up to a.
func floor(a, length int64) int64 { return a - (a%length+length)%length }

// stretch is the one that a time is in.
func (g *Grid) stretch(t int64) stretch {
	if g.known.first <= t && t < g.known.end {
		return g.known
	}
	at := time.UnixMilli(t).In(g.place)
	_, seconds := at.Zone()
	s := stretch{-gridEnd - 2*dayMS, gridEnd + 2*dayMS, int64(seconds) * 1000}
	first, end := at.ZoneBounds()
	if !first.IsZero() {
		s.first = max(s.first, first.UnixMilli())
	}
	if !end.IsZero() {
		s.end = min(s.end, end.UnixMilli())
	}
	if s.end <= t { // time says so of the last day of a leap year, where a rule says when the clock changes
		s.end = floor(t, dayMS) + dayMS
	}
	g.known = s
	return s
}

// wall is the bucket of a length that divides a day.
func (g *Grid) wall(t, length int64) (start, end int64) {
	here := g.stretch(t)
	start = floor(t+here.offset, length) - here.offset
	for s := here; start < s.first; {
		before := g.stretch(s.first - 1)
		if passes(before, s, length) {
			start = s.first
			break
		}
		start = floor(s.first-1+before.offset, length) - before.offset
		s = before
	}
	end = floor(t+here.offset, length) + length - here.offset
	for s := here; end >= s.end; {
		next := g.stretch(s.end)
		if passes(s, next, length) {
			return start, s.end
		}
		end = floor(s.end+next.offset, length) + length - next.offset
		s = next
	}
	return start, end
}

// passes reports whether the clock shows a multiple of length when it changes, or leaves one out.
func passes(before, after stretch, length int64) bool {
	shown, expected := before.end+after.offset, before.end+before.offset
	last := floor(shown, length)
	return last == shown || last >= expected
}

// midnight is when the clock first shows a day, counted from 1970-01-01, or a later one.
func (g *Grid) midnight(day int64) int64 {
	wall := day * dayMS
	s := g.stretch(wall - widestOffset)
	for {
		if t := max(s.first, wall-s.offset); t < s.end {
			return t
		}
		s = g.stretch(s.end)
	}
}

// calendar is the bucket of a time that is not before the one numbered n: the clock may have shown a later one already, and
// gone back. first is the first day of a bucket.
func (g *Grid) calendar(t, n int64, first func(n int64) int64) (start, end int64) {
	start, end = g.midnight(first(n)), g.midnight(first(n+1))
	for end <= t {
		n++
		start, end = end, g.midnight(first(n+1))
	}
	return start, end
}

// monday is the day that weeks are counted from: 1969-12-29.
const monday = -3

func (g *Grid) daysOf(t int64) int64 {
	day := floor(t+g.stretch(t).offset, dayMS) / dayMS
	if g.span.Days%7 == 0 {
		day -= monday
	}
	return floor(day, int64(g.span.Days)) / int64(g.span.Days)
}

func (g *Grid) firstOfDays(n int64) int64 {
	day := n * int64(g.span.Days)
	if g.span.Days%7 == 0 {
		day += monday
	}
	return day
}

func (g *Grid) monthOf(t int64) int64 {
	year, month, _ := time.UnixMilli(t + g.stretch(t).offset).UTC().Date()
	return floor(int64(year)*12+int64(month-1), int64(g.span.Months)) / int64(g.span.Months)
}

func (g *Grid) firstOfMonths(n int64) int64 {
	month := n * int64(g.span.Months)
	year := floor(month, 12) / 12
	return floor(time.Date(int(year), time.Month(month-year*12+1), 1, 0, 0, 0, 0, time.UTC).UnixMilli(), dayMS) / dayMS
}
