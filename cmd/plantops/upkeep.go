package main

import (
	"context"
	"crypto/rand"
	"log/slog"
	"time"

	"github.com/plantops/plantops/certs"
	"github.com/plantops/plantops/cmd/plantops/clock"

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
	var told time.Time
	return deleting("old readings", r.DeleteOld, confirmed, log, func(ctx context.Context) {
		if told.IsZero() || time.Since(told) >= retentionReportEvery {
			told = time.Now()
			reportRetention(ctx, r, log)
		}
	})
}

// deleting returns a part that has readings deleted now and then, says so, and does what follows it. The budget is how much uptime has
// passed since the last time.
func deleting(what string, some func(ctx context.Context, budget time.Duration) (int64, time.Time, error), now <-chan struct{}, log *slog.Logger,
	then func(context.Context)) func(context.Context) error {
	return func(ctx context.Context) error {
		due := time.NewTimer(retentionFirst)
		defer due.Stop()
		looked := time.Now()
		for {
			select {
			case <-ctx.Done():
				return nil
			case <-now:
			case <-due.C:
			}
			due.Reset(retentionEvery)
			began := time.Now()
			deleted, before, err := some(ctx, began.Sub(looked))
			looked = began
			if deleted > 0 {
				log.Info("deleted "+what, "count", deleted, "before", before.UTC().Format(time.RFC3339),
					"took", time.Since(began).Round(time.Millisecond))
			}
			if err != nil && ctx.Err() == nil {
				log.Warn("cannot delete "+what, "err", err)
			}
			then(ctx)
		}
	}
}

// sizer is what deletes by size, and remembers how large the database is.
type sizer interface {
	NoteGrowth(ctx context.Context) error
	DeleteForSize(ctx context.Context, budget time.Duration) (deleted int64, before time.Time, err error)
}

// keepSize returns a part that remembers how large the database is and deletes what is above store.max_size, as often as
// retain looks.
func keepSize(s sizer, log *slog.Logger) func(context.Context) error {
	return deleting("the oldest readings, for store.max_size", s.DeleteForSize, nil, log, func(ctx context.Context) {
		if err := s.NoteGrowth(ctx); err != nil && ctx.Err() == nil {
			log.Warn("cannot remember how large the database is", "err", err)
		}
	})
}

// reportRetention says what waits to be deleted.
func reportRetention(ctx context.Context, r retainer, log *slog.Logger) {
	w, err := r.Retention(ctx)
	switch {
	case ctx.Err() != nil:
	case err != nil:
		log.Warn("cannot tell how many readings are too old", "err", err)
	case w.AnyWaits() && w.Doubt == "":
		messages, oldest, newest := w.All()
		log.Warn("many readings are older than store.retention; a day of them goes per day, and all at once after: plantops retention confirm",
			"count", messages, "from", oldest.String(), "to", newest.String())
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

// This file connects the clock with what remembers it and with what it dates.

// dateEvery is how often what came on a wrong line is looked for: a message that waited for its commit may come late.
const dateEvery = 10 * time.Second

// timekeeper is the clock of a running server with what is remembered of it.
type timekeeper struct {
	*clock.Clock
	store   *store.Store
	boot    string // names this start of the machine
	log     *slog.Logger
	changed chan struct{} // holds a token when there may be something to date
}

// newTimekeeper takes up the clock where an earlier process of this start of the machine left it.
func newTimekeeper(ctx context.Context, a *app, db *store.Store, log *slog.Logger) (*timekeeper, error) {
	boot, err := a.boot, error(nil)
	if boot == "" {
		boot, err = clock.Boot()
	}
	if err != nil || boot == "" {
		if err != nil {
			log.Debug("cannot tell this start of the machine from others", "err", err)
		}
		boot = rand.Text()
	}
	remembered, next, err := db.ClockLines(ctx, boot)
	if err != nil {
		return nil, err
	}
	known := make([]clock.Line, len(remembered))
	for i, l := range remembered {
		known[i] = clock.Line(l)
	}
	read, synchronised := a.clocks, a.synchronised
	if read == nil {
		read = func() (time.Time, time.Duration) { return a.now(), clock.Elapsed() }
	}
	if synchronised == nil {
		synchronised = clock.Synchronised(a.now)
	}
	k := &timekeeper{store: db, boot: boot, log: log, changed: make(chan struct{}, 1)}
	k.Clock = clock.New(clock.Options{Read: read, Synchronised: synchronised, Known: known, FirstLine: next,
		NewestArrival: db.NewestArrival(), Log: log})
	k.NotBefore(a.build.earliest(), "the program was built")
	if err := k.remember(ctx, k.Lines()); err != nil { // a full disk is no reason not to start; watch tries again
		log.Warn("cannot keep what is known of the clock; trying again", "err", err)
	}
	return k, nil
}

// learn takes from the certificate authority when it cannot be. Its life goes on when it is followed by another one.
func (k *timekeeper) learn(authority *certs.Authority) {
	if from, until, own := authority.Life(); own {
		k.NotBefore(from, "the certificate authority was made")
		k.NotAfter(until, "the end of the certificate authority")
	}
}

// remember writes the lines down, so that a process that is started again can date what this one could not.
func (k *timekeeper) remember(ctx context.Context, lines []clock.Line) error {
	list := make([]store.ClockLine, len(lines))
	for i, l := range lines {
		list[i] = store.ClockLine(l)
	}
	return k.store.RememberClock(ctx, k.boot, list)
}

// watch looks at the clock until ctx ends.
func (k *timekeeper) watch(ctx context.Context) error {
	return k.Run(ctx, func(ctx context.Context, lines []clock.Line) error {
		err := k.remember(ctx, lines)
		select {
		case k.changed <- struct{}{}:
		default:
		}
		return err
	})
}

// date puts right what came while the time was unsure, as soon as it is sure, until ctx ends.
func (k *timekeeper) date(ctx context.Context) error {
	tick := time.NewTicker(dateEvery)
	defer tick.Stop()
	failing := false
	for {
		err := k.dateAll(ctx)
		if err != nil && ctx.Err() == nil && !failing {
			k.log.Warn("cannot date what came while the clock was not set; trying again", "err", err)
		}
		failing = err != nil
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		case <-k.changed:
		}
	}
}

func (k *timekeeper) dateAll(ctx context.Context) error {
	for _, line := range k.Lines() {
		shift, known := k.Shift(line.Number)
		if !known {
			return nil
		}
		n, err := k.store.Redate(ctx, line.Number, shift)
		if n > 0 {
			k.log.Info("dated what came while the clock was not to be trusted", "count", n, "shift", shift.Round(time.Millisecond))
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// look is what ingest asks at each arrival.
func (k *timekeeper) look() (at time.Time, unsure bool, line int64) {
	m := k.Look()
	return m.Wall, m.Unsure, m.Line
}
