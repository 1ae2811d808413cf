package store

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
	"fmt"
	"iter"
	"time"
)

const (
	// entryOverheadBytes is what an entry counts beside its payload, topic and reason.
	entryOverheadBytes = 64

	evictEntries     = 256 // entries looked at in one step
	evictAgeInterval = time.Hour
	quarantinePage   = 32 // entries in memory while listing; a payload may be as large as an MQTT packet
)

// QuarantineEntry is a message that could not be stored as readings, or not all of it.
type QuarantineEntry struct {
	ID            int64
	Time          int64 // UTC ms, of arrival
	ClockUnsure   bool  // as in the Message, and the next too
	ClockLine     int64
	Device        string // empty when it belongs to none
	Topic, Reason string
	Payload       []byte // byte for byte as it came
	Size          int    // of the payload
}

// QuarantineSummary is what is left of entries that made room for newer ones or became too old.
type QuarantineSummary struct {
	Device, Reason     string
	Count, First, Last int64 // Last and First: UTC ms
}

// quarantineSize is the sum of the size column and the number of entries, counted once and then kept.
type quarantineSize struct {
	known                bool
	committed, next      int64
	entries, nextEntries int64
}

// quarantineAge bounds what goes because of its age: a clock that is ahead must not empty the quarantine.
type quarantineAge struct {
	checked bool
	at      time.Duration // of Options.Elapsed, at the last look
	before  int64         // UTC ms: what came before that may go
}

type quarantineStatements struct {
	insertEntry, deleteEntry, sumEntries, oldestEntry, oldestEntries, summarise, countSummary, deleteEntries, deleteAllEntries, deleteSummary *statement

	heaviest, oldestOf *statement
}

func (q *quarantineStatements) all() []compile {
	return []compile{
		{&q.insertEntry, `INSERT INTO quarantine (time, device, flags, size, topic, reason, payload) VALUES (?, ?, ?, ?, ?, ?, ?)`},
		{&q.deleteEntry, `DELETE FROM quarantine WHERE id = ?`},
		{&q.sumEntries, `SELECT coalesce(sum(size), 0), count(*) FROM quarantine`},
		{&q.oldestEntry, `SELECT time FROM quarantine WHERE flags & 4 = 0 ORDER BY id LIMIT 1`},
		{&q.heaviest, `SELECT device, sum(size) AS total FROM quarantine GROUP BY device ORDER BY total DESC, device LIMIT 2`},
		{&q.oldestOf, `SELECT id, time, size, device, reason, flags FROM quarantine WHERE device = ? ORDER BY id LIMIT ?`},
		{&q.oldestEntries, `SELECT id, time, size, device, reason, flags FROM quarantine ORDER BY id LIMIT ?`},
		{&q.summarise, `INSERT INTO quarantine_summary (device, reason, count, first, last) VALUES (?, ?, ?, ?, ?)
			ON CONFLICT (device, reason) DO UPDATE SET count = count + excluded.count,
				first = min(first, excluded.first), last = max(last, excluded.last)`},
		{&q.countSummary, `SELECT count(*) FROM quarantine_summary`},
		{&q.deleteEntries, `DELETE FROM quarantine WHERE id <= ?`},
		{&q.deleteAllEntries, `DELETE FROM quarantine`},
		{&q.deleteSummary, `DELETE FROM quarantine_summary`},
	}
}

// addEntry keeps the payload of a message. With outcome Stored the entry is not what the message counts as.
func (s *Store) addEntry(d *device, m *Message, reason string, outcome Outcome) error {
	if err := s.countEntries(); err != nil {
		return err
	}
	flags := m.flags()
	if outcome == Stored {
		flags |= flagUncounted
	}
	payload := m.Payload
	if payload == nil {
		payload = []byte{} // nil would be NULL
	}
	size := int64(len(payload) + len(m.Topic) + len(reason) + entryOverheadBytes)
	if err := s.w.insertEntry.run(m.Received, d.id, flags, size, m.Topic, reason, payload); err != nil {
		return fmt.Errorf("quarantine a message of device %q: %w", d.name, err)
	}
	s.tx.payloads += int(size)
	s.tx.quarantine.next += size
	s.tx.quarantine.nextEntries++
	s.sayFirst(d.name, m, reason)
	return nil
}

func (s *Store) countEntries() error {
	q := &s.tx.quarantine
	if q.known {
		return nil
	}
	err := s.w.sumEntries.query(func(row []driver.Value) error {
		q.committed, q.entries = row[0].(int64), row[1].(int64)
		return nil
	})
	if err != nil {
		return fmt.Errorf("measure the quarantine: %w", err)
	}
	q.known, q.next, q.nextEntries = true, q.committed, q.entries
	return nil
}

// evict keeps the quarantine within its bounds: what is too old, and what is too much of the device that has most, becomes
// summary counts. So a device that sends nonsense all day pushes out no other's entries. It frees a little more than it must,
// so that in a flood it runs once for many entries.
func (s *Store) evict() error {
	q, limit, elapsed := &s.tx.quarantine, s.options.QuarantineBytes, s.options.Elapsed()
	if !s.tx.aged.checked || elapsed-s.tx.aged.at >= evictAgeInterval {
		oldest, err := s.tooOld(elapsed)
		for again := err == nil; again; {
			again, err = s.evictOld(oldest)
		}
		if err != nil {
			return fmt.Errorf("make room in the quarantine: %w", err)
		}
	}
	if q.next <= limit {
		return nil
	}
	for target := limit - limit/64; q.next > target; {
		if freed, err := s.evictHeaviest(target); err != nil {
			return fmt.Errorf("make room in the quarantine: %w", err)
		} else if !freed {
			break
		}
	}
	return nil
}

// tooOld returns before when entries came that go because of their age. Per hour of uptime that moves on by at most an hour,
// not counting time in which nothing came.
func (s *Store) tooOld(elapsed time.Duration) (before int64, err error) {
	aged := &s.tx.aged
	if s.options.Unsure() {
		aged.checked, aged.at = true, elapsed
		return 0, nil
	}
	oldest, err := s.w.oldestEntry.number()
	if err != nil {
		return 0, err
	}
	budget := time.Duration(0)
	if aged.checked {
		budget = elapsed - aged.at
	}
	aged.checked, aged.at = true, elapsed
	due := s.options.Now().Add(-s.options.QuarantineAge).UnixMilli()
	aged.before = min(due, max(aged.before, oldest)+budget.Milliseconds())
	return aged.before, nil
}

// kind is what entries are summarised by.
type kind struct {
	device int64
	reason string
}

// oldEntry is what evictChunk must know of an entry.
type oldEntry struct {
	kind
	id, arrived, size int64
	unsure            bool // arrived is not to be trusted
}

// evictOld summarises entries that arrived before oldest, up to evictEntries of them; again tells that there may be more.
func (s *Store) evictOld(oldest int64) (again bool, err error) {
	entries, err := oldEntries(s.w.oldestEntries, int64(evictEntries))
	due := dueEntries(entries, oldest)
	if err != nil || due == 0 {
		return false, err
	}
	if err := s.summarise(entries[:due]); err != nil {
		return false, err
	}
	return due == evictEntries, s.w.deleteEntries.run(entries[due-1].id)
}

// evictHeaviest summarises the oldest entries of the device that has most, until target is reached or it is not the one that
// has most any more: to find out which one that is, takes a look at all entries.
func (s *Store) evictHeaviest(target int64) (freed bool, err error) {
	var device int64
	var totals []int64
	err = s.w.heaviest.query(func(row []driver.Value) error {
		total, _ := row[1].(int64)
		if totals = append(totals, total); len(totals) == 1 {
			device, _ = row[0].(int64)
		}
		return nil
	})
	if err != nil || len(totals) == 0 {
		return false, err
	}
	next := append(totals, 0)[1]
	for left := totals[0]; s.tx.quarantine.next > target && left >= next; {
		before := s.tx.quarantine.next
		n, err := s.evictOf(device, target)
		if err != nil || n == 0 {
			return freed, err
		}
		freed, left = true, left-(before-s.tx.quarantine.next)
	}
	return freed, nil
}

// evictOf summarises the oldest entries of a device, until target is reached, at most evictEntries.
func (s *Store) evictOf(device, target int64) (n int, err error) {
	entries, err := oldEntries(s.w.oldestOf, device, int64(evictEntries))
	if err != nil {
		return 0, err
	}
	for left := s.tx.quarantine.next; n < len(entries) && left > target; n++ {
		left -= entries[n].size
		if err := s.w.deleteEntry.run(entries[n].id); err != nil {
			return 0, err
		}
	}
	return n, s.summarise(entries[:n])
}

func oldEntries(q *statement, args ...driver.Value) (entries []oldEntry, err error) {
	err = q.query(func(row []driver.Value) error {
		entries = append(entries, oldEntry{
			id: row[0].(int64), arrived: row[1].(int64), size: row[2].(int64), kind: kind{row[3].(int64), row[4].(string)},
			unsure: row[5].(int64)&flagClockUnsure != 0,
		})
		return nil
	}, args...)
	return entries, err
}

// summarise counts entries that are going.
func (s *Store) summarise(entries []oldEntry) error {
	gone := make(map[kind]*QuarantineSummary)
	for _, e := range entries {
		sum, known := gone[e.kind]
		at := s.dateOf(e.arrived, e.unsure)
		if !known {
			sum = &QuarantineSummary{First: at, Last: at}
			gone[e.kind] = sum
		}
		sum.Count++
		sum.First, sum.Last = min(sum.First, at), max(sum.Last, at)
		s.tx.quarantine.next -= e.size
		s.tx.quarantine.nextEntries--
	}
	kinds, err := s.w.countSummary.number()
	if err != nil {
		return err
	}
	for k, sum := range gone {
		if kinds >= maxSummaryReasons {
			k.reason = otherReasons
		}
		if err := s.w.summarise.run(k.device, k.reason, sum.Count, sum.First, sum.Last); err != nil {
			return err
		}
	}
	return nil
}

// dueEntries returns how many of the entries, which are in order of arrival, are too old. One whose time is unsure goes with
// the next that is: in 1970 everything would be.
func dueEntries(entries []oldEntry, oldest int64) (due int) {
	for i, e := range entries {
		switch {
		case e.arrived < oldest && !e.unsure:
			due = i + 1
		case !e.unsure:
			return due
		}
	}
	return due
}

// maxSaid bounds what is remembered of what the log has said.
const maxSaid = 4096

// sayFirst logs the first entry of a device and reason since the start.
func (s *Store) sayFirst(device string, m *Message, reason string) {
	k := refusal{device, reason}
	if s.said[k] || len(s.said) >= maxSaid {
		return
	}
	s.said[k] = true
	s.log.Warn("a message went to the quarantine; more of this kind are only counted", "device", device, "topic", m.Topic,
		"reason", reason)
}

// Quarantine iterates over the newest limit entries, the oldest of them first; zero means all. Entries that come or go
// meanwhile do not disturb it.
func (s *Store) Quarantine(ctx context.Context, limit int) iter.Seq2[QuarantineEntry, error] {
	return func(yield func(QuarantineEntry, error) bool) {
		if err := s.listQuarantine(ctx, limit, func(q QuarantineEntry) bool { return yield(q, nil) }); err != nil {
			yield(QuarantineEntry{}, fmt.Errorf("list quarantine: %w", err))
		}
	}
}

const selectQuarantine = `SELECT q.id, q.time, q.flags, device.name, q.topic, q.reason, q.payload
	FROM quarantine AS q JOIN device ON device.id = q.device `

func (s *Store) listQuarantine(ctx context.Context, limit int, yield func(QuarantineEntry) bool) error {
	if limit <= 0 {
		limit = -1 // SQLite's word for no limit
	}
	var first, last int64
	err := s.queryRow(ctx, `SELECT coalesce(min(id), 0), coalesce(max(id), -1)
		FROM (SELECT id FROM quarantine ORDER BY id DESC LIMIT ?)`, limit).Scan(&first, &last)
	for err == nil && first <= last {
		var page []QuarantineEntry
		page, err = s.quarantinePage(ctx, first, last)
		if err != nil || len(page) == 0 {
			break
		}
		for _, q := range page {
			if !yield(q) {
				return nil
			}
		}
		first = page[len(page)-1].ID + 1
	}
	return err
}

func (s *Store) quarantinePage(ctx context.Context, first, last int64) (page []QuarantineEntry, err error) {
	err = s.each(ctx, func(scan func(...any) error) error {
		q, err := scanEntry(scan)
		page = append(page, q)
		return err
	}, selectQuarantine+`WHERE q.id BETWEEN ? AND ? ORDER BY q.id LIMIT ?`, first, last, quarantinePage)
	return page, err
}

func scanEntry(scan func(...any) error) (q QuarantineEntry, err error) {
	var flags int64
	err = scan(&q.ID, &q.Time, &flags, &q.Device, &q.Topic, &q.Reason, &q.Payload)
	q.ClockUnsure, q.ClockLine = flags&flagClockUnsure != 0, flags>>lineShift
	q.Size = len(q.Payload)
	return q, err
}

// QuarantineEntry returns one entry, or ErrNotFound.
func (s *Store) QuarantineEntry(ctx context.Context, id int64) (QuarantineEntry, error) {
	q, err := scanEntry(s.queryRow(ctx, selectQuarantine+`WHERE q.id = ?`, id).Scan)
	if errors.Is(err, sql.ErrNoRows) {
		err = ErrNotFound
	}
	if err != nil {
		return QuarantineEntry{}, fmt.Errorf("quarantine entry %d: %w", id, err)
	}
	return q, nil
}

// QuarantineSummaries returns what is left of entries that are gone, by device and reason.
func (s *Store) QuarantineSummaries(ctx context.Context) (list []QuarantineSummary, err error) {
	err = s.each(ctx, func(scan func(...any) error) error {
		var q QuarantineSummary
		err := scan(&q.Device, &q.Reason, &q.Count, &q.First, &q.Last)
		list = append(list, q)
		return err
	}, `SELECT device.name, q.reason, q.count, q.first, q.last
		FROM quarantine_summary AS q JOIN device ON device.id = q.device ORDER BY device.name, q.reason`)
	if err != nil {
		return nil, fmt.Errorf("list quarantine summaries: %w", err)
	}
	return list, nil
}

// PurgeQuarantine deletes entries and returns how many there were. Without ids it deletes all of them and the
// summaries. The counters stay: the messages did come, and were quarantined.
func (s *Store) PurgeQuarantine(ctx context.Context, ids ...int64) (purged int64, err error) {
	if err := s.acquire(ctx); err != nil {
		return 0, fmt.Errorf("purge quarantine: %w", err)
	}
	defer s.release()
	err = s.transact(func() error {
		s.tx.quarantine, purged = quarantineSize{}, 0
		if len(ids) == 0 {
			if err := s.w.deleteSummary.run(); err != nil {
				return err
			}
			result, err := s.w.deleteAllEntries.exec()
			if err == nil {
				purged, err = result.RowsAffected()
			}
			return err
		}
		for _, id := range ids {
			result, err := s.w.deleteEntry.exec(id)
			if err != nil {
				return err
			}
			n, _ := result.RowsAffected()
			purged += n
		}
		return nil
	})
	if err != nil {
		return 0, fmt.Errorf("purge quarantine: %w", err)
	}
	return purged, nil
}
