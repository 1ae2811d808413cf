package network

import (
	"log/slog"
	"slices"
	"sync"
	"time"
)

// toldAtATime is how many throttled addresses and names have log lines of their own; the others share one.
const toldAtATime = 10

// episodes tells the log of throttled addresses and names: one line when it begins, one when it ends, none for each guess.
type episodes struct {
	log *slog.Logger

	mu     sync.Mutex
	told   []*episode
	others int // refusals of those that have no lines of their own
	timer  *time.Timer
	ended  bool
}

type episode struct {
	what, who string
	failures  failures // as of its last refusal
	since     time.Time
	refused   int
}

// tell is called for each refusal; what is "address" or "user".
func (e *episodes) tell(what, who string, f failures, now time.Time) {
	e.mu.Lock()
	defer e.mu.Unlock()
	i := slices.IndexFunc(e.told, func(t *episode) bool { return t.what == what && t.who == who })
	switch {
	case i >= 0:
		e.told[i].failures = f
		e.told[i].refused++
	case len(e.told) >= toldAtATime:
		e.others++
	default:
		e.told = append(e.told, &episode{what: what, who: who, failures: f, since: now, refused: 1})
		e.log.Warn("logins are throttled", what, who, "failures", int(f.level(now)))
	}
	if e.timer == nil && !e.ended {
		e.timer = time.AfterFunc(failureHalfLife, e.look)
	}
}

// look tells what is over.
func (e *episodes) look() {
	e.mu.Lock()
	defer e.mu.Unlock()
	now := time.Now()
	e.told = slices.DeleteFunc(e.told, func(t *episode) bool {
		over := t.failures.level(now) < freeFailures/2
		if over {
			e.log.Info("logins are no longer throttled", t.what, t.who, "refused", t.refused, "lasted", now.Sub(t.since).Round(time.Second))
		}
		return over
	})
	if e.others > 0 {
		e.log.Warn("logins from or for others are throttled too", "refused", e.others)
		e.others = 0
	}
	e.timer = nil
	if len(e.told) > 0 && !e.ended {
		e.timer = time.AfterFunc(failureHalfLife, e.look)
	}
}

// end is for the end of the network.
func (e *episodes) end() {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.ended = true
	if e.timer != nil {
		e.timer.Stop()
	}
}
