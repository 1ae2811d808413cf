package block

import (
	"math"
	"math/rand/v2"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestAnyIntegersComeBack(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	var e intEncoder
	var numbers []uint64
	for round := range 3000 {
		list := make([]int64, r.IntN(150))
		width, outliers, slope := r.IntN(65), r.IntN(40), r.Int64()>>r.IntN(64)
		at := r.Int64() >> r.IntN(64)
		for i := range list {
			at += slope
			switch round % 3 {
			case 0:
				at += int64(r.Uint64()>>1) >> (64 - width) * int64(r.IntN(3)-1)
			case 1:
				at += int64(math.Min(r.ExpFloat64()*math.Ldexp(1, width), 1e18))
			}
			if outliers > 0 && r.IntN(outliers) == 0 {
				list[i] = at ^ int64(r.Uint64())>>r.IntN(64)
			} else {
				list[i] = at
			}
		}
		b := e.append(nil, list)
		back := make([]int64, len(list))
		require.True(t, readInts(back, &numbers, b), "round %d: %v", round, list)
		require.Equal(t, list, back)
		if len(b) > 0 {
			require.False(t, readInts(back, &numbers, b[:len(b)-1]))
			require.False(t, readInts(back, &numbers, append(b, 0)))
		}
	}
}
