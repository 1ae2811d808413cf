package store

import (
	"cmp"
	"errors"
	"fmt"
	"math/rand/v2"
	"path/filepath"
	"slices"
	"testing"
	"time"
	_ "time/tzdata" // the machine need not have them

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/plantops/plantops/store/history"
	"github.com/plantops/plantops/store/tail"
)

// flushSome puts what the tail has of one device of so many into blocks.
func flushSome(t *testing.T, s *Store, random *rand.Rand, of int) {
	t.Helper()
	require.NoError(t, s.acquire(t.Context()))
	defer s.release()
	var devices []*device
	all := s.tail.Load().All()
	slices.SortFunc(all, func(a, b tail.About) int { return cmp.Compare(a.Device, b.Device) })
	for _, a := range all {
		if random.IntN(of) == 0 {
			devices = append(devices, s.state.byID[a.Device])
		}
	}
	require.NoError(t, s.transact(func() error { return s.flushDevices(devices) }))
}

// someHistory stores messages of three devices in no particular order, a part of them late, across a month and a change of the
// clock, and compacts now and then. Of a thousand, so many are late, and so many stay rows, because the clock is not sure. It
// returns what was stored.
func someHistory(t *testing.T, s *Store, random *rand.Rand, messages, late, unsure int) (want []Reading) {
	from := time.Date(2026, 3, 27, 0, 0, 0, 0, time.UTC).UnixMilli()
	stored := map[Reading]float64{}
	for sent := 0; sent < messages; {
		var batch []Message
		for range 1 + random.IntN(200) {
			sent++
			at := from + int64(sent)*600_000/3
			if random.IntN(1000) < late {
				at = from + random.Int64N(int64(sent)*600_000/3+1) // late
			}
			m := telemetry(fmt.Sprint("bed-", random.IntN(3)), at/1000*1000)
			m.Received = from + int64(sent)*600_000/3
			m.TimeSource = TimeSource(random.IntN(2))
			if random.IntN(1000) < unsure {
				m.ClockUnsure, m.ClockLine = true, 7
			}
			for i, metric := range []string{"co2", "ph", "temperature"} {
				if random.IntN(4) > 0 || i == 2 {
					m.Values = append(m.Values, Value{metric, float64(random.IntN(1000)) / 10})
				}
			}
			if m.TimeSource == FromArrival { // their time may be moved
				m.TimeSource = FromDevice
			}
			batch = append(batch, m)
		}
		outcomes := mustAppend(t, s, batch...)
		for i, o := range outcomes {
			if o != Stored {
				continue
			}
			for _, v := range batch[i].Values {
				at := Reading{Device: batch[i].Device, Metric: v.Metric, Time: batch[i].Time}
				if _, there := stored[at]; !there { // else what contradicts it is in the quarantine
					stored[at] = v.Value
				}
			}
		}
		if random.IntN(3) == 0 {
			flushSome(t, s, random, 2)
		}
	}
	for r, value := range stored {
		r.Value = value
		want = append(want, r)
	}
	slices.SortFunc(want, func(a, b Reading) int {
		return cmp.Or(cmp.Compare(a.Time, b.Time), cmp.Compare(a.Device, b.Device), cmp.Compare(a.Metric, b.Metric))
	})
	return want
}

// Whatever place readings are in, a view has each once, and its reductions and latest values are those of all of them.
func TestAViewIsWhatWasStoredWhereverItIs(t *testing.T) {
	for seed, c := range []struct{ late, unsure int }{{0, 0}, {3, 3}, {100, 30}} {
		random := rand.New(rand.NewPCG(uint64(seed), 1))
		path := filepath.Join(t.TempDir(), "plantops.db")
		s := openTest(t, Options{Path: path})
		want := someHistory(t, s, random, 800, c.late, c.unsure)
		other, err := Open(t.Context(), Options{Path: path, ReadOnly: true})
		require.NoError(t, err)
		for _, one := range []*Store{s, other} {
			v, err := one.View(t.Context())
			require.NoError(t, err)
			for range 8 {
				looksAs(t, v, want, random)
			}
			require.NoError(t, v.Close())
		}
		require.NoError(t, other.Close())
	}
}

func looksAs(t *testing.T, v history.View, all []Reading, random *rand.Rand) {
	t.Helper()
	first, last := all[0].Time, all[len(all)-1].Time
	var q Query
	if random.IntN(2) == 0 {
		q.From = first + random.Int64N(last-first)
	}
	if random.IntN(2) == 0 {
		q.To = max(q.From, first) + 1 + random.Int64N(last-first)
	}
	if random.IntN(3) == 0 {
		q.Devices = []string{"bed-1"}
	}
	if random.IntN(3) == 0 {
		q.Metrics = []string{"co2", "ph"}
	}
	want := slices.DeleteFunc(slices.Clone(all), func(r Reading) bool {
		return r.Time < q.From || r.Time >= q.End() || !q.Wants(r.Metric) || len(q.Devices) > 0 && r.Device != "bed-1"
	})
	var got []Reading
	for r, err := range v.Readings(t.Context(), q) {
		require.NoError(t, err)
		got = append(got, Reading{Device: r.Device, Metric: r.Metric, Time: r.Time, Value: r.Value})
	}
	require.Equal(t, len(want), len(got), "%+v", q)
	for i := range want {
		require.Equal(t, want[i], got[i])
	}
	if a, b, err := v.Range(t.Context(), q); len(want) > 0 {
		require.NoError(t, err)
		assert.LessOrEqual(t, a, want[0].Time)
		assert.GreaterOrEqual(t, b, want[len(want)-1].Time)
	}
	looksReducedAs(t, v, q, want, random)

	newest := map[[2]string]Reading{}
	for _, r := range all {
		newest[[2]string{r.Device, r.Metric}] = r
	}
	n := 0
	for r, err := range v.LatestAll(t.Context()) {
		require.NoError(t, err)
		expected := newest[[2]string{r.Device, r.Metric}]
		require.Equal(t, []float64{float64(expected.Time), expected.Value}, []float64{float64(r.Time), r.Value}, "%s %s", r.Device, r.Metric)
		n++
	}
	require.Equal(t, len(newest), n)
}

// looksReducedAs compares a reduction with what the readings come to, one by one.
func looksReducedAs(t *testing.T, v history.View, q Query, want []Reading, random *rand.Rand) {
	t.Helper()
	berlin, err := time.LoadLocation("Europe/Berlin")
	require.NoError(t, err)
	r := history.Reduction{Points: 1 + random.IntN(300), Location: berlin}
	if random.IntN(2) == 0 {
		r.Every, err = history.ParseSpan([]string{"1h", "6h", "1d", "1w", "1mo", "1y"}[random.IntN(6)])
		require.NoError(t, err)
	}
	if random.IntN(3) == 0 {
		r.Aggregates = history.Aggregates | history.Times
	}
	span, err := r.SpanOf(t.Context(), v, q)
	require.NoError(t, err)
	grid := history.NewGrid(span, berlin)
	type key struct {
		device, metric string
		start          int64
	}
	buckets := map[key]*history.Bucket{}
	for _, one := range want {
		start, end := grid.Bucket(one.Time)
		b := buckets[key{one.Device, one.Metric, start}]
		if b == nil {
			b = &history.Bucket{Start: start, End: end, Min: one.Value, Max: one.Value, First: one.Value, MinAt: one.Time, MaxAt: one.Time}
			buckets[key{one.Device, one.Metric, start}] = b
		}
		if one.Value < b.Min {
			b.Min, b.MinAt = one.Value, one.Time
		}
		if one.Value > b.Max {
			b.Max, b.MaxAt = one.Value, one.Time
		}
		b.Count++
		b.Last = one.Value
		b.ScaledSum += one.Value * history.SumScale
	}
	n := 0
	for series, err := range v.Reduce(t.Context(), q, r) {
		require.NoError(t, err)
		for _, b := range series.Buckets {
			expected := buckets[key{series.Device, series.Metric, b.Start}]
			require.NotNil(t, expected, "%+v of %s %s", b, series.Device, series.Metric)
			require.InDelta(t, expected.Mean(), b.Mean(), 1e-9)
			b.ScaledSum = expected.ScaledSum
			if r.Aggregates&history.Times == 0 {
				expected.MinAt, expected.MaxAt = 0, 0
			}
			require.Equal(t, *expected, b, "%+v %+v", q, r)
			n++
		}
	}
	require.Equal(t, len(buckets), n)
}

// A block that cannot be read costs its own readings, which are named; a summary that cannot be read costs nothing, and a block that
// lies is never believed.
func TestADamagedBlockIsNamedAndTheRestIsSeen(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 1))
	for name, damage := range map[string]string{
		"body":    `UPDATE block SET body = CAST(substr(body, 1, length(body) - 9) || x'00' || substr(body, length(body) - 7) AS BLOB) WHERE key = %d`,
		"summary": `UPDATE block SET summary = x'' WHERE key = %d`,
		"both":    `UPDATE block SET summary = zeroblob(20), body = zeroblob(200) WHERE key = %d`,
	} {
		s := openTest(t, Options{})
		want := someHistory(t, s, random, 800, 0, 0)
		flushSome(t, s, random, 1)
		v := openView(t, s)
		devices, err := v.(*view).selected([]string{"bed-1"})
		require.NoError(t, err)
		blocks, _, err := v.(*view).blocks(t.Context(), devices[0], 0, 1<<50)
		require.NoError(t, err)
		require.NoError(t, v.Close())
		bad := blocks[len(blocks)/2]
		execute(t, s, fmt.Sprintf(damage, bad.Key))
		want = slices.DeleteFunc(want, func(r Reading) bool {
			return name != "summary" && r.Device == "bed-1" && r.Time >= bad.First && r.Time <= bad.Last
		})
		v = openView(t, s)
		var got []Reading
		named := 0
		for r, err := range v.Readings(t.Context(), Query{}) {
			if damaged, ok := errors.AsType[*DamagedError](err); ok {
				require.Equal(t, "bed-1", damaged.Device)
				require.GreaterOrEqual(t, damaged.From, bad.First)
				require.LessOrEqual(t, damaged.To, bad.Last+1)
				named++
				continue
			}
			require.NoError(t, err)
			got = append(got, Reading{Device: r.Device, Metric: r.Metric, Time: r.Time, Value: r.Value})
		}
		require.Equal(t, len(want), len(got), name)
		require.Equal(t, want, got, name)
		require.Equal(t, name != "summary", named > 0, name)
		count := int64(0)
		for series, err := range v.Reduce(t.Context(), Query{Metrics: []string{"temperature"}}, history.Reduction{Every: history.Span{Months: 12}}) {
			if _, ok := errors.AsType[*DamagedError](err); ok {
				continue
			}
			require.NoError(t, err)
			for _, b := range series.Buckets {
				count += b.Count
			}
		}
		temperatures := int64(0)
		for _, r := range want {
			if r.Metric == "temperature" {
				temperatures++
			}
		}
		if name == "body" {
			assert.EqualValues(t, temperatures+int64(bad.N), count, "its summary is whole")
		} else {
			assert.Equal(t, temperatures, count, name)
		}
	}
}
