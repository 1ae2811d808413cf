package store

import (
	"context"
	"database/sql/driver"
	"errors"
	"fmt"
	"math"
	"time"
)

// redateRows is what one transaction of Redate changes at most: commits of readings wait for it.
const redateRows = 250

const (
	flagsBelowLine = 1<<lineShift - 1
	flagsKept      = flagsBelowLine &^ flagClockUnsure
)

// Statements name the first and the last flags of a line. That flags > 255 is there for SQLite, which uses the index of marked
// rows only if it sees its condition.
type redateStatements struct {
	markedUp, markedDown, redateReading, newestRow, redateEntries, redateOriginals, writeLine, forgetLines *statement
}

func (q *redateStatements) all() []compile {
	const marked = `SELECT device, time, received, flags FROM reading WHERE flags > 255 AND flags BETWEEN ? AND ? `
	return []compile{
		{&q.markedUp, marked + `ORDER BY flags, device, time LIMIT ?`},
		{&q.markedDown, marked + `ORDER BY flags DESC, device DESC, time DESC LIMIT ?`},
		{&q.redateReading, `UPDATE OR IGNORE reading SET time = ?, received = ?, flags = ? WHERE device = ? AND time = ?`},
		{&q.newestRow, `SELECT coalesce(max(time), 0) FROM reading WHERE device = ?`},
		{&q.redateEntries, `UPDATE quarantine SET time = time + ?, flags = flags & 251
			WHERE id IN (SELECT id FROM quarantine WHERE flags > 255 AND flags BETWEEN ? AND ? LIMIT ?)`},
		{&q.redateOriginals, `UPDATE original SET time = time + ?, flags = flags & 251
			WHERE id IN (SELECT id FROM original WHERE flags > 255 AND flags BETWEEN ? AND ? LIMIT ?)`},
		{&q.writeLine, `INSERT INTO clock_line (number, boot, start, sure) VALUES (?, ?, ?, ?)
			ON CONFLICT (number) DO UPDATE SET start = excluded.start, sure = excluded.sure`},
		{&q.forgetLines, `DELETE FROM clock_line WHERE boot <> ? OR number < ? OR number > ? AND number < ?`},
	}
}

// Redate puts right what came on a line of the clock while it was not to be trusted: shift is added to each time of arrival, and
// to the time of each reading that was dated by it; a time that is taken becomes the next free millisecond. The mark is gone
// afterwards. It returns how many readings, quarantined messages and kept messages that were. It works in small transactions,
// between which whoever waits to write comes first; what an error, the end of ctx or a crash leaves undone, the next call does,
// and nothing is done twice. With nothing to do it takes no lock.
func (s *Store) Redate(ctx context.Context, line int64, shift time.Duration) (changed int64, err error) {
	for _, step := range []func(line, shift int64) (int64, error){s.redateReadings, s.redateEntries, s.redateOriginals, s.redateSeen} {
		for {
			due, err := s.marked(ctx, line)
			if err != nil || !due {
				return changed, err
			}
			n, err := s.redateChunk(ctx, func() (int64, error) { return step(line, shift.Milliseconds()) })
			if err != nil {
				return changed, fmt.Errorf("date what came while the clock was not set: %w", err)
			}
			if changed += n; n < redateRows {
				break
			}
		}
	}
	return changed, nil
}

// marked tells whether anything is left of a line. It reads beside the writer.
func (s *Store) marked(ctx context.Context, line int64) (found bool, err error) {
	s.state.mu.RLock()
	for _, d := range s.state.devices {
		found = found || d.unsureSeen != 0 && d.unsureLine == line
	}
	s.state.mu.RUnlock()
	if found || line < 1 {
		return found && line > 0, nil
	}
	first, last := flagsOfLine(line)
	err = s.queryRow(ctx, `SELECT EXISTS (SELECT 1 FROM reading WHERE flags > 255 AND flags BETWEEN ?1 AND ?2)
		OR EXISTS (SELECT 1 FROM quarantine WHERE flags > 255 AND flags BETWEEN ?1 AND ?2)
		OR EXISTS (SELECT 1 FROM original WHERE flags > 255 AND flags BETWEEN ?1 AND ?2)`, first, last).Scan(&found)
	if err != nil {
		return false, fmt.Errorf("look for what came while the clock was not set: %w", explain(err))
	}
	return found, nil
}

func flagsOfLine(line int64) (first, last int64) {
	return line << lineShift, line<<lineShift | flagsBelowLine
}

func (s *Store) redateChunk(ctx context.Context, step func() (int64, error)) (changed int64, err error) {
	if err := s.acquire(ctx); err != nil {
		return 0, err
	}
	defer s.release()
	err = s.transact(func() (err error) {
		changed, err = step()
		return err
	})
	s.idle.Reset(idleAfter)
	return changed, err
}

// markedRow is a row of table reading with the number of a line.
type markedRow struct{ device, time, received, flags int64 }

// redateReadings begins where the rows move to, so that they do not stand in each other's way.
func (s *Store) redateReadings(line, shift int64) (changed int64, err error) {
	query := s.w.markedUp
	if shift > 0 {
		query = s.w.markedDown
	}
	first, last := flagsOfLine(line)
	rows := make([]markedRow, 0, redateRows)
	err = query.query(func(row []driver.Value) error {
		rows = append(rows, markedRow{row[0].(int64), row[1].(int64), row[2].(int64), row[3].(int64)})
		return nil
	}, first, last, int64(redateRows))
	if err != nil {
		return 0, err
	}
	moved := make(map[int64]struct{})
	for _, r := range rows {
		if err := s.redateRow(r, shift); err != nil {
			return 0, err
		}
		moved[r.device] = struct{}{}
	}
	for id := range moved {
		d := s.state.byID[id]
		if d == nil { // that the rows have a device is not the schema's rule
			continue
		}
		s.touch(d)
		d.next.arrivals = span{}
		if d.next.lastReading, err = s.newestTime(d); err != nil {
			return 0, err
		}
	}
	if len(rows) > 0 { // they can become blocks now
		s.compaction.moving, s.compaction.moved = true, placed{}
		s.wakeCompaction()
	}
	return int64(len(rows)), nil
}

func (s *Store) redateRow(r markedRow, shift int64) error {
	to := r.time
	if TimeSource(r.flags&flagTimeSource) != FromDevice {
		to += shift
	}
	d := s.state.byID[r.device] // that the rows have one is not the schema's rule
	for step := 0; ; step++ {
		taken := false
		if d != nil && to != r.time {
			var err error
			if taken, err = s.isTaken(d, to); err != nil {
				return err
			}
		}
		if !taken {
			result, err := s.w.redateReading.exec(to, r.received+shift, r.flags&flagsKept, r.device, r.time)
			if err != nil {
				return err
			}
			if n, _ := result.RowsAffected(); n > 0 && d != nil {
				return errors.Join(s.noteTime(d, r.time, r.time), s.noteTime(d, to, to))
			} else if n > 0 {
				return nil
			}
		}
		if to++; step == maxArrivalSteps && d != nil { // certainly free
			newest, err := s.newestTime(d)
			if err != nil {
				return err
			}
			to = max(to, newest+1)
		}
	}
}

// newestTime is that of all readings of a device; 0: there is none that is later.
func (s *Store) newestTime(d *device) (int64, error) {
	newest, err := s.w.newestRow.number(d.id)
	if about, there := s.tail.Load().Of(d.id); there {
		newest = max(newest, about.Newest)
	}
	return max(newest, d.blockEnd, s.tx.newestOf(d)), err
}

// newestOf is that of the running transaction.
func (t *transaction) newestOf(d *device) int64 {
	if !d.touched || d.pending == 0 {
		return math.MinInt64
	}
	return d.pendingEnd
}

func (s *Store) redateEntries(line, shift int64) (changed int64, err error) {
	return redateTable(s.w.redateEntries, line, shift)
}

func (s *Store) redateOriginals(line, shift int64) (changed int64, err error) {
	return redateTable(s.w.redateOriginals, line, shift)
}

func redateTable(update *statement, line, shift int64) (changed int64, err error) {
	first, last := flagsOfLine(line)
	result, err := update.exec(shift, first, last, int64(redateRows))
	if err != nil {
		return 0, err
	}
	return result.RowsAffected()
}

// redateSeen puts right when devices were last heard of.
func (s *Store) redateSeen(line, shift int64) (changed int64, err error) {
	for _, d := range s.state.devices {
		if d.unsureSeen == 0 || d.unsureLine != line {
			continue
		}
		s.touch(d)
		d.next.lastSeen = max(d.next.lastSeen, d.next.unsureSeen+shift)
		d.next.unsureSeen, d.next.unsureLine = 0, 0
	}
	return 0, nil
}

// ClockLine is a stretch of time in which this machine's wall clock and its monotonic clock kept their distance.
type ClockLine struct {
	Number int64     // from 1
	Start  time.Time // when the machine started, as the wall clock of this stretch has it
	Sure   bool      // the time was believed at some moment of it
}

// ClockLines returns what is remembered of a start of this machine, in order of number, and the next number that nothing in the
// database has.
func (s *Store) ClockLines(ctx context.Context, boot string) (lines []ClockLine, next int64, err error) {
	err = s.each(ctx, func(scan func(...any) error) error {
		var l ClockLine
		var start int64
		err := scan(&l.Number, &start, &l.Sure)
		l.Start = time.UnixMilli(start)
		lines = append(lines, l)
		return err
	}, `SELECT number, start, sure FROM clock_line WHERE boot = ? ORDER BY number`, boot)
	if err == nil {
		err = s.queryRow(ctx, `SELECT 1 + max((SELECT coalesce(max(number), 0) FROM clock_line),
			(SELECT coalesce(max(flags), 0) >> 8 FROM reading WHERE flags > 255),
			(SELECT coalesce(max(flags), 0) >> 8 FROM quarantine WHERE flags > 255),
			(SELECT coalesce(max(flags), 0) >> 8 FROM original WHERE flags > 255))`).Scan(&next)
	}
	if err == nil {
		err = s.refresh(ctx)
	}
	if err != nil {
		return nil, 0, fmt.Errorf("read what is known of the clock: %w", explain(err))
	}
	s.state.mu.RLock()
	defer s.state.mu.RUnlock()
	for _, d := range s.state.devices {
		next = max(next, d.unsureLine+1)
	}
	return lines, next, nil
}

// RememberClock writes down the lines of this start of the machine, in order of number, and forgets those of others, by which
// nothing can be dated any more, and those before the second one that are not in the list: the clock forgets its oldest ones.
func (s *Store) RememberClock(ctx context.Context, boot string, lines []ClockLine) error {
	if err := s.acquire(ctx); err != nil {
		return fmt.Errorf("remember the clock: %w", err)
	}
	defer s.release()
	err := s.transact(func() error {
		first, second := int64(0), int64(0)
		if len(lines) > 0 {
			first, second = lines[0].Number, lines[min(1, len(lines)-1)].Number
		}
		if err := s.w.forgetLines.run(boot, first, first, second); err != nil {
			return err
		}
		for _, l := range lines {
			sure := int64(0)
			if l.Sure {
				sure = 1
			}
			if err := s.w.writeLine.run(l.Number, boot, l.Start.UnixMilli(), sure); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("remember the clock: %w", err)
	}
	return nil
}

// NewestArrival is when the newest message came that was stored while the clock was to be trusted, to the second; zero: none
// that is known. The counters of device "" hold it.
func (s *Store) NewestArrival() time.Time {
	s.state.mu.RLock()
	defer s.state.mu.RUnlock()
	if at := s.state.devices[""].lastSeen; at != 0 {
		return time.UnixMilli(at)
	}
	return time.Time{}
}

// noteArrival keeps NewestArrival inside the running transaction, at most once a second.
func (s *Store) noteArrival(batch []Message) {
	nobody := s.state.devices[""]
	for i := len(batch) - 1; i >= 0; i-- {
		if batch[i].ClockUnsure || batch[i].Kind == History {
			continue
		}
		known := nobody.lastSeen
		if nobody.touched {
			known = nobody.next.lastSeen
		}
		if at := batch[i].Received; at < known || at-known >= 1000 {
			s.touch(nobody)
			nobody.next.see(&batch[i])
		}
		return
	}
}

// see notes that a device was heard. A clock that is not to be trusted changes nothing of what was known before. One that is
// may show less than before: a clock that was ahead for a while must not keep a dead device online.
func (f *facts) see(m *Message) {
	if m.ClockUnsure {
		f.unsureSeen, f.unsureLine = m.Received, max(m.ClockLine, 0)
		return
	}
	f.lastSeen, f.unsureSeen, f.unsureLine = m.Received, 0, 0
}

// dateOf is when a message came, for what Redate does not reach: by a clock that is not to be trusted it came when the newest did
// that came by one that was.
func (s *Store) dateOf(received int64, unsure bool) int64 {
	nobody := s.state.devices[""]
	newest := nobody.lastSeen
	if nobody.touched {
		newest = nobody.next.lastSeen
	}
	if !unsure || newest == 0 {
		return received
	}
	return newest
}

// SettingAuthorities is the setting with the SHA-256 fingerprints of the certificate authorities that devices of this
// database trust, AB:CD:… separated by spaces, as certs prints them.
const SettingAuthorities = "certificate_authorities"

// SettingAuthorityPEM is the setting with their certificates, in PEM form.
const SettingAuthorityPEM = "certificate_authorities_pem"

// SettingRetention is the setting with what deleting by age has reached; package control writes it.
const SettingRetention = "retention"

// SettingGrowth is the setting with how large the database was in the last days; package control writes it.
const SettingGrowth = "growth"

// Setting returns what was remembered under that name; "" when nothing was.
func (s *Store) Setting(ctx context.Context, name string) (string, error) {
	value := ""
	err := s.each(ctx, func(scan func(...any) error) error { return scan(&value) }, `SELECT value FROM setting WHERE name = ?`, name)
	if err != nil {
		return "", fmt.Errorf("read setting %s: %w", name, explain(err))
	}
	return value, nil
}

// SetSetting remembers value under that name, on disk when it returns nil.
func (s *Store) SetSetting(ctx context.Context, name, value string) error {
	if err := s.acquire(ctx); err != nil {
		return err
	}
	defer s.release()
	if err := s.transact(func() error { return s.w.setSetting.run(name, value) }); err != nil {
		return fmt.Errorf("write setting %s: %w", name, err)
	}
	return nil
}

type settingStatements struct {
	setSetting *statement
}

func (q *settingStatements) all() []compile {
	return []compile{
		{&q.setSetting, `INSERT INTO setting (name, value) VALUES (?, ?) ON CONFLICT (name) DO UPDATE SET value = excluded.value`},
	}
}
