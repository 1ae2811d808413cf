package store

import (
	"context"
	"database/sql/driver"
	"errors"
	"fmt"
	"io/fs"
	"math"
	"slices"
	"time"

	"github.com/plantops/plantops/store/aside"
	"github.com/plantops/plantops/store/block"
	"github.com/plantops/plantops/store/pack"
)

// A reading may stand in the running transaction, in the tail, in a block or in a row of table reading. Whoever stores one looks
// whether there is one of that device and time; for a time behind all others of the device that costs nothing.

// maxBlockTime bounds the times that blocks take, to 142,000 years: their key has room for no more. Others stay rows.
const maxBlockTime = 1 << 52

// maxLookups is of how many devices the block that was looked at last is kept.
const maxLookups = 32

// lookup is what is known of the blocks of a device in one month.
type lookup struct {
	month int64
	metas []block.Meta

	key     int64 // of what is decoded; -1: nothing
	decoder block.Decoder
}

type placeStatements struct {
	blocksOf, blockBody, insertReading, selectBody, updateBody, anyRow *statement
}

func (q *placeStatements) all() []compile {
	return []compile{
		{&q.blocksOf, `SELECT key, n, t0, t1 FROM block WHERE key BETWEEN ? AND ? ORDER BY key`},
		{&q.blockBody, `SELECT body FROM block WHERE key = ?`},
		{&q.insertReading, `INSERT OR IGNORE INTO reading (device, time, received, flags, body, given) VALUES (?, ?, ?, ?, ?, ?)`},
		{&q.selectBody, `SELECT body FROM reading WHERE device = ? AND time = ?`},
		{&q.updateBody, `UPDATE reading SET body = ? WHERE device = ? AND time = ?`},
		{&q.anyRow, `SELECT EXISTS (SELECT 1 FROM reading)`},
	}
}

// isBlockTime tells whether a block can take a reading of a time.
func isBlockTime(time int64) bool { return -maxBlockTime < time && time < maxBlockTime }

// insertReading stores the reading of s.tx.pairs, unless there is one of that device and time. One whose time is not to be
// trusted becomes a row, so that it can be dated anew; others go into the journal.
func (s *Store) insertReading(d *device, m *Message, p *Part, time int64) (isNew bool, err error) {
	given := ""
	if p.Given != "" {
		given = clean(p.Given, maxTextBytes)
	}
	flags := m.flagsOf(p.TimeSource)
	if time <= d.next.lastReading {
		if taken, err := s.isTaken(d, time); err != nil || taken {
			return false, err
		}
	}
	if flags&flagClockUnsure == 0 && isBlockTime(time) {
		s.tx.add(d, block.Reading{Time: time, Received: m.Received, Flags: uint32(flags), Given: given, Values: s.tx.pairs})
	} else if isNew, err := s.insertRow(d, time, m.Received, flags, given, s.tx.pairs); err != nil || !isNew {
		return false, err
	}
	d.next.rows++
	d.next.lastReading = max(d.next.lastReading, time)
	return true, s.noteTime(d, time, time)
}

// insertRow inserts a row of table reading, unless there is one of that device and time.
func (s *Store) insertRow(d *device, time, received, flags int64, given string, values []block.Value) (isNew bool, err error) {
	var text driver.Value // nil is NULL
	if given != "" {
		text = given
	}
	s.tx.body = pack.Append(s.tx.body[:0], values)
	s.hasRows = true
	result, err := s.w.insertReading.exec(d.id, time, received, flags, s.tx.body, text)
	if err != nil {
		return false, err
	}
	n, err := result.RowsAffected()
	return n > 0, err
}

// isTaken tells whether there is a reading of a device and a time, anywhere.
func (s *Store) isTaken(d *device, time int64) (bool, error) {
	if s.tx.pendingAt(d, time) != nil || s.tail.Load().Has(d.id, time) {
		return true, nil
	}
	if _, there, err := s.rowAt(d, time); err != nil || there {
		return there, err
	}
	values, _, err := s.inBlocks(d, time, s.tx.old[:0])
	s.tx.old = values[:0]
	return len(values) > 0, err
}

// rowAt returns the body of the row of a device and a time.
func (s *Store) rowAt(d *device, time int64) (body []byte, there bool, err error) {
	if !s.hasRows {
		return nil, false, nil
	}
	err = s.w.selectBody.query(func(row []driver.Value) error {
		body, _ = row[0].([]byte)
		there = true
		return nil
	}, d.id, time)
	return body, there, err
}

// merge adds what s.tx.pairs has to the reading that is there already.
func (s *Store) merge(d *device, p *Part, received, time int64) (outcome Outcome, leftover string, err error) {
	row, isRow, err := s.rowAt(d, time)
	if err != nil {
		return 0, "", err
	}
	pending := s.tx.pendingAt(d, time)
	old, _, err := s.valuesAt(d, pending, time, s.tx.old[:0])
	if err != nil {
		return 0, "", err
	}
	elsewhere := len(old) // beside a row there are values where a damaged file has given back what came again meanwhile
	if isRow {
		if old, err = pack.Decode(old, row); err != nil { // keep the row as it is and the message beside it
			return Quarantined, reasonDamagedRow, nil
		}
	}
	there := len(old)
	for _, p := range s.tx.pairs {
		if value, ok := find(old[:there], p.Metric); !ok {
			old = append(old, p)
		} else if !pack.Same(value, p.Value) {
			leftover = reasonConflict
		}
	}
	s.tx.old = old
	if len(old) > there {
		if err := s.noteTime(d, time, time); err != nil {
			return 0, "", err
		}
	}
	switch {
	case len(old) > maxMetrics:
		return Quarantined, reasonMetrics, nil
	case len(old) == there && leftover != "":
		return Quarantined, leftover, nil
	case len(old) == there:
		return Duplicate, "", nil
	case isRow:
		s.tx.body = pack.Append(s.tx.body[:0], old[elsewhere:])
		return Stored, leftover, s.w.updateBody.run(s.tx.body, d.id, time)
	case pending != nil:
		s.tx.addTo(pending, old[there:])
	default:
		s.tx.add(d, block.Reading{Time: time, Received: received, Flags: uint32(p.TimeSource)&flagTimeSource | flagExtra, Values: old[there:]})
	}
	return Stored, leftover, nil
}

// valuesAt appends what the running transaction, the tail and blocks have of a device and a time, what readers see of a metric first.
// counted tells whether one of the device's rows is there, and not only more metrics of one.
func (s *Store) valuesAt(d *device, pending *block.Entry, time int64, to []block.Value) (values []block.Value, counted bool, err error) {
	to, counted, err = s.inBlocks(d, time, to)
	if err != nil {
		return to, counted, err
	}
	r := block.Reading{Values: to}
	for i, slice := 0, s.tail.Load().Slice(d.id, time, time+1); i < slice.Len(); i++ {
		slice.Read(i, &r)
		counted = counted || r.Flags&flagExtra == 0
	}
	if to = r.Values; pending != nil {
		to, counted = append(to, pending.Values...), counted || pending.Flags&flagExtra == 0
	}
	return to, counted, nil
}

// inBlocks appends what blocks have of a device at a time; counted is that of valuesAt. A block that is damaged has nothing: what it
// had may come again.
func (s *Store) inBlocks(d *device, time int64, to []block.Value) (values []block.Value, counted bool, err error) {
	if time > d.blockEnd || !isBlockTime(time) {
		return to, false, nil
	}
	l, err := s.lookup(d, block.Month(time))
	if err != nil {
		return to, false, err
	}
	for _, m := range l.metas {
		if time < m.First || m.Last < time {
			continue
		}
		if whole, err := s.decode(l, m); err != nil {
			return to, counted, err
		} else if !whole {
			continue
		}
		times := l.decoder.Times()
		for i, _ := slices.BinarySearch(times, time); i < len(times) && times[i] == time; i++ {
			r := l.decoder.Reading(i, nil)
			to, counted = append(to, r.Values...), counted || r.Flags&flagExtra == 0
		}
	}
	return to, counted, nil
}

func (s *Store) lookup(d *device, month int64) (*lookup, error) {
	l := s.lookups[d.id]
	if l == nil {
		if l = (&lookup{month: math.MinInt64}); len(s.lookups) >= maxLookups {
			clear(s.lookups)
		}
		s.lookups[d.id] = l
	}
	if l.month == month {
		return l, nil
	}
	l.month, l.key, l.metas = math.MinInt64, -1, l.metas[:0]
	metas, err := s.metasOf(d, month, l.metas)
	if err != nil {
		return nil, err
	}
	l.month, l.metas = month, metas
	return l, nil
}

const maxBlockNumber = 1<<16 - 1

// metasOf appends what there is of blocks of a device in a month.
func (s *Store) metasOf(d *device, month int64, to []block.Meta) ([]block.Meta, error) {
	err := s.w.blocksOf.query(func(row []driver.Value) error {
		to = append(to, block.Meta{Key: row[0].(int64), N: int(row[1].(int64)), First: row[2].(int64), Last: row[3].(int64)})
		return nil
	}, block.Key(month, d.id, 0), block.Key(month, d.id, maxBlockNumber))
	return to, err
}

// decode decodes a block for l; whole is false when it is damaged.
func (s *Store) decode(l *lookup, m block.Meta) (whole bool, err error) {
	if l.key == m.Key {
		return true, nil
	}
	l.key = -1
	whole, err = s.decodeInto(&l.decoder, m)
	if whole {
		l.key = m.Key
	}
	return whole, err
}

func (s *Store) decodeInto(to *block.Decoder, m block.Meta) (whole bool, err error) {
	err = s.w.blockBody.query(func(row []driver.Value) error {
		body, _ := row[0].([]byte)
		whole = true
		return to.Decode(m, body)
	}, m.Key)
	if errors.Is(err, block.ErrDamaged) {
		return false, nil
	}
	return whole, err
}

// takeAside brings the messages of the side file into the quarantine, once, and removes it. Where the database refuses them
// still they stay, and count.
func (s *Store) takeAside(ctx context.Context) error {
	name, lines, err := s.aside.Read()
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("messages beside the database: %w", err)
	}
	known, err := int64(0), error(nil)
	if name != "" {
		known, err = s.w.countTaken.number(name)
	}
	if err == nil && known == 0 {
		err = s.transact(func() error {
			for _, l := range lines {
				m := Message{Kind: Bad, Device: l.Device, Topic: l.Topic, Received: l.Received, ClockUnsure: l.Unsure, ClockLine: l.Line,
					Payload: l.Payload, Reason: l.Reason}
				if _, err := s.appendMessage(&m); err != nil {
					return err
				}
			}
			if name == "" { // torn, and nothing behind it
				return nil
			}
			return s.w.noteTaken.run(name)
		})
	}
	if err != nil {
		s.log.Error("messages beside the database cannot be taken in", "file", s.aside.Path(), "count", len(lines), "err", err)
		return s.aside.Keep(name, lines)
	}
	if known == 0 {
		s.log.Warn("messages that the database had refused are in its quarantine now", "count", len(lines))
	}
	return s.aside.Remove()
}

// asideStatements say which side files were taken in.
type asideStatements struct {
	countTaken, noteTaken *statement
}

func (q *asideStatements) all() []compile {
	return []compile{
		{&q.countTaken, `SELECT count(*) FROM taken WHERE file = ?`},
		{&q.noteTaken, `INSERT INTO taken (file) VALUES (?)`},
	}
}

// SQLite's result codes of trouble that can pass: a batch is given again as it is.
func mayPass(code int) bool {
	switch code {
	case codeBusy, 6, 7, codeReadOnly, 9, codeIO, codeFull, codeCannotUse, 15: // LOCKED, NOMEM, INTERRUPT, PROTOCOL
		return true
	}
	return false
}

// isLasting reports whether the same statements would fail again: something in the file is damaged, or what is to be stored
// does not fit into it.
func isLasting(err error) bool {
	if isDamage(err) {
		return true
	}
	n := code(err)
	return n != 0 && !mayPass(n)
}

// isolate stores a batch of which something cannot be stored: it is halved until what fails is one message. That one goes
// where it can be kept (setAside), the others are stored. outcomes is appended to as by Append, after an error too: what is
// committed by then has its outcome.
func (s *Store) isolate(batch []Message, outcomes []Outcome, cause error) ([]Outcome, error) {
	if len(batch) == 1 {
		outcome, err := s.setAside(&batch[0], cause)
		if err != nil {
			return outcomes, err
		}
		return append(outcomes, outcome), nil
	}
	results := outcomes
	for _, half := range [][]Message{batch[:len(batch)/2], batch[len(batch)/2:]} {
		var err error
		before := results
		if results, err = s.appendAll(half, before); isLasting(err) {
			results, err = s.isolate(half, before, err)
		}
		if err != nil {
			return results, err
		}
	}
	return results, nil
}

// setAside keeps a message that cannot be stored: in the quarantine, there without its device when that is what is damaged,
// or in a file of its own.
func (s *Store) setAside(m *Message, cause error) (Outcome, error) {
	if m.Kind == Probe { // it proves that messages are kept
		return Proved, s.transact(func() error { return nil })
	}
	if m.Kind == History { // whoever gave it still has it
		return Unfit, nil
	}
	reason := fmt.Sprintf("cannot be stored: %.200s", cause)
	for _, anonymous := range []bool{false, true} {
		err := s.transact(func() error {
			d := s.state.devices[""]
			if !anonymous {
				var err error
				if d, _, err = s.deviceOf(m); err != nil {
					return err
				}
			}
			s.touch(d)
			d.next.counts.add(Quarantined, 1)
			return s.addEntry(d, m, reason, Quarantined)
		})
		if err == nil {
			s.log.Error("a message cannot be stored; it is in the quarantine", "device", m.Device, "topic", m.Topic, "err", cause)
			return Quarantined, nil
		}
		if !isLasting(err) {
			return 0, err
		}
	}
	if err := s.aside.Add(aside.Line{Device: m.Device, Topic: m.Topic, Received: m.Received, Unsure: m.ClockUnsure, Line: m.ClockLine,
		Reason: reason, Payload: m.Payload}); err != nil {
		return 0, fmt.Errorf("keep a message that the database refuses (%w): %w", cause, err)
	}
	s.log.Error("a message cannot be stored, nor quarantined; it is in a file beside the database until the next start",
		"device", m.Device, "topic", m.Topic, "file", s.aside.Path(), "err", cause)
	return Quarantined, nil
}

// mend makes the file anew when a write found it damaged, unless that was just done. The caller has the right to write.
func (s *Store) mend(ctx context.Context, cause error) error {
	if !s.mended.IsZero() && time.Since(s.mended) < rebuildEvery {
		return cause
	}
	s.mended = time.Now()
	err := s.rebuild(ctx, cause)
	if err != nil {
		s.log.Error("cannot make the database anew", "err", err)
		return s.reopen() // go on with the damaged file as well as it goes
	}
	select {
	case s.rebuilt <- struct{}{}:
	default:
	}
	return nil
}
