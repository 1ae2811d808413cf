package block

import (
	"math"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

var march = time.Date(2026, 3, 1, 0, 0, 0, 0, time.UTC).UnixMilli()

const never = math.MaxFloat64

// everyMinute makes readings of one metric.
func everyMinute(values ...float64) (list []Reading) {
	for i, v := range values {
		at := march + int64(i)*60_000
		list = append(list, Reading{Time: at, Received: at, Values: []Value{{7, v}}})
	}
	return list
}

func repeated(n int, value func(i int) float64) []Reading {
	values := make([]float64, n)
	for i := range values {
		values[i] = value(i)
	}
	return everyMinute(values...)
}

func TestABlockGivesBackItsReadings(t *testing.T) {
	minusZero := math.Copysign(0, -1)
	for name, test := range map[string]struct {
		readings []Reading
		atMost   int // bytes of the body; 0: any
	}{
		"one reading":                {everyMinute(21.5), 0},
		"one value for a month":      {repeated(4096, func(int) float64 { return 21.5 }), 40},
		"tenths":                     {repeated(512, func(i int) float64 { return float64(200+i%7) / 10 }), 512},
		"whole numbers, large":       {repeated(512, func(i int) float64 { return float64(1<<53 - i) }), 0},
		"beyond whole numbers":       {repeated(512, func(i int) float64 { return 1<<53 + 2*float64(i) }), 0},
		"a counter":                  {repeated(512, func(i int) float64 { return float64(1_000_000+i*25) / 100 }), 60},
		"minus zero among decimals":  {repeated(512, func(i int) float64 { return []float64{0.1, minusZero, 0, -0.1}[max(0, i%100-96)] }), 200},
		"only minus zero":            {repeated(100, func(int) float64 { return minusZero }), 60},
		"thirds among decimals":      {repeated(512, func(i int) float64 { return []float64{21.5, 1.0 / 3}[max(0, i%100-98)] }), 200},
		"thirds":                     {repeated(512, func(i int) float64 { return float64(i) / 3 }), 0},
		"float32 decimals":           {repeated(512, func(i int) float64 { return float64(float32(200+i%7) / 10) }), 512},
		"float32 thirds":             {repeated(512, func(i int) float64 { return float64(float32(i) / 3) }), 512 * 4},
		"one digit more here, there": {repeated(512, func(i int) float64 { return float64(200+i%7)/10 + 0.05*float64(i%32/31) }), 700},
		"smallest":                   {everyMinute(5e-324, -5e-324, 0, minusZero, 2.2250738585072014e-308, 2.225073858507201e-308), 0},
		"largest":                    {everyMinute(never, -never, math.MaxFloat32, -1e300), 0},
		"borders of integers":        {everyMinute(1<<63, -1<<63, 1<<62, 1<<53+2, -1<<53, 1<<52+0.5, 0.49999999999999994, 4503599627370497.5), 0},
		"arithmetic":                 {everyMinute(0.1+0.2, 4.35*100, 1.1+2.2, 0.8999999999999999, 1e22, 1e23, 1e-7, 123456789.123456789), 0},
		"no values at all":           {[]Reading{{Time: march, Received: march}, {Time: march, Received: march + 100}}, 0},
		"metrics that come later": {[]Reading{
			{Time: march, Received: march, Values: []Value{{0, 1}, {math.MaxUint32, 2}}},
			{Time: march, Received: march + 100, Values: []Value{{4, 1.5}}},
			{Time: march + 5, Received: march, Values: []Value{{0, 3}, {4, 1.25}, {9, never}}},
		}, 0},
		"flags and given times": {[]Reading{
			{Time: march, Received: march + 400, Flags: math.MaxUint32, Given: "1970-01-01T00:00:12"},
			{Time: march + 1, Received: march, Given: "1970-01-01T00:00:13"},
			{Time: march + 2, Received: march - 3600_000, Flags: 1},
			{Time: march + 3, Received: march + 1<<40, Flags: 1, Given: "\xff\x00"},
		}, 0},
		"the whole month": {[]Reading{{Time: march}, {Time: MonthStart(Month(march)+1) - 1, Received: 1 << 50}}, 0},
	} {
		t.Run(name, func(t *testing.T) {
			var e Encoder
			var d Decoder
			key := Key(Month(march), 77, 3)
			for range 2 { // memory that was used before
				m, summary, body, err := e.Encode(key, test.readings)
				require.NoError(t, err)
				n := len(test.readings)
				assert.Equal(t, Meta{key, n, test.readings[0].Time, test.readings[n-1].Time}, m)
				require.NoError(t, d.Decode(m, body))
				requireSame(t, test.readings, &d, ReceivedStep)
				s, err := DecodeSummary(m, summary)
				require.NoError(t, err)
				requireSummary(t, test.readings, s)
				if test.atMost > 0 {
					assert.LessOrEqual(t, len(body), test.atMost)
				}
			}
		})
	}
}

func TestReadingsBeforeTheEpochHaveBlocksToo(t *testing.T) {
	readings := []Reading{{Time: -5, Received: -5, Values: []Value{{1, 2}}}, {Time: -1, Received: 1}}
	var e Encoder
	var d Decoder
	m, _, body, err := e.Encode(Key(-1, 1, 1), readings)
	require.NoError(t, err)
	require.NoError(t, d.Decode(m, body))
	requireSame(t, readings, &d, ReceivedStep)
}

func TestAColumnSaysWhichReadingsHaveIt(t *testing.T) {
	readings := everyMinute(1, 2, 3, 4)
	readings[2].Values = []Value{{5, 0.5}}
	var e Encoder
	var d Decoder
	m, _, body, err := e.Encode(Key(Month(march), 1, 1), readings)
	require.NoError(t, err)
	require.NoError(t, d.Decode(m, body))
	assert.Equal(t, []uint32{5, 7}, d.Metrics())
	values, present, ok := d.Column(7)
	require.True(t, ok)
	assert.Equal(t, []float64{1, 2, 0, 4}, values)
	assert.Equal(t, []uint64{0b1011}, present)
	_, _, ok = d.Column(6)
	assert.False(t, ok)
	assert.NoError(t, d.Err())
	m, _, body, err = e.Encode(m.Key, everyMinute(1, 2))
	require.NoError(t, err)
	require.NoError(t, d.Decode(m, body))
	_, present, _ = d.Column(7)
	assert.Nil(t, present)
}

func TestWhatIsNoBlockIsRefused(t *testing.T) {
	key := Key(Month(march), 77, 3)
	many := make([]Value, MaxMetrics+1)
	for i := range many {
		many[i].Metric = uint32(i)
	}
	for name, test := range map[string]struct {
		readings []Reading
		want     string
	}{
		"nothing":         {nil, "0 readings, want 1 to 4096"},
		"too many":        {make([]Reading, MaxReadings+1), "4097 readings, want 1 to 4096"},
		"another month":   {[]Reading{{Time: march - 1}}, "readings of months 673 to 673, want those of month 674"},
		"two months":      {[]Reading{{Time: march}, {Time: march + 31*86400_000}}, "readings of months 674 to 675"},
		"out of order":    {[]Reading{{Time: march + 1}, {Time: march}, {Time: march + 2}}, "after one of"},
		"metric twice":    {[]Reading{{Time: march, Values: []Value{{3, 1}, {3, 2}}}}, "metric 3 after 3"},
		"no number":       {everyMinute(1, math.NaN()), "reading 1, metric 7: NaN is not finite"},
		"infinite":        {everyMinute(math.Inf(-1)), "-Inf is not finite"},
		"too many metric": {[]Reading{{Time: march, Values: many}}, "more than 256 metrics"},
	} {
		var e Encoder
		_, _, _, err := e.Encode(key, test.readings)
		assert.ErrorContains(t, err, test.want, name)
	}
	var e Encoder
	m, _, body, err := e.Encode(key, []Reading{{Time: march, Values: many[1:]}})
	require.NoError(t, err)
	var d Decoder
	require.NoError(t, d.Decode(m, body))
	assert.Len(t, d.Metrics(), MaxMetrics)
}

// Any bit that is not what it was, and any other row, is damage.
func TestDamageIsFound(t *testing.T) {
	var e Encoder
	var d Decoder
	m, summary, body, err := e.Encode(Key(Month(march), 77, 3), repeated(100, func(i int) float64 { return float64(i*i) / 10 }))
	require.NoError(t, err)
	commit := Commit{Stamp: 1, Readings: []Entry{{3, everyMinute(7)[0]}}, Changes: []Change{{Device: 3, Mask: 1, Values: []int64{4}}}}
	record := AppendCommit(nil, 8, &commit)
	var r CommitReader
	for _, blob := range [][]byte{body, summary, record} {
		for bit := range len(blob) * 8 {
			blob[bit/8] ^= 1 << (bit % 8)
			_, summaryErr := DecodeSummary(m, summary)
			errs := []error{d.Decode(m, body), summaryErr, r.Reset(8, record)}
			assert.Equal(t, 1, len(slices.DeleteFunc(errs, func(err error) bool { return err == nil })))
			blob[bit/8] ^= 1 << (bit % 8)
		}
	}
	for n := range body {
		assert.ErrorIs(t, d.Decode(m, body[:n]), ErrDamaged)
		assert.Zero(t, d.Len())
	}
	for name, other := range map[string]Meta{
		"key": {m.Key + 1, m.N, m.First, m.Last}, "n": {m.Key, m.N - 1, m.First, m.Last}, "first": {m.Key, m.N, m.First - 1, m.Last},
		"last": {m.Key, m.N, m.First, m.Last + 1}, "nothing": {}, "too many": {m.Key, 1 << 40, m.First, m.Last}, "negative": {m.Key, -1, m.First, m.Last},
	} {
		assert.ErrorIs(t, d.Decode(other, body), ErrDamaged, name)
		_, err := DecodeSummary(other, summary)
		assert.ErrorIs(t, err, ErrDamaged, name)
	}
	assert.ErrorIs(t, r.Reset(9, record), ErrDamaged)
	assert.False(t, r.Next() || r.NextChange())
}

func TestKeysAreInOrderOfMonthDeviceAndNumber(t *testing.T) {
	month, device, number := SplitKey(Key(-3, 5, 65535))
	assert.Equal(t, []int64{-3, 5, 65535}, []int64{month, device, int64(number)})
	assert.Less(t, Key(-1, 1<<24-1, 65535), Key(0, 0, 0))
	assert.Less(t, Key(7, 5, 65535), Key(7, 6, 0))
	for _, ms := range []int64{0, -1, march, march - 1} {
		month := Month(ms)
		assert.LessOrEqual(t, MonthStart(month), ms)
		assert.Greater(t, MonthStart(month+1), ms)
	}
	assert.Equal(t, int64(674), Month(march))
}
