package main

import (
	"math"
	"runtime/debug"
	"testing"

	"github.com/stretchr/testify/assert"
)

func TestEnvironmentDecidesAboutMemoryBeforeWeDo(t *testing.T) {
	percent, limit := debug.SetGCPercent(77), debug.SetMemoryLimit(math.MaxInt64)
	t.Cleanup(func() {
		debug.SetGCPercent(percent)
		debug.SetMemoryLimit(limit)
	})
	now := func() (int, int64) {
		percent := debug.SetGCPercent(77)
		return percent, debug.SetMemoryLimit(-1)
	}
	tuneMemory([]string{"GOGC=50", "GOMEMLIMIT=1GiB"}) // the runtime has read them by itself
	percentNow, limitNow := now()
	assert.Equal(t, 77, percentNow)
	assert.Equal(t, int64(math.MaxInt64), limitNow)

	tuneMemory([]string{"GOGC=", "GOGCX=1"})
	percentNow, limitNow = now()
	assert.Equal(t, gcPercent, percentNow)
	assert.Less(t, limitNow, int64(math.MaxInt64))
	assert.Greater(t, limitNow, int64(64<<20), "a quarter of this machine")
}

func TestMemoryIsGivenBackWhenItIsQuiet(t *testing.T) {
	const mib = 1 << 20
	for name, c := range map[string]struct {
		allocated, live, resident uint64
		given                     heapState
		want                      bool
	}{
		"after a storm":               {mib, 50 * mib, 200 * mib, heapState{live: 4 * mib, resident: 8 * mib}, true},
		"in a storm":                  {50 * mib, 50 * mib, 200 * mib, heapState{live: 4 * mib, resident: 8 * mib}, false},
		"little is spare":             {mib, 50 * mib, 54 * mib, heapState{live: 4 * mib, resident: 8 * mib}, false},
		"holes, which stay":           {mib, 50 * mib, 70 * mib, heapState{live: 50 * mib, resident: 69 * mib}, false},
		"a small one that grows":      {mib / 2, 4 * mib, 12 * mib, heapState{live: 4 * mib, resident: 8 * mib}, true},
		"a small one, as it was":      {mib / 2, 4 * mib, 9 * mib, heapState{live: 4 * mib, resident: 8 * mib}, false},
		"a small one that is used":    {2 * mib, 4 * mib, 19 * mib, heapState{live: 4 * mib, resident: 8 * mib}, false},
		"when who was there has left": {mib / 2, 10 * mib, 70 * mib, heapState{live: 50 * mib, resident: 69 * mib}, true},
	} {
		before := heapState{allocated: 1000 * mib}
		assert.Equal(t, c.want, isSpare(before, heapState{1000*mib + c.allocated, c.live, c.resident}, c.given), name)
	}
	now := readHeap()
	assert.NotZero(t, now.allocated)
	assert.GreaterOrEqual(t, now.resident, now.live/2)
}
