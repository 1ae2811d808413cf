package store

import (
	"context"
	"database/sql/driver"
	"fmt"
	"math"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/plantops/plantops/store/numbered"
)

// Bounds on what is kept of fields that could not be read.
const (
	maxSkippedFields  = 64       // of a device; more are counted together
	maxFieldBytes     = 128      // of a field's path
	maxTextBytes      = 64       // of what stood there
	maxOriginals      = 256      // messages of a device, the latest
	maxOriginalBytes  = 16 << 10 // of one message; a longer one is cut
	maxOriginalsBytes = 64 << 20 // of all messages, with what each costs
)

// otherFields stands for what comes after the bound on different fields.
const otherFields = "other fields"

// SkippedField is a field of a device's messages that could not be read.
type SkippedField struct {
	Device, Field string
	Text          string // what the last one said, or the beginning of it
	Count         int64
	First, Last   int64 // UTC ms, of arrival
}

// Original is a message that was stored with a field missing.
type Original struct {
	Device, Topic string
	Time          int64 // UTC ms, of arrival
	ClockUnsure   bool
	Payload       []byte // at most 16 KiB of it
	Size          int64  // of the whole payload, in bytes
}

// skippedKey is one row of table skipped.
type skippedKey struct {
	device int64
	field  string
}

// skippedRow is what the running transaction knows of it.
type skippedRow struct {
	count       int64 // in this transaction
	first, last int64
	text        string
	isNew       bool
}

// originalsSize is what all originals count together: summed up once and then kept.
type originalsSize struct {
	known           bool
	committed, next int64
}

type skippedStatements struct {
	selectSkipped, countSkipped, writeSkipped                            *statement
	sumOriginals, insertOriginal, deleteOriginals, deleteOldestOriginals *statement
}

func (q *skippedStatements) all() []compile {
	return []compile{
		{&q.selectSkipped, `SELECT text FROM skipped WHERE device = ? AND field = ?`},
		{&q.countSkipped, `SELECT count(*) FROM skipped WHERE device = ?`},
		{&q.writeSkipped, `INSERT INTO skipped (device, field, count, first, last, text) VALUES (?, ?, ?, ?, ?, ?)
			ON CONFLICT (device, field) DO UPDATE SET count = count + excluded.count,
				first = min(first, excluded.first), last = max(last, excluded.last), text = excluded.text`},
		{&q.sumOriginals, `SELECT coalesce(sum(length(payload) + octet_length(topic) + ?), 0) FROM original`},
		{&q.insertOriginal, `INSERT INTO original (device, number, time, flags, size, topic, payload)
			VALUES (?1, (SELECT coalesce(max(number), 0) + 1 FROM original WHERE device = ?1), ?2, ?3, ?4, ?5, ?6)`},
		{&q.deleteOriginals, `DELETE FROM original WHERE device = ?1 AND number <=
			(SELECT max(number) FROM original WHERE device = ?1) - ?2 RETURNING length(payload) + octet_length(topic)`},
		{&q.deleteOldestOriginals, `DELETE FROM original WHERE id IN (SELECT id FROM original ORDER BY id LIMIT ?)
			RETURNING length(payload) + octet_length(topic)`},
	}
}

// clean is text that every CHECK and every terminal takes: valid UTF-8 without control characters, cut to a number of bytes.
func clean(text string, limit int) string {
	text = strings.Map(func(r rune) rune {
		if !unicode.IsPrint(r) {
			return '\uFFFD'
		}
		return r
	}, cut(text, limit))
	return cut(text, limit) // what took a byte may take three now
}

// cut shortens text to a number of bytes, at the beginning of a rune.
func cut(text string, limit int) string {
	if len(text) <= limit {
		return text
	}
	for limit > 0 && !utf8.RuneStart(text[limit]) {
		limit--
	}
	return text[:limit]
}

// noteSkipped counts what a message says that could not be read, and keeps the message when that is not what the last one
// said already.
func (s *Store) noteSkipped(d *device, m *Message, keep bool) error {
	news, at := false, s.dateOf(m.Received, m.ClockUnsure)
	for _, f := range m.Skipped {
		row, err := s.skippedOf(d, clean(f.Field, maxFieldBytes))
		if err != nil {
			return fmt.Errorf("skipped fields of device %q: %w", d.name, err)
		}
		text := clean(f.Text, maxTextBytes)
		news = news || row.isNew && row.count == 0 || text != row.text || len(f.Text) > maxTextBytes
		row.text = text
		row.count++
		row.first, row.last = min(row.first, at), max(row.last, at)
		d.next.skipped++
		d.next.lastSkipped, d.next.skippedAt = Skipped{clean(f.Field, maxFieldBytes), text}, at
	}
	if !keep || !news {
		return nil
	}
	if err := s.keepOriginal(d, m); err != nil {
		return fmt.Errorf("keep a message of device %q: %w", d.name, err)
	}
	return nil
}

// skippedOf returns what the transaction knows of a field.
func (s *Store) skippedOf(d *device, field string) (*skippedRow, error) {
	if field == "" {
		field = "(no name)"
	}
	key := skippedKey{d.id, field}
	if row, there := s.tx.skipped[key]; there {
		return row, nil
	}
	row := &skippedRow{first: math.MaxInt64, last: math.MinInt64, isNew: true}
	err := s.w.selectSkipped.query(func(columns []driver.Value) error {
		row.text, _ = columns[0].(string)
		row.isNew = false
		return nil
	}, d.id, field)
	if err != nil {
		return nil, err
	}
	if row.isNew && field != otherFields {
		fields, err := s.w.countSkipped.number(d.id)
		if err != nil {
			return nil, err
		}
		if fields+s.tx.newSkipped[d.id] >= maxSkippedFields {
			return s.skippedOf(d, otherFields)
		}
	}
	if s.tx.skipped == nil {
		s.tx.skipped, s.tx.newSkipped = make(map[skippedKey]*skippedRow), make(map[int64]int64)
	}
	s.tx.skipped[key] = row
	if row.isNew {
		s.tx.newSkipped[d.id]++
	}
	return row, nil
}

// writeSkipped writes one row per device and field.
func (s *Store) writeSkipped() error {
	for key, row := range s.tx.skipped {
		if err := s.w.writeSkipped.run(key.device, key.field, row.count, row.first, row.last, row.text); err != nil {
			return fmt.Errorf("count skipped fields: %w", err)
		}
	}
	return nil
}

// keepOriginal keeps the payload of a message, and lets the oldest ones go when there are too many.
func (s *Store) keepOriginal(d *device, m *Message) error {
	size := &s.tx.originals
	if !size.known {
		sum, err := s.w.sumOriginals.number(int64(entryOverheadBytes))
		if err != nil {
			return err
		}
		*size = originalsSize{known: true, committed: sum, next: sum}
	}
	payload := m.Payload[:min(len(m.Payload), maxOriginalBytes)]
	if payload == nil {
		payload = []byte{} // nil would be NULL
	}
	err := s.w.insertOriginal.run(d.id, m.Received, m.flags(), int64(len(m.Payload)), m.Topic, payload)
	if err != nil {
		return err
	}
	s.tx.payloads += len(payload) + len(m.Topic) + entryOverheadBytes
	size.next += int64(len(payload) + len(m.Topic) + entryOverheadBytes)
	gone := func(row []driver.Value) error {
		size.next -= row[0].(int64) + entryOverheadBytes
		return nil
	}
	if err := s.w.deleteOriginals.query(gone, d.id, int64(maxOriginals)); err != nil {
		return err
	}
	for size.next > maxOriginalsBytes {
		before := size.next
		if err := s.w.deleteOldestOriginals.query(gone, int64(evictEntries)); err != nil || size.next == before {
			return err
		}
	}
	return nil
}

// loadSkipped fills in which field of a device was the last.
func (s *Store) loadSkipped(ctx context.Context, q querier, l *onDisk) error {
	return s.eachIn(ctx, q, func(scan func(...any) error) error {
		var id, at int64
		var last Skipped
		err := scan(&id, &last.Field, &last.Text, &at) // of the row that has the maximum
		if d := l.byID[id]; d != nil {
			d.lastSkipped, d.skippedAt = last, at
		}
		return err
	}, `SELECT device, field, text, max(last) FROM skipped GROUP BY device`)
}

// SkippedFields returns the fields that could not be read, of one device or with an empty id of all, those that came last
// first.
func (s *Store) SkippedFields(ctx context.Context, device string) (list []SkippedField, err error) {
	err = s.each(ctx, func(scan func(...any) error) error {
		var f SkippedField
		err := scan(&f.Device, &f.Field, &f.Text, &f.Count, &f.First, &f.Last)
		list = append(list, f)
		return err
	}, `SELECT device.name, field, text, count, first, last FROM skipped JOIN device ON device.id = skipped.device
		WHERE ?1 = '' OR device.name = ?1 ORDER BY last DESC, device.name, field`, device)
	if err != nil {
		return nil, fmt.Errorf("list skipped fields: %w", err)
	}
	return list, nil
}

// Originals returns the messages of a device that were stored with a field missing, as far as they are kept: the newest 256
// at most, the oldest of them first.
func (s *Store) Originals(ctx context.Context, device string) (list []Original, err error) {
	err = s.each(ctx, func(scan func(...any) error) error {
		var o Original
		var flags int64
		err := scan(&o.Device, &o.Topic, &o.Time, &flags, &o.Payload, &o.Size)
		o.ClockUnsure = flags&flagClockUnsure != 0
		list = append(list, o)
		return err
	}, `SELECT device.name, topic, time, flags, payload, size FROM original JOIN device ON device.id = original.device
		WHERE device.name = ? ORDER BY number`, device)
	if err != nil {
		return nil, fmt.Errorf("list messages with skipped fields: %w", err)
	}
	return list, nil
}

// maxBoots is how many starts of a device are remembered, those heard last (package numbered: how much of each).
const maxBoots = 8

// Numbering is what a device that numbers its messages says about one of them. (Device, Boot, Sequence) is the message:
// what comes again under it is a duplicate, whatever its time says, or a conflict when its values are others.
type Numbering struct {
	Boot     string // names the start of the device, 1 to 32 bytes; empty: the message has no number
	Sequence int64  // from 0, counted from the device's start
	Dropped  int64  // readings that the device had to give up since it last said so
}

// boot is one start of a device.
type boot struct {
	device int64
	name   string
}

// numberedBoot is what has come of one start.
type numberedBoot struct {
	numbered.Seen
	stored bool // it has a row
}

// print is a fingerprint of values.
func print(values []Value) uint32 {
	sum := uint32(2166136261) // FNV-1a
	for i := range values {
		v := &values[i]
		for j := range len(v.Metric) {
			sum = (sum ^ uint32(v.Metric[j])) * 16777619
		}
		bits := math.Float64bits(v.Value + 0) // the two zeros are one
		for shift := 0; shift < 64; shift += 8 {
			sum = (sum ^ uint32(bits>>shift&0xff)) * 16777619
		}
	}
	return sum
}

type sequenceStatements struct {
	selectBoot, writeBoot, forgetBoots *statement
}

func (q *sequenceStatements) all() []compile {
	return []compile{
		{&q.selectBoot, `SELECT seen FROM boot WHERE device = ? AND boot = ?`},
		{&q.writeBoot, `INSERT INTO boot (device, boot, used, seen)
			VALUES (?1, ?2, (SELECT coalesce(max(used), 0) + 1 FROM boot WHERE device = ?1), ?3)
			ON CONFLICT (device, boot) DO UPDATE SET used = excluded.used, seen = excluded.seen`},
		{&q.forgetBoots, `DELETE FROM boot WHERE device = ?1 AND used <=
			(SELECT used FROM boot WHERE device = ?1 ORDER BY used DESC LIMIT 1 OFFSET ?2)`},
	}
}

// recognise tells what a part is to those of its device that came before, and takes a new one in. What has no number is
// new.
func (s *Store) recognise(d *device, p *Part) (numbered.Standing, error) {
	n := &p.Numbering
	if n.Boot == "" || d.name == "" {
		return numbered.New, nil
	}
	of, err := s.seenOf(boot{d.id, n.Boot})
	if err != nil {
		return numbered.New, fmt.Errorf("numbered messages of device %q: %w", d.name, err)
	}
	says := print(p.Values)
	standing := of.Look(n.Sequence, says)
	if standing == numbered.New {
		of.Add(n.Sequence, says)
	}
	return standing, nil
}

// seenOf returns what has come of a start, for this transaction.
func (s *Store) seenOf(b boot) (*numberedBoot, error) {
	if known, there := s.tx.seen[b]; there {
		if last := len(s.tx.boots) - 1; s.tx.boots[last] != b {
			s.tx.boots = append(slices.DeleteFunc(s.tx.boots, func(other boot) bool { return other == b }), b)
		}
		return known, nil
	}
	of := &numberedBoot{}
	err := s.w.selectBoot.query(func(row []driver.Value) error {
		blob, _ := row[0].([]byte)
		var err error
		if of.Seen, err = numbered.Decode(blob); err != nil { // that is no reason to refuse the device's readings
			s.log.Warn("forgot which numbered messages came", "device", s.state.byID[b.device].name, "boot", b.name, "err", err)
		}
		of.stored = true
		return nil
	}, b.device, b.name)
	if err != nil {
		return nil, err
	}
	if s.tx.seen == nil {
		s.tx.seen = make(map[boot]*numberedBoot)
	}
	s.tx.seen[b] = of
	s.tx.boots = append(s.tx.boots, b)
	return of, nil
}

// writeSeen writes one row per start, and forgets the oldest starts of devices that have too many.
func (s *Store) writeSeen() error {
	for _, b := range s.tx.boots {
		of := s.tx.seen[b]
		if err := s.w.writeBoot.run(b.device, b.name, of.Encode()); err != nil {
			return fmt.Errorf("write numbered messages: %w", err)
		}
		if of.stored {
			continue
		}
		if err := s.w.forgetBoots.run(b.device, int64(maxBoots)); err != nil {
			return fmt.Errorf("forget numbered messages: %w", err)
		}
	}
	return nil
}
