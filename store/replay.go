package store

import (
	"cmp"
	"context"
	"database/sql/driver"
	"fmt"
	"slices"
)

// ReplayQuarantined stores m, which is what ingest makes of the entry today. With outcome Stored or Duplicate the entry
// is gone and the message counts as that instead of as quarantined; what conflicts still stays as an entry. With
// Quarantined nothing has changed. ErrNotFound: no such entry.
func (s *Store) ReplayQuarantined(ctx context.Context, id int64, m Message) (outcome Outcome, err error) {
	if err := s.acquire(ctx); err != nil {
		return 0, fmt.Errorf("replay quarantine entry %d: %w", id, err)
	}
	defer s.release()
	err = s.transact(func() error {
		outcome, err = s.replay(id, &m)
		return err
	})
	if err != nil {
		return 0, fmt.Errorf("replay quarantine entry %d: %w", id, err)
	}
	return outcome, nil
}

type replayStatements struct {
	selectEntry, updateEntry *statement
}

func (q *replayStatements) all() []compile {
	return []compile{
		{&q.selectEntry, `SELECT device, flags, size, reason FROM quarantine WHERE id = ?`},
		{&q.updateEntry, `UPDATE quarantine SET flags = ?, reason = ? WHERE id = ?`},
	}
}

func (s *Store) replay(id int64, m *Message) (Outcome, error) {
	var entry []driver.Value
	err := s.w.selectEntry.query(func(row []driver.Value) error {
		entry = slices.Clone(row)
		return nil
	}, id)
	switch {
	case err != nil:
		return 0, err
	case entry == nil:
		return 0, ErrNotFound
	case m.Kind == Bad, entry[3].(string) == reasonOtherAccount: // who sent it is not kept
		return Quarantined, nil
	}
	before, flags, size := s.state.byID[entry[0].(int64)], entry[1].(int64), entry[2].(int64)
	for i := range m.parts() {
		switch p := m.part(i); {
		case flags&flagUncounted != 0 && m.Kind == Telemetry && p.TimeSource != FromDevice:
			return Quarantined, nil // a row of its own has taken all that it can; another one would hold that twice
		case p.Numbering.Boot != "" && entry[3].(string) == reasonConflict:
			return Quarantined, nil // its number is taken by another message
		}
	}

	d, reason, err := s.deviceOf(m)
	if err != nil || reason != "" {
		return Quarantined, err
	}
	s.touch(d)
	outcome, leftover, err := s.replayParts(d, m)
	if err != nil || outcome == Quarantined {
		return outcome, err
	}
	if flags&flagUncounted == 0 {
		s.touch(before)
		before.next.counts.Quarantined--
		d.next.counts.add(outcome, 1)
	}
	if len(m.Skipped) > 0 && outcome == Stored && leftover == "" {
		if err := s.keepOriginal(d, m); err != nil { // the entry goes, and with it what was not read
			return outcome, err
		}
	}
	if leftover != "" {
		return outcome, s.w.updateEntry.run(flags|flagUncounted, leftover, id)
	}
	s.tx.quarantine.next -= size
	s.tx.quarantine.nextEntries--
	return outcome, s.w.deleteEntry.run(id)
}

// replayParts is appendParts for what came before: its numbers are known, and what it says beside its readings is counted.
func (s *Store) replayParts(d *device, m *Message) (outcome Outcome, leftover string, err error) {
	outcome = Duplicate
	for i := range m.parts() {
		p, of, why := m.part(i), Stored, ""
		if m.Kind == Telemetry && len(p.Values) > 0 {
			if of, why, err = s.appendReading(d, m, &p); err != nil {
				return 0, "", err
			}
		}
		leftover = cmp.Or(leftover, why)
		if of == Stored || outcome == Duplicate {
			outcome = of
		}
	}
	return outcome, leftover, nil
}
