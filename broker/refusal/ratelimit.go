package refusal

import (
	"sync"
	"time"
)

// LineEvery is how often a log line of one kind is written.
const LineEvery = time.Minute

const limiterKeys = 1000

// Limiter lets a repeating log line through once a minute for each key. It remembers at most limiterKeys keys; while
// it is full of fresh ones, lines with new keys are not written. The zero value is ready; safe for concurrent use.
type Limiter struct {
	mu    sync.Mutex
	seen  map[string]repeats
	swept time.Time
}

// repeats is the history of one key.
type repeats struct {
	last       time.Time
	suppressed int
}

// Allow says whether the line for key may be written now, and how many were suppressed since the last one.
func (l *Limiter) Allow(key string, now time.Time) (suppressed int, ok bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	r, known := l.seen[key]
	if known && now.Sub(r.last) < LineEvery {
		r.suppressed++
		l.seen[key] = r
		return 0, false
	}
	if !known && !l.makeRoom(now) {
		return 0, false
	}
	l.seen[key] = repeats{last: now}
	return r.suppressed, true
}

// makeRoom forgets, at most once a minute, what has not been seen for two.
func (l *Limiter) makeRoom(now time.Time) bool {
	if l.seen == nil {
		l.seen = make(map[string]repeats)
	}
	if len(l.seen) >= limiterKeys && now.Sub(l.swept) >= LineEvery {
		l.swept = now
		for key, r := range l.seen {
			if now.Sub(r.last) >= 2*LineEvery {
				delete(l.seen, key)
			}
		}
	}
	return len(l.seen) < limiterKeys
}
