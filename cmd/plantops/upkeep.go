package main

import (
	"context"
	"log/slog"
	"time"

	"github.com/plantops/plantops/control"
	"github.com/plantops/plantops/store"
)

const (
	retentionFirst = 30 * time.Second // after the start, when devices have come back
	retentionEvery = time.Hour

	spaceEvery       = time.Minute
	spaceRepeatEvery = time.Hour // the same warning again
)

// retain returns a part that deletes readings older than keep, at most an hour late. While the clock is not to be
// trusted it deletes nothing.
func retain(keep time.Duration, now func() time.Time, unsure func() bool, log *slog.Logger,
	deleteBefore func(context.Context, time.Time) (int64, error)) func(context.Context) error {
	return func(ctx context.Context) error {
		due := time.NewTimer(retentionFirst)
		defer due.Stop()
		for {
			select {
			case <-ctx.Done():
				return nil
			case <-due.C:
			}
			due.Reset(retentionEvery)
			if unsure() {
				continue
			}
			began, cutoff := time.Now(), now().Add(-keep)
			deleted, err := deleteBefore(ctx, cutoff)
			if deleted > 0 {
				log.Info("deleted old readings", "count", deleted, "before", cutoff.UTC().Format(time.RFC3339),
					"took", time.Since(began).Round(time.Millisecond))
			}
			if err != nil && ctx.Err() == nil {
				log.Warn("cannot delete old readings", "err", err)
			}
		}
	}
}

// watchSpace returns a part that warns before the disk is full: when it begins, every hour while it lasts, and when it
// ends.
func watchSpace(path string, space func() (store.Space, error), log *slog.Logger) func(context.Context) error {
	return func(ctx context.Context) error {
		tick := time.NewTicker(spaceEvery)
		defer tick.Stop()
		var low, blind bool
		var warned time.Time
		for {
			s, err := space()
			if err != nil && !blind {
				log.Warn("cannot see how full the disk is", "err", err)
			}
			if blind = err != nil; !blind {
				was := low
				low = control.LowSpace(s, was)
				facts := []any{"path", path, "free", control.Bytes(s.FreeBytes).String(), "of", control.Bytes(s.TotalBytes).String()}
				switch {
				case low && (!was || time.Since(warned) >= spaceRepeatEvery):
					warned = time.Now()
					log.Warn("the disk of the database is nearly full: make room, or keep readings for a shorter time (store.retention)", facts...)
				case was && !low:
					log.Info("the disk of the database has room again", facts...)
				}
			}
			select {
			case <-ctx.Done():
				return nil
			case <-tick.C:
			}
		}
	}
}
