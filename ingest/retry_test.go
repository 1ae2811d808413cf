package ingest

import (
	"math"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
)

func TestRetryWaitDoublesUpToAMinute(t *testing.T) {
	var waits []time.Duration
	for failures := range 9 {
		waits = append(waits, retryWait(failures, time.Second, 0)/time.Second)
	}
	assert.Equal(t, []time.Duration{0, 1, 2, 4, 8, 16, 32, 60, 60}, waits)
	assert.Equal(t, time.Minute, retryWait(math.MaxInt, time.Second, 0), "for ever")
	assert.Equal(t, 48*time.Second, retryWait(100, time.Second, 1), "jitter only shortens")
	assert.Equal(t, 50*time.Millisecond, retryWait(1, 50*time.Millisecond, 0))
}

func TestRetryRemembers(t *testing.T) {
	now := time.Date(2026, 1, 7, 12, 0, 0, 0, time.UTC)
	about := func(want, got time.Duration) {
		t.Helper()
		assert.LessOrEqual(t, got, want)
		assert.GreaterOrEqual(t, got, want*4/5)
	}
	r := newRetry(false)
	assert.Zero(t, r.next(), "the first attempt is made at once")
	about(time.Second, r.failed(now))
	about(2*time.Second, r.failed(now))
	about(2*time.Second, r.next())

	r.subscribed()
	assert.Zero(t, r.failed(now), "a connection that had been subscribed is retried at once")
	about(time.Second, r.failed(now))

	r.subscribed()
	about(time.Second, r.failed(now.Add(time.Millisecond))) // lost again within a second: no spinning
	r.subscribed()
	assert.Zero(t, r.failed(now.Add(time.Second)))

	r = newRetry(true)
	about(50*time.Millisecond, r.failed(now))
	r.subscribed()
	r.failed(now)
	about(time.Second, r.failed(now))
}
