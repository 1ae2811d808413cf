package store

import (
	"context"
	"fmt"
	"time"
)

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
		err = s.db.Load().QueryRowContext(ctx, `SELECT 1 + max((SELECT coalesce(max(number), 0) FROM clock_line),
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
