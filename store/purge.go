package store

import (
	"context"
	"fmt"
	"math"
)

// PurgeDevice removes every trace of a device that has no account any more: readings, quarantine entries, name and counters,
// which go on to count for no device, so that the equation holds. It returns how many messages of readings that were. It works
// in small transactions, as DeleteBefore does. ErrNotFound: no such device. ErrExists: it has an account.
func (s *Store) PurgeDevice(ctx context.Context, name string) (deleted int64, err error) {
	fail := func(err error) (int64, error) { return deleted, fmt.Errorf("purge device %q: %w", name, err) }
	about, err := s.Device(ctx, name)
	switch {
	case err != nil:
		return fail(err)
	case name == "":
		return fail(ErrNotFound)
	case about.Registered:
		return fail(fmt.Errorf("its account %w", ErrExists))
	}
	s.state.mu.RLock()
	d := s.state.devices[name]
	s.state.mu.RUnlock()
	if d == nil { // somebody else was faster
		return fail(ErrNotFound)
	}
	for due := []int64{d.id}; len(due) > 0; {
		var rows int64
		if rows, due, err = s.deleteChunk(ctx, due, math.MaxInt64); err != nil {
			return fail(err)
		}
		deleted += rows
	}
	if err := s.chunk(ctx, func() error { return s.flushOne(name) }); err != nil {
		return fail(err)
	}
	rows, err := s.deleteBlocks(ctx, d, math.MaxInt64)
	if deleted += rows; err != nil {
		return fail(err)
	}
	for again := true; again; {
		if again, err = s.purgeEntries(ctx, d.id); err != nil {
			return fail(err)
		}
	}
	if err := s.forgetDevice(ctx, name); err != nil {
		return fail(err)
	}
	return deleted, nil
}

// flushOne puts what the tail has of a device into blocks.
func (s *Store) flushOne(name string) error {
	d, known := s.state.devices[name] // another one after a reload
	if !known {
		return nil
	}
	return s.flushDevices([]*device{d})
}

// purgeEntries deletes some of what a device has in the quarantine; again tells that there may be more.
func (s *Store) purgeEntries(ctx context.Context, id int64) (again bool, err error) {
	if err := s.acquire(ctx); err != nil {
		return false, err
	}
	defer s.release()
	err = s.transact(func() error {
		if err := s.countEntries(); err != nil {
			return err
		}
		entries, err := oldEntries(s.w.oldestOf, id, int64(evictEntries))
		again = len(entries) == evictEntries
		for _, e := range entries {
			if err := s.w.deleteEntry.run(e.id); err != nil {
				return err
			}
			s.tx.quarantine.next -= e.size
			s.tx.quarantine.nextEntries--
		}
		return err
	})
	return again, err
}

// forgetDevice deletes what is left of a device when its readings and entries are gone. What has come meanwhile goes too.
func (s *Store) forgetDevice(ctx context.Context, name string) error {
	if err := s.acquire(ctx); err != nil {
		return err
	}
	defer s.release()
	d, known := s.state.devices[name]
	if !known {
		return nil
	}
	if _, registered := (*s.accounts.Load())[name]; registered {
		return fmt.Errorf("its account %w", ErrExists) // again, since we looked
	}
	s.state.disownRefused(name)
	err := s.transact(func() error {
		nobody := s.state.devices[""]
		s.touch(nobody)
		nobody.next.counts.plus(d.counts)
		nobody.next.dropped += min(d.dropped, math.MaxInt64-nobody.next.dropped)
		s.tx.quarantine = quarantineSize{} // to be counted anew
		for _, q := range s.w.forget {
			if err := q.run(d.id); err != nil {
				return err
			}
		}
		_, _, _, err := s.deleteSomeBlocks(d, math.MaxInt64, math.MinInt64) // of what has come meanwhile
		return err
	})
	if err != nil {
		return err
	}
	s.state.mu.Lock()
	defer s.state.mu.Unlock()
	s.state.bind(d, Behind{})
	delete(s.state.devices, name)
	delete(s.state.byID, d.id)
	s.tail.Load().Drop(d.id) // its records of the journal are nobody's
	return nil
}

// purgeStatements take a device out of every table, those that point to others first.
type purgeStatements struct {
	forget [17]*statement
}

func (q *purgeStatements) all() (list []compile) {
	for i, text := range [len(q.forget)]string{
		`DELETE FROM reading WHERE device = ?`,
		`DELETE FROM newest WHERE device = ?`,
		`DELETE FROM calibration WHERE device = ?`,
		`DELETE FROM void WHERE device = ?`,
		`DELETE FROM quarantine WHERE device = ?`,
		`DELETE FROM quarantine_summary WHERE device = ?`,
		`DELETE FROM boot WHERE device = ?`,
		`DELETE FROM gateway WHERE device = ?`,
		`DELETE FROM skipped WHERE device = ?`,
		`DELETE FROM original WHERE device = ?`,
		// What a damaged file that is still searched has of it is not to come back (regain.go), and its id not to be another's.
		`DELETE FROM salvage_device WHERE device = ?`,
		`INSERT INTO salvage_device (salvage, device, expected, found) SELECT id, ?, -1, 0 FROM salvage WHERE finished = 0`,
		`DELETE FROM sqlite_sequence WHERE name = 'device' AND seq < ?`,
		`INSERT INTO sqlite_sequence (name, seq) SELECT 'device', ? WHERE NOT EXISTS (SELECT 1 FROM sqlite_sequence WHERE name = 'device')`,
		`UPDATE metric SET device = 0 WHERE device = ?`,
		`DELETE FROM counter WHERE device = ?`,
		`DELETE FROM device WHERE id = ?`,
	} {
		list = append(list, compile{&q.forget[i], text})
	}
	return list
}
