package store

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"math"
	"slices"
	"time"

	"github.com/plantops/plantops/store/hourly"
)

// The tables that other programs read (migrations/0010_sql.sql, docs/sql.md) are written by KeepTables, not in the commits of
// readings. Each device has a span of time in which its hours are to be computed; it grows with every reading. It is in memory
// only: hours from tables.computed on are computed after every start. What is before that is late, and also in table sql_due.

const (
	tablesFirst = 10 * time.Second // after the start
	tablesEvery = 5 * time.Minute  // the latest values, and hours that are over
	tablesOpen  = 3                // every so many times hours that are not over too

	tableRows  = 1000 // of one transaction: commits of readings wait for it
	tableHours = 20   // that are deleted in one

	settleEvery = 16 // windows

)

// TableOptions say what KeepTables writes.
type TableOptions struct {
	Hourly bool          // else hours that are there are deleted
	Keep   time.Duration // how long hours are kept whose readings are deleted; zero: no longer than the readings
}

// keptTables is what the store knows of them. Who holds the writing token has it.
type keptTables struct {
	computed, kept int64 // as in table sql_state, which is a time of what is in memory
	open           int   // passes until hours that are not over are computed
}

type tableStatements struct {
	writeDue, deleteDue, writeState *statement
	writeSeries, clearSeries        *statement
	writeSeen, writeHour, writeRow  *statement
	deleteHourRow, deleteHour       *statement
	deleteRowsOf, deleteDeviceRows  *statement
}

func (q *tableStatements) all() []compile {
	return []compile{
		{&q.writeDue, `INSERT OR REPLACE INTO sql_due (device, first, last) VALUES (?, ?, ?)`},
		{&q.deleteDue, `DELETE FROM sql_due WHERE device = ?`},
		{&q.writeState, `UPDATE sql_state SET computed = ?, kept = ? WHERE id = 1`},
		{&q.writeSeries, `INSERT INTO sql_series (device, metric, time, value) VALUES (?, ?, ?, ?) ON CONFLICT (device, metric)
			DO UPDATE SET time = excluded.time, value = excluded.value WHERE time IS NOT excluded.time OR value IS NOT excluded.value`},
		{&q.clearSeries, `UPDATE sql_series SET time = NULL, value = NULL WHERE device = ? AND metric = ?`},
		{&q.writeSeen, `INSERT INTO sql_device (device, last_seen, last_reading) VALUES (?, ?, ?) ON CONFLICT (device)
			DO UPDATE SET last_seen = excluded.last_seen, last_reading = excluded.last_reading
			WHERE last_seen <> excluded.last_seen OR last_reading <> excluded.last_reading`},
		{&q.writeHour, `INSERT OR IGNORE INTO sql_hour (hour) VALUES (?)`},
		{&q.writeRow, `INSERT OR REPLACE INTO sql_hourly (hour, series, min, avg, max, count) VALUES (?, ?, ?, ?, ?, ?)`},
		{&q.deleteHourRow, `DELETE FROM sql_hourly WHERE hour = ? AND series = ?`},
		{&q.deleteHour, `DELETE FROM sql_hour WHERE hour = ?`},
		{&q.deleteRowsOf, `DELETE FROM sql_hourly WHERE hour = ?`},
		{&q.deleteDeviceRows, `DELETE FROM sql_hourly WHERE (hour, series) IN (SELECT sql_hourly.hour, series FROM sql_series
			CROSS JOIN sql_hour CROSS JOIN sql_hourly ON sql_hourly.hour = sql_hour.hour AND series = sql_series.id WHERE device = ? LIMIT ?)`},
	}
}

// loadTables reads what is still to be computed.
func (s *Store) loadTables(ctx context.Context, q querier, l *onDisk) error {
	err := s.eachIn(ctx, q, func(scan func(...any) error) error { return scan(&l.tables.computed, &l.tables.kept) },
		`SELECT computed, kept FROM sql_state`)
	if err != nil {
		return err
	}
	for _, d := range l.devices {
		d.hours = hourly.Pending{Due: hourly.Span{From: l.tables.computed, To: math.MaxInt64}, Stale: true}
	}
	return s.eachIn(ctx, q, func(scan func(...any) error) error {
		var id int64
		var span hourly.Span
		err := scan(&id, &span.From, &span.To)
		if d := l.byID[id]; d != nil {
			d.hours.Late = span
			d.hours.Due = d.hours.Due.With(span)
		}
		return err
	}, `SELECT device, first, last FROM sql_due`)
}

// noteTime says that readings of a device from a time to another, which are included, changed, inside the running transaction.
func (s *Store) noteTime(d *device, first, last int64) error {
	span := hourly.Around(first, last)
	d.hours.Stale = true
	d.hours.Due = d.hours.Due.With(span) // at once: too much does no harm
	if first >= s.tables.computed {
		return nil
	}
	late, there := s.tx.late[d]
	if !there {
		late = d.hours.Late
	}
	if late.Has(span) {
		return nil
	}
	late = late.With(span)
	s.noteLate(d, late)
	return s.w.writeDue.run(d.id, late.From, late.To)
}

func (s *Store) noteLate(d *device, late hourly.Span) {
	if s.tx.late == nil {
		s.tx.late = map[*device]hourly.Span{}
	}
	s.tx.late[d] = late
}

// applyTables is the part of apply.
func (s *Store) applyTables() {
	for d, late := range s.tx.late {
		d.hours.Late = late
	}
	if t := s.tx.tables; t != nil {
		s.tables.computed, s.tables.kept = t.computed, t.kept
	}
}

// KeepTables writes the tables that other programs read until ctx ends.
func (s *Store) KeepTables(ctx context.Context, o TableOptions) error {
	due := time.NewTimer(tablesFirst)
	defer due.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-due.C:
		}
		due.Reset(tablesEvery)
		if err := s.WriteTables(ctx, o); err != nil && ctx.Err() == nil && !errors.Is(err, ErrClosed) {
			s.log.Warn("cannot write the tables for other programs; trying again", "err", err)
		}
	}
}

// WriteTables is one pass of KeepTables. It works in small transactions, between which whoever waits to write comes first.
func (s *Store) WriteTables(ctx context.Context, o TableOptions) error {
	pass := tablePass{s: s, ctx: ctx, options: o}
	err := pass.run()
	if err != nil {
		return fmt.Errorf("write the tables for other programs: %w", err)
	}
	return nil
}

type tablePass struct {
	s       *Store
	ctx     context.Context
	options TableOptions

	end    int64              // hours from here on are for another pass
	series map[[2]int64]int64 // ids by device and metric
}

func (p *tablePass) run() error {
	now := p.s.options.Now().UnixMilli()
	p.end = hourly.Floor(now)
	stale, err := p.take()
	if err == nil {
		err = p.writeLatest(stale)
	}
	if err == nil && !p.options.Hourly {
		return p.dropHours()
	}
	for windows, more := 1, true; more && err == nil; windows++ {
		if more, err = p.writeWindow(); err == nil && (!more || windows%settleEvery == 0) {
			err = p.settle(now)
		}
	}
	if err == nil {
		err = p.deleteHours(now)
	}
	return err
}

// take returns the devices of which the latest values or what else is known may have changed.
func (p *tablePass) take() (stale []*device, err error) {
	s := p.s
	if err := s.acquire(p.ctx); err != nil {
		return nil, err
	}
	defer s.release()
	if s.tables.open--; s.tables.open < 0 {
		s.tables.open, p.end = tablesOpen-1, math.MaxInt64
	}
	for _, d := range s.state.byID {
		if d.id != 0 && (d.hours.Stale || d.shown != seenTimes{d.lastSeen, d.lastReading}) {
			d.hours.Stale = false
			stale = append(stale, d)
		}
	}
	slices.SortFunc(stale, func(a, b *device) int { return cmp.Compare(a.id, b.id) })
	return stale, nil
}

// seenTimes are what table sql_device has.
type seenTimes struct{ seen, reading int64 }

// writeLatest writes sql_series and sql_device of some devices.
func (p *tablePass) writeLatest(devices []*device) error {
	known, err := p.readSeries()
	for some := range slices.Chunk(devices, tableRows/8) {
		var latest [][]Reading
		if err == nil {
			latest, err = p.latest(some)
		}
		if err == nil {
			err = p.s.chunk(p.ctx, func() error {
				for i, d := range some {
					if err := p.writeDevice(d, latest[i], known[d.id]); err != nil {
						return err
					}
				}
				return nil
			})
		}
	}
	p.series = nil // there may be new ones
	if err != nil {
		_ = p.alone(func() { // it waits for the store to be closed at most
			for _, d := range devices {
				d.hours.Stale = true
			}
		})
	}
	return err
}

// alone runs what changes fields of who writes.
func (p *tablePass) alone(change func()) error {
	if err := p.s.acquire(context.WithoutCancel(p.ctx)); err != nil {
		return err
	}
	defer p.s.release()
	change()
	return nil
}

func (p *tablePass) latest(devices []*device) (list [][]Reading, err error) {
	v, err := p.s.View(p.ctx)
	if err != nil {
		return nil, err
	}
	defer func() { _ = v.Close() }() // it has said what it has to say
	for _, d := range devices {
		latest, err := v.Latest(p.ctx, d.name)
		if err != nil && !errors.Is(err, ErrNotFound) && !isDamage(err) {
			return nil, err
		}
		list = append(list, latest)
	}
	return list, nil
}

func (p *tablePass) writeDevice(d *device, latest []Reading, known []uint32) error {
	s := p.s
	for _, r := range latest {
		metric, there := s.state.metrics[r.Metric]
		if !there {
			continue // it is derived
		}
		if err := s.w.writeSeries.run(d.id, int64(metric), r.Time, r.Value); err != nil {
			return err
		}
		known = slices.DeleteFunc(known, func(m uint32) bool { return m == metric })
	}
	for _, gone := range known {
		if err := s.w.clearSeries.run(d.id, int64(gone)); err != nil {
			return err
		}
	}
	d.shown = seenTimes{d.lastSeen, d.lastReading}
	return s.w.writeSeen.run(d.id, d.lastSeen, d.lastReading)
}

// readSeries returns the metrics of each device that have a latest value, and remembers the ids of series.
func (p *tablePass) readSeries() (known map[int64][]uint32, err error) {
	known, p.series = map[int64][]uint32{}, map[[2]int64]int64{}
	err = p.s.each(p.ctx, func(scan func(...any) error) error {
		var id, device, metric int64
		var valued bool
		err := scan(&id, &device, &metric, &valued)
		p.series[[2]int64{device, metric}] = id
		if valued {
			known[device] = append(known[device], uint32(metric))
		}
		return err
	}, `SELECT id, device, metric, time IS NOT NULL FROM sql_series`)
	return known, err
}
