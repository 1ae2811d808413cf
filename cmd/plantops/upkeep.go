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

// retentionReportEvery is how often what waits to be deleted is said.
const retentionReportEvery = 24 * time.Hour

// retainer is what deletes by age.
type retainer interface {
	DeleteOld(ctx context.Context, budget time.Duration) (deleted int64, before time.Time, err error)
	Retention(ctx context.Context) (control.WaitingRetention, error)
}

// retain returns a part that deletes old readings, at most an hour late, or when a person has confirmed it. Up to how much may
// go is for the server to judge; retain says how much uptime has passed, and once a day what waits.
func retain(r retainer, confirmed <-chan struct{}, log *slog.Logger) func(context.Context) error {
	return func(ctx context.Context) error {
		due := time.NewTimer(retentionFirst)
		defer due.Stop()
		looked := time.Now()
		var told time.Time
		for {
			select {
			case <-ctx.Done():
				return nil
			case <-confirmed:
			case <-due.C:
			}
			due.Reset(retentionEvery)
			began := time.Now()
			deleted, before, err := r.DeleteOld(ctx, began.Sub(looked))
			looked = began
			if deleted > 0 {
				log.Info("deleted old readings", "count", deleted, "before", before.UTC().Format(time.RFC3339),
					"took", time.Since(began).Round(time.Millisecond))
			}
			if err != nil && ctx.Err() == nil {
				log.Warn("cannot delete old readings", "err", err)
			}
			if told.IsZero() || time.Since(told) >= retentionReportEvery {
				told = time.Now()
				reportRetention(ctx, r, log)
			}
		}
	}
}

// reportRetention says what waits to be deleted.
func reportRetention(ctx context.Context, r retainer, log *slog.Logger) {
	w, err := r.Retention(ctx)
	switch {
	case ctx.Err() != nil:
	case err != nil:
		log.Warn("cannot tell how many readings are too old", "err", err)
	case w.Waits && w.Doubt == "":
		log.Warn("many readings are older than store.retention; a day of them goes per day, and all at once after: plantops retention confirm",
			"count", w.Messages, "from", w.Oldest.String(), "to", w.Newest.String())
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
