package store

import (
	"database/sql/driver"
	"fmt"

	"github.com/plantops/plantops/store/block"
	"github.com/plantops/plantops/store/salvage"
)

// The journal of a damaged file comes along as it is, so that the tail is there at once. Its records say how many readings a
// device had, which is not right any more: blocks and rows are still to be found. So one more record is added with what is.

// countedDevice is what is known of a device: its facts, and how many of its readings the journal has.
type countedDevice struct {
	id      int64
	facts   facts
	flushed int64
	tail    int64
}

// isWhole reports whether a row that has a checksum fits it.
func (t *carried) isWhole(row salvage.Row) bool {
	switch t.name {
	case "journal":
		body, _ := row.Values[1].([]byte)
		var r block.CommitReader
		return readRecord(&r, row.RowID, body) == nil
	case "newest":
		body, _ := row.Values[len(row.Values)-1].([]byte)
		_, err := decodeNewest(row.RowID, body)
		return err == nil
	}
	return true
}

// count reads what the counters are: of the table, the journal, and where the file was open, of memory.
func (c *carrier) count() (list []*countedDevice, err error) {
	byID := map[int64]*countedDevice{}
	err = c.query(`SELECT id, stored, duplicate, quarantined, refused, rows, last_seen, last_reading, dropped, skipped, left_at, unsure_seen,
		unsure_line, coalesce(flushed, 0) FROM device JOIN counter ON counter.device = id LEFT JOIN newest ON newest.device = id`, func(row []driver.Value) error {
		d := &countedDevice{id: row[0].(int64), flushed: row[changes+1].(int64)}
		change := block.Change{Mask: 1<<changes - 1}
		for _, v := range row[1 : changes+1] {
			change.Values = append(change.Values, v.(int64))
		}
		d.facts.change(&change, 0)
		byID[d.id], list = d, append(list, d)
		return nil
	})
	if err != nil {
		return nil, err
	}
	var r block.CommitReader
	metrics := map[uint32]bool{}
	err = c.query(`SELECT seq, body FROM journal ORDER BY seq`, func(row []driver.Value) error {
		seq, _ := row[0].(int64)
		body, _ := row[1].([]byte)
		if err := r.Reset(seq, body); err != nil {
			return err
		}
		for r.Next() {
			e := r.Entry()
			if e.Flags&flagExtra == 0 && byID[e.Device] != nil && seq > byID[e.Device].flushed {
				byID[e.Device].tail++
			}
			for _, v := range e.Values {
				metrics[v.Metric] = true
			}
		}
		base := int64(0)
		for r.NextChange() {
			change := r.Change()
			if change.Device == baseDevice {
				base = change.Values[0]
			} else if d := byID[change.Device]; d != nil {
				d.facts.change(change, base)
			}
		}
		return r.Err()
	})
	if err == nil {
		err = c.nameMetrics(metrics)
	}
	if c.remembers("counter") {
		for id, d := range c.memory.state.byID {
			if to := byID[id]; to != nil {
				to.facts = d.facts
			}
		}
	}
	return list, err
}

// nameMetrics gives metrics whose names are lost others.
func (c *carrier) nameMetrics(metrics map[uint32]bool) error {
	q, err := c.to.w.statement(`INSERT OR IGNORE INTO metric (id, name, device) VALUES (?1, 'salvaged_' || ?1, 0)`)
	if err != nil {
		return err
	}
	defer func() { _ = q.stmt.Close() }() // what Close could say, the insertion has said
	for id := range metrics {
		if err := q.run(int64(id)); err != nil {
			return err
		}
	}
	return nil
}

func (c *carrier) query(text string, row func([]driver.Value) error) error {
	q, err := c.to.w.statement(text)
	if err != nil {
		return err
	}
	defer func() { _ = q.stmt.Close() }() // what Close could say, the query has said
	return q.query(row)
}

// writeCounts writes how many readings are to be found of each device, and how many there are.
func (c *carrier) writeCounts(salvage int64, list []*countedDevice) error {
	expected, err := c.to.w.statement(`INSERT INTO salvage_device (salvage, device, expected, found) VALUES (?, ?, ?, 0)`)
	if err != nil {
		return err
	}
	defer func() { _ = expected.stmt.Close() }()
	commit := block.Commit{Changes: make([]block.Change, 0, len(list))}
	for _, d := range list {
		if err := expected.run(salvage, d.id, max(d.facts.rows-d.tail, 0)); err != nil {
			return err
		}
		d.facts.rows = d.tail
		values := d.facts.list(0)
		commit.Changes = append(commit.Changes, block.Change{Device: d.id, Mask: 1<<changes - 1, Values: values[:]})
		n := &d.facts
		err := c.to.w.updateCounter.run(n.counts.Stored, n.counts.Duplicate, n.counts.Quarantined, n.counts.Refused,
			n.rows, n.lastSeen, n.lastReading, n.dropped, n.skipped, n.leftAt, n.unsureSeen, n.unsureLine, d.id)
		if err != nil {
			return fmt.Errorf("counters of device %d: %w", d.id, err)
		}
	}
	seq, err := c.to.w.lastRecord.number()
	if err != nil {
		return err
	}
	return c.to.w.insertRecord.run(seq+1, block.AppendCommit(nil, seq+1, &commit))
}
