package main

import (
	"context"
	"errors"
	"fmt"
)

// equation accounts for every message: received = stored + duplicate + quarantined + refused + pending.
// A difference is a bug.
type equation struct {
	Received int64 `json:"received"`
	messageCount
	Pending    int64 `json:"pending"`
	Difference int64 `json:"difference"`
}

// equation reads the counts on both sides. They move while they are read, so it takes them at a moment at
// which the subscriber's stood still, or gives up and leaves what is in between as pending.
func (b *box) equation(ctx context.Context) (equation, error) {
	const tries = 20
	for try := 0; ; try++ {
		var received, pending int64
		if b.subscriber != nil {
			in := b.subscriber.Stats()
			received, pending = in.Received, in.Pending
		}
		total, err := b.store.Totals(ctx)
		if err != nil {
			return equation{}, err
		}
		e := equation{messageCount: messageCount(total), Pending: pending}
		sum := total.Stored + total.Duplicate + total.Quarantined + total.Refused
		if b.subscriber == nil {
			e.Received = sum
			return e, nil
		}
		before := b.before
		e.Received = before.Stored + before.Duplicate + before.Quarantined + total.Refused + received
		e.Difference = e.Received - sum - pending
		after := b.subscriber.Stats()
		still := after.Received == received && after.Pending == pending
		if still || e.Difference == 0 {
			return e, nil
		}
		if try == tries {
			e.Pending, e.Difference = e.Pending+e.Difference, 0
			return e, nil
		}
	}
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
