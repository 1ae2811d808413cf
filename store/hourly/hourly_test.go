package hourly

import (
	"math"
	"testing"

	"github.com/stretchr/testify/assert"

	"github.com/plantops/plantops/store/history"
)

const hour = 3_600_000

func TestSpansAreWholeHours(t *testing.T) {
	assert.Equal(t, Span{0, hour}, Around(5, 5))
	assert.Equal(t, Span{-hour, hour}, Around(-1, 0))
	assert.Equal(t, Span{hour, 3 * hour}, Around(hour, 2*hour))
	assert.True(t, Around(math.MinInt64, math.MaxInt64).Has(Around(7, 9*hour)))
	assert.True(t, Span{}.Empty())
	assert.Equal(t, Span{3, 4}, Span{}.With(Span{3, 4}))
	assert.Equal(t, Span{3, 9}, Span{3, 4}.With(Span{8, 9}).With(Span{}))
	assert.True(t, Span{3, 4}.Has(Span{}))
	assert.False(t, Span{3, 4}.Has(Span{3, 5}))
	assert.Equal(t, Span{3, 4}, Span{3, 9}.Before(4))
	assert.Equal(t, Span{4, 9}, Span{3, 9}.Behind(4))
	assert.True(t, Span{3, 9}.Before(3).Empty())
}

func TestRowsAreShortWhereThatIsExact(t *testing.T) {
	bucket := func(low, high, sum float64, n int64) *history.Bucket {
		return &history.Bucket{Count: n, Min: low, Max: high, ScaledSum: sum * history.SumScale}
	}
	assert.Equal(t, Row{Min: int64(20500), Avg: int64(2070000), Max: int64(21000), Count: 3}, RowOf(Key{}, bucket(20.5, 21, 62.1, 3)))
	r := RowOf(Key{}, bucket(0.1234, 21, 21.1234, 2))
	assert.Equal(t, 0.1234, r.Min)
	assert.Equal(t, 10.5617, r.Avg, "not rounded")
	assert.Equal(t, 1e12, RowOf(Key{}, bucket(1e12, 1e12, 1e12, 1)).Max)
	assert.IsType(t, 0.0, RowOf(Key{}, bucket(math.Copysign(0, -1), 1, 1, 2)).Min, "a zero with its sign")
}

func TestChangesAreWhatDiffers(t *testing.T) {
	row := func(hour, series, n int64) Row {
		return Row{Key: Key{hour, series}, Min: int64(1), Avg: 1.5, Max: int64(2), Count: n}
	}
	there := []Row{row(0, 1, 5), row(0, 2, 5), row(3600, 1, 5), row(7200, 1, 5)}
	computed := []Row{row(3600, 1, 6), row(0, 1, 5), row(3600, 2, 1), row(7200, 1, 6)}
	kept := func(k Key) bool { return k.Hour == 7200 }
	assert.Equal(t, []Change{{Key: Key{0, 2}}, row(3600, 1, 6), row(3600, 2, 1)}, Changes(there, computed, kept))
	assert.Empty(t, Changes(computed, computed, kept))
	assert.Equal(t, []Change{row(7200, 3, 1)}, Changes(nil, []Row{row(7200, 3, 1)}, kept), "one that is not there yet")
}
