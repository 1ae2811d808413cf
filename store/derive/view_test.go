package derive_test

import (
	"cmp"
	"context"
	"iter"
	"math"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/plantops/plantops/store/derive"
	"github.com/plantops/plantops/store/history"
)

// memory is a view of chunks in memory, which come in small parts. What of a device is damaged is one time.
type memory struct {
	chunks  []*history.Chunk // in order of device
	damaged map[string]int64
}

func (m *memory) Scan(_ context.Context, q history.Query) iter.Seq2[*history.Chunk, error] {
	return func(yield func(*history.Chunk, error) bool) {
		for _, c := range m.chunks {
			if len(q.Devices) > 0 && !slices.Contains(q.Devices, c.Device) {
				continue
			}
			if at, bad := m.damaged[c.Device]; bad && at >= q.From && at < q.End() && !yield(nil, &history.DamagedError{Device: c.Device, From: at, To: at + 1}) {
				return
			}
			var b history.Builder
			b.Begin(c.Device)
			for i, at := range c.Times {
				if at < q.From || at >= q.End() {
					continue
				}
				b.Row(at, c.Received[i], c.Flags[i], "")
				for k := range c.Columns {
					if q.Wants(c.Columns[k].Metric) && c.Columns[k].Has(i) {
						b.Value(c.Columns[k].Metric, c.Columns[k].Values[i])
					}
				}
				if b.Len() == 100 {
					if !yield(b.Chunk(), nil) {
						return
					}
					b.Begin(c.Device)
				}
			}
			if b.Len() > 0 && !yield(b.Chunk(), nil) {
				return
			}
		}
	}
}

func (m *memory) Range(ctx context.Context, q history.Query) (first, last int64, err error) {
	first, last = math.MaxInt64, math.MinInt64
	for c := range m.Scan(ctx, history.Query{Devices: q.Devices, From: q.From, To: q.To}) {
		if c != nil {
			first, last = min(first, c.Times[0]), max(last, c.Times[len(c.Times)-1])
		}
	}
	return first, last, nil
}

func (m *memory) Reduce(ctx context.Context, q history.Query, r history.Reduction) iter.Seq2[history.Series, error] {
	return history.Reduce(ctx, m, q, r)
}

func (m *memory) Readings(ctx context.Context, q history.Query) iter.Seq2[history.Reading, error] {
	return history.Readings(ctx, m, q)
}

func (m *memory) Latest(ctx context.Context, device string) (list []history.Reading, err error) {
	for one := range m.LatestAll(ctx) {
		if one.Device == device {
			list = append(list, one)
		}
	}
	if list == nil {
		err = history.ErrNotFound
	}
	return list, err
}

func (m *memory) LatestAll(context.Context) iter.Seq2[history.Reading, error] {
	return func(yield func(history.Reading, error) bool) {
		for _, c := range m.chunks {
			for k := range c.Columns {
				for i := len(c.Times) - 1; i >= 0; i-- {
					if c.Columns[k].Has(i) {
						if !yield(c.Reading(i, &c.Columns[k]), nil) {
							return
						}
						break
					}
				}
			}
		}
	}
}

func (m *memory) Close() error { return nil }

// greenhouse is four days of two devices across the change of the clock, with gaps, and the rules for them.
func greenhouse(t *testing.T) (*memory, *derive.Rules, *time.Location, int64) {
	berlin, err := time.LoadLocation("Europe/Berlin")
	require.NoError(t, err)
	start := time.Date(2026, 3, 27, 12, 0, 0, 0, berlin).UnixMilli()
	rnd := rand.New(rand.NewPCG(5, 5))
	var m memory
	for _, device := range []string{"bed", "shed"} {
		values := map[string][]float64{}
		for _, name := range []string{"temperature", "humidity", "light", "soil"} {
			for range 4 * 24 * 6 {
				v := float64(rnd.IntN(1000)) / 10
				if rnd.IntN(8) == 0 {
					v = math.NaN()
				}
				values[name] = append(values[name], v)
			}
		}
		values["humidity"][len(values["humidity"])-1] = math.NaN() // the newest are of different times
		m.chunks = append(m.chunks, withoutNothing(chunk(device, start, 10*minute, values)))
	}
	r, err := derive.New([]derive.Calibration{
		{Device: "bed", Metric: "soil", From: start - day, Points: derive.Points{{0, 100}, {100, 3}}},
		{Device: "bed", Metric: "temperature", From: start + 40*hour, Points: derive.Points{{0, 0.7}}},
		{Device: "bed", Metric: "humidity", From: 0, Points: derive.Points{{0, 0}, {50, 61}, {100, 97}}},
	}, []derive.Void{
		{Device: "bed", Metric: "light", From: start + 50*hour, To: start + 53*hour},
		{Device: "shed", From: start + 90*hour},
	}, []derive.Derived{
		formula(t, "vpd = vpd(temperature, humidity)"), formula(t, "dry = 2*soil - 3"), formula(t, "day_light = dli(light)"), formula(t, "spread = temperature - dew"), formula(t, "dew = dewpoint(temperature, humidity)"),
	})
	require.NoError(t, err)
	return &m, r, berlin, start
}

// The oracle: every bucket made of single readings, by the calendar of package time.
func bucketsByHand(t *testing.T, v history.View, q history.Query, start func(time.Time) time.Time, place *time.Location) map[[3]any][]float64 {
	t.Helper()
	out := map[[3]any][]float64{}
	for one, err := range v.Readings(t.Context(), q) {
		require.NoError(t, err)
		key := [3]any{one.Device, one.Metric, start(time.UnixMilli(one.Time).In(place)).UnixMilli()}
		out[key] = append(out[key], one.Value)
	}
	return out
}

func TestReductionsEqualThoseOfTheReadings(t *testing.T) {
	m, r, place, start := greenhouse(t)
	v := r.View(m, place)
	for name, span := range map[string]struct {
		of    history.Span
		start func(time.Time) time.Time
	}{
		"days":  {history.Span{Days: 1}, func(t time.Time) time.Time { return time.Date(t.Year(), t.Month(), t.Day(), 0, 0, 0, 0, place) }},
		"month": {history.Span{Months: 1}, func(t time.Time) time.Time { return time.Date(t.Year(), t.Month(), 1, 0, 0, 0, 0, place) }},
		"hours": {history.Span{Length: time.Hour}, func(t time.Time) time.Time { return t.Truncate(time.Hour) }},
	} {
		for _, q := range []history.Query{{}, {From: start + 31*hour, To: start + 77*hour}, {Devices: []string{"shed", "bed"}, Metrics: []string{"day_light", "dry", "soil"}}, {Devices: []string{"bed"}, Metrics: []string{"vpd"}}, {Raw: true}} {
			want := bucketsByHand(t, v, q, span.start, place)
			got, before := 0, ""
			for s, err := range r.View(m, nil).Reduce(t.Context(), q, history.Reduction{Every: span.of, Location: place}) {
				require.NoError(t, err)
				require.Greater(t, s.Device+"\x00"+s.Metric, before)
				before = s.Device + "\x00" + s.Metric
				for _, b := range s.Buckets {
					values := want[[3]any{s.Device, s.Metric, b.Start}]
					require.NotEmpty(t, values, "%s: %s %s %v", name, s.Device, s.Metric, time.UnixMilli(b.Start).In(place))
					sum := 0.0
					for _, v := range values {
						sum += v
					}
					require.Equal(t, []float64{float64(len(values)), slices.Min(values), slices.Max(values), values[0], values[len(values)-1]}, []float64{float64(b.Count), b.Min, b.Max, b.First, b.Last})
					require.InDelta(t, sum/float64(len(values)), b.Mean(), 1e-9)
					got++
				}
			}
			assert.Equal(t, len(want), got, name)
			assert.NotEmpty(t, want, name)
		}
	}
}

func TestAViewAppliesTheRules(t *testing.T) {
	m, r, place, start := greenhouse(t)
	v := r.View(m, place)
	// Whole: each chunk at once, by another way.
	want := map[string]map[cell]bool{}
	for _, c := range m.chunks {
		want[c.Device] = map[cell]bool{}
		for _, one := range applied(t, r, derive.Options{Location: place}, c) {
			want[c.Device][one] = true
		}
	}
	count := 0
	for one, err := range v.Readings(t.Context(), history.Query{}) {
		require.NoError(t, err)
		require.True(t, want[one.Device][cell{one.Time, one.Metric, one.Value}], "%+v", one)
		count++
	}
	assert.Equal(t, len(want["bed"])+len(want["shed"]), count)
	assert.NotEqual(t, count, countOf(t, v, history.Query{Raw: true}))
	assert.Equal(t, countOf(t, m, history.Query{}), countOf(t, v, history.Query{Raw: true}))
	assert.Zero(t, countOf(t, v, history.Query{Devices: []string{"shed"}, From: start + 90*hour}))

	// The newest of each metric is that of all readings.
	var all []history.Reading
	for one, err := range v.LatestAll(t.Context()) {
		require.NoError(t, err)
		all = append(all, one)
	}
	newest := map[[2]string]history.Reading{}
	for one, err := range v.Readings(t.Context(), history.Query{}) {
		require.NoError(t, err)
		newest[[2]string{one.Device, one.Metric}] = one
	}
	require.Len(t, all, len(newest))
	require.True(t, slices.IsSortedFunc(all, func(a, b history.Reading) int {
		return cmp.Or(cmp.Compare(a.Device, b.Device), cmp.Compare(a.Metric, b.Metric))
	}))
	for _, one := range all {
		want := newest[[2]string{one.Device, one.Metric}]
		assert.Equal(t, []any{want.Time, want.Value}, []any{one.Time, one.Value}, "%s %s", one.Device, one.Metric)
	}
	list, err := v.Latest(t.Context(), "shed")
	require.NoError(t, err)
	assert.Equal(t, all[len(all)-len(list):], list)
	_, err = v.Latest(t.Context(), "greenhouse")
	assert.ErrorIs(t, err, history.ErrNotFound)
}

func countOf(t *testing.T, v history.View, q history.Query) (n int) {
	for _, err := range v.Readings(t.Context(), q) {
		require.NoError(t, err)
		n++
	}
	return n
}

func TestDamageIsSaidOnce(t *testing.T) {
	m, r, place, start := greenhouse(t)
	m.damaged = map[string]int64{"bed": start + 5*hour}
	v := r.View(m, place)
	said := func(from int64) (n int) {
		series := 0
		for _, err := range v.Reduce(t.Context(), history.Query{From: from}, history.Reduction{Every: history.Span{Days: 1}}) {
			if err != nil {
				assert.ErrorIs(t, err, history.ErrDamaged)
				n++
				continue
			}
			series++
		}
		assert.Equal(t, 18, series, "damage is not the end")
		return n
	}
	assert.Equal(t, 1, said(0))
	assert.Equal(t, 0, said(start+6*hour), "light is added up from before, and damage there is not asked for")
}

func TestAViewWithoutRulesIsTheSame(t *testing.T) {
	m, _, _, _ := greenhouse(t)
	r, err := derive.New(nil, nil, nil)
	require.NoError(t, err)
	assert.Same(t, m, r.View(m, nil))
}

// BenchmarkYear reduces a year of one device at 5 minutes to 500 points, of readings that are in memory: what a metric costs whose
// summaries will not do.
func BenchmarkYear(b *testing.B) {
	rnd := rand.New(rand.NewPCG(5, 5))
	var m memory
	values := map[string][]float64{}
	for _, name := range []string{"temperature", "humidity", "light", "soil"} {
		for range 365 * 24 * 12 {
			values[name] = append(values[name], float64(rnd.IntN(1000))/10)
		}
	}
	m.chunks = append(m.chunks, chunk("bed", march, 5*minute, values))
	for _, text := range []string{"x = vpd(temperature, humidity)", "x = dli(light)", "x = 2*soil + 1*light"} {
		d, err := derive.ParseFormula(text)
		require.NoError(b, err)
		r, err := derive.New(nil, nil, []derive.Derived{d})
		require.NoError(b, err)
		v := r.View(&m, nil)
		b.Run(text, func(b *testing.B) {
			for b.Loop() {
				for _, err := range v.Reduce(b.Context(), history.Query{Metrics: []string{"x"}}, history.Reduction{Points: 500}) {
					require.NoError(b, err)
				}
			}
		})
	}
}
