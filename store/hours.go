package store

import (
	"context"
	"database/sql"
	"errors"
	"math"
	"slices"
	"time"

	"github.com/plantops/plantops/store/history"
	"github.com/plantops/plantops/store/hourly"
)

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
	var changes []hourly.Change
	if p.series == nil {
		_, err = p.readSeries()
	}
	if err == nil {
		changes, err = p.compute(&w)
	}
	for some := range slices.Chunk(changes, tableRows) {
		if err == nil {
			err = p.s.chunk(p.ctx, func() error { return p.change(some) })
		}
	}
	if err != nil {
		err = errors.Join(err, p.alone(func() {
			for _, d := range w.devices {
				d.hours.Due = d.hours.Due.With(w.span)
			}
		}))
	}
	return true, err
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

// seconds are those of milliseconds, of the hour before the first where there is none.
func seconds(ms int64) int64 { return hourly.Floor(ms) / 1000 }

func saturated(a, b int64) int64 {
	if a > math.MaxInt64-b {
		return math.MaxInt64
	}
	return a + b
}

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
	kept := int64(0)
	metrics := map[string]uint32{}
	err := p.alone(func() {
		for _, d := range w.devices {
			ids[d.name] = d.id
		}
		for name, id := range s.state.metrics {
			metrics[name] = id
		}
		kept = s.tables.kept
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
		if errors.Is(err, ErrNotFound) { // it was purged
			return nil, nil
		}
		if err != nil {
			return nil, err
		}
		series, known := p.series[[2]int64{ids[one.Device], int64(metrics[one.Metric])}]
		if !known {
			continue // of a metric that came since; it is due again
		}
		for i := range one.Buckets {
			rows = append(rows, hourly.RowOf(hourly.Key{Hour: one.Buckets[i].Start / 1000, Series: series}, &one.Buckets[i]))
		}
	}
	there, err := p.rowsThere(w, ids)
	if err != nil {
		return nil, err
	}
	return hourly.Changes(there, rows, func(k hourly.Key) bool {
		return k.Hour*1000 < kept || slices.ContainsFunc(damaged[k.Series], func(d *DamagedError) bool {
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
	for key, series := range p.series {
		if err != nil {
			break
		}
		if !of[key[0]] {
			continue
		}
		err = p.s.each(p.ctx, func(scan func(...any) error) error {
			r := hourly.Row{Key: hourly.Key{Series: series}}
			err := scan(&r.Hour, &r.Min, &r.Avg, &r.Max, &r.Count)
			list = append(list, r)
			return err
		}, `SELECT sql_hourly.hour, min, avg, max, count FROM sql_hour CROSS JOIN sql_hourly
			ON sql_hourly.hour = sql_hour.hour AND series = ? WHERE sql_hour.hour >= ? AND sql_hour.hour < ?`,
			series, seconds(w.span.From), seconds(w.span.To))
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

// settle notes how far hours are computed.
func (p *tablePass) settle(now int64) error {
	s := p.s
	return s.chunk(p.ctx, func() error {
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

// deleteHours deletes hours whose readings are deleted when they are not to be kept any longer.
func (p *tablePass) deleteHours(now int64) error {
	before := int64(math.MinInt64)
	err := p.alone(func() {
		if before = p.s.tables.kept; p.options.Keep > 0 && !p.s.options.Unsure() {
			before = min(before, now-p.options.Keep.Milliseconds())
		} else if p.options.Keep > 0 {
			before = math.MinInt64
		}
	})
	if err != nil || before == math.MinInt64 {
		return err
	}
	return p.deleteBefore(before)
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
			err := p.s.chunk(p.ctx, func() error {
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
		err := p.s.chunk(p.ctx, func() error {
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
