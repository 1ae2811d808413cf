// Package history is how readings are looked at: what a View answers, and the algorithms on it that need no database: buckets
// of time that follow a calendar, the reduction of readings to them, and the order of readings of several devices. Where the
// readings are is not known here.
package history

import (
	"context"
	"errors"
	"iter"
)

// What callers tell apart.
var (
	ErrNotFound = errors.New("not found") // of a device
	ErrDamaged  = errors.New("damaged")
)

// View is what was stored at one moment: what was stored before is seen exactly once, whatever becomes of it meanwhile; what
// comes later is not seen. Its methods may be called one after the other, not at once, and not before a sequence of the one
// before has ended. Sequences may be left early.
//
// What cannot be read is a *DamagedError in a sequence, and not its end; any other error is. A device that is asked for and not
// known is ErrNotFound.
type View interface {
	// Scan goes through devices in order of name, and through each in order of time. A chunk is valid until the next step.
	Scan(ctx context.Context, q Query) iter.Seq2[*Chunk, error]

	// Reduce yields the buckets of each device and metric, in order of their names. A metric without any has no series.
	Reduce(ctx context.Context, q Query, r Reduction) iter.Seq2[Series, error]

	// Readings yields single values in order of time, then device, then metric.
	Readings(ctx context.Context, q Query) iter.Seq2[Reading, error]

	// Latest returns the newest reading of each metric of a device, in order of metric.
	Latest(ctx context.Context, device string) ([]Reading, error)

	// LatestAll is Latest of all devices, in order of device, then metric.
	LatestAll(ctx context.Context) iter.Seq2[Reading, error]

	// Range returns between which times the devices have readings among the times of q, UTC ms, whatever their metric and whether
	// they can be read; both are included. It is never less than that, and may be a little more. Without any, first is after last.
	Range(ctx context.Context, q Query) (first, last int64, err error)

	// Close lets go of the moment. A view that stays open keeps the database from reusing what was written since: who needs
	// minutes should open a new one for each device or month.
	Close() error
}
