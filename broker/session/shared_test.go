package session

import (
	"cmp"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"
)

// Messages that come and messages that come back leave in the order in which they first came.
func TestShareQueueKeepsItsOrder(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var q ShareQueue
		var want, out []Shared
		t.Repeat(map[string]func(*rapid.T){
			"new": func(t *rapid.T) {
				for range rapid.SampledFrom([]int{1, 3, 1500}).Draw(t, "n") {
					s := q.Number(&Message{Topic: "t"})
					q.Put(s)
					want = append(want, s)
				}
			},
			"take": func(t *rapid.T) {
				for range rapid.SampledFrom([]int{1, 3, 1500}).Draw(t, "n") {
					if s, ok := q.First(); ok {
						require.Equal(t, want[0], s)
						q.Pop()
						want, out = want[1:], append(out, s)
					}
				}
			},
			"back": func(t *rapid.T) {
				if len(out) == 0 {
					return
				}
				i := rapid.IntRange(0, len(out)-1).Draw(t, "i")
				q.Put(out[i])
				want = append(slices.Clone(want), out[i])
				slices.SortFunc(want, func(a, b Shared) int { return cmp.Compare(a.Number, b.Number) })
				out = slices.Delete(out, i, i+1)
			},
			"": func(t *rapid.T) {
				require.Equal(t, len(want), q.Len())
				require.Equal(t, len(want)*(&Message{Topic: "t"}).costBytes(), q.Bytes())
				s, ok := q.First()
				require.Equal(t, len(want) > 0, ok)
				if ok {
					require.Equal(t, want[0], s)
				}
			},
		})
	})
}
