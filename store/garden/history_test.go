package garden

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"iter"
	"math"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/plantops/plantops/store/history"
)

const minuteMS = int64(time.Minute / time.Millisecond)

// noon is when the days of these tests begin.
var noon = time.Date(2026, 11, 1, 12, 0, 0, 0, time.UTC).UnixMilli()

// memory is a view of a list of readings, which are in order of device, time, metric. A device that has none is not known.
type memory struct {
	list    []history.Reading
	chunk   int                         // at most so many times
	reduced int                         // times that Reduce was asked
	scanned int                         // values that Scan gave
	damaged *history.DamagedError       // is said by each Scan of its device
	running bool                        // a sequence that was not left
	fail    func(text string, _ ...any) // is told of what no view allows
}

func (m *memory) selected(q history.Query) (list []history.Reading) {
	for _, r := range m.list {
		if r.Time >= q.From && r.Time < q.End() && q.Wants(r.Metric) && slices.Contains(q.Devices, r.Device) {
			list = append(list, r)
		}
	}
	return list
}

func (m *memory) known(q history.Query) error {
	for _, device := range q.Devices {
		if !slices.ContainsFunc(m.list, func(r history.Reading) bool { return r.Device == device }) {
			return fmt.Errorf("device %q: %w", device, history.ErrNotFound)
		}
	}
	return nil
}

func (m *memory) Scan(_ context.Context, q history.Query) iter.Seq2[*history.Chunk, error] {
	return func(yield func(*history.Chunk, error) bool) {
		if m.running {
			m.fail("a view is asked while a sequence of it goes on")
		}
		m.running = true
		defer func() { m.running = false }()
		if err := m.known(q); err != nil {
			yield(nil, err)
			return
		}
		if d := m.damaged; d != nil && slices.Contains(q.Devices, d.Device) && d.From < q.End() && d.To > q.From && !yield(nil, d) {
			return
		}
		var b history.Builder
		device, times, last := "", 0, int64(-1)
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
				b.Row(r.Time, r.Received, 0, "")
			}
			b.Value(r.Metric, r.Value)
			m.scanned++
		}
		if b.Len() > 0 {
			yield(b.Chunk(), nil)
		}
	}
}

func (m *memory) Reduce(ctx context.Context, q history.Query, r history.Reduction) iter.Seq2[history.Series, error] {
	m.reduced++
	scanned := m.scanned
	return func(yield func(history.Series, error) bool) {
		for s, err := range history.Reduce(ctx, m, q, r) {
			if !yield(s, err) {
				return
			}
		}
		m.scanned = scanned // a store would have used summaries
	}
}

func (m *memory) Readings(ctx context.Context, q history.Query) iter.Seq2[history.Reading, error] {
	return history.Readings(ctx, m, q)
}

func (m *memory) Range(_ context.Context, q history.Query) (first, last int64, err error) {
	first, last = math.MaxInt64, math.MinInt64
	for _, r := range m.selected(history.Query{Devices: q.Devices, From: q.From, To: q.To}) {
		first, last = min(first, r.Time), max(last, r.Time)
	}
	return first, last, m.known(q)
}

func (m *memory) Latest(_ context.Context, device string) ([]history.Reading, error) {
	found := newest{}
	for _, r := range m.selected(history.Query{Devices: []string{device}}) {
		found.take(r)
	}
	return found.list(), m.known(history.Query{Devices: []string{device}})
}

func (m *memory) LatestAll(ctx context.Context) iter.Seq2[history.Reading, error] {
	return func(yield func(history.Reading, error) bool) {
		var devices []string
		for _, r := range m.list {
			devices = append(devices, r.Device)
		}
		for _, device := range slices.Compact(devices) {
			list, _ := m.Latest(ctx, device)
			for _, r := range list {
				if !yield(r, nil) {
					return
				}
			}
		}
	}
}

func (m *memory) Close() error { return nil }

// ownerOf is the rule as the design says it, one assignment after the other.
func ownerOf(assignments []Assignment, r history.Reading) string {
	for _, t := range []int64{r.Time, r.Received} {
		for _, metric := range []string{r.Metric, ""} {
			for _, a := range assignments {
				if a.Device == r.Device && a.Metric == metric && a.Since <= t && (a.Until == 0 || t < a.Until) {
					return a.Plant
				}
			}
		}
	}
	return ""
}

func byTime(a, b history.Reading) int {
	return cmp.Or(cmp.Compare(a.Time, b.Time), cmp.Compare(a.Device, b.Device), cmp.Compare(a.Metric, b.Metric))
}

// drawn is a greenhouse in which sensors are moved, replaced, taken away and come late.
type drawn struct {
	view        *memory
	assignments []Assignment
	plan        *Plan
	plants      []string
}

var metrics = []string{"co2", "soil", "temperature"}

func draw(t *rapid.T) *drawn {
	d := &drawn{view: &memory{chunk: rapid.IntRange(1, 40).Draw(t, "chunk"), fail: t.Fatalf}, plants: []string{"fern", "basil", "fig"}}
	const days = 10
	for i := range rapid.IntRange(1, 3).Draw(t, "devices") {
		device := fmt.Sprint("probe-", i)
		for _, metric := range append([]string{""}, metrics...) {
			at := noon
			for range rapid.IntRange(0, 4).Draw(t, "assignments") {
				a := Assignment{ID: fmt.Sprint(len(d.assignments)), Device: device, Metric: metric, Plant: rapid.SampledFrom(d.plants).Draw(t, "plant")}
				a.Since = at + rapid.Int64Range(0, 2*24*60).Draw(t, "wait")*minuteMS
				a.Until = a.Since + rapid.Int64Range(1, 3*24*60).Draw(t, "length")*minuteMS
				at = a.Until
				if rapid.IntRange(0, 5).Draw(t, "still") == 0 {
					a.Until, at = 0, math.MaxInt64/2
				}
				if a.Since < math.MaxInt64/4 {
					d.assignments = append(d.assignments, a)
				}
			}
		}
		at := noon - 24*60*minuteMS
		for range rapid.IntRange(0, 150).Draw(t, "messages") {
			at += rapid.Int64Range(1, days*24*60/75).Draw(t, "later") * minuteMS
			r := history.Reading{Device: device, Time: at, Received: at + 100}
			switch rapid.IntRange(0, 5).Draw(t, "arrival") {
			case 0: // from a buffer
				r.Received += rapid.Int64Range(0, 4*24*60).Draw(t, "late") * minuteMS
			case 1: // of a clock that is ahead
				r.Received -= rapid.Int64Range(0, 24*60).Draw(t, "early") * minuteMS
			}
			for _, metric := range metrics {
				if rapid.IntRange(0, 3).Draw(t, "has") > 0 {
					r.Metric, r.Value = metric, float64(rapid.IntRange(-20, 40).Draw(t, "value"))
					d.view.list = append(d.view.list, r)
				}
			}
		}
	}
	var plants []Plant
	for _, id := range d.plants {
		plants = append(plants, Plant{ID: id, Name: id, Zone: "window", Created: 1})
	}
	d.plan = NewPlan([]Zone{{ID: "window", Kind: Room, Name: "Window"}}, plants, d.assignments)
	return d
}

// of is what belongs to a plant, by the rule alone.
func (d *drawn) of(plant string, q history.Query) (list []history.Reading) {
	for _, r := range d.view.list {
		if ownerOf(d.assignments, r) == plant && r.Time >= q.From && r.Time < q.End() && q.Wants(r.Metric) {
			list = append(list, r)
		}
	}
	slices.SortFunc(list, byTime)
	return list
}

// buckets are those of readings in order of time, by the value.
func buckets(list []history.Reading, span history.Span, metric string) (want []history.Bucket) {
	grid := history.NewGrid(span, nil)
	for _, r := range list {
		if r.Metric != metric {
			continue
		}
		start, end := grid.Bucket(r.Time)
		if n := len(want); n == 0 || want[n-1].Start != start {
			want = append(want, history.Bucket{Start: start, End: end, Min: r.Value, Max: r.Value, MinAt: r.Time, MaxAt: r.Time, First: r.Value})
		}
		b := &want[len(want)-1]
		if r.Value < b.Min {
			b.Min, b.MinAt = r.Value, r.Time
		}
		if r.Value > b.Max {
			b.Max, b.MaxAt = r.Value, r.Time
		}
		b.Last = r.Value
		b.Count++
		b.ScaledSum += r.Value * history.SumScale
	}
	return want
}

func drawQuery(t *rapid.T) (q history.Query) {
	if rapid.Bool().Draw(t, "from") {
		q.From = noon + rapid.Int64Range(-24*60, 8*24*60).Draw(t, "first")*minuteMS
	}
	if rapid.Bool().Draw(t, "to") {
		q.To = max(q.From, noon) + rapid.Int64Range(1, 10*24*60).Draw(t, "last")*minuteMS
	}
	if rapid.Bool().Draw(t, "some") {
		q.Metrics = rapid.SliceOfNDistinct(rapid.SampledFrom(metrics), 1, 2, rapid.ID).Draw(t, "metrics")
	}
	return q
}

// Whatever is moved, replaced and buffered: a plant has the readings that the rule gives it, each once, and its buckets are theirs.
func TestAPlantHasTheReadingsThatTheRuleGivesIt(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		d := draw(t)
		for _, r := range d.view.list {
			require.Equal(t, ownerOf(d.assignments, r), d.plan.Owner(r.Device, r.Metric, r.Time, r.Received), "%v", r)
		}
		for _, plant := range d.plants {
			q := drawQuery(t)
			want := d.of(plant, q)
			h := d.plan.History(d.view, plant)
			var got []history.Reading
			for r, err := range history.Readings(t.Context(), h, q) {
				require.NoError(t, err)
				got = append(got, r)
			}
			require.Equal(t, want, got, "readings of %s: %+v", plant, q)

			first, last, err := h.Range(t.Context(), q)
			require.NoError(t, err)
			if len(want) > 0 {
				require.LessOrEqual(t, first, want[0].Time)
				require.GreaterOrEqual(t, last, want[len(want)-1].Time)
			}
			requireBuckets(t, h, q, want)
		}
	})
}

func requireBuckets(t *rapid.T, h *History, q history.Query, want []history.Reading) {
	r := history.Reduction{Every: history.Every(time.Duration(rapid.SampledFrom([]int{10, 60, 1440, 7 * 1440}).Draw(t, "every")) * time.Minute)}
	if rapid.Bool().Draw(t, "times") {
		r.Aggregates = history.Aggregates | history.Times
	}
	there := map[string]bool{}
	for s, err := range h.Reduce(t.Context(), q, r) {
		require.NoError(t, err)
		require.False(t, there[s.Metric], "a series of %s is there already", s.Metric)
		there[s.Metric] = true
		expected := buckets(want, r.Every, s.Metric)
		require.Len(t, s.Buckets, len(expected))
		for i := range expected {
			got, want := s.Buckets[i], expected[i]
			if r.Aggregates == 0 {
				want.MinAt, want.MaxAt = 0, 0
			}
			require.InDelta(t, want.ScaledSum/history.SumScale, got.ScaledSum/history.SumScale, 1e-9)
			got.ScaledSum = want.ScaledSum
			require.Equal(t, want, got, "%s from %d", s.Metric, want.Start)
		}
	}
	for _, one := range want {
		require.True(t, there[one.Metric], "there is no series of %s", one.Metric)
	}
}

func TestTheLatestValuesOfAPlantAreItsNewestReadings(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		d := draw(t)
		all, err := d.plan.LatestAll(t.Context(), d.view)
		require.NoError(t, err)
		for _, plant := range d.plants {
			want := newest{}
			for _, r := range d.of(plant, history.Query{}) {
				want.take(r)
			}
			got, err := d.plan.Latest(t.Context(), d.view, plant)
			require.NoError(t, err)
			require.Equal(t, want.list(), got, plant)
			if len(got) > 0 {
				require.Equal(t, got, all[plant])
			} else {
				require.NotContains(t, all, plant)
			}
		}
	})
}

func TestAnAverageOfAZoneCountsEachPlantTheSame(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		d := draw(t)
		q := drawQuery(t)
		every := history.Every(6 * time.Hour)
		type mean struct {
			sum, min, max float64
			plants        int64
		}
		want := map[string]map[int64]*mean{}
		for _, plant := range d.plants {
			for _, metric := range metrics {
				for _, b := range buckets(d.of(plant, q), every, metric) {
					if want[metric] == nil {
						want[metric] = map[int64]*mean{}
					}
					m := want[metric][b.Start]
					if m == nil {
						m = &mean{min: b.Min, max: b.Max}
						want[metric][b.Start] = m
					}
					m.sum, m.plants, m.min, m.max = m.sum+b.Mean(), m.plants+1, min(m.min, b.Min), max(m.max, b.Max)
				}
			}
		}
		series := 0
		for s, err := range d.plan.Averages(d.view, "window").Reduce(t.Context(), q, history.Reduction{Every: every}) {
			require.NoError(t, err)
			series++
			require.Equal(t, "window", s.Device)
			require.Len(t, s.Buckets, len(want[s.Metric]))
			for i := range s.Buckets {
				b, m := &s.Buckets[i], want[s.Metric][s.Buckets[i].Start]
				require.NotNil(t, m)
				require.InDelta(t, m.sum/float64(m.plants), b.Mean(), 1e-9)
				require.Equal(t, []any{m.plants, m.min, m.max}, []any{b.Count, b.Min, b.Max})
				require.True(t, i == 0 || s.Buckets[i-1].Start < b.Start)
			}
		}
		require.Equal(t, len(want), series)
	})
}

// stay is a device that sends once an hour for some days.
func stay(device string, from int64, hours int) (list []history.Reading) {
	for i := range hours {
		at := from + int64(i)*60*minuteMS
		list = append(list, history.Reading{Device: device, Metric: "soil", Time: at, Received: at, Value: float64(i)})
	}
	return list
}

func TestWhatIsWhollyAPlantsIsReducedBySummaries(t *testing.T) {
	v := &memory{chunk: 100, list: stay("probe-1", noon, 240), fail: t.Fatalf}
	plan := NewPlan(nil, []Plant{{ID: "fern"}}, []Assignment{{ID: "a", Device: "probe-1", Plant: "fern", Since: noon}})
	q, r := history.Query{From: noon, To: noon + 300*60*minuteMS}, history.Reduction{Points: 100}
	total := int64(0)
	for s, err := range plan.History(v, "fern").Reduce(t.Context(), q, r) {
		require.NoError(t, err)
		assert.LessOrEqual(t, len(s.Buckets), 100)
		for _, b := range s.Buckets {
			total += b.Count
		}
	}
	assert.EqualValues(t, 240, total)
	assert.Equal(t, []int{1, 0}, []int{v.reduced, v.scanned})
}

func TestWhatIsDamagedIsSaidOnceAndTheRestIsThere(t *testing.T) {
	v := &memory{chunk: 100, list: stay("probe-1", noon, 240), fail: t.Fatalf}
	v.damaged = &history.DamagedError{Device: "probe-1", From: noon, To: noon + 1, Cause: history.ErrDamaged}
	move := noon + 100*60*minuteMS
	plan := NewPlan(nil, []Plant{{ID: "fern"}}, []Assignment{
		{ID: "a", Device: "probe-1", Plant: "fern", Since: noon, Until: move},
		{ID: "b", Device: "probe-1", Plant: "fern", Metric: "soil", Since: move},
	})
	said, values := 0, int64(0)
	for s, err := range plan.History(v, "fern").Reduce(t.Context(), history.Query{}, history.Reduction{Points: 10}) {
		if errors.Is(err, history.ErrDamaged) {
			said++
			continue
		}
		require.NoError(t, err)
		for _, b := range s.Buckets {
			values += b.Count
		}
	}
	assert.Equal(t, 1, said)
	assert.EqualValues(t, 240, values)
}

// A device may be purged between the moment of the plan and that of the view.
func TestADeviceThatIsGoneHasNothing(t *testing.T) {
	v := &memory{chunk: 100, list: stay("probe-1", noon, 10), fail: t.Fatalf}
	plan := NewPlan(nil, []Plant{{ID: "fern"}}, []Assignment{
		{ID: "a", Device: "gone", Plant: "fern", Since: noon, Until: noon + 5}, {ID: "b", Device: "probe-1", Plant: "fern", Since: noon},
	})
	h := plan.History(v, "fern")
	n := 0
	for _, err := range history.Readings(t.Context(), h, history.Query{}) {
		require.NoError(t, err)
		n++
	}
	assert.Equal(t, 10, n)
	for s, err := range h.Reduce(t.Context(), history.Query{}, history.Reduction{Points: 1}) {
		require.NoError(t, err)
		assert.EqualValues(t, 10, s.Buckets[0].Count)
	}
	list, err := plan.Latest(t.Context(), v, "fern")
	require.NoError(t, err)
	assert.Len(t, list, 1)
}
