package store

import (
	"context"
	"errors"
	"fmt"
	"math"
	"time"
)

// DamagedError says which readings cannot be read: those of a device from a time on, which is included, to another, which is
// not. It wraps ErrDamaged.
type DamagedError struct {
	Device   string
	From, To int64 // UTC ms
	Cause    error
}

// Error names the device and the times.
func (e *DamagedError) Error() string {
	return fmt.Sprintf("readings of %s from %s to %s cannot be read: %v", e.Device, timeText(e.From), timeText(e.To), e.Cause)
}

// Unwrap returns ErrDamaged.
func (e *DamagedError) Unwrap() error { return ErrDamaged }

func timeText(ms int64) string {
	switch {
	case ms == math.MaxInt64:
		return "the end"
	case ms < firstTime:
		return "the beginning"
	}
	return time.UnixMilli(ms).UTC().Format(time.RFC3339)
}

// rowError is one row that is there and says nothing.
type rowError struct{ time int64 }

func (e *rowError) Error() string { return fmt.Sprintf("row at %d: %v", e.time, errBody) }
func (e *rowError) Unwrap() error { return ErrDamaged }

// pass goes on behind what cannot be read and says what that was.
func (c *cursor) pass(ctx context.Context, cause error) {
	bad, good := c.from, c.to
	if row, ok := errors.AsType[*rowError](cause); ok {
		bad, good = row.time, row.time+1
	} else {
		for step := int64(1000); step > 0 && bad <= c.to-step; step *= 2 {
			if c.readable(ctx, bad+step) {
				good = bad + step
				break
			}
		}
		for low := bad; good-low > 1; { // the first time behind it
			if middle := low + (good-low)/2; c.readable(ctx, middle) {
				good = middle
			} else {
				low = middle
			}
		}
	}
	c.from, c.last = good, good >= c.to
	c.left = !c.damaged(&DamagedError{Device: c.device.name, From: bad, To: good, Cause: cause})
}

// readable reports whether the row at a time, or the next one after it, can be read.
func (c *cursor) readable(ctx context.Context, time int64) bool {
	_, err := c.s.rows(ctx, selectRows+`ORDER BY time LIMIT 1`, c.device.id, time, c.to)
	row := (*rowError)(nil)
	return err == nil || errors.As(err, &row)
}
