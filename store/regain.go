package store

import (
	"bytes"
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"slices"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/plantops/plantops/store/block"
	"github.com/plantops/plantops/store/pack"
	"github.com/plantops/plantops/store/salvage"
)

// Salvage is what became of a damaged file.
type Salvage struct {
	Begun    int64  // UTC ms, when the database was made anew
	Cause    string // what was found
	Source   string // name of the old file, in the directory of the database
	Lost     string // what is missing beside readings; empty: nothing
	Done     int64  // percent of the old file that was searched for readings
	Finished int64  // UTC ms; zero: not yet
	// Missing says of how many rows of which device nothing was found. While it is not finished: not yet.
	Missing map[string]int64
}

const (
	regainRows     = 1000             // in one transaction, for which commits of new readings wait
	regainRetry    = 10 * time.Second // after an error, such as a full disk; doubled up to regainMaxRetry while it lasts
	regainMaxRetry = 10 * time.Minute
)

// Salvages returns what became of each damaged file, the oldest first.
func (s *Store) Salvages(ctx context.Context) (list []Salvage, err error) {
	var ids []int64
	err = s.each(ctx, func(scan func(...any) error) error {
		var one Salvage
		var id, page, pages int64
		err := scan(&id, &one.Begun, &one.Cause, &one.Source, &one.Lost, &page, &pages, &one.Finished)
		if one.Done = 100; one.Finished == 0 {
			one.Done = (page - 1) * 100 / max(pages, 1)
		}
		list, ids = append(list, one), append(ids, id)
		return err
	}, `SELECT id, begun, cause, source, lost, page, pages, finished FROM salvage ORDER BY id`)
	for i := range list {
		if err != nil {
			break
		}
		list[i].Missing = map[string]int64{}
		err = s.each(ctx, func(scan func(...any) error) error {
			var name string
			var missing int64
			err := scan(&name, &missing)
			list[i].Missing[name] = missing
			return err
		}, `SELECT device.name, expected - found FROM salvage_device AS d JOIN device ON device.id = d.device
			WHERE salvage = ? AND expected > found`, ids[i])
	}
	if err != nil {
		return nil, fmt.Errorf("list what was salvaged: %w", err)
	}
	return list, nil
}

// Regain brings readings of damaged files back, in small transactions beside everything else, until all of them are
// searched or ctx ends. What it finds there already, or in the database, it leaves as it is, so that it can be broken off at
// any time. It returns at once when there is nothing to do, and begins again when the file is made anew.
func (s *Store) Regain(ctx context.Context) error {
	for retry := regainRetry; ; {
		err := s.regainAll(ctx)
		if err != nil && ctx.Err() == nil {
			s.log.Warn("cannot bring back readings of a damaged database; trying again", "err", err)
		}
		wait := s.rebuilt
		var again <-chan time.Time
		if err != nil {
			again, retry = time.After(retry), min(2*retry, regainMaxRetry)
		} else {
			retry = regainRetry
		}
		select {
		case <-ctx.Done():
			return nil
		case <-wait:
		case <-again:
		}
	}
}

func (s *Store) regainAll(ctx context.Context) error {
	for {
		var r regain
		err := s.queryRow(ctx, `SELECT id, source, page FROM salvage WHERE finished = 0 ORDER BY id LIMIT 1`).
			Scan(&r.id, &r.source, &r.page)
		if errors.Is(err, sql.ErrNoRows) {
			return nil
		}
		if err == nil {
			err = r.run(ctx, s)
		}
		if err != nil {
			return s.suspect(err)
		}
	}
}

// regain is the search of one old file.
type regain struct {
	id     int64
	source string
	page   int64

	found map[int64]int64 // rows by device, in this transaction
	rows  []salvage.Row
}

func (r *regain) run(ctx context.Context, s *Store) error {
	began := time.Now()
	f, err := salvage.Open(filepath.Join(filepath.Dir(s.path), r.source), pageBytes)
	if errors.Is(err, fs.ErrNotExist) {
		s.log.Error("the damaged database is not there any more: its readings are lost", "file", r.source)
		return r.commit(ctx, s, 0, true)
	}
	if err != nil {
		return err
	}
	defer func() { _ = f.Close() }() // only read
	f.Scan(uint32(r.page), func(page uint32, table bool, rows []salvage.Row) bool {
		for _, row := range rows {
			if !table || len(row.Values) == blockColumns {
				r.rows = append(r.rows, row)
			}
		}
		if len(r.rows) >= regainRows {
			err = r.commit(ctx, s, int64(page)+1, false)
		}
		return err == nil
	})
	if err == nil {
		err = r.commit(ctx, s, int64(f.Pages())+1, true)
	}
	if err == nil {
		s.log.Info("readings of the damaged database are back", "file", r.source, "took", time.Since(began).Round(time.Second))
	}
	return err
}

// commit stores what was gathered and how far that is.
func (r *regain) commit(ctx context.Context, s *Store, page int64, finished bool) error {
	if err := s.acquire(ctx); err != nil {
		return err
	}
	defer s.release()
	if space, err := s.Space(); err == nil && len(r.rows) > 0 && space.FreeBytes < reserveRoom {
		return fmt.Errorf("%w: what is left of it is for new readings; make room on the file system of %s", ErrFull, s.path)
	}
	err := s.transact(func() error {
		r.found = map[int64]int64{}
		for _, row := range r.rows {
			if err := r.insert(s, row); err != nil {
				return err
			}
		}
		for device, n := range r.found {
			if err := s.w.countFound.run(n, r.id, device); err != nil {
				return err
			}
		}
		var when int64
		if finished {
			when = max(s.options.Now().UnixMilli(), 1)
		}
		return s.w.noteSalvage.run(page, when, r.id)
	})
	if err == nil {
		r.rows = r.rows[:0]
		s.compaction.moving = s.hasRows
		if finished {
			s.compaction.moved = placed{}
		}
		s.wakeCompaction()
	}
	return err
}

// blockColumns is how many a row of table block has.
const blockColumns = 6

// insertBlock takes one row that has the shape of a block.
func (r *regain) insertBlock(s *Store, row salvage.Row) error {
	n, ok1 := row.Values[1].(int64)
	first, ok2 := row.Values[2].(int64)
	last, ok3 := row.Values[3].(int64)
	summary, ok4 := row.Values[4].([]byte)
	body, ok5 := row.Values[5].([]byte)
	m := block.Meta{Key: row.RowID, N: int(n), First: first, Last: last}
	_, id, _ := block.SplitKey(m.Key)
	w := &s.compaction.work
	if !ok1 || !ok2 || !ok3 || !ok4 || !ok5 || id == 0 || w.decoder.Decode(m, body) != nil {
		return nil
	}
	d, err := r.deviceOf(s, id)
	if d == nil || err != nil {
		return err
	}
	list := make([]block.Reading, w.decoder.Len())
	for i := range list {
		list[i] = w.decoder.Reading(i, nil)
		if err := r.nameMetrics(s, d, list[i].Values); err != nil {
			return err
		}
	}
	s.touch(d)
	if err := s.noteTime(d, m.First, m.Last); err != nil {
		return err
	}
	there, whole := false, false
	err = s.w.blockBody.query(func(row []driver.Value) error {
		old, _ := row[0].([]byte)
		there, whole = true, bytes.Equal(old, body)
		return nil
	}, m.Key)
	if err != nil {
		return err
	}
	found := rowsIn(list)
	r.found[id] += found
	if whole { // it was found before
		return nil
	}
	missing, times := list, int64(len(list))
	free, err := s.isFree(d, first, last)
	if err == nil && !free {
		missing, times, err = s.missingOf(d, list)
	}
	if err != nil {
		return err
	}
	if _, bad := block.DecodeSummary(m, summary); there || bad != nil || !free { // the number is another one's by now, or some came again
		left, err := s.putBlocks(d, missing)
		for i := range left {
			if err == nil {
				_, err = s.insertRow(d, left[i].Time, left[i].Received, int64(left[i].Flags), left[i].Given, left[i].Values)
			}
		}
		if err != nil {
			return err
		}
	} else if err := s.w.writeBlock.run(m.Key, n, first, last, summary, body); err != nil {
		return err
	}
	s.mayHaveBlocks(d, block.Month(first))
	delete(s.lookups, d.id)
	d.blockEnd = max(d.blockEnd, last) // at once: what this transaction takes next is compared with it, and too much does no harm
	d.next.rows += times
	d.next.lastReading = max(d.next.lastReading, last)
	s.tx.flushed = append(s.tx.flushed, flushed{d, last, false})
	return s.writeNewest(d, list, d.flushed)
}

// isFree tells that nothing of a device stands from a time to another of the same month, which are included; false: perhaps.
func (s *Store) isFree(d *device, first, last int64) (bool, error) {
	if d.pending > 0 || s.tail.Load().Slice(d.id, first, last+1).Len() > 0 {
		return false, nil
	}
	if first <= d.blockEnd {
		l, err := s.lookup(d, block.Month(first))
		if err != nil || slices.ContainsFunc(l.metas, func(m block.Meta) bool { return m.First <= last && first <= m.Last }) {
			return false, err
		}
	}
	if !s.hasRows {
		return true, nil
	}
	rows, err := s.w.rowsBetween.number(d.id, first, last)
	return rows == 0, err
}

// missingOf returns readings of an old block without the values that the database has, which came again, and how many of their times
// it has nothing of.
func (s *Store) missingOf(d *device, list []block.Reading) (missing []block.Reading, times int64, err error) {
	for _, r := range list {
		there, counted, err := s.valuesAt(d, s.tx.pendingAt(d, r.Time), r.Time, s.tx.old[:0])
		if err != nil {
			return nil, 0, err
		}
		row, isRow, err := s.rowAt(d, r.Time)
		if err != nil {
			return nil, 0, err
		}
		if isRow {
			counted = true
			if more, err := pack.Decode(there, row); err == nil { // what cannot be read hides nothing
				there = more
			}
		}
		if len(there) == 0 && !isRow {
			times++
		}
		if counted {
			r.Flags |= flagExtra
		}
		r.Values = slices.DeleteFunc(slices.Clone(r.Values), func(v block.Value) bool {
			_, known := find(there, v.Metric)
			return known
		})
		if s.tx.old = there[:0]; len(r.Values) > 0 {
			missing = append(missing, r)
		}
	}
	return missing, times, nil
}

// deviceOf is nil for a device that was purged meanwhile. One whose name is lost gets another.
func (r *regain) deviceOf(s *Store, id int64) (*device, error) {
	if d := s.state.byID[id]; d != nil {
		return d, nil
	}
	if purged, err := s.w.countPurged.number(r.id, id); err != nil || purged > 0 {
		return nil, err
	}
	return s.createDeviceAs(id, fmt.Sprintf("salvaged-%d", id))
}

// nameMetrics gives metrics whose names are lost others.
func (r *regain) nameMetrics(s *Store, d *device, values []block.Value) error {
	for _, v := range values {
		if _, known := s.state.names[v.Metric]; !known {
			if err := s.createMetricAs(d, v.Metric, fmt.Sprintf("salvaged_%d", v.Metric)); err != nil {
				return err
			}
		}
	}
	return nil
}

// insert takes one row that has the shape of a reading.
func (r *regain) insert(s *Store, row salvage.Row) error {
	if len(row.Values) == blockColumns && row.Values[0] == nil {
		return r.insertBlock(s, row)
	}
	if len(row.Values) != 5 && len(row.Values) != 6 { // without and with what the device gave as its time
		return nil
	}
	var given any
	if len(row.Values) == 6 {
		if given = row.Values[5]; given != nil {
			if _, isText := given.(string); !isText {
				return nil
			}
		}
	}
	id, ok1 := row.Values[0].(int64)
	time, ok2 := row.Values[1].(int64)
	received, ok3 := row.Values[2].(int64)
	flags, ok4 := row.Values[3].(int64)
	body, ok5 := row.Values[4].([]byte)
	if !ok1 || !ok2 || !ok3 || !ok4 || !ok5 || id <= 0 {
		return nil
	}
	pairs, err := pack.Decode(nil, body)
	if err != nil || len(pairs) == 0 {
		return nil
	}
	d, err := r.deviceOf(s, id)
	if d == nil || err != nil {
		return err
	}
	if err := r.nameMetrics(s, d, pairs); err != nil {
		return err
	}
	s.touch(d)
	r.found[id]++ // also when it is there already: it is not missing
	if taken, err := s.isTaken(d, time); err != nil || taken {
		return err
	}
	text, _ := given.(string)
	isNew, err := s.insertRow(d, time, received, flags, text, pairs)
	if err == nil && isNew {
		d.next.rows++
		d.next.lastReading = max(d.next.lastReading, time)
		err = s.noteTime(d, time, time)
	}
	return err
}

// salvageStatements keep count of what was found.
type salvageStatements struct {
	countFound, countPurged, noteSalvage, rowsBetween *statement
}

func (q *salvageStatements) all() []compile {
	return []compile{
		{&q.countFound, `UPDATE salvage_device SET found = found + ? WHERE salvage = ? AND device = ?`},
		{&q.countPurged, `SELECT count(*) FROM salvage_device WHERE salvage = ? AND device = ? AND expected < 0`},
		{&q.noteSalvage, `UPDATE salvage SET page = ?, finished = ? WHERE id = ?`},
		{&q.rowsBetween, `SELECT EXISTS (SELECT 1 FROM reading WHERE device = ? AND time BETWEEN ? AND ?)`},
	}
}

// settleName compares the name of a device or a metric in its table with the one that the index has for the same id; there tells
// that the table has the id. SQLite has no checksums: where the two differ, one of them is damaged, and which one is told by what is in
// memory, the accounts, and what can be a name. Where nothing tells, the loss is named.
func (c *carrier) settleName(table, indexed string, id int64) (there bool, err error) {
	var name string
	q, err := c.to.w.statement(`SELECT name FROM ` + table + ` WHERE id = ?`)
	if err != nil {
		return false, err
	}
	err = q.query(func(row []driver.Value) error {
		name, there = row[0].(string)
		return nil
	}, id)
	if err = errors.Join(err, q.stmt.Close()); err != nil || !there || name == indexed {
		return there, err
	}
	switch right, known := c.rightName(table, id, name, indexed); {
	case !known:
		c.lost = append(c.lost, fmt.Sprintf("the name of %s %d, which is %q or %q", table, id, name, indexed))
	case right != name:
		q, err := c.to.w.statement(`UPDATE OR IGNORE ` + table + ` SET name = ? WHERE id = ?`)
		if err != nil {
			return true, err
		}
		return true, errors.Join(q.run(right, id), q.stmt.Close())
	}
	return true, nil
}

// rightName decides between two names of one thing.
func (c *carrier) rightName(table string, id int64, a, b string) (right string, known bool) {
	possible := func(name string) bool { return CheckID(name) == nil }
	if table == "metric" {
		possible = func(name string) bool {
			return name != "" && len(name) <= maxMetricNameBytes && utf8.ValidString(name) && !strings.ContainsFunc(name, unicode.IsControl)
		}
	}
	remembered := func(name string) bool {
		if c.memory == nil {
			return false
		}
		if table == "metric" {
			known, there := c.memory.state.metrics[name]
			return there && int64(known) == id
		}
		d := c.memory.state.devices[name]
		return d != nil && d.id == id
	}
	registered := func(name string) bool {
		if table != "device" {
			return false
		}
		q, err := c.to.w.statement(`SELECT count(*) FROM account WHERE name = ?`)
		if err != nil {
			return false
		}
		defer func() { _ = q.stmt.Close() }() // what Close could say, the query has said
		n, err := q.number(name)
		return err == nil && n > 0
	}
	for _, is := range []func(string) bool{remembered, registered, possible} {
		if yesA, yesB := is(a), is(b); yesA != yesB {
			if yesA {
				return a, true
			}
			return b, true
		}
	}
	return "", false
}
