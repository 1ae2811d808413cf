package store

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"maps"
	"math"
	"slices"
	"time"

	"github.com/plantops/plantops/store/hourly"
	"github.com/plantops/plantops/store/salvage"
)

const (
	// What is looked up at once when hours are deleted.
	tableHours   = 20
	hoursDevices = 50 // of a rule of their own
)

type tableStatements struct {
	writeDue, deleteDue, writeState *statement
	writeSeries, clearSeries        *statement
	addSeries                       *statement
	writeSeen, writeHour, writeRow  *statement
	deleteHourRow, deleteHour       *statement
	deleteRowsOf, deleteDeviceRows  *statement
	writeKept, deleteDeviceHours    *statement
}

func (q *tableStatements) all() []compile {
	return []compile{
		{&q.writeDue, `INSERT OR REPLACE INTO sql_due (device, first, last) VALUES (?, ?, ?)`},
		{&q.deleteDue, `DELETE FROM sql_due WHERE device = ?`},
		{&q.writeState, `UPDATE sql_state SET computed = ?, kept = ? WHERE id = 1`},
		{&q.writeSeries, `INSERT INTO sql_series (device, metric, time, value) VALUES (?, ?, ?, ?) ON CONFLICT (device, metric)
			DO UPDATE SET time = excluded.time, value = excluded.value WHERE time IS NOT excluded.time OR value IS NOT excluded.value`},
		{&q.addSeries, `INSERT INTO sql_series (device, metric) VALUES (?, ?) RETURNING id`},
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
		{&q.writeKept, `INSERT OR REPLACE INTO sql_kept (device, kept, gone) VALUES (?, ?, ?)`},
		{&q.deleteDeviceHours, `DELETE FROM sql_hourly WHERE (hour, series) IN (SELECT sql_hourly.hour, series FROM sql_series
			CROSS JOIN sql_hour CROSS JOIN sql_hourly ON sql_hourly.hour = sql_hour.hour AND series = sql_series.id
			WHERE device = ? AND sql_hour.hour >= ? AND sql_hour.hour < ?)`},
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
		d.outlived = hoursKept{math.MinInt64, math.MinInt64}
	}
	err = s.eachIn(ctx, q, func(scan func(...any) error) error {
		var id int64
		var h hoursKept
		err := scan(&id, &h.kept, &h.gone)
		if d := l.byID[id]; d != nil {
			d.outlived = h
		}
		return err
	}, `SELECT device, kept, gone FROM sql_kept`)
	if err != nil {
		return err
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
	for d, h := range s.tx.outlived {
		d.outlived = h
	}
	if t := s.tx.tables; t != nil {
		s.tables.computed, s.tables.kept = t.computed, t.kept
	}
}

// settle notes how far hours are computed.
func (p *tablePass) settle(now int64) error {
	s := p.s
	return p.chunk(func() error {
		computed := min(hourly.Floor(now), p.end)
		newest := int64(math.MinInt64)
		for _, d := range s.state.byID {
			newest = max(newest, d.lastReading)
			if d.id != 0 && !d.hours.Due.Empty() && !d.hours.Late.Has(d.hours.Due.Before(computed)) {
				computed = min(computed, d.hours.Due.From)
			}
		}
		if computed = min(computed, hourly.Floor(newest)); s.options.Unsure() || computed < s.tables.computed {
			computed = s.tables.computed
		}
		for _, d := range s.state.byID {
			late := d.hours.Due.Before(computed)
			if d.hours.Late.Empty() || late == d.hours.Late {
				continue
			}
			var err error
			if late.Empty() {
				late = hourly.Span{}
				err = s.w.deleteDue.run(d.id)
			} else {
				err = s.w.writeDue.run(d.id, late.From, late.To)
			}
			if err != nil {
				return err
			}
			s.noteLate(d, late)
		}
		if computed == s.tables.computed {
			return nil
		}
		return s.writeTableState(computed, s.tables.kept)
	})
}

func (s *Store) writeTableState(computed, kept int64) error {
	s.tx.tables = &keptTables{computed: computed, kept: kept}
	return s.w.writeState.run(computed, kept)
}

// noteKept says that readings before a time are deleted: hours of before stay as they are.
func (s *Store) noteKept(before int64) error {
	if kept := hourly.Floor(saturated(before, hourMS-1)); kept > s.tables.kept {
		return s.writeTableState(s.tables.computed, kept)
	}
	return nil
}

// loseHours names the hours of a damaged file that cannot be made anew: their readings are deleted. No table for other programs is
// carried over, as nothing would tell a damaged number of it from a right one.
func (c *carrier) loseHours(w *salvage.Walk, named []salvage.Table) error {
	each := func(table string, row func(salvage.Row) error) (bool, error) {
		i := slices.IndexFunc(named, func(t salvage.Table) bool { return t.Name == table })
		if i < 0 {
			return false, nil
		}
		damage, err := w.Tree(named[i].Root, row)
		return damage.Any(), err
	}
	kept, ofSome, lost := int64(math.MinInt64), int64(math.MinInt64), hourly.Span{}
	unknown, err := each("sql_state", func(row salvage.Row) error {
		if len(row.Values) > 2 {
			kept, _ = row.Values[2].(int64)
		}
		return nil
	})
	if err != nil {
		return err
	}
	damagedKept, err := each("sql_kept", func(row salvage.Row) error {
		if len(row.Values) > 1 {
			n, _ := row.Values[1].(int64)
			ofSome = max(ofSome, n)
		}
		return nil
	})
	if err != nil {
		return err
	}
	if c.memory != nil && c.memory.state.devices != nil { // it was open
		kept, ofSome, unknown, damagedKept = c.memory.tables.kept, math.MinInt64, false, false
		for _, d := range c.memory.state.byID {
			ofSome = max(ofSome, d.outlived.kept)
		}
	}
	damaged, err := each("sql_hour", func(row salvage.Row) error {
		if at := row.RowID; at < kept/1000 && at > -maxBlockTime/1000 {
			lost = lost.With(hourly.Around(at*1000, at*1000))
		}
		return nil
	})
	switch day := func(ms int64) string { return time.UnixMilli(ms).UTC().Format(time.DateOnly) }; {
	case !lost.Empty():
		c.lost = append(c.lost, fmt.Sprintf("hourly values from %s to %s whose readings were deleted", day(lost.From), day(lost.To-1)))
	case unknown || damaged && kept > math.MinInt64:
		c.lost = append(c.lost, "hourly values whose readings were deleted, where there were any")
	}
	if ofSome > max(kept, -maxBlockTime) || damagedKept {
		c.lost = append(c.lost, "hourly values of single devices whose readings were deleted, where there were any")
	}
	return err
}

// hoursKept is what table sql_kept has of a device.
type hoursKept struct {
	kept int64 // its readings before may be deleted, their hours stay
	gone int64 // its hours before are deleted
}

// noteKeptOf is noteKept of one device, inside the transaction that deletes. Where readings of all are deleted nothing is to be noted,
// nor where a device is purged.
func (s *Store) noteKeptOf(d *device, before int64) error {
	h, there := s.tx.outlived[d]
	if !there {
		h = d.outlived
	}
	kept := hourly.Floor(saturated(before, hourMS-1))
	if kept <= max(h.kept, s.tables.kept) || before == math.MaxInt64 {
		return nil
	}
	h.kept = kept
	return s.writeKept(d, h)
}

func (s *Store) writeKept(d *device, h hoursKept) error {
	if s.tx.outlived == nil {
		s.tx.outlived = map[*device]hoursKept{}
	}
	s.tx.outlived[d] = h
	return s.w.writeKept.run(d.id, h.kept, h.gone)
}

// purgeHours deletes the hours of a device that is purged.
func (s *Store) purgeHours(ctx context.Context, id int64) error {
	for again := true; again; {
		err := s.freeing(ctx, func() error {
			result, err := s.w.deleteDeviceRows.exec(id, int64(tableRows))
			if err != nil {
				return err
			}
			n, err := result.RowsAffected()
			again = n > 0
			return err
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// outlived is up to when the readings and the hours of each series are deleted.
func (p *tablePass) outlived() (map[int64]hoursKept, error) {
	s, by := p.s, map[int64]hoursKept{}
	err := p.alone(func() {
		for key, series := range p.series {
			if d := s.state.byID[key[0]]; d != nil {
				by[series] = hoursKept{max(s.tables.kept, d.outlived.kept), d.outlived.gone}
			}
		}
	})
	return by, err
}

// deleteHours deletes hours whose readings are deleted when they are not to be kept any longer.
func (p *tablePass) deleteHours(now int64) error {
	until := int64(math.MaxInt64)
	switch {
	case p.options.Keep > 0 && p.s.options.Unsure():
		return nil
	case p.options.Keep > 0:
		until = now - p.options.Keep.Milliseconds()
	}
	ofAll := int64(math.MinInt64)
	due := map[int64]hourly.Span{} // by device
	err := p.alone(func() {
		ofAll = min(p.s.tables.kept, until)
		for id, d := range p.s.state.byID {
			if span := (hourly.Span{From: d.outlived.gone, To: hourly.Floor(min(d.outlived.kept, until))}); span.To > ofAll && !span.Empty() {
				due[id] = span
			}
		}
	})
	if err == nil && ofAll > math.MinInt64 {
		err = p.deleteBefore(ofAll)
	}
	if err != nil {
		return err
	}
	return p.deleteHoursOf(due)
}

// deleteHoursOf deletes hours of some devices, some hours of some of them at once.
func (p *tablePass) deleteHoursOf(due map[int64]hourly.Span) error {
	at, end := int64(math.MaxInt64), int64(math.MinInt64)
	for _, span := range due {
		at, end = min(at, span.From), max(end, span.To)
	}
	devices := slices.Sorted(maps.Keys(due))
	for at < end {
		var hour sql.NullInt64
		err := p.s.each(p.ctx, func(scan func(...any) error) error { return scan(&hour) },
			`SELECT hour FROM sql_hour WHERE hour >= ? AND hour < ? ORDER BY hour LIMIT 1 OFFSET ?`, seconds(at), seconds(end), tableHours)
		if err != nil {
			return err
		}
		to := end
		if hour.Valid {
			to = hour.Int64 * 1000
		}
		for some := range slices.Chunk(devices, hoursDevices) {
			if err := p.chunk(func() error { return p.deleteSomeHours(some, due, to) }); err != nil {
				return err
			}
		}
		at = to
	}
	return nil
}

// deleteSomeHours deletes hours of some devices up to a time, inside the running transaction.
func (p *tablePass) deleteSomeHours(devices []int64, due map[int64]hourly.Span, to int64) error {
	w := p.s.w
	for _, id := range devices {
		d := p.s.state.byID[id]
		if d == nil {
			continue
		}
		h := d.outlived
		span := due[id].Before(to).Behind(h.gone)
		if span.Empty() {
			continue
		}
		h.gone = span.To
		if err := errors.Join(w.deleteDeviceHours.run(id, seconds(span.From), seconds(span.To)), p.s.writeKept(d, h)); err != nil {
			return err
		}
	}
	return nil
}

func (p *tablePass) deleteBefore(before int64) error {
	for {
		var hours []int64
		err := p.s.each(p.ctx, func(scan func(...any) error) error {
			var hour int64
			err := scan(&hour)
			hours = append(hours, hour)
			return err
		}, `SELECT hour FROM sql_hour WHERE hour < ? ORDER BY hour LIMIT ?`, before/1000, tableHours)
		if err != nil || len(hours) == 0 {
			return err
		}
		for _, hour := range hours { // one a transaction: it has a row for each series
			err := p.chunk(func() error {
				return errors.Join(p.s.w.deleteRowsOf.run(hour), p.s.w.deleteHour.run(hour))
			})
			if err != nil {
				return err
			}
		}
	}
}

// dropHours deletes all hours. They are computed again when they are wanted.
func (p *tablePass) dropHours() error {
	reset := false
	if err := p.alone(func() { reset = p.s.tables.computed != math.MinInt64 }); err != nil {
		return err
	}
	if reset {
		err := p.chunk(func() error {
			for _, d := range p.s.state.byID {
				if d.hours.Late.Empty() {
					continue
				}
				if err := p.s.w.deleteDue.run(d.id); err != nil {
					return err
				}
				p.s.noteLate(d, hourly.Span{})
			}
			return p.s.writeTableState(math.MinInt64, p.s.tables.kept)
		})
		if err != nil {
			return err
		}
	}
	return p.deleteBefore(math.MaxInt64)
}

// saturated is a plus b, or the largest time.
func saturated(a, b int64) int64 {
	if a > math.MaxInt64-b {
		return math.MaxInt64
	}
	return a + b
}
