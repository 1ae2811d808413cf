package store

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/plantops/plantops/store/history"
)

// What was stored before a view was opened is in it exactly once, and what comes later is not, however long it is open.
func TestAViewIsOneMomentBesideAWriter(t *testing.T) {
	s := openTest(t, Options{})
	ctx, stop := context.WithCancel(t.Context())
	var mu sync.Mutex
	stored := 0 // messages, numbered from 0: what is below was stored
	var writing sync.WaitGroup
	writing.Go(func() {
		for n := 0; ctx.Err() == nil; n += 20 {
			var batch []Message
			for i := n; i < n+20; i++ {
				// Devices take turns, and some of what they send is late.
				at := noon + int64(i)*1000
				if i%7 == 0 {
					at -= 500_500
				}
				batch = append(batch, telemetry(fmt.Sprint("bed-", i%5), at, Value{"n", float64(i)}, Value{"ph", 6}))
			}
			if _, err := s.Append(context.Background(), batch, nil); !assert.NoError(t, err) {
				return
			}
			mu.Lock()
			stored = n + 20
			mu.Unlock()
		}
	})
	for range 10 {
		mu.Lock()
		before := stored
		mu.Unlock()
		v, err := s.View(t.Context())
		require.NoError(t, err)
		mu.Lock()
		after := stored + 20 // one batch may be stored, and not said to be
		mu.Unlock()
		var first []int
		for look := range 2 {
			var seen []int
			for c, err := range v.Scan(t.Context(), Query{Metrics: []string{"n"}}) {
				require.NoError(t, err)
				require.Len(t, c.Columns, 1)
				for _, n := range c.Columns[0].Values {
					seen = append(seen, int(n))
				}
			}
			slices.Sort(seen)
			require.Equal(t, slices.Compact(slices.Clone(seen)), seen, "each once")
			require.GreaterOrEqual(t, len(seen), before)
			require.LessOrEqual(t, len(seen), after)
			for i, n := range seen[:before] {
				require.Equal(t, i, n)
			}
			if look == 0 {
				first = seen
			}
			require.Equal(t, first, seen, "the moment does not move")
		}
		count := int64(0)
		for series, err := range v.Reduce(t.Context(), Query{Metrics: []string{"n"}}, history.Reduction{Points: 10}) {
			require.NoError(t, err)
			for _, b := range series.Buckets {
				count += b.Count
			}
		}
		require.EqualValues(t, len(first), count)
		require.NoError(t, v.Close())
	}
	stop()
	writing.Wait()
}

func TestAViewOfAnotherProcessSeesDevicesThatCameLater(t *testing.T) {
	path := filepath.Join(t.TempDir(), "plantops.db")
	s := openTest(t, Options{Path: path})
	mustAppend(t, s, telemetry("a", noon, Value{"ph", 5}))
	reader, err := Open(t.Context(), Options{Path: path, ReadOnly: true})
	require.NoError(t, err)
	defer func() { assert.NoError(t, reader.Close()) }()
	mustAppend(t, s, telemetry("b", noon, Value{"co2", 400}))
	assert.Equal(t, []string{"0a ph 5", "0b co2 400"}, collect(t, reader, Query{}))
	var latest []Reading
	for r, err := range openView(t, reader).LatestAll(t.Context()) {
		require.NoError(t, err)
		latest = append(latest, r)
	}
	assert.Equal(t, []Reading{
		{Device: "a", Metric: "ph", Time: noon, Value: 5, Received: noon},
		{Device: "b", Metric: "co2", Time: noon, Value: 400, Received: noon},
	}, latest)
}

func TestRangeIsThatOfTheSelectedDevicesAndTimes(t *testing.T) {
	s := openTest(t, Options{})
	mustAppend(t, s, telemetry("a", noon, Value{"ph", 5}), telemetry("b", noon+9, Value{"ph", 5}), telemetry("a", noon+5, Value{"co2", 5}))
	v := openView(t, s)
	for _, c := range []struct {
		q           Query
		first, last int64
	}{
		{Query{}, 0, 9}, {Query{Devices: []string{"a"}}, 0, 5}, {Query{From: noon + 1}, 5, 9}, {Query{To: noon + 9}, 0, 5},
		{Query{Metrics: []string{"ph"}, Devices: []string{"a"}}, 0, 5},
	} {
		first, last, err := v.Range(t.Context(), c.q)
		require.NoError(t, err)
		assert.Equal(t, []int64{c.first, c.last}, []int64{first - noon, last - noon}, "%+v", c.q)
	}
	first, last, err := v.Range(t.Context(), Query{From: noon + 10})
	require.NoError(t, err)
	assert.Greater(t, first, last)
	_, _, err = v.Range(t.Context(), Query{Devices: []string{"c"}})
	assert.ErrorIs(t, err, ErrNotFound)
}

func TestAViewEndsWithItsStore(t *testing.T) {
	path := filepath.Join(t.TempDir(), "plantops.db")
	s, err := Open(t.Context(), Options{Path: path})
	require.NoError(t, err)
	mustAppend(t, s, telemetry("a", noon, Value{"ph", 5}), telemetry("b", noon, Value{"ph", 5}))
	v, err := s.View(t.Context())
	require.NoError(t, err)
	for _, err := range v.Scan(t.Context(), Query{}) {
		if err != nil {
			require.ErrorIs(t, err, ErrClosed)
			break
		}
		require.NoError(t, s.Close())
	}
	_, err = v.Latest(t.Context(), "a")
	require.ErrorIs(t, err, ErrClosed)
	require.NoError(t, v.Close())
	require.NoError(t, v.Close(), "twice")
	_, err = os.Stat(path + walSuffix)
	require.ErrorIs(t, err, os.ErrNotExist, "the stop is clean")
	_, err = s.View(t.Context())
	require.ErrorIs(t, err, ErrClosed)
}

func TestAViewEndsWithItsContext(t *testing.T) {
	s := openTest(t, Options{})
	var batch []Message
	for i := range int64(pageRows) { // a chunk of each, be they in blocks by then or not
		batch = append(batch, telemetry("a", noon+i, Value{"ph", 6}), telemetry("b", noon+i, Value{"ph", 6}))
	}
	mustAppend(t, s, batch...)
	v := openView(t, s)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	chunks, last := 0, error(nil)
	for _, err := range v.Scan(ctx, Query{}) {
		cancel()
		chunks++
		last = err
	}
	assert.Equal(t, 2, chunks)
	require.ErrorIs(t, last, context.Canceled)
	_, err := s.View(ctx)
	require.ErrorIs(t, err, context.Canceled)
}

func TestViewsSeeTheFileThatWasMadeAnew(t *testing.T) {
	s := openTest(t, Options{})
	mustAppend(t, s, telemetry("a", noon, Value{"ph", 5}))
	require.NoError(t, openView(t, s).Close(), "its connection waits for the next")
	require.NoError(t, s.acquire(t.Context()))
	require.NoError(t, s.rebuild(t.Context(), errors.New("a test")))
	s.release()
	mustRegain(t, s)
	mustAppend(t, s, telemetry("a", noon+1, Value{"ph", 6}))
	assert.Equal(t, []string{"0a ph 5", "1a ph 6"}, collect(t, s, Query{}))
}

// A reduction on the store is that of its readings.
func TestReductionsOfAStore(t *testing.T) {
	s := openTest(t, Options{})
	random := rand.New(rand.NewPCG(1, 2))
	var batch []Message
	for i := range int64(3000) {
		batch = append(batch, telemetry(fmt.Sprint("bed-", i%3), noon+i*300_000+random.Int64N(1000), Value{"ph", float64(random.IntN(90)) / 10}, Value{"n", float64(i)}))
	}
	mustAppend(t, s, batch...)
	v := openView(t, s)
	type key struct {
		device, metric string
		start          int64
	}
	for _, r := range []history.Reduction{{Points: 100}, {Every: history.Every(6 * 3_600_000_000_000)}, {Every: history.Span{Months: 1}}} {
		want := map[key]*history.Bucket{}
		q := Query{From: noon + 7_000_000, To: noon + 500_000_000}
		span, err := r.SpanOf(t.Context(), v, q)
		require.NoError(t, err)
		grid := history.NewGrid(span, nil)
		for one, err := range v.Readings(t.Context(), q) {
			require.NoError(t, err)
			start, end := grid.Bucket(one.Time)
			b := want[key{one.Device, one.Metric, start}]
			if b == nil {
				b = &history.Bucket{Start: start, End: end, Min: one.Value, Max: one.Value, First: one.Value}
				want[key{one.Device, one.Metric, start}] = b
			}
			b.Count++
			b.Min, b.Max, b.Last = min(b.Min, one.Value), max(b.Max, one.Value), one.Value
			b.ScaledSum += one.Value * history.SumScale
		}
		n := 0
		for series, err := range v.Reduce(t.Context(), q, r) {
			require.NoError(t, err)
			for _, b := range series.Buckets {
				expected := want[key{series.Device, series.Metric, b.Start}]
				require.NotNil(t, expected)
				require.InDelta(t, expected.Mean(), b.Mean(), 1e-9)
				b.ScaledSum = expected.ScaledSum
				require.Equal(t, *expected, b)
				n++
			}
		}
		require.Len(t, want, n)
	}
}
