package store

import (
	"math"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"
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
			body := appendBody(nil, []pair{{3, c.value}})
			assert.Len(t, body, c.bytes)
			pairs, err := decodeBody(nil, body)
			require.NoError(t, err)
			require.Len(t, pairs, 1)
			assert.Equal(t, math.Float64bits(c.value), math.Float64bits(pairs[0].value))
		})
	}
}

func TestBodyKeepsAnyPairs(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		pairs := rapid.SliceOf(rapid.Custom(func(t *rapid.T) pair {
			value := rapid.OneOf(rapid.Float64(), rapid.Map(rapid.Int32(), func(n int32) float64 { return float64(n) / 100 }))
			return pair{rapid.Uint32().Draw(t, "metric"), value.Draw(t, "value")}
		})).Draw(t, "pairs")
		got, err := decodeBody(nil, appendBody(nil, pairs))
		require.NoError(t, err)
		require.Len(t, got, len(pairs))
		for i := range pairs {
			assert.Equal(t, pairs[i].metric, got[i].metric)
			assert.Equal(t, math.Float64bits(pairs[i].value), math.Float64bits(got[i].value))
		}
	})
}

func FuzzDecodeBody(f *testing.F) {
	f.Add([]byte{})
	f.Add([]byte{bodyVersion})
	f.Add([]byte{bodyVersion + 1, 0, 0})
	f.Add([]byte{bodyVersion, 7, 1, 2, 3})
	f.Add(appendBody(nil, []pair{{1, 22.5}, {300, math.Pi}}))
	f.Fuzz(func(t *testing.T, body []byte) {
		pairs, err := decodeBody(nil, body)
		if err != nil {
			require.ErrorIs(t, err, errBody)
			return
		}
		again, err := decodeBody(nil, appendBody(nil, pairs))
		require.NoError(t, err, "what was decoded can be encoded")
		require.Len(t, again, len(pairs))
		for i := range pairs {
			require.Equal(t, pairs[i].metric, again[i].metric)
			require.Equal(t, math.Float64bits(pairs[i].value), math.Float64bits(again[i].value))
		}
	})
}
