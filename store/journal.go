package store

import (
	"database/sql/driver"
	"fmt"
	"hash/crc32"

	"github.com/plantops/plantops/broker/journal"
)

const (
	// reservedNumbers is how far the numbers go that the file is told of at a time.
	reservedNumbers = 1 << 16

	// endRows is how many queues of a session go with its end; more are deleted in steps.
	endRows = 500
)

type brokerStatements struct {
	savepoint, releaseSavepoint, toSavepoint *statement

	upsertSession, upsertSubscription, deleteSubscription *statement

	insertPack, insertShare, updateShare, deleteShare, deletePack *statement

	insertQueue, trimQueue, sweepQueue *statement

	upsertRetained, deleteRetained                *statement
	deleteSession, deleteSubscriptions, writeNext *statement
}

func (q *brokerStatements) all() []compile {
	return []compile{
		{&q.savepoint, `SAVEPOINT broker`},
		{&q.releaseSavepoint, `RELEASE broker`},
		{&q.toSavepoint, `ROLLBACK TO broker`},
		{&q.upsertSession, `INSERT INTO broker_session (id, client, account, checksum, state) VALUES (?, ?, ?, ?, ?) ON CONFLICT (id) DO UPDATE
			SET client = excluded.client, account = excluded.account, checksum = excluded.checksum, state = excluded.state`},
		{&q.upsertSubscription, `INSERT OR REPLACE INTO broker_subscription (session, filter, checksum, options) VALUES (?, ?, ?, ?)`},
		{&q.deleteSubscription, `DELETE FROM broker_subscription WHERE session = ? AND filter = ?`},
		{&q.insertPack, `INSERT OR REPLACE INTO broker_pack (batch, checksum, messages) VALUES (?, ?, ?)`},
		{&q.insertShare, `INSERT OR REPLACE INTO broker_share (batch, queues) VALUES (?, ?)`},
		{&q.updateShare, `UPDATE broker_share SET queues = queues - ? WHERE batch = ? RETURNING queues`},
		{&q.deleteShare, `DELETE FROM broker_share WHERE batch = ?`},
		{&q.deletePack, `DELETE FROM broker_pack WHERE batch = ?`},
		{&q.insertQueue, `INSERT OR REPLACE INTO broker_queue (session, last, first, batch, messages, bytes, checksum, entries)
			VALUES (?, ?, ?, ?, ?, ?, ?, ?)`},
		{&q.trimQueue, `DELETE FROM broker_queue WHERE session = ? AND last < ? RETURNING batch`},
		{&q.sweepQueue, `DELETE FROM broker_queue WHERE session = ?1 AND last <=
			coalesce((SELECT last FROM broker_queue WHERE session = ?1 ORDER BY last LIMIT 1 OFFSET ?2), 9223372036854775807) RETURNING batch`},
		{&q.upsertRetained, `INSERT INTO broker_retained (topic, message, account, checksum) VALUES (?, ?, ?, ?) ON CONFLICT (topic) DO UPDATE
			SET message = excluded.message, account = excluded.account, checksum = excluded.checksum`},
		{&q.deleteRetained, `DELETE FROM broker_retained WHERE topic = ?`},
		{&q.deleteSession, `DELETE FROM broker_session WHERE id = ?`},
		{&q.deleteSubscriptions, `DELETE FROM broker_subscription WHERE session = ?`},
		{&q.writeNext, `INSERT OR REPLACE INTO broker_next (id, session, batch) VALUES (1, ?, ?)`},
	}
}

// writeBatch writes what the broker has changed, inside the running transaction.
func (s *Store) writeBatch(batch *journal.Batch) error {
	clear(s.broker.freed)
	if err := s.reserveNumbers(batch); err != nil {
		return fmt.Errorf("numbers of the broker: %w", err)
	}
	for i := range batch.Sessions {
		c := &batch.Sessions[i]
		if err := s.w.upsertSession.run(int64(c.ID), c.Client, c.Account, checksum(c.State), blob(c.State)); err != nil {
			return fmt.Errorf("session of client %q: %w", c.Client, err)
		}
	}
	for i := range batch.Subscriptions {
		if err := s.writeSubscription(&batch.Subscriptions[i]); err != nil {
			return fmt.Errorf("subscription: %w", err)
		}
	}
	if err := s.writeQueues(batch); err != nil {
		return fmt.Errorf("queued messages: %w", err)
	}
	for _, t := range batch.Trims {
		if err := s.deleteQueues(s.w.trimQueue, t.Session, int64(t.Before)); err != nil {
			return fmt.Errorf("delete queued messages: %w", err)
		}
	}
	for i := range batch.Retained {
		if err := s.writeRetained(&batch.Retained[i]); err != nil {
			return fmt.Errorf("retained message of %q: %w", batch.Retained[i].Topic, err)
		}
	}
	for _, id := range batch.Ended {
		if err := s.endSession(id); err != nil {
			return fmt.Errorf("end a session: %w", err)
		}
	}
	return s.deletePacks()
}

// reserveNumbers tells the file of numbers before they are used up.
func (s *Store) reserveNumbers(batch *journal.Batch) error {
	next := s.broker.next
	for i := range batch.Sessions {
		if id := batch.Sessions[i].ID; id >= next.Session {
			next.Session = id + reservedNumbers
		}
	}
	for i := range batch.Queues {
		if id := batch.Queues[i].Session; id >= next.Session {
			next.Session = id + reservedNumbers
		}
	}
	if batch.Number >= next.Batch {
		next.Batch = batch.Number + reservedNumbers
	}
	if next == s.broker.next {
		return nil
	}
	s.broker.told = next
	return s.w.writeNext.run(int64(next.Session), next.Batch)
}

func (s *Store) writeSubscription(c *journal.Subscription) error {
	if c.Options == nil {
		return s.w.deleteSubscription.run(int64(c.Session), c.Filter)
	}
	return s.w.upsertSubscription.run(int64(c.Session), c.Filter, checksum(c.Options), c.Options)
}

func (s *Store) writeRetained(c *journal.Retained) error {
	if c.Message == nil {
		return s.w.deleteRetained.run(c.Topic)
	}
	return s.w.upsertRetained.run(c.Topic, c.Message, c.Account, checksum(c.Message))
}

// writeQueues writes the messages once, and what each session has of them.
func (s *Store) writeQueues(batch *journal.Batch) error {
	n := len(batch.Queues)
	if n == 0 {
		return nil
	}
	if err := s.w.insertPack.run(batch.Number, checksum(batch.Messages), blob(batch.Messages)); err != nil {
		return err
	}
	if n > 1 {
		if err := s.w.insertShare.run(batch.Number, int64(n)); err != nil {
			return err
		}
	}
	for i := range batch.Queues {
		q := &batch.Queues[i]
		err := s.w.insertQueue.run(int64(q.Session), int64(q.Last), int64(q.First), batch.Number, int64(q.Messages), q.Bytes,
			checksum(q.Entries), blob(q.Entries))
		if err != nil {
			return err
		}
	}
	return nil
}

// endSession deletes all that there is of a session; of a long queue only the beginning.
func (s *Store) endSession(id journal.SessionID) error {
	if err := s.w.deleteSession.run(int64(id)); err != nil {
		return err
	}
	if err := s.w.deleteSubscriptions.run(int64(id)); err != nil {
		return err
	}
	more, err := s.sweepSession(id, endRows)
	if more {
		s.broker.ended = append(s.broker.ended, id)
	}
	return err
}

// sweepSession deletes so many queues of a session and reports whether there may be more.
func (s *Store) sweepSession(id journal.SessionID, rows int64) (more bool, err error) {
	deleted := int64(0)
	err = s.w.sweepQueue.query(func(row []driver.Value) error {
		deleted++
		s.broker.free(row)
		return nil
	}, int64(id), rows-1)
	return deleted == rows, err
}

// sweepSome deletes a part of what is nobody's, in a transaction. After an error it is tried again.
func (s *Store) sweepSome() {
	b := &s.broker
	if len(b.sweep) == 0 || s.w == nil || b.source == nil {
		return
	}
	var more bool
	err := s.transact(func() (err error) {
		clear(b.freed)
		if more, err = s.sweepSession(b.sweep[0], sweepRows); err != nil {
			return err
		}
		return s.deletePacks()
	})
	switch {
	case err != nil && b.taken == nil && s.doubt == nil: // or else the answer says it
		s.brokerFault(err)
	case err == nil && !more:
		b.sweep = b.sweep[1:]
	}
	s.answerBroker()
}

func (s *Store) deleteQueues(q *statement, id journal.SessionID, before int64) error {
	return q.query(func(row []driver.Value) error {
		s.broker.free(row)
		return nil
	}, int64(id), before)
}

// free counts a queue that is deleted, by the batch that its row says.
func (b *brokerSide) free(row []driver.Value) {
	if b.freed == nil {
		b.freed = make(map[int64]int64)
	}
	batch, _ := row[0].(int64)
	b.freed[batch]++
}

// deletePacks deletes the messages to which no queue refers any more.
func (s *Store) deletePacks() error {
	for batch, n := range s.broker.freed {
		left := int64(0) // a pack that is not shared
		err := s.w.updateShare.query(func(row []driver.Value) error {
			left, _ = row[0].(int64)
			if left <= 0 {
				left = -1
			}
			return nil
		}, n, batch)
		if err == nil && left < 0 {
			err = s.w.deleteShare.run(batch)
		}
		if err == nil && left <= 0 {
			err = s.w.deletePack.run(batch)
		}
		if err != nil {
			return fmt.Errorf("delete messages: %w", err)
		}
	}
	return nil
}

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// checksum tells whether a blob is as it was written: SQLite does not notice when its bytes have changed.
func checksum(blob []byte) int64 { return int64(crc32.Checksum(blob, castagnoli)) }

// blob is never NULL.
func blob(b []byte) []byte {
	if b == nil {
		return []byte{}
	}
	return b
}
