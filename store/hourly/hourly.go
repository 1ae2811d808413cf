// Package hourly is the pure part of the tables of hours that other programs read: which hours are to be computed, the form of their
// rows, and what has to be written so that a table has what was computed.
package hourly

import (
	"cmp"
	"math"
	"slices"

	"github.com/plantops/plantops/store/history"
)

const hourMS = 3_600_000

// Floor is the beginning of the hour of a time, both in UTC milliseconds.
func Floor(ms int64) int64 {
	if ms < math.MinInt64+hourMS {
		return ms
	}
	return ms - (ms%hourMS+hourMS)%hourMS
}

// Span is hours from a time on, which is included, to another, which is not. The zero Span is empty.
type Span struct{ From, To int64 }

// Around is the hours of the times from first to last.
func Around(first, last int64) Span {
	s := Span{Floor(first), math.MaxInt64}
	if last < math.MaxInt64-hourMS {
		s.To = Floor(last) + hourMS
	}
	return s
}

// Empty reports whether there is no time in it.
func (s Span) Empty() bool { return s.From >= s.To }

// With is what contains both.
func (s Span) With(o Span) Span {
	switch {
	case s.Empty():
		return o
	case o.Empty():
		return s
	}
	return Span{min(s.From, o.From), max(s.To, o.To)}
}

// Has reports whether all of another is in it.
func (s Span) Has(o Span) bool { return o.Empty() || s.From <= o.From && o.To <= s.To }

// Before is the part before a time.
func (s Span) Before(t int64) Span { return Span{s.From, min(s.To, t)} }

// Behind is the part from a time on.
func (s Span) Behind(t int64) Span { return Span{max(s.From, t), s.To} }

// Pending is what is to be written of a device.
type Pending struct {
	Due   Span // of which hours may have changed
	Late  Span // the part of it that is also in the database
	Stale bool // the latest values may have changed
}

// Key is where a row stands. Hour is in seconds since 1970.
type Key struct{ Hour, Series int64 }

// Row is a row of the table. Numbers are int64 or float64, see Scaled.
type Row struct {
	Key
	Min, Avg, Max any
	Count         int64
}

// The scales of whole numbers.
const (
	scale    = 1000
	avgScale = 100_000
	most     = 1 << 31 // beyond, a real is as short
)

// RowOf is the row of a bucket. Minimum and maximum are exact. The mean is rounded to five digits behind the point where they have at
// most three.
func RowOf(key Key, b *history.Bucket) Row {
	r := Row{Key: key, Min: scaled(b.Min), Max: scaled(b.Max), Avg: b.Mean(), Count: b.Count}
	_, short := r.Min.(int64)
	_, also := r.Max.(int64)
	if avg := math.Round(b.Mean() * avgScale); short && also && math.Abs(avg) < most {
		r.Avg = int64(avg)
	}
	return r
}

// scaled is a whole number of thousandths where that is exactly the value.
func scaled(v float64) any {
	n := math.Round(v * scale)
	if math.Abs(n) < most && n/scale == v && (n != 0 || !math.Signbit(v)) {
		return int64(n)
	}
	return v
}

// Change is a row to be written, or one to be deleted when its count is zero.
type Change = Row

// Changes returns what makes the rows that are there those that were computed, in order of their keys. Rows of which keep says so
// are neither replaced nor deleted.
func Changes(there, computed []Row, keep func(Key) bool) (list []Change) {
	old := make(map[Key]*Row, len(there))
	for i := range there {
		old[there[i].Key] = &there[i]
	}
	for _, r := range computed {
		was, is := old[r.Key]
		delete(old, r.Key)
		if !is || *was != r && !keep(r.Key) {
			list = append(list, r)
		}
	}
	for key := range old {
		if !keep(key) {
			list = append(list, Change{Key: key})
		}
	}
	slices.SortFunc(list, func(a, b Change) int { return cmp.Or(cmp.Compare(a.Hour, b.Hour), cmp.Compare(a.Series, b.Series)) })
	return list
}
