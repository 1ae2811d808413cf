package tail

import (
	"fmt"
	"math"
	"slices"
	"sync"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/plantops/plantops/store/block"
)

func read(s Slice) (list []block.Reading) {
	for i := range s.Len() {
		var r block.Reading
		s.Read(i, &r)
		list = append(list, r)
	}
	return list
}

// TestItHoldsWhatAListHolds compares with the plainest way: a list, sorted when it is asked.
func TestItHoldsWhatAListHolds(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		tail, model := New(), map[int64][]block.Reading{}
		var old []func()
		for seq := range int64(rapid.IntRange(1, 200).Draw(t, "steps")) {
			device := rapid.Int64Range(1, 3).Draw(t, "device")
			if rapid.IntRange(0, 40).Draw(t, "drop") == 40 {
				tail.Drop(device)
				delete(model, device)
				continue
			}
			r := block.Reading{
				Time:     rapid.OneOf(rapid.Int64Range(0, 30), rapid.Just(seq+1000), rapid.Int64Range(-1<<52, 1<<52)).Draw(t, "time"),
				Received: rapid.Int64Range(0, math.MaxInt32).Draw(t, "received"),
				Flags:    rapid.Uint32Range(0, 255).Draw(t, "flags"),
				Given:    rapid.StringN(0, 5, -1).Draw(t, "given"),
				Values:   []block.Value{{Metric: uint32(seq), Value: rapid.Float64().Draw(t, "value")}},
			}
			n := tail.Add(seq, 0, &block.Entry{Device: device, Reading: r})
			model[device] = append(model[device], r)
			require.Len(t, model[device], n)
			require.True(t, tail.Has(device, r.Time))
			if rapid.IntRange(0, 20).Draw(t, "keep") == 20 {
				held, want := tail.Slice(device, math.MinInt64, math.MaxInt64), sorted(model[device], math.MinInt64, math.MaxInt64)
				old = append(old, func() { require.Equal(t, want, read(held), "what was asked for before") })
			}
		}
		readings := 0
		for device := int64(1); device <= 3; device++ {
			from := rapid.Int64Range(-1, 31).Draw(t, "from")
			to := rapid.OneOf(rapid.Int64Range(0, 31), rapid.Just(int64(math.MaxInt64))).Draw(t, "to")
			require.Equal(t, sorted(model[device], from, to), read(tail.Slice(device, from, to)))
			readings += len(model[device])
			if about, there := tail.Of(device); there {
				all := sorted(model[device], math.MinInt64, math.MaxInt64)
				require.Equal(t, []int64{all[0].Time, all[len(all)-1].Time, int64(len(all))}, []int64{about.Oldest, about.Newest, int64(about.Readings)})
			}
		}
		got, bytes := tail.Size()
		require.Equal(t, readings, got)
		require.Equal(t, readings == 0, bytes == 0)
		for _, check := range old {
			check()
		}
	})
}

func sorted(list []block.Reading, from, to int64) (out []block.Reading) {
	for _, r := range list {
		if r.Time >= from && (r.Time < to) {
			out = append(out, r)
		}
	}
	slices.SortStableFunc(out, func(a, b block.Reading) int {
		switch {
		case a.Time < b.Time:
			return -1
		case a.Time > b.Time:
			return 1
		}
		return 0
	})
	return out
}

// TestAnyOrderIsCheap: in reverse, each reading begins a run of its own.
func TestAnyOrderIsCheap(t *testing.T) {
	tail := New()
	const n = 100_000
	for i := range int64(n) {
		tail.Add(i, 0, &block.Entry{Device: 1, Reading: block.Reading{Time: n - i, Values: []block.Value{{Metric: 1, Value: float64(i)}}}})
	}
	assert.LessOrEqual(t, len(tail.devices[1].runs), 20)
	s := tail.Slice(1, 0, math.MaxInt64)
	require.Equal(t, n, s.Len())
	for i := range n {
		require.Equal(t, int64(i+1), s.Time(i))
	}
}

// The race detector judges it.
func TestItIsReadWhileMoreComes(t *testing.T) {
	tail := New()
	var wg sync.WaitGroup
	wg.Go(func() {
		for i := range int64(2000) {
			tail.Add(i, 0, &block.Entry{Device: i % 2, Reading: block.Reading{Time: i ^ 7, Values: []block.Value{{Metric: 1, Value: 1}}}})
			if i%300 == 299 {
				tail.Drop(i % 2)
			}
		}
	})
	for range 4 {
		wg.Go(func() {
			for i := range 200 {
				list := read(tail.Slice(int64(i%2), math.MinInt64, math.MaxInt64))
				for k := 1; k < len(list); k++ {
					assert.Less(t, list[k-1].Time, list[k].Time, fmt.Sprint(k))
				}
			}
		})
	}
	wg.Wait()
}

func TestLatestIsThatOfTheMomentAndOfEachMetric(t *testing.T) {
	tl := New()
	add := func(time, received int64, values ...block.Value) {
		tl.Add(1, 0, &block.Entry{Device: 1, Reading: block.Reading{Time: time, Received: received, Values: values}})
	}
	add(20, 21, block.Value{Metric: 1, Value: 5})
	add(10, 22, block.Value{Metric: 1, Value: 4}, block.Value{Metric: 2, Value: 7}) // late
	before := tl.Freeze(1)
	add(30, 31, block.Value{Metric: 2, Value: 8})
	add(30, 32, block.Value{Metric: 3, Value: 9}, block.Value{Metric: 2, Value: 0}) // what came first counts
	want := []block.Reading{{Time: 10, Received: 22, Values: []block.Value{{Metric: 2, Value: 7}}}, {Time: 20, Received: 21, Values: []block.Value{{Metric: 1, Value: 5}}}}
	assert.Equal(t, want, before.Latest(1))
	want = []block.Reading{{Time: 20, Received: 21, Values: []block.Value{{Metric: 1, Value: 5}}},
		{Time: 30, Received: 31, Values: []block.Value{{Metric: 2, Value: 8}}}, {Time: 30, Received: 31, Values: []block.Value{{Metric: 3, Value: 9}}}}
	assert.Equal(t, want, tl.Freeze().Latest(1))
	tl.Drop(1)
	assert.Empty(t, tl.Freeze().Latest(1))
}
