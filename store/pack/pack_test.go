package pack

import (
	"math"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/plantops/plantops/store/block"
)

func TestBodyKeepsEveryValueBitForBit(t *testing.T) {
	for name, c := range map[string]struct {
		value float64
		bytes int // version, id and value
	}{
		"whole number":            {800, 4},
		"one decimal":             {22.5, 4},
		"negative":                {-0.25, 3},
		"negative zero":           {math.Copysign(0, -1), 10},
		"six decimals":            {0.000001, 3},
		"no short decimal":        {1.0 / 3, 10},
		"largest counted exactly": {1 << 53, 10},
		"beyond what is exact":    {1<<53 + 2, 10},
		"tiny":                    {math.SmallestNonzeroFloat64, 10},
		"huge":                    {math.MaxFloat64, 10},
		"not a number":            {math.NaN(), 10},
		"infinite":                {math.Inf(-1), 10},
		"sum that is no decimal":  {math.Nextafter(0.3, 1), 10},
	} {
		t.Run(name, func(t *testing.T) {
			body := Append(nil, []block.Value{{Metric: 3, Value: c.value}})
			assert.Len(t, body, c.bytes)
			pairs, err := Decode(nil, body)
			require.NoError(t, err)
			require.Len(t, pairs, 1)
			assert.Equal(t, math.Float64bits(c.value), math.Float64bits(pairs[0].Value))
		})
	}
}

func TestBodyKeepsAnyPairs(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		pairs := rapid.SliceOf(rapid.Custom(func(t *rapid.T) block.Value {
			value := rapid.OneOf(rapid.Float64(), rapid.Map(rapid.Int32(), func(n int32) float64 { return float64(n) / 100 }))
			return block.Value{Metric: rapid.Uint32().Draw(t, "metric"), Value: value.Draw(t, "value")}
		})).Draw(t, "pairs")
		got, err := Decode(nil, Append(nil, pairs))
		require.NoError(t, err)
		require.Len(t, got, len(pairs))
		for i := range pairs {
			assert.Equal(t, pairs[i].Metric, got[i].Metric)
			assert.Equal(t, math.Float64bits(pairs[i].Value), math.Float64bits(got[i].Value))
		}
	})
}

func FuzzDecodeBody(f *testing.F) {
	f.Add([]byte{})
	f.Add([]byte{version})
	f.Add([]byte{version + 1, 0, 0})
	f.Add([]byte{version, 7, 1, 2, 3})
	f.Add(Append(nil, []block.Value{{Metric: 1, Value: 22.5}, {Metric: 300, Value: math.Pi}}))
	f.Fuzz(func(t *testing.T, body []byte) {
		pairs, err := Decode(nil, body)
		if err != nil {
			require.ErrorIs(t, err, ErrDamaged)
			return
		}
		again, err := Decode(nil, Append(nil, pairs))
		require.NoError(t, err, "what was decoded can be encoded")
		require.Len(t, again, len(pairs))
		for i := range pairs {
			require.Equal(t, pairs[i].Metric, again[i].Metric)
			require.Equal(t, math.Float64bits(pairs[i].Value), math.Float64bits(again[i].Value))
		}
	})
}
