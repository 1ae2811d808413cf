package store

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"fmt"
	"math"
	"math/bits"
	"slices"

	"github.com/plantops/plantops/store/block"
	"github.com/plantops/plantops/store/tail"
)

// The journal has one record for each transaction that changed anything: its readings, the counters of the devices that it
// touched, as they are from then on, and a stamp. Table counter is written long after (compact.go): what it says and then, in
// their order, what the records say gives the counters. A record may be read again that the table has already.

// What a record's changes mean, bit by bit. They are numbers of the file: none may ever get another meaning. Times are told
// from a base, so that they are short.
const (
	changeStored = iota
	changeDuplicate
	changeQuarantined
	changeRefused
	changeRows
	changeLastSeen
	changeLastReading
	changeDropped
	changeSkipped
	changeLeftAt
	changeUnsureSeen
	changeUnsureLine

	changes
)

// What is told shorter where that can be. What it is compared with is in the same change: what the table has may be newer than the record.
const (
	changeRowsLess    = 12                  // rows, less those messages that are stored
	changeSeenThen    = block.ValueBits     // lastSeen is when the reading of the change came
	changeReadingThen = block.ValueBits + 1 // lastReading is when that was measured
)

// baseDevice is no device: its one change is the base of times.
const baseDevice = -1

// flagExtra marks metrics that came later for a time that is there: no row of its own.
const flagExtra = 0b1000

// list returns the facts in the order of the constants above.
func (f *facts) list(base int64) [changes]int64 {
	return [changes]int64{
		f.counts.Stored, f.counts.Duplicate, f.counts.Quarantined, f.counts.Refused, f.rows,
		f.lastSeen - base, f.lastReading - base, f.dropped, f.skipped, f.leftAt, f.unsureSeen, f.unsureLine,
	}
}

// changeOf is what the running transaction has changed of a device; its values are appended to numbers.
func (t *transaction) changeOf(d *device, base int64) block.Change {
	c := block.Change{Device: d.id, Of: d.pending}
	before, after := d.facts.list(base), d.next.list(base)
	for bit := range after {
		if before[bit] != after[bit] {
			c.Mask |= 1 << bit
		}
	}
	instead := func(bit, other int) { c.Mask = c.Mask&^(1<<bit) | 1<<other }
	if both := uint32(1<<changeStored | 1<<changeRows); c.Mask&both == both {
		instead(changeRows, changeRowsLess)
	}
	if c.Of > 0 {
		e := &t.entries[c.Of-1]
		if c.Mask>>changeLastSeen&1 != 0 && d.next.lastSeen == e.Received {
			instead(changeLastSeen, changeSeenThen)
		}
		if c.Mask>>changeLastReading&1 != 0 && d.next.lastReading == e.Time {
			instead(changeLastReading, changeReadingThen)
		}
	}
	for bit, v := range after {
		if c.Mask>>bit&1 != 0 {
			t.numbers = append(t.numbers, v)
		}
	}
	if c.Mask>>changeRowsLess&1 != 0 {
		t.numbers = append(t.numbers, d.next.rows-d.next.counts.Stored)
	}
	return c
}

// recordChanges reads the changes of a record.
type recordChanges struct {
	*block.CommitReader
	base int64
}

// next goes to the next change of a device.
func (r *recordChanges) next() bool {
	for r.NextChange() {
		c := r.Change()
		if c.Device != baseDevice {
			return true
		}
		if len(c.Values) > 0 {
			r.base = c.Values[0]
		}
	}
	return false
}

// change sets what a record says.
func (r *recordChanges) change(f *facts) {
	c := r.Change()
	f.set(c, r.base)
	if c.Of == 0 {
		return
	}
	received, time := r.Sent(c.Of)
	if c.Mask>>changeSeenThen&1 != 0 {
		f.lastSeen = received
	}
	if c.Mask>>changeReadingThen&1 != 0 {
		f.lastReading = time
	}
}

// set takes the values of a change. What a later version may have added is passed over.
func (f *facts) set(c *block.Change, base int64) {
	to := [changes]*int64{
		&f.counts.Stored, &f.counts.Duplicate, &f.counts.Quarantined, &f.counts.Refused, &f.rows,
		&f.lastSeen, &f.lastReading, &f.dropped, &f.skipped, &f.leftAt, &f.unsureSeen, &f.unsureLine,
	}
	next := 0
	for bit := range block.ValueBits {
		if c.Mask>>bit&1 == 0 {
			continue
		}
		switch v := c.Values[next]; bit {
		case changeLastSeen, changeLastReading:
			*to[bit] = v + base
		case changeRowsLess:
			f.rows = f.counts.Stored + v
		default:
			if bit < changes {
				*to[bit] = v
			}
		}
		next++
	}
}

// journalTail is what who writes knows of the journal.
type journalTail struct {
	seq      int64    // of the last record
	records  []record // in order of seq
	readings int      // in them
	bytes    int
	damaged  []int64 // records that cannot be read: they stay
}

type record struct {
	seq             int64
	readings, bytes int32
}

func (j *journalTail) add(seq int64, readings, bytes int) {
	j.seq = max(j.seq, seq)
	j.records = append(j.records, record{seq, int32(readings), int32(bytes)})
	j.readings += readings
	j.bytes += bytes
}

// cut forgets the records before one.
func (j *journalTail) cut(before int64) {
	n := 0
	for ; n < len(j.records) && j.records[n].seq < before; n++ {
		j.readings -= int(j.records[n].readings)
		j.bytes -= int(j.records[n].bytes)
	}
	j.records = slices.Delete(j.records, 0, n)
}

type recordStatements struct {
	insertRecord, selectRecord, lastRecord *statement
}

func (q *recordStatements) all() []compile {
	return []compile{
		{&q.insertRecord, `INSERT INTO journal (seq, body) VALUES (?, ?)`},
		{&q.selectRecord, `SELECT body FROM journal WHERE seq = ?`},
		{&q.lastRecord, `SELECT max((SELECT coalesce(max(seq), 0) FROM journal), (SELECT coalesce(max(flushed), 0) FROM newest))`},
	}
}

// writeRecord writes what the running transaction has changed into the journal.
func (s *Store) writeRecord() error {
	t := &s.tx
	if len(t.touched) == 0 {
		return nil
	}
	s.stamp++
	t.seq = s.journal.seq + 1
	base := t.touched[0].next.lastSeen
	t.numbers = append(t.numbers[:0], base)
	t.changes = append(t.changes[:0], block.Change{Device: baseDevice, Mask: 1})
	for _, d := range t.touched {
		c := t.changeOf(d, base)
		if c.Mask != 0 {
			t.changes = append(t.changes, c)
		}
	}
	used := 0 // numbers may have moved while it grew
	for i := range t.changes {
		n := bits.OnesCount32(t.changes[i].Mask & (1<<block.ValueBits - 1))
		t.changes[i].Values = t.numbers[used : used+n]
		used += n
	}
	t.record = block.AppendCommit(t.record[:0], t.seq, &block.Commit{Stamp: s.stamp, Readings: t.entries, Changes: t.changes})
	if err := s.w.insertRecord.run(t.seq, t.record); err != nil {
		return fmt.Errorf("write record %d of the journal: %w", t.seq, err)
	}
	return nil
}

// applyRecord takes a record that is committed into memory. The caller holds the lock of the state.
func (s *Store) applyRecord() {
	t := &s.tx
	if t.seq == 0 {
		return
	}
	s.journal.add(t.seq, len(t.entries), len(t.record))
	for _, d := range t.counted {
		d.dirty = 0
	}
	for _, d := range t.touched { // also those: what was counted after their counters were written is only in the record
		if d.dirty == 0 {
			d.dirty = t.seq
		}
	}
	to, now, due := s.tail.Load(), s.options.Elapsed(), s.compactionDue()
	for i := range t.entries {
		due = to.Add(t.seq, now, &t.entries[i]) == flushReadings || due
	}
	for _, f := range t.flushed {
		f.device.blockEnd = max(f.device.blockEnd, f.end)
		delete(s.lookups, f.device.id)
		if f.tail {
			to.Drop(f.device.id)
		}
	}
	s.journal.cut(t.cut)
	if len(t.entries) > 0 {
		s.startCompaction()
	}
	if due {
		s.wakeCompaction()
	}
}

// placed is a place for a reading.
type placed struct{ device, time int64 }

// pendingAt returns what the running transaction has for a device and a time; nil: nothing.
func (t *transaction) pendingAt(d *device, time int64) *block.Entry {
	switch {
	case !d.touched || d.pending == 0 || time > d.pendingEnd:
		return nil
	case t.entries[d.pending-1].Time == time:
		return &t.entries[d.pending-1]
	}
	if t.index == nil {
		t.index = make(map[placed]int)
	}
	for ; t.indexed < len(t.entries); t.indexed++ {
		e := &t.entries[t.indexed]
		t.index[placed{e.Device, e.Time}] = t.indexed
	}
	if i, there := t.index[placed{d.id, time}]; there {
		return &t.entries[i]
	}
	return nil
}

// keep copies values to where they stay until the transaction ends.
func (t *transaction) keep(values []block.Value) []block.Value {
	from := len(t.values)
	t.values = append(t.values, values...)
	return t.values[from:len(t.values):len(t.values)]
}

// add takes a reading into the running transaction; there is none yet of that device and time.
func (t *transaction) add(d *device, r block.Reading) {
	r.Values = t.keep(r.Values)
	if d.pending == 0 || r.Time > d.pendingEnd {
		d.pendingEnd = r.Time
	}
	t.entries = append(t.entries, block.Entry{Device: d.id, Reading: r})
	d.pending = len(t.entries)
}

// addTo adds values to a reading of the running transaction.
func (t *transaction) addTo(e *block.Entry, values []block.Value) {
	all := append(slices.Clone(e.Values), values...)
	sortValues(all)
	e.Values = t.keep(all)
}

func sortValues(values []block.Value) {
	for i := 1; i < len(values); i++ { // few, and mostly in order
		for j := i; j > 0 && values[j].Metric < values[j-1].Metric; j-- {
			values[j], values[j-1] = values[j-1], values[j]
		}
	}
}

// hasStamp tells whether record seq is there and of the transaction with that stamp.
func (s *Store) hasStamp(seq, stamp int64) (found bool, err error) {
	err = s.w.selectRecord.query(func(row []driver.Value) error {
		body, _ := row[0].([]byte)
		var r block.CommitReader
		found = r.Reset(seq, body) == nil && r.Stamp() == stamp
		return nil
	}, seq)
	return found, err
}

// replayJournal reads the records of the journal after one, applies their changes to devices and adds their readings to the tail, as
// far as they are not in blocks.
func (s *Store) replayJournal(ctx context.Context, q querier, after int64, l *onDisk) error {
	var r block.CommitReader
	now := s.options.Elapsed()
	return s.eachIn(ctx, q, func(scan func(...any) error) error {
		var seq int64
		var body sql.RawBytes
		if err := scan(&seq, &body); err != nil {
			return err
		}
		if l.replayRecord(&r, seq, body) != nil {
			l.journal.damaged = append(l.journal.damaged, seq)
			l.journal.seq = max(l.journal.seq, seq)
			return nil
		}
		l.journal.add(seq, r.Len(), len(body))
		if err := r.Reset(seq, body); err != nil {
			return err
		}
		for r.Next() {
			e := r.Entry()
			if d := l.byID[e.Device]; d != nil && seq > d.flushed { // or it was removed
				l.tail.Add(seq, now, e)
			}
		}
		return nil
	}, `SELECT seq, body FROM journal WHERE seq > ? ORDER BY seq`, after)
}

// replayRecord reads a record to its end and applies its changes.
func (l *onDisk) replayRecord(r *block.CommitReader, seq int64, body []byte) error {
	if err := r.Reset(seq, body); err != nil {
		return err
	}
	for c := (recordChanges{CommitReader: r}); c.next(); {
		if d := l.byID[r.Change().Device]; d != nil {
			if c.change(&d.facts); d.dirty == 0 {
				d.dirty = seq
			}
		}
	}
	return r.Err()
}

// anyRows tells whether table reading has something, be it damaged.
func (s *Store) anyRows(ctx context.Context, q querier) (rows bool, err error) {
	err = s.eachIn(ctx, q, func(scan func(...any) error) error { return scan(&rows) }, `SELECT EXISTS (SELECT 1 FROM reading)`)
	if isDamage(err) {
		return true, nil
	}
	return rows, err
}

// loadJournal fills the tail. What only reads has that already, up to a record; then the counters are those that it had, and
// what came since.
func (s *Store) loadJournal(ctx context.Context, q querier, l *onDisk) error {
	var err error
	if l.rows, err = s.anyRows(ctx, q); err != nil {
		return err
	}
	var first, last sql.NullInt64
	scanSpan := func(scan func(...any) error) error { return scan(&first, &last) }
	if err := s.eachIn(ctx, q, scanSpan, `SELECT min(seq), max(seq) FROM journal`); err != nil {
		return err
	}
	had, after := s.tail.Load(), s.journal.seq
	if !s.options.ReadOnly || had == nil || !last.Valid || last.Int64 < after || first.Int64 > after+1 {
		l.tail = tail.New()
		return s.replayJournal(ctx, q, math.MinInt64, l)
	}
	l.tail, l.journal = had, s.journal
	for id, d := range l.byID {
		if before := s.state.byID[id]; before != nil {
			last, at := d.lastSkipped, d.skippedAt // they have a table of their own
			d.facts, d.dirty = before.facts, before.dirty
			d.lastSkipped, d.skippedAt = last, at
		}
		if d.flushed >= after { // since we looked
			had.Drop(id)
		}
	}
	return s.replayJournal(ctx, q, after, l)
}
