package numbered

import (
	"math"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"
)

// Nothing new is ever taken for a repeat; and while the bounds hold, no repeat for new.
func TestNumbersSeenAreTheNumbersAdded(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		numbers := rapid.OneOf(rapid.Int64Range(0, 40), rapid.Int64Range(0, 400), rapid.Int64Range(math.MaxInt64-40, math.MaxInt64))
		var s Seen
		added, gaps := map[int64]uint32{}, false
		for _, n := range rapid.SliceOfN(numbers, 0, 200).Draw(t, "numbers") {
			print := rapid.Uint32Range(0, 1).Draw(t, "print")
			was, there := added[n]
			switch s.Look(n, print) {
			case New:
				require.True(t, !there || gaps, "%d came before", n)
				s.Add(n, print)
				added[n] = print
			case Again:
				require.True(t, there, "%d is new", n)
			case Other:
				require.True(t, there && was != print, "%d said so before", n)
			}
			gaps = gaps || len(s.ranges) == maxRanges
			again, err := Decode(s.Encode())
			require.NoError(t, err)
			require.Equal(t, s.ranges, again.ranges)
			require.Equal(t, s.recent, again.recent)
		}
	})
}

// FuzzDecode states: any bytes are refused or are a list in order within its bounds, which keeps its meaning when it is
// written again.
func FuzzDecode(f *testing.F) {
	some := Seen{ranges: []span{{0, 7}, {9, 1 << 40}}, recent: []recent{{3, 5}, {1 << 40, math.MaxUint32}}}
	for _, seed := range [][]byte{nil, {version}, {version, 0}, {version, 1, 5, 0}, some.Encode()} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, in []byte) {
		s, err := Decode(in)
		if err != nil {
			return
		}
		require.LessOrEqual(t, len(s.ranges), maxRanges)
		require.LessOrEqual(t, len(s.recent), maxRecent)
		require.True(t, slices.IsSortedFunc(s.ranges, func(a, b span) int {
			if a.last < b.first-1 {
				return -1
			}
			return 1
		}))
		for _, r := range s.ranges {
			require.True(t, 0 <= r.first && r.first <= r.last)
		}
		again, err := Decode(s.Encode())
		require.NoError(t, err)
		require.Equal(t, s, again)
	})
}
