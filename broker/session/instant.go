package session

import "time"

// instant is a time in a third of the room, for what each session keeps: ns since start, by the monotonic clock as far as time.Time
// goes by it. 0 is no time.
type instant int64

var start = time.Now()

func instantOf(t time.Time) instant {
	if t.IsZero() {
		return 0
	}
	if d := t.Sub(start); d != 0 {
		return instant(d)
	}
	return 1
}

// time is the zero time for 0.
func (i instant) time() time.Time {
	if i == 0 {
		return time.Time{}
	}
	return start.Add(time.Duration(i))
}

// reached reports whether it is a time and now is not before it.
func (i instant) reached(now time.Time) bool { return i != 0 && i <= instantOf(now) }
