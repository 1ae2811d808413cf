package network

import "time"

// instant is a time in a third of the room, for what each connection keeps: ns since start, by the monotonic clock. 0 is no time.
type instant int64

var start = time.Now()

func now() instant { return instant(time.Since(start)) }

func (i instant) add(d time.Duration) instant { return i + instant(d) }

func (i instant) sub(earlier instant) time.Duration { return time.Duration(i - earlier) }

// time is the zero time for 0.
func (i instant) time() time.Time {
	if i == 0 {
		return time.Time{}
	}
	return start.Add(time.Duration(i))
}
