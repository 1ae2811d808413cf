package store

import (
	"context"
	"database/sql/driver"
	"fmt"
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
// call goes on. The space is used again for new readings, the file does not shrink.
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

// devicesBefore returns the devices that have rows before a time. It reads beside the writer.
func (s *Store) devicesBefore(ctx context.Context, before int64) (ids []int64, err error) {
	err = s.each(ctx, func(scan func(...any) error) error {
		var id int64
		err := scan(&id)
		ids = append(ids, id)
		return err
	}, `SELECT id FROM device WHERE EXISTS (SELECT 1 FROM reading WHERE reading.device = device.id AND time < ?)`, before)
	return ids, err
}

// deleteChunk runs one transaction and returns which devices may have more to delete.
func (s *Store) deleteChunk(ctx context.Context, due []int64, before int64) (deleted int64, rest []int64, err error) {
	if err := s.acquire(ctx); err != nil {
		return 0, nil, err
	}
	defer s.release()
	rest = due
	err = s.transact(func() error {
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
		{&q.oldestReadings, `SELECT count(*), max(time) FROM (SELECT time FROM reading WHERE device = ? AND time < ? ORDER BY time LIMIT ?)`},
		{&q.deleteReadings, `DELETE FROM reading WHERE device = ? AND time <= ?`},
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
