package history

import "time"

// spans are what a number of points may come to, from short to long.
var spans = func() (list []Span) {
	for _, ms := range []time.Duration{1, 2, 5, 10, 20, 50, 100, 200, 500} {
		list = append(list, Span{Length: ms * time.Millisecond})
	}
	for _, unit := range []time.Duration{time.Second, time.Minute} {
		for _, n := range []time.Duration{1, 2, 5, 10, 15, 30} {
			list = append(list, Span{Length: n * unit})
		}
	}
	for _, hours := range []time.Duration{1, 2, 3, 6, 12} {
		list = append(list, Span{Length: hours * time.Hour})
	}
	for _, days := range []int{1, 2, 7, 14} {
		list = append(list, Span{Days: days})
	}
	for _, months := range []int{1, 2, 3, 6} {
		list = append(list, Span{Months: months})
	}
	for _, years := range []int{1, 2, 5, 10, 20, 50, 100, 1000, 10_000, 1_000_000, 100_000_000} {
		list = append(list, Span{Months: 12 * years})
	}
	return list
}()

// longest is how long a bucket of a span is at most, in ms.
func (s Span) longest() int64 {
	return s.Length.Milliseconds() + int64(s.Days+31*s.Months)*dayMS + hourMS // a clock that goes back makes one longer
}

// Span is that of the buckets for readings from a time on, which is included, to another, which is not: Every or, without it, the
// shortest of a list of usual spans that has no more than Points buckets there.
func (r *Reduction) Span(from, to int64) Span {
	if !r.Every.IsZero() {
		return r.Every
	}
	points := int64(max(r.Points, 1))
	from, to = max(from, -gridEnd), min(to, gridEnd)
	for _, span := range spans {
		if span.longest() >= (to-from)/points && NewGrid(span, r.Location).atMost(points, from, to) {
			return span
		}
	}
	return spans[len(spans)-1]
}

// atMost reports whether there are no more than n buckets from a time to another.
func (g *Grid) atMost(n, from, to int64) bool {
	for at := from; at < to; n-- {
		if n == 0 {
			return false
		}
		_, at = g.Bucket(at)
	}
	return true
}
