package store

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"fmt"
	"math"
	"time"
)

const (
	// What one transaction of DeleteBefore deletes at most: commits of readings wait for it, so it takes a few
	// milliseconds. Rows of one device lie side by side, about 30 on a page, while each device is on pages of its own.
	retentionRows    = 1000
	retentionDevices = 50
)

// DeleteBefore deletes the readings whose time is before cutoff and returns how many rows that were: messages, of
// whatever number of metrics. What was counted stays counted. It works in small transactions, between which whoever
// waits to write comes first; after an error or the end of ctx, what the finished ones deleted is gone, and the next
// call goes on. A reading that came while the clock was not to be trusted stays, until Redate has put it right. The space is used again for new readings, the file does not shrink.
func (s *Store) DeleteBefore(ctx context.Context, cutoff time.Time) (deleted int64, err error) {
	before := cutoff.UnixMilli()
	due, err := s.devicesBefore(ctx, before)
	for err == nil && len(due) > 0 {
		var rows int64
		var left []int64
		rows, left, err = s.deleteChunk(ctx, due, before)
		if s.isFull(err) && s.giveReserve() {
			rows, left, err = s.deleteChunk(ctx, due, before)
		}
		due = left
		deleted += rows
	}
	if err != nil {
		return deleted, fmt.Errorf("delete readings before %s: %w", cutoff.UTC().Format(time.RFC3339), err)
	}
	return deleted, nil
}

// OldestReading returns the time of the oldest reading from a time on, leaving out those that came while the clock was not to
// be trusted; ok is false when there is none. It looks at one row of each device.
func (s *Store) OldestReading(ctx context.Context, from time.Time) (oldest time.Time, ok bool, err error) {
	var at sql.NullInt64
	err = s.db.Load().QueryRowContext(ctx, `SELECT min(first) FROM (SELECT (SELECT time FROM reading
		WHERE reading.device = device.id AND time >= ? AND flags & 4 = 0 ORDER BY time LIMIT 1) AS first FROM device)`,
		from.UnixMilli()).Scan(&at)
	if err != nil {
		return time.Time{}, false, fmt.Errorf("look for the oldest reading: %w", explain(err))
	}
	return time.UnixMilli(at.Int64), at.Valid, nil
}

// CountBefore returns how many rows DeleteBefore would delete, and the time of the newest of them. It reads them all.
func (s *Store) CountBefore(ctx context.Context, cutoff time.Time) (rows int64, newest time.Time, err error) {
	var last sql.NullInt64
	err = s.db.Load().QueryRowContext(ctx, `SELECT count(time), max(time) FROM device JOIN reading ON reading.device = device.id
		AND time < ? AND flags & 4 = 0`, cutoff.UnixMilli()).Scan(&rows, &last)
	if err != nil {
		return 0, time.Time{}, fmt.Errorf("count readings before %s: %w", cutoff.UTC().Format(time.RFC3339), explain(err))
	}
	return rows, time.UnixMilli(last.Int64), nil
}

// devicesBefore returns the devices that have rows before a time. It reads beside the writer.
func (s *Store) devicesBefore(ctx context.Context, before int64) (ids []int64, err error) {
	err = s.each(ctx, func(scan func(...any) error) error {
		var id int64
		err := scan(&id)
		ids = append(ids, id)
		return err
	}, `SELECT id FROM device WHERE EXISTS (SELECT 1 FROM reading WHERE reading.device = device.id AND time < ? AND flags & 4 = 0)`, before)
	return ids, err
}

// deleteChunk runs one transaction and returns which devices may have more to delete.
func (s *Store) deleteChunk(ctx context.Context, due []int64, before int64) (deleted int64, rest []int64, err error) {
	if err := s.acquire(ctx); err != nil {
		return 0, nil, err
	}
	defer s.release()
	err = s.transact(func() error {
		deleted, rest = 0, due
		chunk := due[:min(len(due), retentionDevices)]
		for _, id := range chunk {
			n, err := s.deleteOldest(id, before, retentionRows-deleted)
			if err != nil {
				return err
			}
			if deleted += n; deleted == retentionRows {
				return nil // the device may have more
			}
			rest = rest[1:]
		}
		return nil
	})
	s.idle.Reset(idleAfter)
	if err != nil {
		return 0, nil, err
	}
	return deleted, rest, nil
}

type retentionStatements struct {
	oldestReadings, deleteReadings *statement
}

func (q *retentionStatements) all() []compile {
	return []compile{
		{&q.oldestReadings, `SELECT count(*), max(time) FROM (SELECT time FROM reading
			WHERE device = ? AND time < ? AND flags & 4 = 0 ORDER BY time LIMIT ?)`},
		{&q.deleteReadings, `DELETE FROM reading WHERE device = ? AND time <= ? AND flags & 4 = 0`},
	}
}

// deleteOldest deletes the oldest rows of a device, up to limit of those before a time, inside the running transaction.
func (s *Store) deleteOldest(id, before, limit int64) (deleted int64, err error) {
	var last int64
	err = s.w.oldestReadings.query(func(row []driver.Value) error {
		deleted = row[0].(int64)
		last, _ = row[1].(int64)
		return nil
	}, id, before, limit)
	if err != nil || deleted == 0 {
		return 0, err
	}
	if err := s.w.deleteReadings.run(id, last); err != nil {
		return 0, err
	}
	if d := s.state.byID[id]; d != nil { // that the rows have a device is not the schema's rule
		s.touch(d)
		d.next.rows -= deleted
	}
	return deleted, nil
}

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
		return nil
	})
	if err != nil {
		return err
	}
	s.state.mu.Lock()
	defer s.state.mu.Unlock()
	s.state.bind(d, Behind{})
	delete(s.state.devices, name)
	delete(s.state.byID, d.id)
	return nil
}

// purgeStatements take a device out of every table, those that point to others first.
type purgeStatements struct {
	forget [14]*statement
}

func (q *purgeStatements) all() (list []compile) {
	for i, text := range [len(q.forget)]string{
		`DELETE FROM reading WHERE device = ?`,
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
