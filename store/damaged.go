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

// pass goes on behind what cannot be read and says what that was. The error is one that has nothing to do with damage.
func (c *cursor) pass(ctx context.Context, cause error) (err error) {
	bad := c.from
	var good int64
	if row, ok := errors.AsType[*rowError](cause); ok {
		bad, good = row.time, row.time+1
	} else if good, err = c.behind(ctx, bad); err != nil {
		return err
	}
	c.from, c.last = good, good >= c.to
	c.left = !c.damaged(&DamagedError{Device: c.device.name, From: bad, To: good, Cause: cause})
	return nil
}

// behind returns the first time behind one that cannot be read.
func (c *cursor) behind(ctx context.Context, bad int64) (good int64, err error) {
	readable := func(time int64) (ok bool) {
		if err == nil {
			ok, err = c.readable(ctx, time)
		}
		return ok
	}
	good = c.to
	for step := int64(1000); step > 0 && bad <= c.to-step; step *= 2 {
		if readable(bad + step) {
			good = bad + step
			break
		}
	}
	for low := bad; good-low > 1 && err == nil; {
		if middle := low + (good-low)/2; readable(middle) {
			good = middle
		} else {
			low = middle
		}
	}
	return good, err
}

// readable reports whether the row at a time, or the next one after it, can be read.
func (c *cursor) readable(ctx context.Context, time int64) (bool, error) {
	_, err := c.s.rows(ctx, selectRows+`ORDER BY time LIMIT 1`, c.device.id, time, c.to)
	if row := (*rowError)(nil); err == nil || errors.As(err, &row) {
		return true, nil
	}
	if isDamage(err) {
		return false, nil
	}
	return false, err
}
