package listing

import (
	"bufio"
	"context"
	"errors"
	"maps"
	"slices"
	"time"

	"github.com/plantops/plantops/store"
)

const (
	followEvery = 500 * time.Millisecond
	// followBack bounds the search for readings that are older than what was shown, as a device sends them that was away.
	followBack = 7 * 24 * time.Hour
)

// Follower knows what was shown, and shows what comes.
type Follower struct {
	devices  map[string]*followed
	received int64 // until then everything is shown; arrival, UTC ms
}

// followed is what was shown of one device.
type followed struct {
	last    int64           // time of the newest reading
	metrics map[string]bool // of it
	stored  int64           // messages
}

// NewFollower starts where the database is now: what is stored already and not shown is not shown later either.
func NewFollower(ctx context.Context, db *store.Store, known []store.Device, now time.Time) (*Follower, error) {
	f := &Follower{devices: map[string]*followed{}, received: now.UnixMilli()}
	for _, d := range known {
		one := &followed{last: d.LastReading, stored: d.Counts.Stored, metrics: map[string]bool{}}
		f.devices[d.ID] = one
		latest, err := db.Latest(ctx, d.ID)
		if err != nil {
			return nil, err
		}
		for _, r := range latest {
			if r.Time == one.last {
				one.metrics[r.Metric] = true
			}
		}
	}
	return f, nil
}

func (f *Follower) device(id string) *followed {
	if f.devices[id] == nil {
		f.devices[id] = &followed{metrics: map[string]bool{}}
	}
	return f.devices[id]
}

// Note says that r was shown.
func (f *Follower) Note(r store.Reading) {
	d := f.device(r.Device)
	if r.Time > d.last {
		d.last = r.Time
		clear(d.metrics)
	}
	if r.Time == d.last {
		d.metrics[r.Metric] = true
	}
}

// Run writes what comes until ctx ends, which is no failure.
func (f *Follower) Run(ctx context.Context, db *store.Store, q store.Query, out Writer, w *bufio.Writer) error {
	tick := time.NewTicker(followEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
		err := errors.Join(f.poll(ctx, db, q, out), out.End()) // a table has its heading then, a CSV is flushed
		if flushErr := w.Flush(); err == nil {
			err = flushErr
		}
		if ctx.Err() != nil {
			return nil
		}
		if err != nil {
			return err
		}
	}
}

func (f *Follower) poll(ctx context.Context, db *store.Store, q store.Query, out Writer) error {
	known, err := db.Devices(ctx)
	if err != nil {
		return err
	}
	newest := f.received
	for _, d := range known {
		if len(q.Devices) > 0 && !slices.Contains(q.Devices, d.ID) {
			continue
		}
		shown := f.device(d.ID)
		if d.Counts.Stored == shown.stored && d.LastReading == shown.last {
			continue
		}
		shown.stored = d.Counts.Stored
		one := store.Query{Devices: []string{d.ID}, Metrics: q.Metrics, From: max(shown.last-followBack.Milliseconds(), 0)}
		last, there := shown.last, maps.Clone(shown.metrics)
		for r, err := range db.Readings(ctx, one) {
			if isDamage(err) {
				continue // said when it was read first
			}
			if err != nil {
				return err
			}
			isNew := r.Time > last || r.Time == last && !there[r.Metric] || r.Received > f.received
			if !isNew || r.Time == last && there[r.Metric] {
				continue
			}
			newest = max(newest, r.Received)
			f.Note(r)
			if err := out.Write(r); err != nil {
				return err
			}
		}
	}
	f.received = newest
	return nil
}
