package block

import (
	"encoding/binary"
	"math"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"
)

// readingsFrom makes readings of any bytes.
func readingsFrom(data []byte) (list []Reading) {
	next := func(n int) uint64 {
		var b [8]byte
		m := copy(b[:n], data)
		data = data[m:]
		return binary.LittleEndian.Uint64(b[:])
	}
	time := march
	for len(data) > 0 && len(list) < 300 {
		head := next(1)
		time += int64(next(int(head & 3)))
		if Month(time) != Month(march) {
			break
		}
		r := Reading{Time: time, Received: time + int64(int32(next(int(head>>2&1)*4)))}
		if head>>3&1 != 0 {
			r.Flags = uint32(next(4))
		}
		if head>>4&1 != 0 {
			size := int(next(1))
			r.Given = string(data[:min(len(data), size)])
		}
		metric := uint32(0)
		for range head >> 5 {
			if v := math.Float64frombits(next(8)); v-v == 0 {
				r.Values = append(r.Values, Value{metric, v})
			}
			if step := uint32(next(1)); step&1 == 0 && len(list) > 0 && len(list[len(list)-1].Values) > 0 {
				r.Values = append(r.Values, Value{metric + 1, list[len(list)-1].Values[0].Value + float64(step)/100})
				metric++
			} else {
				metric += step
			}
			metric++
		}
		list = append(list, r)
	}
	return slices.DeleteFunc(list, func(r Reading) bool {
		return slices.ContainsFunc(r.Values, func(v Value) bool { return v.Value-v.Value != 0 })
	})
}

// requireSame compares readings bit for bit, and times of arrival to the nearest step.
func requireSame(t *testing.T, want []Reading, d *Decoder, step int64) {
	t.Helper()
	require.NoError(t, d.Err())
	require.Equal(t, len(want), d.Len())
	var buffer []Value
	for i := range want {
		got := d.Reading(i, buffer[:0])
		buffer = got.Values
		if off := max(got.Received-want[i].Received, want[i].Received-got.Received); off > step/2 {
			t.Fatalf("reading %d received at %d, not %d", i, got.Received, want[i].Received)
		}
		got.Received = want[i].Received
		requireReading(t, i, &want[i], &got)
	}
}

func requireReading(t *testing.T, at int, want, got *Reading) {
	t.Helper()
	same := want.Time == got.Time && want.Received == got.Received && want.Flags == got.Flags && want.Given == got.Given && len(want.Values) == len(got.Values)
	if same {
		for i, v := range want.Values {
			same = same && v.Metric == got.Values[i].Metric && math.Float64bits(v.Value) == math.Float64bits(got.Values[i].Value)
		}
	}
	if !same {
		t.Fatalf("reading %d is %+v, not %+v", at, *got, *want)
	}
}

// FuzzReadings: what goes in comes out, of a block and of a record.
func FuzzReadings(f *testing.F) {
	r := rand.New(rand.NewPCG(1, 1))
	for size := range 40 {
		seed := make([]byte, size*size)
		for i := range seed {
			seed[i] = byte(r.Uint32() >> r.IntN(32))
		}
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		readings := readingsFrom(data)
		if len(readings) == 0 {
			return
		}
		var e Encoder
		var d Decoder
		m, summary, body, err := e.Encode(Key(Month(march), 3, 4), readings)
		require.NoError(t, err)
		require.NoError(t, d.Decode(m, body))
		requireSame(t, readings, &d, ReceivedStep)
		s, err := DecodeSummary(m, summary)
		require.NoError(t, err)
		requireSummary(t, readings, s)

		c := Commit{Stamp: march}
		for i, r := range readings {
			c.Readings = append(c.Readings, Entry{int64(i % 3), r})
		}
		requireCommit(t, &c, AppendCommit(nil, 5, &c))
	})
}

// requireSummary compares a summary with what the readings give: exactly, and the sum to its tolerance.
func requireSummary(t *testing.T, readings []Reading, s Summary) {
	t.Helper()
	want := map[uint32]*MetricSummary{}
	size := map[uint32]float64{}
	for _, r := range readings {
		for _, v := range r.Values {
			w := want[v.Metric]
			if w == nil {
				w = &MetricSummary{Metric: v.Metric, Min: v.Value, Max: v.Value, First: v.Value}
				want[v.Metric] = w
			}
			w.Count++
			w.Min, w.Max, w.Last = min(w.Min, v.Value), max(w.Max, v.Value), v.Value
			w.Sum += v.Value * SumScale
			size[v.Metric] += math.Abs(v.Value) * SumScale
		}
	}
	require.Len(t, s.Metrics, len(want))
	for _, got := range s.Metrics {
		w := want[got.Metric]
		require.NotNil(t, w)
		require.InDelta(t, w.Sum, got.Sum, float64(w.Count)*0x1p-52*size[got.Metric])
		w.Sum = got.Sum
		require.Equal(t, *w, got)
	}
}

func requireCommit(t *testing.T, c *Commit, body []byte) {
	t.Helper()
	var r CommitReader
	require.NoError(t, r.Reset(5, body))
	require.Equal(t, c.Stamp, r.Stamp())
	require.Equal(t, len(c.Readings), r.Len())
	n := 0
	for ; r.Next(); n++ {
		require.Equal(t, c.Readings[n].Device, r.Entry().Device)
		requireReading(t, n, &c.Readings[n].Reading, &r.Entry().Reading)
	}
	require.Equal(t, len(c.Readings), n)
	n = 0
	for ; r.NextChange(); n++ {
		want, got := c.Changes[n], r.Change()
		require.True(t, want.Device == got.Device && want.Of == got.Of && want.Mask == got.Mask && slices.Equal(want.Values, got.Values))
	}
	require.Equal(t, len(c.Changes), n)
	require.NoError(t, r.Err())
}

// seeds are valid blocks: the inside of bodies, summaries and records, whose checksums the fuzz targets put right.
func seeds(tb testing.TB, add func(m Meta, summary, body, commit []byte)) {
	r := rand.New(rand.NewPCG(3, 3))
	var e Encoder
	for n := 1; n < 200; n = n*2 + 1 {
		for range 4 {
			var c Commit
			readings := readingsFrom(bytesOf(r, n*30))
			if len(readings) == 0 {
				continue
			}
			for i := range readings { // something like a sensor
				readings[i].Values = append(readings[i].Values, Value{1 << 20, float64(200+r.IntN(10)) / 10}, Value{1<<20 + 1, float64(float32(r.IntN(99)) / 10)})
				if i%3 > 0 {
					readings[i].Values = append(readings[i].Values, Value{1<<20 + 2, r.Float64()})
				}
				c.Readings = append(c.Readings, Entry{int64(i), readings[i]})
			}
			c.Changes = []Change{{Device: 3, Mask: 5, Values: []int64{1, march}}, {Device: c.Readings[0].Device, Of: 1, Mask: 1<<20 | 1, Values: []int64{7}}}
			m, summary, body, err := e.Encode(Key(Month(march), 3, 4), readings)
			require.NoError(tb, err)
			commit := AppendCommit(nil, 5, &c)
			add(m, slices.Clone(summary[:len(summary)-4]), slices.Clone(body[:len(body)-4]), commit[:len(commit)-4])
		}
	}
}

func bytesOf(r *rand.Rand, n int) []byte {
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(r.Uint32())
	}
	return b
}

// FuzzBlock: what Decode accepts behind the checksum are finite values at times in order, and they can be encoded again.
func FuzzBlock(f *testing.F) {
	seeds(f, func(m Meta, _, body, _ []byte) { f.Add(m.N, m.First, m.Last, body) })
	var e Encoder
	var d, again Decoder
	f.Fuzz(func(t *testing.T, n int, first, last int64, body []byte) {
		m := Meta{Key: Key(Month(first), 3, 4), N: n, First: first, Last: last}
		_ = d.Decode(m, body)
		if d.Decode(m, m.seal(slices.Clone(body))) != nil {
			require.Zero(t, d.Len()+len(d.Times())+len(d.Received())+len(d.Flags())+len(d.Metrics()))
			return
		}
		received, flags := d.Received(), d.Flags()
		require.Len(t, received, n)
		require.True(t, flags == nil || len(flags) == n)
		require.True(t, slices.IsSorted(d.Times()))
		if d.Err() != nil {
			return
		}
		for _, metric := range d.Metrics() {
			values, present, ok := d.Column(metric)
			require.Equal(t, ok, d.Err() == nil)
			if !ok {
				return
			}
			require.Len(t, values, n)
			require.True(t, present == nil || len(present) == (n+63)/64)
			for _, v := range values {
				require.Zero(t, v-v)
			}
		}
		if d.Err() != nil || Month(first) != Month(last) {
			return
		}
		readings := make([]Reading, n)
		for i := range readings {
			readings[i] = d.Reading(i, nil)
			if lag := readings[i].Received - readings[i].Time; lag > 1<<40 || lag < -1<<40 {
				return
			}
		}
		m2, _, body2, err := e.Encode(m.Key, readings)
		require.NoError(t, err)
		require.Equal(t, m, m2)
		require.NoError(t, again.Decode(m2, body2))
		requireSame(t, readings, &again, ReceivedStep)
	})
}

// FuzzSummary: what DecodeSummary accepts behind the checksum is finite, in order, and within its bounds.
func FuzzSummary(f *testing.F) {
	seeds(f, func(m Meta, summary, _, _ []byte) { f.Add(m.N, summary) })
	var s Summary
	f.Fuzz(func(t *testing.T, n int, b []byte) {
		m := Meta{Key: 1, N: n, First: march, Last: march}
		_ = DecodeSummaryInto(&s, m, b)
		if DecodeSummaryInto(&s, m, m.seal(slices.Clone(b))) != nil {
			require.Empty(t, s.Metrics)
			return
		}
		require.LessOrEqual(t, len(s.Metrics), MaxMetrics)
		for i, metric := range s.Metrics {
			require.True(t, i == 0 || metric.Metric > s.Metrics[i-1].Metric)
			require.True(t, metric.Count >= 1 && metric.Count <= int64(n))
			for _, v := range []float64{metric.Min, metric.Max, metric.First, metric.Last, metric.Sum} {
				require.Zero(t, v-v)
			}
			require.True(t, metric.Min <= metric.First && metric.First <= metric.Max && metric.Min <= metric.Last && metric.Last <= metric.Max)
		}
	})
}

// FuzzCommit: what CommitReader accepts behind the checksum can be written again.
func FuzzCommit(f *testing.F) {
	seeds(f, func(_ Meta, _, _, commit []byte) { f.Add(commit) })
	var r CommitReader
	f.Fuzz(func(t *testing.T, b []byte) {
		_ = r.Reset(5, b)
		if r.Reset(5, seal(slices.Clone(b), 0, 5)) != nil {
			require.False(t, r.Next() || r.NextChange())
			return
		}
		c := Commit{Stamp: r.Stamp()}
		for r.Next() {
			e := *r.Entry()
			e.Values = slices.Clone(e.Values)
			require.LessOrEqual(t, len(e.Values), MaxMetrics)
			for i, v := range e.Values {
				require.Zero(t, v.Value-v.Value)
				require.True(t, i == 0 || v.Metric > e.Values[i-1].Metric)
			}
			c.Readings = append(c.Readings, e)
		}
		for r.NextChange() {
			change := *r.Change()
			change.Values = slices.Clone(change.Values)
			c.Changes = append(c.Changes, change)
		}
		if r.Err() != nil {
			return
		}
		require.Len(t, c.Readings, r.Len())
		requireCommit(t, &c, AppendCommit(nil, 5, &c))
	})
}
