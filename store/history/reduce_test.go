package history

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"iter"
	"math"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// memory is a view of a list of readings, which are in order of device, time, metric.
type memory struct {
	list    []Reading
	damaged []*DamagedError
	chunk   int // at most so many times
	scans   int
}

func (m *memory) selected(q Query) (list []Reading) {
	for _, r := range m.list {
		if r.Time >= q.From && r.Time < q.End() && q.Wants(r.Metric) && (len(q.Devices) == 0 || slices.Contains(q.Devices, r.Device)) {
			list = append(list, r)
		}
	}
	return list
}

func (m *memory) Scan(_ context.Context, q Query) iter.Seq2[*Chunk, error] {
	m.scans++
	return func(yield func(*Chunk, error) bool) {
		for _, d := range m.damaged {
			if d.From < q.End() && d.To > q.From && !yield(nil, d) {
				return
			}
		}
		var b Builder
		device := ""
		times, last := 0, int64(-1)
		for _, r := range m.selected(q) {
			if r.Device != device || times == m.chunk && r.Time != last {
				if b.Len() > 0 && !yield(b.Chunk(), nil) {
					return
				}
				b.Begin(r.Device)
				device, times, last = r.Device, 0, -1
			}
			if r.Time != last {
				times++
				last = r.Time
				flags := uint8(r.TimeSource)
				if r.ClockUnsure {
					flags |= FlagClockUnsure
				}
				b.Row(r.Time, r.Received, flags, r.Given)
			}
			b.Value(r.Metric, r.Value)
		}
		if b.Len() > 0 {
			yield(b.Chunk(), nil)
		}
	}
}

func (m *memory) Reduce(ctx context.Context, q Query, r Reduction) iter.Seq2[Series, error] {
	return Reduce(ctx, m, q, r)
}

func (m *memory) Range(_ context.Context, q Query) (first, last int64, err error) {
	first, last = 1, 0
	for _, r := range m.selected(Query{Devices: q.Devices, From: q.From, To: q.To}) {
		if last == 0 {
			first = r.Time
		}
		first, last = min(first, r.Time), max(last, r.Time)
	}
	return first, last, nil
}

var metrics = []string{"co2", "humidity", "ph", "temperature"}

// someReadings are of some devices, a few minutes apart, with gaps, over some days from a time on.
func someReadings(random *rand.Rand, from int64, days int) (list []Reading) {
	for d := range 1 + random.IntN(4) {
		at := from
		for at < from+int64(days)*dayMS {
			at += 1 + random.Int64N(20*60_000)
			if random.IntN(50) == 0 {
				at += random.Int64N(30 * hourMS)
			}
			r := Reading{Device: fmt.Sprintf("bed-%d", d), Time: at, Received: at + random.Int64N(1000), TimeSource: TimeSource(random.IntN(4)), ClockUnsure: random.IntN(9) == 0}
			if r.TimeSource == FromArrivalImpossible {
				r.Given = "2099"
			}
			for _, metric := range metrics {
				if random.IntN(5) > 0 || metric == "temperature" {
					r.Metric, r.Value = metric, math.Round(random.NormFloat64()*1000)/10
					list = append(list, r)
				}
			}
		}
	}
	return list
}

// bruteForce looks at each reading, and asks nothing but a clock for the bounds.
func bruteForce(list []Reading, span Span, at *time.Location, times bool) (points []Point) {
	grid := NewGrid(span, at) // grid_test.go holds it against a clock
	for _, r := range list {
		start, end := grid.Bucket(r.Time)
		i := slices.IndexFunc(points, func(p Point) bool { return p.Device == r.Device && p.Metric == r.Metric && p.Start == start })
		if i < 0 {
			i = len(points)
			points = append(points, Point{r.Device, r.Metric, Bucket{Start: start, End: end, Min: math.Inf(1), Max: math.Inf(-1), First: r.Value}})
		}
		b := &points[i].Bucket
		b.Count++
		b.ScaledSum += r.Value * SumScale
		b.Last = r.Value
		if r.Value < b.Min {
			b.Min, b.MinAt = r.Value, r.Time
		}
		if r.Value > b.Max {
			b.Max, b.MaxAt = r.Value, r.Time
		}
		if !times {
			b.MinAt, b.MaxAt = 0, 0
		}
	}
	slices.SortFunc(points, func(a, b Point) int {
		return cmp.Or(cmp.Compare(a.Start, b.Start), cmp.Compare(a.Device, b.Device), cmp.Compare(a.Metric, b.Metric))
	})
	return points
}

// samePoints compares all but the last digits of sums.
func samePoints(t *testing.T, want, got []Point, about string) {
	t.Helper()
	require.Len(t, got, len(want), about)
	for i := range want {
		require.InDelta(t, want[i].Mean(), got[i].Mean(), 1e-9, about)
		got[i].ScaledSum = want[i].ScaledSum
	}
	require.Equal(t, want, got, about)
}

func someReduction(random *rand.Rand, l *time.Location) Reduction {
	r := Reduction{Location: l}
	if random.IntN(2) == 0 {
		r.Points = 1 + random.IntN(200)
	} else {
		r.Every, _ = ParseSpan([]string{"10m", "1h", "3h", "7h", "1d", "1w", "1mo"}[random.IntN(7)])
	}
	if random.IntN(2) == 0 {
		r.Aggregates = Aggregates | Times
	}
	return r
}

func someQuery(random *rand.Rand, from int64, days int) (q Query) {
	if random.IntN(2) == 0 {
		q.From = from + random.Int64N(int64(days)*dayMS)
	}
	if random.IntN(2) == 0 {
		q.To = max(q.From, from) + 1 + random.Int64N(int64(days)*dayMS)
	}
	if random.IntN(3) == 0 {
		q.Metrics = []string{"temperature", "humidity", "none"}
	}
	if random.IntN(3) == 0 {
		q.Devices = []string{"bed-0"}
	}
	return q
}

func TestReductionsAreWhatTheReadingsComeTo(t *testing.T) {
	random := rand.New(rand.NewPCG(5, 6))
	for i := range 100 {
		c := changes[i%len(changes)]
		l := place(t, c.place)
		first, err := time.ParseInLocation(time.DateOnly, c.from, l)
		require.NoError(t, err)
		from := first.UnixMilli()
		m := &memory{list: someReadings(random, from, 4), chunk: 1 + random.IntN(300)}
		q, r := someQuery(random, from, 4), someReduction(random, l)
		span, err := r.SpanOf(t.Context(), m, q)
		require.NoError(t, err)
		want := bruteForce(m.selected(q), span, l, r.Aggregates&Times != 0)
		var got []Point
		for p, err := range Points(t.Context(), m, q, r) {
			require.NoError(t, err)
			got = append(got, p)
		}
		about := fmt.Sprintf("%+v %+v: %s", q, r, span)
		samePoints(t, want, got, about)
		if r.Points > 0 {
			perSeries := map[string]int{}
			for _, p := range got {
				perSeries[p.Device+" "+p.Metric]++
			}
			for name, n := range perSeries {
				require.LessOrEqual(t, n, r.Points, name)
			}
		}
	}
}

func TestBucketsOfPartsAreTheBucketsOfTheWhole(t *testing.T) {
	random := rand.New(rand.NewPCG(7, 8))
	span := Every(time.Hour)
	for range 40 {
		m := &memory{list: someReadings(random, 1_700_000_000_000, 3), chunk: 1 + random.IntN(40)}
		m.list = m.selected(Query{Devices: []string{"bed-0"}})
		r := Reduction{Every: span, Aggregates: Aggregates | Times}
		want := bruteForce(m.list, span, nil, true)
		// Some chunks come as buckets of their own, as from a summary.
		reducer := NewReducer(span, r)
		for c := range m.Scan(t.Context(), Query{}) {
			_, end := reducer.Bucket(c.Times[0])
			if random.IntN(2) == 0 || c.Times[len(c.Times)-1] >= end {
				reducer.Add(c)
				continue
			}
			whole := NewReducer(Span{Months: 12000}, r)
			whole.Add(c)
			for _, s := range whole.Series("") {
				require.Len(t, s.Buckets, 1)
				reducer.AddBucket(s.Metric, c.Times[0], s.Buckets[0])
			}
		}
		var got []Point
		for _, s := range reducer.Series("bed-0") {
			for _, b := range s.Buckets {
				got = append(got, Point{s.Device, s.Metric, b})
			}
		}
		slices.SortStableFunc(got, func(a, b Point) int { return cmp.Compare(a.Start, b.Start) })
		samePoints(t, want, got, "parts")
		assert.Empty(t, reducer.Series(""), "it begins anew")
	}
}

func TestBucketsOfTheLargestValuesAreFinite(t *testing.T) {
	var b Bucket
	b.addAll([]float64{math.MaxFloat64, math.MaxFloat64}, []int64{1, 2})
	assert.Equal(t, math.MaxFloat64, b.Mean())
	assert.True(t, math.IsInf(b.Sum(), 1))
	b.Linear(-1, 0)
	assert.Equal(t, -math.MaxFloat64, b.Mean())
}

func TestLinearIsThatOfTheValues(t *testing.T) {
	values, times := []float64{3, -1, 7.5, 2}, []int64{10, 20, 30, 40}
	for _, f := range []struct{ factor, offset float64 }{{2, 1}, {-0.5, 10}, {0, 3}, {1, -4}} {
		b, want := Bucket{Start: 1, End: 100}, Bucket{Start: 1, End: 100}
		b.addAll(values, times)
		b.Linear(f.factor, f.offset)
		for i, v := range values {
			want.add(v*f.factor+f.offset, times[i])
		}
		if f.factor == 0 { // all are the same
			b.MinAt, b.MaxAt = want.MinAt, want.MaxAt
		}
		assert.InDelta(t, want.Sum(), b.Sum(), 1e-9)
		b.ScaledSum = want.ScaledSum
		assert.Equal(t, want, b)
		for _, a := range []Aggregate{Average, Min, Max, Count, Sum, First, Last} {
			assert.Equal(t, want.Value(a), b.Value(a), a)
		}
	}
}

func TestAggregates(t *testing.T) {
	list, err := ParseAggregates("max, avg,min,count,sum,first,last")
	require.NoError(t, err)
	assert.Equal(t, []Aggregate{Max, Average, Min, Count, Sum, First, Last}, list)
	assert.Equal(t, "[max avg min count sum first last]", fmt.Sprint(list))
	b := Bucket{Count: 4, Min: 1, Max: 9, First: 2, Last: 3, ScaledSum: 15 * SumScale}
	var values []float64
	for _, a := range list {
		values = append(values, b.Value(a))
	}
	assert.Equal(t, []float64{9, 3.75, 1, 4, 15, 2, 3}, values)
	for _, text := range []string{"", "mean", "avg,avg", "avg,"} {
		_, err := ParseAggregates(text)
		assert.ErrorContains(t, err, "avg,min,max,count,sum,first,last", text)
	}
}

func TestReadingsAreInOrderWhateverTheWindows(t *testing.T) {
	random := rand.New(rand.NewPCG(9, 10))
	for range 40 {
		m := &memory{list: someReadings(random, 1_700_000_000_000, 1+random.IntN(10)), chunk: 1 + random.IntN(300)}
		m.damaged = []*DamagedError{{"bed-0", math.MinInt64, math.MaxInt64, errors.New("x")}, {"bed-0", 1_700_000_000_000, 1_700_000_900_000, errors.New("x")}}
		q := someQuery(random, 1_700_000_000_000, 3)
		want := m.selected(q)
		slices.SortFunc(want, func(a, b Reading) int {
			return cmp.Or(cmp.Compare(a.Time, b.Time), cmp.Compare(a.Device, b.Device), cmp.Compare(a.Metric, b.Metric))
		})
		var got []Reading
		damage := map[*DamagedError]int{}
		for r, err := range Readings(t.Context(), m, q) {
			if damaged, ok := errors.AsType[*DamagedError](err); ok {
				damage[damaged]++
				continue
			}
			require.NoError(t, err)
			got = append(got, r)
		}
		require.Equal(t, want, got)
		for d, n := range damage {
			assert.Equal(t, 1, n, d)
		}
		for r, err := range Readings(t.Context(), m, q) {
			if err != nil {
				continue
			}
			require.Equal(t, want[0], r)
			break // early
		}
	}
}

func TestAYearOfManyReadingsIsReadInFewWindows(t *testing.T) {
	random := rand.New(rand.NewPCG(11, 12))
	m := &memory{chunk: MaxChunk}
	for _, days := range []int64{0, 200, 400, 4000} { // far apart
		m.list = append(m.list, someReadings(random, 1_400_000_000_000+days*dayMS, 2)...)
	}
	slices.SortStableFunc(m.list, func(a, b Reading) int {
		return cmp.Or(cmp.Compare(a.Device, b.Device), cmp.Compare(a.Time, b.Time))
	})
	n := 0
	for _, err := range Readings(t.Context(), m, Query{}) {
		require.NoError(t, err)
		n++
	}
	assert.Equal(t, len(m.list), n)
	assert.Less(t, m.scans, 60)
}

func TestWhatDoesNotFitInAWindowIsReadInShorterOnes(t *testing.T) {
	w := window{from: 0, to: 1 << 20, end: 1 << 30, goal: 100}
	assert.False(t, w.tooMuch(400, 1))
	for w.tooMuch(401, 1) {
		w.shrink()
	}
	assert.Equal(t, int64(1), w.to)
	assert.False(t, w.tooMuch(1000, 1), "it cannot be shorter")
	w = window{from: 0, to: 1, end: math.MaxInt64, goal: 100} // where an end is not known
	for range 60 {
		before := w
		if w.next(0); w.from >= w.end {
			break
		}
		require.Less(t, before.from, w.from)
	}
	assert.Equal(t, w.end, w.from)
}

func TestBuilderMakesOneOfReadingsOfTheSameTime(t *testing.T) {
	var b Builder
	for range 2 { // nothing is left of what was there before
		b.Begin("a")
		assert.Zero(t, b.Len())
		b.Row(10, 12, 0, "")
		b.Value("ph", 7)
		b.Row(11, 12, 0, "") // has no value
		b.Row(20, 25, 1, "")
		b.Row(20, 22, 2, "never")
		b.Value("co2", 400)
		b.Row(20, 24, 3, "")
		b.Value("co2", 500)
		b.Value("ph", 6)
		b.Row(20, 21, 4, "")
		b.Row(30, 31, 0, "")
		b.Value("ph", 5)
		assert.Equal(t, &Chunk{
			Device: "a", Times: []int64{10, 20, 30}, Received: []int64{12, 21, 31}, Flags: []uint8{0, 4, 0}, Given: []string{"", "", ""},
			Columns: []Column{{"co2", []float64{0, 400, 0}, []uint64{2}}, {"ph", []float64{7, 6, 5}, nil}},
		}, b.Chunk())
	}
}

func TestTextOfDamage(t *testing.T) {
	e := &DamagedError{"bed-1", 1_700_000_000_000, math.MaxInt64, errors.New("torn")}
	assert.Equal(t, "readings of bed-1 from 2023-11-14T22:13:20Z to the end cannot be read: torn", e.Error())
	assert.ErrorIs(t, e, ErrDamaged)
	assert.Contains(t, (&DamagedError{From: math.MinInt64, To: 1_700_000_000_000}).Error(), "from the beginning to 2023")
}

func BenchmarkReduceYear(b *testing.B) {
	random := rand.New(rand.NewPCG(1, 2))
	c := &Chunk{Device: "a"}
	for k := range 5 {
		c.Columns = append(c.Columns, Column{Metric: fmt.Sprint(k)})
	}
	for i := range int64(105_000) {
		c.Times = append(c.Times, 1_700_000_000_000+i*300_000)
		for k := range c.Columns {
			c.Columns[k].Values = append(c.Columns[k].Values, random.Float64())
		}
	}
	r := Reduction{Points: 500}
	for b.Loop() {
		reducer := NewReducer(r.Span(c.Times[0], c.Times[len(c.Times)-1]), r)
		reducer.Add(c)
		reducer.Series("a")
	}
}

// Whatever the values and the times: each value is in one bucket, extremes are exact, and a mean lies between them.
func FuzzReduce(f *testing.F) {
	f.Add(uint64(1), uint8(0), uint16(50), 1e308)
	f.Add(uint64(2), uint8(4), uint16(500), -0.1)
	f.Add(uint64(3), uint8(8), uint16(1), 5e-324)
	f.Fuzz(func(t *testing.T, seed uint64, where uint8, points uint16, factor float64) {
		random := rand.New(rand.NewPCG(seed, 1))
		c := changes[int(where)%len(changes)]
		l := place(t, c.place)
		first, _ := time.ParseInLocation(time.DateOnly, c.from, l)
		m := &memory{list: someReadings(random, first.UnixMilli(), 1), chunk: 1 + random.IntN(100)}
		m.list = slices.DeleteFunc(m.list, func(r Reading) bool { return math.IsInf(r.Value*factor, 0) || math.IsNaN(r.Value*factor) })
		for i := range m.list {
			m.list[i].Value *= factor
		}
		r := Reduction{Points: int(points%1000) + 1, Location: l}
		span, err := r.SpanOf(t.Context(), m, Query{})
		require.NoError(t, err)
		want := bruteForce(m.list, span, l, false)
		var got []Point
		for p := range Points(t.Context(), m, Query{}, r) {
			if p.Mean() < p.Min && !near(p.Mean(), p.Min, factor) || p.Mean() > p.Max && !near(p.Mean(), p.Max, factor) {
				t.Fatalf("%+v: mean %v", p, p.Mean())
			}
			got = append(got, p)
		}
		require.Len(t, got, len(want))
		for i := range want {
			require.InDelta(t, want[i].ScaledSum, got[i].ScaledSum, 1e-9*(math.Abs(want[i].Min)+math.Abs(want[i].Max))*SumScale*float64(want[i].Count))
			got[i].ScaledSum = want[i].ScaledSum
		}
		require.Equal(t, want, got)
	})
}

func near(a, b, size float64) bool {
	return math.Abs(a-b) <= 1e-9*math.Max(math.Abs(a), math.Abs(size)) || math.Abs(a) < 1e-280 // what SumScale costs the smallest
}
