package history

import (
	"fmt"
	"math"
	"slices"
	"time"
)

// TimeSource says where a reading's time comes from.
type TimeSource uint8

const (
	FromDevice            TimeSource = iota
	FromArrival                      // the device gave no time
	FromArrivalImpossible            // the device gave a time or an age that cannot be
	FromAge                          // the time of arrival less the age that the device gave
)

// Reading is one value of one metric at one time.
type Reading struct {
	Device, Metric string
	Time           int64 // UTC ms
	Value          float64
	Received       int64 // UTC ms, of the first message of that device and time
	TimeSource     TimeSource
	Given          string // the time that the device gave, when it was not used; empty: none
	ClockUnsure    bool
}

// Query selects readings.
type Query struct {
	Devices  []string // none: all
	Metrics  []string // none: all; one that nothing is known of selects nothing
	From, To int64    // UTC ms; From is included, To is not; To zero means no end
	Raw      bool     // as stored: without calibration, with what is voided
}

// End is To, or what is later than every time.
func (q *Query) End() int64 {
	if q.To == 0 {
		return math.MaxInt64
	}
	return q.To
}

// Wants reports whether a metric is asked for.
func (q *Query) Wants(metric string) bool {
	return len(q.Metrics) == 0 || slices.Contains(q.Metrics, metric)
}

// DamagedError says which readings cannot be read: those of a device from a time on, which is included, to another, which is
// not. It wraps ErrDamaged.
type DamagedError struct {
	Device   string
	From, To int64 // UTC ms; the smallest and the largest number where it is not known
	Cause    error
}

// Error names the device and the times.
func (e *DamagedError) Error() string {
	return fmt.Sprintf("readings of %s from %s to %s cannot be read: %v", e.Device, timeText(e.From), timeText(e.To), e.Cause)
}

// Unwrap returns ErrDamaged.
func (e *DamagedError) Unwrap() error { return ErrDamaged }

// firstTime is earlier than any time of this project, in UTC milliseconds.
const firstTime = 1_000_000_000_000

func timeText(ms int64) string {
	switch {
	case ms == math.MaxInt64:
		return "the end"
	case ms < firstTime:
		return "the beginning"
	}
	return time.UnixMilli(ms).UTC().Format(time.RFC3339)
}
