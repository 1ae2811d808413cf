package ingest

import (
	"math/rand/v2"
	"sync"
	"time"
)

const maxRetryWait = time.Minute

// retryWait is how long to wait before the next attempt after so many failures in a row: nothing, then first,
// doubling up to a minute. jitter, 0 to 1, takes away up to a fifth, so that a house full of clients does not come
// back in step after a power cut.
func retryWait(failures int, first time.Duration, jitter float64) time.Duration {
	if failures <= 0 {
		return 0
	}
	wait := maxRetryWait
	if doublings := failures - 1; doublings < 16 {
		wait = min(first<<doublings, maxRetryWait)
	}
	return wait - time.Duration(jitter*float64(wait)/5)
}

// retry remembers what the next wait depends on.
type retry struct {
	mu       sync.Mutex
	first    time.Duration
	failures int
	up       bool      // subscribed since the last failure
	atOnce   time.Time // when a lost connection was last retried without a wait
	wait     time.Duration
}

func newRetry(embedded bool) retry {
	if embedded {
		return retry{first: 50 * time.Millisecond} // the broker is starting in this very process
	}
	return retry{first: time.Second}
}

// subscribed resets the wait.
func (r *retry) subscribed() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.up, r.failures, r.first = true, 0, time.Second
}

// failed notes a connection that could not be made or was lost, and returns the wait before the next attempt. One
// that had been subscribed is retried at once, though no more than once a second: two clients that take each other's
// session away would otherwise spin.
func (r *retry) failed(now time.Time) time.Duration {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.up && now.Sub(r.atOnce) >= time.Second {
		r.atOnce = now
	} else {
		r.failures++
	}
	r.up = false
	r.wait = retryWait(r.failures, r.first, rand.Float64())
	return r.wait
}

// next is the wait that failed decided; zero before the first attempt.
func (r *retry) next() time.Duration {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.wait
}
