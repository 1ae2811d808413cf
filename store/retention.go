package store

import (
	"context"
	"database/sql/driver"
	"fmt"
	"math"
	"slices"
	"time"

	"github.com/plantops/plantops/store/block"
)

const (
	// What one transaction of DeleteBefore deletes at most: commits of readings wait for it, so it takes a few
	// milliseconds. Rows of one device lie side by side, about 30 on a page, while each device is on pages of its own.
	retentionRows    = 1000
	retentionDevices = 50
	retentionBlocks  = 128

	chunkBytes = 64 << 10 // of the write-ahead log, about, for one of several transactions
)

// DeleteBefore deletes the readings whose time is before cutoff and returns how many times of devices that were, of whatever number
// of metrics. What was counted stays counted. It works in small transactions, between which whoever waits to write comes first;
// after an error or the end of ctx, what the finished ones deleted is gone, unless the power fails just then, and the next call goes
// on. A block that has older and newer readings is written anew. A reading that came while the clock was not to be trusted stays, until
// Redate has put it right. The space is used again for new readings, the file does not shrink.
func (s *Store) DeleteBefore(ctx context.Context, cutoff time.Time) (deleted int64, err error) {
	return s.DeleteBeforeOf(ctx, nil, cutoff)
}

// Devices says which devices are meant, by their names. nil: all.
type Devices func(name string) bool

func (d Devices) has(name string) bool { return d == nil || d(name) }

// DeleteBeforeOf is DeleteBefore of some devices. It finds their blocks beside the writer.
func (s *Store) DeleteBeforeOf(ctx context.Context, of Devices, cutoff time.Time) (deleted int64, err error) {
	before := cutoff.UnixMilli()
	var due []int64
	if of == nil {
		err = s.freeing(ctx, func() error {
			s.tx.lazy = true // on disk with the first deletion
			return s.noteKept(before)
		})
	}
	if err == nil {
		due, err = s.devicesBefore(ctx, of, before)
	}
	for err == nil && len(due) > 0 {
		var rows int64
		rows, due, err = s.deleteChunk(ctx, due, before)
		deleted += rows
	}
	if err == nil {
		err = s.flushBefore(ctx, of, before)
	}
	if err == nil {
		var rows int64
		if of == nil {
			rows, err = s.deleteBlocks(ctx, nil, before)
		} else {
			rows, err = s.deleteBlocksOf(ctx, of, before)
		}
		deleted += rows
	}
	if err == nil && deleted > 0 {
		err = s.cutFlushed(ctx)
	}
	if err != nil {
		return deleted, fmt.Errorf("delete readings before %s: %w", cutoff.UTC().Format(time.RFC3339), err)
	}
	return deleted, nil
}

// flushBefore puts the readings of devices that have some before a time in the tail into blocks, from which they can be deleted.
func (s *Store) flushBefore(ctx context.Context, of Devices, before int64) error {
	for more := true; more; {
		var devices []*device
		err := s.freeing(ctx, func() error {
			devices = devices[:0]
			for _, a := range s.tail.Load().All() {
				if d := s.state.byID[a.Device]; d != nil && a.Oldest < before && of.has(d.name) && len(devices) < stepDevices {
					devices = append(devices, d)
				}
			}
			s.tx.lazy = true // as in compaction
			return s.flushDevices(devices)
		})
		if err != nil {
			return err
		}
		more = len(devices) == stepDevices
	}
	return nil
}

// freeing is chunk for what makes room: on a full disk it takes what is held in reserve for that.
func (s *Store) freeing(ctx context.Context, change func() error) error {
	err := s.chunk(ctx, change)
	if s.isFull(err) && s.giveReserve() {
		err = s.chunk(ctx, change)
	}
	return err
}

// chunk runs one of several transactions, between which others come first.
func (s *Store) chunk(ctx context.Context, change func() error) error {
	if err := s.acquire(ctx); err != nil {
		return err
	}
	defer s.release()
	err := s.transact(change)
	if err == nil {
		s.w.copier.committed(chunkBytes)
	}
	s.idle.Reset(idleAfter)
	return err
}

// deleteBlocks deletes what is before a time from blocks of a device; nil: of all.
func (s *Store) deleteBlocks(ctx context.Context, of *device, before int64) (deleted int64, err error) {
	behind, again := int64(math.MinInt64), true
	for again && err == nil {
		var n, last int64
		var more bool
		err = s.freeing(ctx, func() (err error) {
			n, last, more, err = s.deleteSomeBlocks(of, before, behind)
			s.tx.lazy = more // with the last one all are on disk
			return err
		})
		if err == nil {
			deleted, behind, again = deleted+n, last, more
		}
	}
	return deleted, err
}

// deleteBlocksOf deletes what is before a time from blocks of some devices. A device is looked through from the first month that may
// have any: a start does not know which that is.
func (s *Store) deleteBlocksOf(ctx context.Context, of Devices, before int64) (deleted int64, err error) {
	from, end := map[int64]int64{}, blockMonth(before)
	if err := s.acquire(ctx); err != nil {
		return 0, err
	}
	for id, d := range s.state.byID {
		if d.firstMonth <= end && of(d.name) {
			from[id] = d.firstMonth
			d.firstMonth = end // what comes meanwhile makes it earlier again
		}
	}
	s.release()
	defer func() {
		if err != nil && s.acquire(context.WithoutCancel(ctx)) == nil {
			for id, month := range from {
				s.mayHaveBlocks(s.state.byID[id], month)
			}
			s.release()
		}
	}()
	keys, err := s.blocksBefore(ctx, from, before)
	for len(keys) > 0 && err == nil {
		var n int64
		some := keys[:min(len(keys), retentionBlocks)]
		keys = keys[len(some):]
		err = s.freeing(ctx, func() (err error) {
			s.tx.lazy = len(keys) > 0 // with the last one all are on disk
			n, err = s.deleteFromBlocks(some, before)
			return err
		})
		if err == nil {
			deleted += n
		}
	}
	return deleted, err
}

// blockMonth is the month of a time, or the first or the last that a block can be of.
func blockMonth(ms int64) int64 { return block.Month(max(min(ms, maxBlockTime), -maxBlockTime)) }

// mayHaveBlocks says that a device, nil for none, may have blocks in a month. Who writes calls it.
func (s *Store) mayHaveBlocks(d *device, month int64) {
	if d != nil {
		d.firstMonth = min(d.firstMonth, month)
	}
}

// deleteFromBlocks is deleteFromBlock of those that are still there.
func (s *Store) deleteFromBlocks(keys []int64, before int64) (deleted int64, err error) {
	for _, key := range keys {
		var b storedBlock
		err := s.w.blockAt.query(func(row []driver.Value) error {
			b.take(row)
			return nil
		}, key)
		if err != nil {
			return 0, err
		}
		if b.N == 0 || b.First >= before {
			continue // it has grown together with another one
		}
		n, err := s.deleteFromBlock(&b, before)
		if err != nil {
			return 0, err
		}
		deleted += n
	}
	return deleted, nil
}

// storedBlock is a row of table block.
type storedBlock struct {
	block.Meta
	body []byte
}

func (b *storedBlock) take(row []driver.Value) {
	b.Meta = block.Meta{Key: row[0].(int64), N: int(row[1].(int64)), First: row[2].(int64), Last: row[3].(int64)}
	b.body, _ = row[4].([]byte)
}

// deleteSomeBlocks looks at some blocks behind a key, inside the running transaction.
func (s *Store) deleteSomeBlocks(of *device, before, behind int64) (deleted, last int64, more bool, err error) {
	// What is in the months behind that of the time is newer.
	end := int64(math.MaxInt64)
	if before < maxBlockTime {
		end = block.Key(block.Month(before)+1, 0, 0)
	}
	var list []storedBlock
	take := func(row []driver.Value) error {
		var b storedBlock
		b.take(row)
		list = append(list, b)
		return nil
	}
	if of == nil {
		err = s.w.oldBlocks.query(take, behind, end, before, int64(retentionBlocks))
	} else {
		err = s.blocksOfDevice(of, behind, take)
	}
	for i := range list {
		if err != nil {
			break
		}
		var n int64
		n, err = s.deleteFromBlock(&list[i], before)
		deleted += n
		last = list[i].Key
	}
	return deleted, last, len(list) >= retentionBlocks, err
}

// blocksOfDevice takes blocks of a device behind a key, about retentionBlocks of them. They are month by month apart.
func (s *Store) blocksOfDevice(d *device, behind int64, take func([]driver.Value) error) error {
	for taken := 0; taken < retentionBlocks; {
		next, err := s.w.nextBlock.number(behind)
		if err != nil || next == math.MinInt64 {
			return err
		}
		month, _, _ := block.SplitKey(next)
		from := max(behind, block.Key(month, d.id, 0)-1)
		n := 0
		err = s.w.blocksBetween.query(func(row []driver.Value) error {
			n++
			behind = row[0].(int64)
			return take(row)
		}, from, block.Key(month, d.id+1, 0), int64(retentionBlocks))
		if err != nil {
			return err
		}
		if taken += n; n < retentionBlocks {
			behind = block.Key(month+1, 0, 0) - 1
		}
	}
	return nil
}

// deleteFromBlock deletes what a block has before a time, and with it what table newest has.
func (s *Store) deleteFromBlock(b *storedBlock, before int64) (deleted int64, err error) {
	w := &s.compaction.work
	_, id, _ := block.SplitKey(b.Key)
	d := s.state.byID[id]
	whole := w.decoder.Decode(b.Meta, b.body) == nil
	keep := w.readings[:0]
	if whole {
		older, _ := slices.BinarySearch(w.decoder.Times(), before)
		flags := w.decoder.Flags()
		for i := range older {
			if flags == nil || flags[i]&flagExtra == 0 {
				deleted++
			}
		}
		w.values = slices.Grow(w.values[:0], (w.decoder.Len()-older)*len(w.decoder.Metrics()))
		for i := older; i < w.decoder.Len(); i++ {
			r := w.decoder.Reading(i, w.values)
			w.values = w.values[:len(w.values)+len(r.Values)]
			keep = append(keep, r)
		}
		w.readings = keep
	}
	switch {
	case !whole && b.Last >= before: // it may have newer ones, which somebody may want to look for
		if d != nil {
			month, _, _ := block.SplitKey(b.Key)
			s.mayHaveBlocks(d, month)
		}
		return 0, nil
	case !whole:
		deleted = int64(b.N)
	}
	if len(keep) == 0 {
		err = s.w.deleteBlock.run(b.Key)
	} else {
		m, summary, body, encodeErr := w.encoder.Encode(b.Key, keep)
		if encodeErr != nil {
			return 0, encodeErr
		}
		err = s.w.writeBlock.run(m.Key, int64(m.N), m.First, m.Last, summary, body)
	}
	if err != nil || d == nil { // that the blocks have a device is not the schema's rule
		return deleted, err
	}
	if err := s.noteKeptOf(d, before); err != nil {
		return deleted, err
	}
	s.touch(d)
	d.next.rows = max(d.next.rows-deleted, 0)
	delete(s.lookups, d.id)
	n, err := s.newestOf(d)
	if err != nil {
		return deleted, err
	}
	had := len(n.readings)
	n.readings = slices.DeleteFunc(n.readings, func(r block.Reading) bool { return r.Time < before })
	if len(n.readings) == had {
		return deleted, nil
	}
	d.hours.Stale = true
	return deleted, s.replaceNewest(d, &n)
}

// CountBefore returns how many times of devices DeleteBefore would delete, and the newest of them. It reads them all.
func (s *Store) CountBefore(ctx context.Context, cutoff time.Time) (rows int64, newest time.Time, err error) {
	return s.CountBeforeOf(ctx, nil, cutoff)
}

// CountBeforeOf is CountBefore of some devices.
func (s *Store) CountBeforeOf(ctx context.Context, of Devices, cutoff time.Time) (rows int64, newest time.Time, err error) {
	rows, last, err := s.countBefore(ctx, of, cutoff.UnixMilli())
	if err != nil {
		return 0, time.Time{}, fmt.Errorf("count readings before %s: %w", cutoff.UTC().Format(time.RFC3339), explain(err))
	}
	return rows, time.UnixMilli(last), nil
}

func (s *Store) countBefore(ctx context.Context, of Devices, before int64) (rows, newest int64, err error) {
	v, err := s.view(ctx)
	if err != nil {
		return 0, 0, err
	}
	defer func() { _ = v.Close() }() // it only reads
	newest = math.MinInt64
	count := func(time int64, flags uint32) {
		if time < before && flags&flagExtra == 0 {
			rows++
			newest = max(newest, time)
		}
	}
	err = v.query(ctx, func(row []driver.Value) error {
		if name, _ := row[0].(string); of.has(name) {
			rows += row[1].(int64)
			newest = max(newest, row[2].(int64))
		}
		return nil
	}, `SELECT name, count(time), max(time) FROM device JOIN reading ON reading.device = device.id AND time < ? AND flags & 4 = 0
		GROUP BY device.id`, before)
	if err != nil {
		return 0, 0, err
	}
	var r block.Reading
	ids := s.ids(of)
	for _, id := range ids {
		list := v.tail.Slice(id, math.MinInt64, before)
		for i := range list.Len() {
			r.Values = r.Values[:0]
			list.Read(i, &r)
			count(r.Time, r.Flags)
		}
	}
	var dec block.Decoder
	take := func(row []driver.Value) error {
		m, err := metaOf(row)
		body, _ := row[4].([]byte)
		if err != nil || dec.Decode(m, body) != nil {
			return err
		}
		flags := dec.Flags()
		for i, time := range dec.Times() {
			if flags == nil {
				count(time, 0)
			} else {
				count(time, flags[i])
			}
		}
		return nil
	}
	if of == nil {
		ids = nil
	}
	err = v.eachMonth(ctx, blockMonth(math.MinInt64), blockMonth(before), func(month int64) (bool, error) {
		for _, keys := range spans(month, ids) {
			err := v.query(ctx, take, `SELECT key, n, t0, t1, body FROM block WHERE key >= ? AND key < ? AND t0 < ?`, keys[0], keys[1], before)
			if err != nil {
				return false, err
			}
		}
		return true, nil
	})
	return rows, max(newest, 0), err
}

// devicesBefore returns the devices that have rows in table reading before a time. It reads beside the writer.
func (s *Store) devicesBefore(ctx context.Context, of Devices, before int64) (ids []int64, err error) {
	err = s.each(ctx, func(scan func(...any) error) error {
		var id int64
		var name string
		if err := scan(&id, &name); err != nil {
			return err
		}
		if of.has(name) {
			ids = append(ids, id)
		}
		return nil
	}, `SELECT id, name FROM device WHERE EXISTS (SELECT 1 FROM reading WHERE reading.device = device.id AND time < ? AND flags & 4 = 0)`, before)
	return ids, err
}

// deleteChunk runs one transaction on rows of table reading and returns which devices may have more to delete.
func (s *Store) deleteChunk(ctx context.Context, due []int64, before int64) (deleted int64, rest []int64, err error) {
	err = s.freeing(ctx, func() error {
		deleted, rest = 0, due
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
	if err != nil {
		return 0, nil, err
	}
	return deleted, rest, nil
}

type retentionStatements struct {
	oldestReadings, deleteReadings, oldBlocks, blocksBetween, nextBlock, blockAt *statement
}

func (q *retentionStatements) all() []compile {
	return []compile{
		{&q.oldestReadings, `SELECT count(*), max(time) FROM (SELECT time FROM reading
			WHERE device = ? AND time < ? AND flags & 4 = 0 ORDER BY time LIMIT ?)`},
		{&q.deleteReadings, `DELETE FROM reading WHERE device = ? AND time <= ? AND flags & 4 = 0`},
		{&q.oldBlocks, `SELECT key, n, t0, t1, body FROM block WHERE key > ? AND key < ? AND t0 < ? ORDER BY key LIMIT ?`},
		{&q.blocksBetween, `SELECT key, n, t0, t1, body FROM block WHERE key > ? AND key < ? ORDER BY key LIMIT ?`},
		{&q.blockAt, `SELECT key, n, t0, t1, body FROM block WHERE key = ?`},
		{&q.nextBlock, `SELECT coalesce(min(key), -1 << 63) FROM block WHERE key > ?`},
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
		d.next.rows = max(d.next.rows-deleted, 0)
		d.hours.Stale = true
		return deleted, s.noteKeptOf(d, before)
	}
	return deleted, nil
}
