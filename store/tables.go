package store

import (
	"cmp"
	"context"
	"database/sql"
	"errors"
	"fmt"
	"math"
	"slices"
	"time"

	"github.com/plantops/plantops/store/history"
	"github.com/plantops/plantops/store/hourly"
)

// The tables that other programs read (migrations/0010_sql.sql, docs/sql.md) are written by KeepTables, not in the commits of
// readings. Each device has a span of time in which its hours are to be computed; it grows with every reading. It is in memory
// only: hours from tables.computed on are computed after every start. What is before that is late, and also in table sql_due.

const (
	tablesFirst = 10 * time.Second // after the start
	tablesEvery = 5 * time.Minute  // the latest values, and hours that are over
	tablesOpen  = 3                // every so many times hours that are not over too

	// The latest values of so many devices are written in one pass; of more in several, each in its turn, and of all in so many
	// passes. Hours that are not over come so much more seldom too, and not at all where that is as long as they last: what is
	// written again and again wears the disk out, and a house of few devices has little of it.
	tablesDevices = 64
	tablesPasses  = 12

	manySeries  = 8    // so large a part of all, and all rows of an hour are read at once
	tableRows   = 1000 // of one transaction: commits of readings wait for it
	settleEvery = 16   // windows

)

// TableOptions say what KeepTables writes.
type TableOptions struct {
	Hourly bool          // else hours that are there are deleted
	Keep   time.Duration // how long hours are kept whose readings are deleted; zero: no longer than the readings
}

// keptTables is what the store knows of them. Who holds the writing token has it.
type keptTables struct {
	computed, kept int64 // as in table sql_state, which is a time of what is in memory
	pass           int64 // the number of passes
	opened         int64 // the last one with hours that were not over
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
	if err := pass.run(); err != nil {
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

// take returns the devices whose latest values, or what else is known of them, are to be written.
func (p *tablePass) take() (stale []*device, err error) {
	s := p.s
	if err := s.acquire(p.ctx); err != nil {
		return nil, err
	}
	defer s.release()
	s.tables.pass++
	for _, d := range s.state.byID {
		if d.id != 0 && (d.hours.Stale || d.shown != seenTimes{d.lastSeen, d.lastReading}) {
			stale = append(stale, d)
		}
	}
	turns := (len(stale) + tablesDevices - 1) / tablesDevices
	if every := max(tablesOpen, int64(turns)); s.tables.opened == 0 || every < tablesPasses && s.tables.pass >= s.tables.opened+every {
		s.tables.opened, p.end = s.tables.pass, math.MaxInt64
	}
	slices.SortFunc(stale, func(a, b *device) int { return cmp.Or(cmp.Compare(a.written, b.written), cmp.Compare(a.id, b.id)) })
	n := max(tablesDevices, (len(stale)+tablesPasses-1)/tablesPasses)
	for n < len(stale) && stale[n].written == 0 {
		n++ // its series may be new
	}
	stale = stale[:min(n, len(stale))]
	for _, d := range stale {
		d.hours.Stale, d.written = false, s.tables.pass
	}
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
			err = p.chunk(func() error {
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

// chunk is one transaction. Nobody waits for it, and what a power cut takes is made again: it is on disk with the next one.
func (p *tablePass) chunk(change func() error) error {
	return p.s.chunk(p.ctx, func() error {
		p.s.tx.lazy = true
		return change()
	})
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

// seriesOf is the id of a metric of a device, which may be new: its latest value is written when its device has its turn. Zero: the device
// or the metric is not known.
func (p *tablePass) seriesOf(device, metric int64) (id int64, err error) {
	key := [2]int64{device, metric}
	if id = p.series[key]; id != 0 || metric == 0 {
		return id, nil
	}
	err = p.chunk(func() error {
		if p.s.state.byID[device] == nil {
			return nil
		}
		id, err = p.s.w.addSeries.number(device, metric)
		return err
	})
	if err == nil && id != 0 {
		p.series[key] = id
	}
	return id, err
}

const (
	// How much is computed at once: rows of hours, and what time at most.
	windowRows   = 100_000
	windowLength = 31 * 24 * time.Hour
	rowsOfDevice = 4 // of an hour, as a guess

	hourMS = int64(time.Hour / time.Millisecond)
)

// hourWindow is a time of which some devices' hours are computed.
type hourWindow struct {
	span    hourly.Span
	devices []*device
	names   []string
}

// writeWindow computes the earliest hours that are due; more tells that there may be others.
func (p *tablePass) writeWindow() (more bool, err error) {
	var w hourWindow
	due := hourly.Span{}
	err = p.alone(func() {
		for _, d := range p.s.state.byID {
			if part := d.hours.Due.Before(p.end); d.id != 0 && !part.Empty() {
				due = due.With(part)
				w.names = append(w.names, d.name)
			}
		}
	})
	if err != nil || len(w.names) == 0 {
		return false, err
	}
	if w.span, err = p.nextHours(w.names, due); err != nil {
		return false, err
	}
	if err = p.takeWindow(&w); err != nil || len(w.devices) == 0 {
		return true, err
	}
	err = p.writeHours(&w)
	if errors.Is(err, ErrNotFound) { // a device was purged; the others are still due
		return true, nil
	}
	return true, err
}

// writeHours computes and writes the hours of a window. After an error they are due again.
func (p *tablePass) writeHours(w *hourWindow) (err error) {
	var changes []hourly.Change
	if p.series == nil {
		_, err = p.readSeries()
	}
	if err == nil {
		changes, err = p.compute(w)
	}
	for some := range slices.Chunk(changes, tableRows) {
		if err == nil {
			err = p.chunk(func() error { return p.change(some) })
		}
	}
	if err != nil {
		err = errors.Join(err, p.alone(func() {
			for _, d := range w.devices {
				d.hours.Due = d.hours.Due.With(w.span)
			}
		}))
	}
	return err
}

// nextHours is the first window of a span: from the first reading or hour in it.
func (p *tablePass) nextHours(names []string, due hourly.Span) (hourly.Span, error) {
	v, err := p.s.View(p.ctx)
	if err != nil {
		return due, err
	}
	q := history.Query{Devices: names, From: due.From, Raw: true}
	if due.To < math.MaxInt64 {
		q.To = due.To
	}
	first, last, err := v.Range(p.ctx, q)
	if err = errors.Join(err, v.Close()); err != nil {
		return due, err
	}
	if first > last {
		first = due.To
	}
	var hour sql.NullInt64
	err = p.s.each(p.ctx, func(scan func(...any) error) error { return scan(&hour) },
		`SELECT min(hour) FROM sql_hour WHERE hour >= ?`, seconds(due.From))
	if err != nil {
		return due, err
	}
	if hour.Valid {
		first = min(first, hour.Int64*1000)
	}
	first = hourly.Floor(min(max(first, due.From), due.To))
	length := max(min(int64(windowRows/rowsOfDevice/len(names))*hourMS, windowLength.Milliseconds()), hourMS)
	return hourly.Span{From: first, To: min(saturated(first, length), due.To)}, nil
}

// seconds are those of an hour.
func seconds(ms int64) int64 { return hourly.Floor(ms) / 1000 }

// takeWindow takes out of what is due what is in a window and before it, where there is nothing.
func (p *tablePass) takeWindow(w *hourWindow) error {
	w.names = w.names[:0]
	return p.alone(func() {
		for _, d := range p.s.state.byID {
			part := d.hours.Due.Before(w.span.To)
			if d.id == 0 || part.Empty() {
				continue
			}
			d.hours.Due = d.hours.Due.Behind(w.span.To)
			if !part.Behind(w.span.From).Empty() {
				w.devices, w.names = append(w.devices, d), append(w.names, d.name)
			}
		}
	})
}

// compute returns what is to be changed in a window.
func (p *tablePass) compute(w *hourWindow) ([]hourly.Change, error) {
	s := p.s
	ids := make(map[string]int64, len(w.devices))
	metrics := map[string]uint32{}
	err := p.alone(func() {
		for _, d := range w.devices {
			ids[d.name] = d.id
		}
		for name, id := range s.state.metrics {
			metrics[name] = id
		}
	})
	if err != nil {
		return nil, err
	}
	v, err := s.View(p.ctx)
	if err != nil {
		return nil, err
	}
	defer func() { _ = v.Close() }() // it has said what it has to say
	var rows []hourly.Row
	damaged := map[int64][]*DamagedError{} // by series
	q := history.Query{Devices: w.names, From: w.span.From, To: w.span.To, Raw: true}
	r := history.Reduction{Every: history.Span{Length: time.Hour}, Location: time.UTC, Aggregates: history.Min | history.Max | history.Average | history.Count}
	for one, err := range v.Reduce(p.ctx, q, r) {
		if damage := (*DamagedError)(nil); errors.As(err, &damage) {
			for key, series := range p.series {
				if key[0] == ids[damage.Device] {
					damaged[series] = append(damaged[series], damage)
				}
			}
			continue
		}
		if err != nil {
			return nil, err
		}
		series, err := p.seriesOf(ids[one.Device], int64(metrics[one.Metric]))
		if err != nil {
			return nil, err
		}
		if series == 0 {
			continue // of a metric that came since, and is due again, or of a device that was purged
		}
		for i := range one.Buckets {
			rows = append(rows, hourly.RowOf(hourly.Key{Hour: one.Buckets[i].Start / 1000, Series: series}, &one.Buckets[i]))
		}
	}
	there, err := p.rowsThere(w, ids)
	if err != nil {
		return nil, err
	}
	outlived, err := p.outlived() // after the view: what it lacks is noted by now
	if err != nil {
		return nil, err
	}
	rows = slices.DeleteFunc(rows, func(r hourly.Row) bool { return r.Hour*1000 < outlived[r.Series].gone })
	return hourly.Changes(there, rows, func(k hourly.Key) bool {
		return k.Hour*1000 < outlived[k.Series].kept || slices.ContainsFunc(damaged[k.Series], func(d *DamagedError) bool {
			return d.From < k.Hour*1000+hourMS && k.Hour*1000 < d.To
		})
	}), nil
}

// rowsThere returns what the table has of a window.
func (p *tablePass) rowsThere(w *hourWindow, ids map[string]int64) (list []hourly.Row, err error) {
	of := map[int64]bool{}
	for _, id := range ids {
		of[id] = true
	}
	wanted := map[int64]bool{}
	for key, series := range p.series {
		if of[key[0]] {
			wanted[series] = true
		}
	}
	take := func(scan func(...any) error) error {
		var r hourly.Row
		err := scan(&r.Series, &r.Hour, &r.Min, &r.Avg, &r.Max, &r.Count)
		if wanted[r.Series] {
			list = append(list, r)
		}
		return err
	}
	const rows = `SELECT series, sql_hourly.hour, min, avg, max, count FROM sql_hour CROSS JOIN sql_hourly ON sql_hourly.hour = sql_hour.hour`
	from, to := seconds(w.span.From), seconds(w.span.To)
	if len(wanted) > len(p.series)/manySeries { // a query for each would be compiled for each
		err = p.s.each(p.ctx, take, rows+` WHERE sql_hour.hour >= ? AND sql_hour.hour < ?`, from, to)
		return list, err
	}
	for series := range wanted {
		if err == nil {
			err = p.s.each(p.ctx, take, rows+` AND series = ? WHERE sql_hour.hour >= ? AND sql_hour.hour < ?`, series, from, to)
		}
	}
	return list, err
}

// change writes and deletes rows, inside the running transaction.
func (p *tablePass) change(changes []hourly.Change) error {
	w := p.s.w
	hour := int64(math.MinInt64)
	for _, c := range changes {
		if c.Count == 0 {
			if err := w.deleteHourRow.run(c.Hour, c.Series); err != nil {
				return err
			}
			continue
		}
		if c.Hour != hour {
			hour = c.Hour
			if err := w.writeHour.run(hour); err != nil {
				return err
			}
		}
		if err := w.writeRow.run(c.Hour, c.Series, c.Min, c.Avg, c.Max, c.Count); err != nil {
			return err
		}
	}
	return nil
}
