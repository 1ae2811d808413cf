package store

import (
	"context"
	"database/sql/driver"
	"fmt"
	"math"

	"github.com/plantops/plantops/broker/journal"
)

// loaded is the broker's state as it stands in the file.
type loaded struct {
	sessions      []journal.Session
	known         map[journal.SessionID]bool
	subscriptions []journal.Subscription
	waiting       []journal.Waiting
	orphans       []journal.SessionID // that have only queues
	retained      []journal.Retained
	next          journal.Next

	// Rows whose blob is not what was written.
	badSessions      []int64
	badSubscriptions []journal.Subscription
	badTopics        []string
	strays           bool // subscriptions of no session
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
		err = state.give(l)
	}
	if err != nil {
		return journal.Next{}, fmt.Errorf("load the broker's state: %w", s.explainWrite(err))
	}
	return state.next, nil
}

// loadBroker reads everything before anybody is told of it: the file may turn out to be damaged. After an error there is
// what could be read.
func (s *Store) loadBroker() (*loaded, error) {
	l := &loaded{known: map[journal.SessionID]bool{}, next: journal.Next{Session: 1, Batch: 1}}
	if s.w == nil {
		return l, nil
	}
	var first error
	for _, part := range []struct {
		query string
		row   func(row []driver.Value)
	}{
		{`SELECT id, client, account, checksum, state FROM broker_session`, l.session},
		{`SELECT session, filter, checksum, options FROM broker_subscription`, l.subscription},
		{`SELECT session, min(first), max(last), CAST(total(messages) AS INTEGER), CAST(total(bytes) AS INTEGER), max(batch)
			FROM broker_queue GROUP BY session`, l.queue},
		{`SELECT id, topic, message, account, checksum FROM broker_retained`, l.retain},
		{`SELECT coalesce(max(batch), 0) FROM broker_pack`, func(row []driver.Value) { l.used(0, number(row[0])) }},
		{`SELECT session, batch FROM broker_next`, func(row []driver.Value) { l.used(number(row[0])-1, number(row[1])-1) }},
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

func (l *loaded) session(row []driver.Value) {
	c := journal.Session{ID: journal.SessionID(number(row[0])), Client: text(row[1]), Account: text(row[2]), State: bytesIn(row[4])}
	l.used(int64(c.ID), 0)
	if number(row[3]) != checksum(c.State) {
		l.badSessions = append(l.badSessions, int64(c.ID))
		return
	}
	l.known[c.ID] = true
	l.sessions = append(l.sessions, c)
}

func (l *loaded) subscription(row []driver.Value) {
	c := journal.Subscription{Session: journal.SessionID(number(row[0])), Filter: text(row[1]), Options: bytesIn(row[3])}
	l.used(int64(c.Session), 0)
	switch {
	case !l.known[c.Session]:
		l.strays = true
	case number(row[2]) != checksum(c.Options):
		l.badSubscriptions = append(l.badSubscriptions, c)
	default:
		l.subscriptions = append(l.subscriptions, c)
	}
}

func (l *loaded) queue(row []driver.Value) {
	c := journal.Waiting{Session: journal.SessionID(number(row[0])), First: uint64(number(row[1])), Last: uint64(number(row[2])),
		Messages: number(row[3]), Bytes: number(row[4])}
	l.used(int64(c.Session), number(row[5]))
	if !l.known[c.Session] {
		l.orphans = append(l.orphans, c.Session)
		return
	}
	l.waiting = append(l.waiting, c)
}

func (l *loaded) retain(row []driver.Value) {
	c := journal.Retained{Topic: text(row[1]), Message: bytesIn(row[2]), Account: text(row[3])}
	if number(row[4]) != checksum(c.Message) {
		l.badTopics = append(l.badTopics, c.Topic)
		return
	}
	l.retained = append(l.retained, c)
}

// What a damaged row has in place of a value of its kind is nothing.
func number(v driver.Value) int64 { n, _ := v.(int64); return n }
func text(v driver.Value) string  { s, _ := v.(string); return s }

func bytesIn(v driver.Value) []byte {
	b, _ := v.([]byte)
	return blob(b)
}

// used says that numbers have been used. What is beyond all that can be is damaged.
func (l *loaded) used(session, batch int64) {
	if max(session, batch) > math.MaxInt64/2 {
		return
	}
	l.next.Session = max(l.next.Session, journal.SessionID(session)+1)
	l.next.Batch = max(l.next.Batch, batch+1)
}

// tidyBroker deletes what is of no use and reserves numbers. On a full disk that has to wait for the first batch.
func (s *Store) tidyBroker(l *loaded) {
	if n := len(l.badSessions) + len(l.badSubscriptions) + len(l.badTopics); n > 0 {
		s.log.Error("parts of the broker's state are damaged and lost; the rest is whole", "sessions", len(l.badSessions),
			"subscriptions", len(l.badSubscriptions), "retained", l.badTopics[:min(len(l.badTopics), 10)], "count", n)
	}
	s.broker.next, s.broker.sweep = l.next, l.orphans
	if s.w == nil {
		return
	}
	reserved := journal.Next{Session: l.next.Session + reservedNumbers, Batch: l.next.Batch + reservedNumbers}
	err := s.transact(func() error {
		for _, id := range l.badSessions {
			if err := s.w.deleteSession.run(id); err != nil {
				return err
			}
		}
		for _, c := range l.badSubscriptions {
			if err := s.w.deleteSubscription.run(int64(c.Session), c.Filter); err != nil {
				return err
			}
		}
		for _, topic := range l.badTopics {
			if err := s.w.deleteRetained.run(topic); err != nil {
				return err
			}
		}
		if l.strays {
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

// give tells the broker.
func (l *loaded) give(to journal.Loader) error {
	for _, c := range l.sessions {
		if err := to.Session(c); err != nil {
			return err
		}
	}
	for _, c := range l.subscriptions {
		if err := to.Subscription(c); err != nil {
			return err
		}
	}
	for _, c := range l.waiting {
		if err := to.Waiting(c); err != nil {
			return err
		}
	}
	for _, c := range l.retained {
		if err := to.Retained(c); err != nil {
			return err
		}
	}
	return nil
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
		if sum != checksum(c.Entries) || packSum == nil || *packSum != checksum(c.Pack) {
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
			if sum != checksum(content) {
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
