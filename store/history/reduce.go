package history

import (
	"context"
	"iter"
	"math/bits"
	"slices"
	"strings"
)

// add puts one more value into the bucket.
func (b *Bucket) add(v float64, at int64) {
	if b.Count == 0 {
		b.Min, b.Max, b.First, b.MinAt, b.MaxAt = v, v, v, at, at
	}
	if v < b.Min {
		b.Min, b.MinAt = v, at
	}
	if v > b.Max {
		b.Max, b.MaxAt = v, at
	}
	b.Last = v
	b.ScaledSum += v * SumScale
	b.Count++
}

// merge puts in what another holds, whose values are later.
func (b *Bucket) merge(o *Bucket) {
	if b.Count == 0 {
		o, start, end := *o, b.Start, b.End
		*b = o
		b.Start, b.End = start, end
		return
	}
	if o.Min < b.Min {
		b.Min, b.MinAt = o.Min, o.MinAt
	}
	if o.Max > b.Max {
		b.Max, b.MaxAt = o.Max, o.MaxAt
	}
	b.Last = o.Last
	b.ScaledSum += o.ScaledSum
	b.Count += o.Count
}

// Reducer makes the buckets of one device after the other of its readings, which come in order of time.
type Reducer struct {
	grid   *Grid
	times  bool
	series []Series
	near   int // index of the series that was asked for last
	runs   []run
}

// run is the times of a chunk, from number i to before j, that are in one bucket.
type run struct {
	i, j       int
	start, end int64
}

// NewReducer returns one for a span, which must not be zero: r.Span says which.
func NewReducer(span Span, r Reduction) *Reducer {
	return &Reducer{grid: NewGrid(span, r.Location), times: r.Aggregates&Times != 0}
}

// Bucket is that of the grid.
func (r *Reducer) Bucket(t int64) (start, end int64) { return r.grid.Bucket(t) }

// Add takes the readings of a chunk.
func (r *Reducer) Add(c *Chunk) {
	r.runs = r.runs[:0]
	for i := 0; i < len(c.Times); {
		start, end := r.grid.Bucket(c.Times[i])
		n, _ := slices.BinarySearch(c.Times[i:], end)
		r.runs = append(r.runs, run{i, i + max(n, 1), start, end})
		i += max(n, 1)
	}
	for k := range c.Columns {
		column := &c.Columns[k]
		s := r.of(column.Metric)
		for _, run := range r.runs {
			b := Bucket{Start: run.start, End: run.end}
			if column.Present == nil {
				b.addAll(column.Values[run.i:run.j], c.Times[run.i:run.j])
			} else {
				column.each(run.i, run.j, func(i int) { b.add(column.Values[i], c.Times[i]) })
			}
			if b.Count > 0 {
				s.add(&b)
			}
		}
	}
}

// addAll is add for each value of an empty bucket.
func (b *Bucket) addAll(values []float64, times []int64) {
	least, most, sum := 0, 0, 0.0
	smallest, largest := values[0], values[0]
	for i, v := range values {
		if v < smallest {
			smallest, least = v, i
		}
		if v > largest {
			largest, most = v, i
		}
		sum += v * SumScale
	}
	b.Min, b.Max, b.MinAt, b.MaxAt = smallest, largest, times[least], times[most]
	b.First, b.Last = values[0], values[len(values)-1]
	b.Count, b.ScaledSum = int64(len(values)), sum
}

// each calls do with the numbers from i to before j of values that are there.
func (c *Column) each(i, j int, do func(i int)) {
	for word := i / 64; word*64 < j; word++ {
		there := c.Present[word]
		if first := word * 64; first < i {
			there &= ^uint64(0) << (i - first)
		}
		for ; there != 0; there &= there - 1 {
			at := word*64 + bits.TrailingZeros64(there)
			if at >= j {
				return
			}
			do(at)
		}
	}
}

// AddBucket takes values of one metric at once: all are of the bucket of at, and later than what was added before.
func (r *Reducer) AddBucket(metric string, at int64, b Bucket) {
	b.Start, b.End = r.grid.Bucket(at)
	r.of(metric).add(&b)
}

// add merges a bucket that is the last one, or appends it.
func (s *Series) add(b *Bucket) {
	if n := len(s.Buckets); n > 0 && s.Buckets[n-1].Start == b.Start {
		s.Buckets[n-1].merge(b)
		return
	}
	s.Buckets = append(s.Buckets, *b)
}

// of finds the series of a metric. Metrics come in the same order again and again.
func (r *Reducer) of(metric string) *Series {
	for i := range r.series {
		if k := (r.near + i) % len(r.series); r.series[k].Metric == metric {
			r.near = k + 1
			return &r.series[k]
		}
	}
	r.series = append(r.series, Series{Metric: metric})
	r.near = len(r.series)
	return &r.series[len(r.series)-1]
}

// Series returns what was added, in order of metric, as that of a device, and begins anew.
func (r *Reducer) Series(device string) []Series {
	list := r.series
	r.series, r.near = nil, 0
	for i := range list {
		list[i].Device = device
		for k := range list[i].Buckets {
			if b := &list[i].Buckets[k]; !r.times {
				b.MinAt, b.MaxAt = 0, 0
			}
		}
	}
	slices.SortFunc(list, func(a, b Series) int { return strings.Compare(a.Metric, b.Metric) })
	return list
}

// Scanner is the part of a View that the others can be made of.
type Scanner interface {
	Scan(ctx context.Context, q Query) iter.Seq2[*Chunk, error]
	Range(ctx context.Context, q Query) (first, last int64, err error)
}

// Reduce is View.Reduce made of the readings themselves.
func Reduce(ctx context.Context, v Scanner, q Query, r Reduction) iter.Seq2[Series, error] {
	return func(yield func(Series, error) bool) {
		span, err := r.SpanOf(ctx, v, q)
		if err != nil {
			yield(Series{}, err)
			return
		}
		reducer, device := NewReducer(span, r), ""
		flush := func() bool {
			for _, s := range reducer.Series(device) {
				if !yield(s, nil) {
					return false
				}
			}
			return true
		}
		for c, err := range v.Scan(ctx, q) {
			if err != nil {
				if !yield(Series{}, err) {
					return
				}
				continue
			}
			if c.Device != device && !flush() {
				return
			}
			device = c.Device
			reducer.Add(c)
		}
		flush()
	}
}

// SpanOf is Span for what a query selects. Where the query is open, the oldest and the newest reading are the ends.
func (r *Reduction) SpanOf(ctx context.Context, v Scanner, q Query) (Span, error) {
	if !r.Every.IsZero() {
		return r.Every, nil
	}
	from, to := q.From, q.End()
	if from == 0 || q.To == 0 {
		first, last, err := v.Range(ctx, q)
		if err != nil {
			return Span{}, err
		}
		if last < first {
			first, last = 0, 0
		}
		if from == 0 {
			from = first
		}
		if q.To == 0 {
			to = last + 1
		}
	}
	return r.Span(from, to), nil
}
