package history

import (
	"cmp"
	"context"
	"errors"
	"iter"
	"math"
	"math/bits"
	"slices"
	"strings"
)

// Readings of several devices are put in order a window of time after the other; the windows become longer and shorter with how
// much there is in them.
const (
	firstWindow  = 6 * hourMS
	readingsGoal = 1 << 18 // values: with their times some 4 MB
	pointsGoal   = 1 << 15 // of some 130 bytes
	limitToGoal  = 4       // what is beyond is read again, in a shorter window
)

// window walks through time.
type window struct {
	from, to, end int64
	goal          int // how much there should be in it
}

// next moves on behind a window in which n was found.
func (w *window) next(n int) {
	width := w.to - w.from
	switch {
	case n > w.goal:
		width = max(width/2, 1)
	case n < w.goal/8:
		width = saturated(saturated(width, width), saturated(width, width))
	case n < w.goal/2:
		width = saturated(width, width)
	}
	w.from = w.to
	w.to = min(saturated(w.from, width), w.end)
}

// tooMuch reports whether n is more than a window may hold that can be shorter.
func (w *window) tooMuch(n int, shortest int64) bool {
	return n > limitToGoal*w.goal && w.from+shortest < w.to
}

// shrink makes a window shorter in which there is too much.
func (w *window) shrink() { w.to = w.from + max((w.to-w.from)/8, 1) }

// saturated is a plus b, or the largest time.
func saturated(a, b int64) int64 {
	if sum := a + b; sum >= a {
		return sum
	}
	return math.MaxInt64
}

// windows returns the first window of what q selects; it is empty when there is nothing.
func windows(ctx context.Context, v Scanner, q Query, goal int) (w window, err error) {
	first, last, err := v.Range(ctx, q)
	if err != nil || last < first {
		return w, err
	}
	w = window{from: max(q.From, first), end: min(q.End(), saturated(last, 1)), goal: goal}
	w.to = min(saturated(w.from, firstWindow), w.end)
	return w, nil
}

// damages knows what was said of damage: who looks at it twice says it once.
type damages map[damage]bool

type damage struct {
	device   string
	from, to int64
}

func (d damages) isNew(err *DamagedError) bool {
	key := damage{err.Device, err.From, err.To}
	said := d[key]
	d[key] = true
	return !said
}

// Readings is View.Readings made of Scan.
func Readings(ctx context.Context, v Scanner, q Query) iter.Seq2[Reading, error] {
	return func(yield func(Reading, error) bool) {
		if err := readings(ctx, v, q, yield); err != nil {
			yield(Reading{}, err)
		}
	}
}

func readings(ctx context.Context, v Scanner, q Query, yield func(Reading, error) bool) error {
	w, err := windows(ctx, v, q, readingsGoal)
	if err != nil {
		return err
	}
	said := damages{}
	for w.from < w.end {
		s, err := readSheet(ctx, v, q, &w)
		if err != nil {
			return err
		}
		if s == nil {
			w.shrink()
			continue
		}
		for _, d := range s.damaged {
			if said.isNew(d) && !yield(Reading{}, d) {
				return nil
			}
		}
		if !s.each(func(r Reading) bool { return yield(r, nil) }) {
			return nil
		}
		w.next(s.values)
	}
	return nil
}

// sheet is all that is in a window.
type sheet struct {
	chunks  []*Chunk
	rows    []rowOf
	values  int
	damaged []*DamagedError
}

// rowOf is one time of one of the chunks, which are in order of device.
type rowOf struct {
	time       int64
	chunk, row uint32
}

// readSheet reads a window. There is no sheet for one that is too long.
func readSheet(ctx context.Context, v Scanner, q Query, w *window) (*sheet, error) {
	q.From, q.To = w.from, w.to
	s := &sheet{}
	for c, err := range v.Scan(ctx, q) {
		if damaged, ok := errors.AsType[*DamagedError](err); ok {
			s.damaged = append(s.damaged, damaged)
			continue
		}
		if err != nil {
			return nil, err
		}
		if s.add(c); w.tooMuch(s.values, 1) {
			return nil, nil
		}
	}
	slices.SortFunc(s.rows, func(a, b rowOf) int {
		return cmp.Or(cmp.Compare(a.time, b.time), cmp.Compare(a.chunk, b.chunk))
	})
	return s, nil
}

func (s *sheet) add(c *Chunk) {
	for i, t := range c.Times {
		s.rows = append(s.rows, rowOf{t, uint32(len(s.chunks)), uint32(i)})
	}
	s.chunks = append(s.chunks, c.Clone())
	for i := range c.Columns {
		s.values += c.Columns[i].Count()
	}
}

func (s *sheet) each(yield func(Reading) bool) bool {
	for _, r := range s.rows {
		c := s.chunks[r.chunk]
		for k := range c.Columns {
			if c.Columns[k].Has(int(r.row)) && !yield(c.Reading(int(r.row), &c.Columns[k])) {
				return false
			}
		}
	}
	return true
}

// Clone returns a copy that shares nothing.
func (c *Chunk) Clone() *Chunk {
	d := &Chunk{Device: c.Device, Times: slices.Clone(c.Times), Received: slices.Clone(c.Received), Flags: slices.Clone(c.Flags),
		Given: slices.Clone(c.Given), Columns: slices.Clone(c.Columns)}
	for i := range d.Columns {
		d.Columns[i].Values = slices.Clone(d.Columns[i].Values)
		d.Columns[i].Present = slices.Clone(d.Columns[i].Present)
	}
	return d
}

// Count returns how many values are there.
func (c *Column) Count() (n int) {
	if c.Present == nil {
		return len(c.Values)
	}
	for _, word := range c.Present {
		n += bits.OnesCount64(word)
	}
	return n
}

// Point is a bucket with what it is of.
type Point struct {
	Device, Metric string
	Bucket
}

// Reducible is the part of a View that Points needs.
type Reducible interface {
	Scanner
	Reduce(ctx context.Context, q Query, r Reduction) iter.Seq2[Series, error]
}

// Points yields the buckets of a reduction in order of time, then device, then metric.
func Points(ctx context.Context, v Reducible, q Query, r Reduction) iter.Seq2[Point, error] {
	return func(yield func(Point, error) bool) {
		if err := points(ctx, v, q, r, yield); err != nil {
			yield(Point{}, err)
		}
	}
}

func points(ctx context.Context, v Reducible, q Query, r Reduction, yield func(Point, error) bool) (err error) {
	if r.Every, err = r.SpanOf(ctx, v, q); err != nil {
		return err
	}
	w, err := windows(ctx, v, q, pointsGoal)
	if err != nil {
		return err
	}
	grid, said, end := NewGrid(r.Every, r.Location), damages{}, w.end
	for w.from < end {
		_, shortest := grid.Bucket(w.from)
		_, w.to = grid.Bucket(max(w.to-1, w.from)) // whole buckets
		s, err := readPoints(ctx, v, q, r, &w, shortest-w.from)
		if err != nil {
			return err
		}
		if s == nil {
			before := w.to
			if w.shrink(); w.to <= shortest {
				w.to = shortest
			} else if _, to := grid.Bucket(w.to - 1); to == before {
				w.to = shortest
			}
			continue
		}
		for _, d := range s.damaged {
			if said.isNew(d) && !yield(Point{}, d) {
				return nil
			}
		}
		for _, p := range s.points {
			if !yield(p, nil) {
				return nil
			}
		}
		w.next(len(s.points))
	}
	return nil
}

// pointSheet is all buckets of a window.
type pointSheet struct {
	points  []Point
	damaged []*DamagedError
}

// readPoints is readSheet for buckets, of which the shortest window holds one.
func readPoints(ctx context.Context, v Reducible, q Query, r Reduction, w *window, shortest int64) (*pointSheet, error) {
	q.From, q.To = w.from, min(w.to, w.end)
	out := &pointSheet{}
	for s, err := range v.Reduce(ctx, q, r) {
		if damaged, ok := errors.AsType[*DamagedError](err); ok {
			out.damaged = append(out.damaged, damaged)
			continue
		}
		if err != nil {
			return nil, err
		}
		if w.tooMuch(len(out.points)+len(s.Buckets), shortest) {
			return nil, nil
		}
		for i := range s.Buckets {
			out.points = append(out.points, Point{s.Device, s.Metric, s.Buckets[i]})
		}
	}
	slices.SortFunc(out.points, func(a, b Point) int {
		return cmp.Or(cmp.Compare(a.Start, b.Start), strings.Compare(a.Device, b.Device), strings.Compare(a.Metric, b.Metric))
	})
	return out, nil
}

// Fresh makes of what opens a view one that is never old: each call sees the moment of the call, and holds nothing open after
// its sequence. Readings and Points, which take a window of time after the other, then see each reading that stays what it is
// exactly once, however long who reads them takes.
func Fresh(open func(context.Context) (View, error)) Reducible { return fresh{open} }

type fresh struct {
	open func(context.Context) (View, error)
}

func (f fresh) Scan(ctx context.Context, q Query) iter.Seq2[*Chunk, error] {
	return within(ctx, f, func(v View) iter.Seq2[*Chunk, error] { return v.Scan(ctx, q) })
}

func (f fresh) Reduce(ctx context.Context, q Query, r Reduction) iter.Seq2[Series, error] {
	return within(ctx, f, func(v View) iter.Seq2[Series, error] { return v.Reduce(ctx, q, r) })
}

func (f fresh) Range(ctx context.Context, q Query) (first, last int64, err error) {
	v, err := f.open(ctx)
	if err != nil {
		return 0, 0, err
	}
	first, last, err = v.Range(ctx, q)
	return first, last, errors.Join(err, v.Close())
}

func within[T any](ctx context.Context, f fresh, sequence func(View) iter.Seq2[T, error]) iter.Seq2[T, error] {
	return func(yield func(T, error) bool) {
		var none T
		v, err := f.open(ctx)
		if err != nil {
			yield(none, err)
			return
		}
		left := false
		for x, err := range sequence(v) {
			if !yield(x, err) {
				left = true
				break
			}
		}
		if err := v.Close(); err != nil && !left {
			yield(none, err)
		}
	}
}
