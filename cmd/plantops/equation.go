package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/plantops/plantops/broker"
	"github.com/plantops/plantops/store"
)

// equation accounts for every message: received = stored + duplicate + quarantined + refused + pending.
// A difference is a bug.
type equation struct {
	Received int64 `json:"received"`
	messageCount
	Pending    int64 `json:"pending"`
	Difference int64 `json:"difference"`
}

// settled is the equation of what the database holds: nothing is pending in it.
func settled(c store.Counts) equation {
	return equation{Received: outcomes(c), messageCount: messageCount(c)}
}

func outcomes(c store.Counts) int64 { return c.Stored + c.Duplicate + c.Quarantined + c.Refused }

// since adds what came in after the database held before.
func (e equation) since(before, received, pending int64) equation {
	sum := e.Received
	e.Received, e.Pending = before+received, pending
	e.Difference = e.Received - sum - pending
	return e
}

// baseline is what the database held when the server started: messages, in all and by device.
type baseline struct {
	total   int64
	devices map[string]int64
}

func takeBaseline(ctx context.Context, db *store.Store) (baseline, error) {
	total, err := db.Totals(ctx)
	if err != nil {
		return baseline{}, err
	}
	devices, err := db.Devices(ctx)
	if err != nil {
		return baseline{}, err
	}
	b := baseline{total: outcomes(total), devices: map[string]int64{}}
	for _, d := range devices {
		b.devices[d.ID] = outcomes(d.Counts)
	}
	return b, nil
}

// door is what has come in since the start: counted where it comes in, not where it is stored.
func (b *box) door() broker.IngestStats {
	if b.broker != nil {
		return b.broker.Stats().Ingest
	}
	in := b.subscriber.Stats() // with another broker we see what it sends on
	return broker.IngestStats{Received: in.Received, Pending: in.Pending}
}

const (
	accountPause = 5 * time.Millisecond
	accountTries = 40
)

// account reads the counts on both sides, in all and for each device. They move while they are read, and a
// message is counted as stored a moment before it is no longer pending: so it looks until the two sides agree. Where
// they never do although nothing moves, there is a difference; where they move all the time, what is between
// them is on its way.
func (b *box) account(ctx context.Context) (equation, []deviceStatus, error) {
	for try := 1; ; try++ {
		var in, after broker.IngestStats
		if b.subscriber != nil {
			in = b.door()
		}
		devices, err := b.store.Devices(ctx)
		if err != nil {
			return equation{}, nil, err
		}
		counts, err := b.store.Totals(ctx)
		if err != nil {
			return equation{}, nil, err
		}
		total := settled(counts)
		if b.subscriber != nil {
			total = total.since(b.before.total, in.Received, in.Pending)
			after = b.door()
		}
		moving := in.Received != after.Received || in.Pending != after.Pending
		if total.Difference == 0 || try == accountTries {
			if moving {
				total = total.onItsWay()
			}
			return total, b.accountDevices(devices, in, moving), nil
		}
		select {
		case <-time.After(accountPause):
		case <-ctx.Done():
			return equation{}, nil, ctx.Err()
		}
	}
}

// onItsWay takes a difference for messages that moved while the counts were read.
func (e equation) onItsWay() equation {
	e.Pending, e.Difference = e.Pending+e.Difference, 0
	return e
}

func (b *box) accountDevices(devices []store.Device, in broker.IngestStats, moving bool) []deviceStatus {
	now, offlineAfter := b.now(), time.Duration(b.offlineAfter.Load())
	list := make([]deviceStatus, 0, len(devices))
	for _, d := range devices {
		one := newDeviceStatus(d, offlineAfter, now)
		if in.Devices != nil {
			seen := in.Devices[d.ID]
			one.Messages = one.Messages.since(b.before.devices[d.ID], seen.Received, seen.Pending)
			if moving {
				one.Messages = one.Messages.onItsWay()
			}
		}
		list = append(list, one)
	}
	return list
}

// alive reports whether the parts that everything waits for answer, and messages come through.
func (b *box) alive(ctx context.Context) error {
	if err := b.endToEnd.alive(); err != nil {
		return fmt.Errorf("messages do not come through: %w", err)
	}
	answered := make(chan error, 1)
	go func() {
		_, err := b.store.Health(ctx) // reads the file
		b.subscriber.Stats()
		if b.broker != nil {
			b.broker.Stats()
		}
		answered <- err
	}()
	select {
	case err := <-answered:
		return err
	case <-ctx.Done():
		return errors.New("the store or the broker does not answer")
	}
}
