package store

import (
	"context"
	"database/sql/driver"
	"fmt"
	"math"

	"github.com/plantops/plantops/broker/journal"
	"github.com/plantops/plantops/store/resume"
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
		if err := s.w.upsertSession.run(int64(c.ID), c.Client, c.Account, resume.Checksum(c.State), resume.Blob(c.State)); err != nil {
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
	return s.w.upsertSubscription.run(int64(c.Session), c.Filter, resume.Checksum(c.Options), c.Options)
}

func (s *Store) writeRetained(c *journal.Retained) error {
	if c.Message == nil {
		return s.w.deleteRetained.run(c.Topic)
	}
	return s.w.upsertRetained.run(c.Topic, c.Message, c.Account, resume.Checksum(c.Message))
}

// writeQueues writes the messages once, and what each session has of them.
func (s *Store) writeQueues(batch *journal.Batch) error {
	n := len(batch.Queues)
	if n == 0 {
		return nil
	}
	if err := s.w.insertPack.run(batch.Number, resume.Checksum(batch.Messages), resume.Blob(batch.Messages)); err != nil {
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
			resume.Checksum(q.Entries), resume.Blob(q.Entries))
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

// Load implements journal.Storage. Rows whose blob is damaged are deleted and named in the log. An error of l ends it and is
// returned.
func (s *Store) Load(ctx context.Context, l journal.Loader) (journal.Next, error) {
	if err := s.acquire(ctx); err != nil {
		return journal.Next{}, fmt.Errorf("load the broker's state: %w", err)
	}
	defer s.release()
	state, err := s.loadBroker()
	if isDamage(err) {
		if mendErr := s.mend(ctx, err); mendErr != nil {
			s.log.Error("the broker's state is damaged; what could be read of it is used", "err", err)
		} else {
			state, err = s.loadBroker()
		}
		if isDamage(err) { // readings are to be stored all the same
			err = nil
		}
	}
	if err == nil {
		s.tidyBroker(state)
		err = state.Give(l)
	}
	if err != nil {
		return journal.Next{}, fmt.Errorf("load the broker's state: %w", s.explainWrite(err))
	}
	return state.Next, nil
}

// loadBroker reads everything before anybody is told of it: the file may turn out to be damaged. After an error there is
// what could be read.
func (s *Store) loadBroker() (*resume.State, error) {
	l := resume.New()
	if s.w == nil {
		return l, nil
	}
	var first error
	for _, part := range []struct {
		query string
		row   func(row []driver.Value)
	}{
		{`SELECT id, client, account, checksum, state FROM broker_session`,
			func(row []driver.Value) { l.Session(row[0], row[1], row[2], row[3], row[4]) }},
		{`SELECT session, filter, checksum, options FROM broker_subscription`,
			func(row []driver.Value) { l.Subscription(row[0], row[1], row[2], row[3]) }},
		{`SELECT session, min(first), max(last), CAST(total(messages) AS INTEGER), CAST(total(bytes) AS INTEGER), max(batch)
			FROM broker_queue GROUP BY session`, func(row []driver.Value) { l.Queue(row[0], row[1], row[2], row[3], row[4], row[5]) }},
		{`SELECT topic, message, account, checksum FROM broker_retained`,
			func(row []driver.Value) { l.Retained(row[0], row[1], row[2], row[3]) }},
		{`SELECT coalesce(max(batch), 0) FROM broker_pack`, func(row []driver.Value) { l.Used(nil, row[0]) }},
		{`SELECT session - 1, batch - 1 FROM broker_next`, func(row []driver.Value) { l.Used(row[0], row[1]) }},
	} {
		if err := s.readBroker(part.query, part.row); err != nil && first == nil {
			first = err
		}
	}
	return l, first
}

func (s *Store) readBroker(text string, row func(row []driver.Value)) error {
	q, err := s.w.statement(text)
	if err != nil {
		return err
	}
	defer func() { _ = q.stmt.Close() }() // what Close could say, the query has said
	return q.query(func(values []driver.Value) error {
		row(values)
		return nil
	})
}

// tidyBroker deletes what is of no use and reserves numbers. On a full disk that has to wait for the first batch.
func (s *Store) tidyBroker(l *resume.State) {
	if n := len(l.BadSessions) + len(l.BadSubscriptions) + len(l.BadTopics); n > 0 {
		s.log.Error("parts of the broker's state are damaged and lost; the rest is whole", "sessions", len(l.BadSessions),
			"subscriptions", len(l.BadSubscriptions), "retained", l.BadTopics[:min(len(l.BadTopics), 10)], "count", n)
	}
	s.broker.next, s.broker.sweep = l.Next, l.Orphans
	if s.w == nil {
		return
	}
	reserved := journal.Next{Session: l.Next.Session + reservedNumbers, Batch: l.Next.Batch + reservedNumbers}
	err := s.transact(func() error {
		for _, id := range l.BadSessions {
			if err := s.w.deleteSession.run(id); err != nil {
				return err
			}
		}
		for _, c := range l.BadSubscriptions {
			if err := s.w.deleteSubscription.run(int64(c.Session), c.Filter); err != nil {
				return err
			}
		}
		for _, topic := range l.BadTopics {
			if err := s.w.deleteRetained.run(topic); err != nil {
				return err
			}
		}
		if l.Strays {
			const strays = `DELETE FROM broker_subscription WHERE session NOT IN (SELECT id FROM broker_session)`
			if err := s.w.run(context.Background(), strays); err != nil {
				return err
			}
		}
		return s.w.writeNext.run(int64(reserved.Session), reserved.Batch)
	})
	if err != nil {
		s.log.Warn("what is of no use of the broker's state stays", "err", err)
		return
	}
	s.broker.next = reserved
}

// Read implements journal.Storage. A queue that is damaged, or whose messages are, is left out and named in the log.
func (s *Store) Read(ctx context.Context, id journal.SessionID, after uint64, limit int, dst []journal.Stored) ([]journal.Stored, error) {
	before := dst
	rows, err := s.query(ctx, `SELECT q.first, q.last, q.messages, q.bytes, q.checksum, q.entries, p.checksum, p.messages
		FROM broker_queue AS q LEFT JOIN broker_pack AS p ON p.batch = q.batch
		WHERE q.session = ? AND q.last > ? ORDER BY q.last`, int64(id), int64(after))
	if err != nil {
		return before, fmt.Errorf("read queued messages: %w", s.suspect(explain(err)))
	}
	defer func() { _ = rows.Close() }() // Err has what matters
	size, damaged := 0, 0
	for size < limit || len(dst) == len(before) {
		if !rows.Next() {
			break
		}
		c := journal.Stored{Queue: journal.Queue{Session: id}}
		var sum int64
		var packSum *int64
		if err := rows.Scan(&c.First, &c.Last, &c.Messages, &c.Bytes, &sum, &c.Entries, &packSum, &c.Pack); err != nil {
			return before, fmt.Errorf("read queued messages: %w", err)
		}
		if sum != resume.Checksum(c.Entries) || packSum == nil || *packSum != resume.Checksum(c.Pack) {
			damaged++
			continue
		}
		size += len(c.Entries) + len(c.Pack)
		dst = append(dst, c)
	}
	if err := rows.Err(); err != nil {
		return before, fmt.Errorf("read queued messages: %w", s.suspect(explain(err)))
	}
	if damaged > 0 {
		s.log.Error("queued messages are damaged and lost", "session", int64(id), "batches", damaged)
	}
	return dst, nil
}

// brokerPrefix begins the names of the broker's tables.
const brokerPrefix = "broker_"

// completeBroker makes what belongs together whole again after tables have lost rows, and says what could not be found.
func (c *carrier) completeBroker(ctx context.Context) error {
	const unread = `FROM broker_queue WHERE batch NOT IN (SELECT batch FROM broker_pack)`
	n, err := c.to.w.number(`SELECT CAST(total(messages) AS INTEGER) ` + unread)
	if err != nil {
		return err
	}
	if n > 0 {
		c.lost = append(c.lost, fmt.Sprintf("%d messages that waited for clients", n))
	}
	next := journal.Next{}
	if c.memory != nil {
		next = c.memory.broker.next
	}
	return c.to.w.run(ctx, fmt.Sprintf(`DELETE `+unread+`;
		DELETE FROM broker_pack WHERE batch NOT IN (SELECT batch FROM broker_queue);
		DELETE FROM broker_share;
		INSERT INTO broker_share (batch, queues) SELECT batch, count(*) FROM broker_queue GROUP BY batch HAVING count(*) > 1;
		INSERT OR IGNORE INTO broker_next (id, session, batch) SELECT 1, %[3]d + coalesce(max(session), 0),
			%[3]d + coalesce(max(batch), 0) FROM (
			SELECT id AS session, 0 AS batch FROM broker_session UNION ALL SELECT max(session), max(batch) FROM broker_queue)
			WHERE session < %[4]d AND batch < %[4]d; -- what is more is damaged
		UPDATE broker_next SET session = max(session, %[1]d), batch = max(batch, %[2]d)`,
		next.Session, next.Batch, lostNumbers, int64(math.MaxInt64/2)))
}

// lostNumbers is how many numbers are left out when it is not known which were used.
const lostNumbers = 1 << 24

// checkBroker looks for rows of the broker's tables that are not as they were written.
func (s *Store) checkBroker(ctx context.Context) error {
	for _, table := range []struct{ name, blob string }{
		{"broker_session", "state"}, {"broker_subscription", "options"}, {"broker_pack", "messages"}, {"broker_queue", "entries"},
		{"broker_retained", "message"},
	} {
		damaged := 0
		err := s.each(ctx, func(scan func(...any) error) error {
			var sum int64
			var content []byte
			err := scan(&sum, &content)
			if sum != resume.Checksum(content) {
				damaged++
			}
			return err
		}, fmt.Sprintf(`SELECT checksum, %s FROM %s`, table.blob, table.name))
		if err == nil && damaged > 0 {
			err = fmt.Errorf("%w: %d rows of table %s, which the next start leaves out", ErrDamaged, damaged, table.name)
		}
		if err != nil {
			return err
		}
	}
	return nil
}
