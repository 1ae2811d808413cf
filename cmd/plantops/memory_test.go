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
