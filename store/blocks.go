package store

import (
	"context"
	"database/sql/driver"
	"maps"
	"math"
	"slices"

	"github.com/plantops/plantops/store/block"
	"github.com/plantops/plantops/store/pack"
	"github.com/plantops/plantops/store/tail"
)

const (
	blockReadings = 1024              // a block that has so many does not grow any more
	maxReadings   = 2 * blockReadings // in a block at most, unless a device has very many

	// The last block of a device's month takes more readings as long as it has fewer, which one page has room for. Larger ones become one
	// when that does not grow any more.
	smallBlock = 100
	// Behind this number blocks are filled as far as they can be: a month has room for 65,536 of a device.
	scarceNumber = 1 << 15
	scarceBlock  = block.MaxReadings - blockReadings
)

type blockReading = block.Reading

// scratch is memory that compaction uses again.
type scratch struct {
	readings []block.Reading
	values   []block.Value
	encoder  block.Encoder
	decoder  block.Decoder
}

// read returns the readings of a slice of the tail, one of each time.
func (w *scratch) read(from tail.Slice) []block.Reading {
	list := w.readings[:0]
	w.values = w.values[:0]
	for i := range from.Len() {
		before := len(w.values)
		r := block.Reading{Values: w.values}
		from.Read(i, &r)
		w.values = r.Values
		r.Values = w.values[before:len(w.values):len(w.values)]
		list = append(list, r)
	}
	w.readings = list
	return mergeTimes(list)
}

// readRow appends a row of table reading that a block can take.
func (w *scratch) readRow(list []block.Reading, row []driver.Value) []block.Reading {
	r := block.Reading{Time: row[1].(int64), Received: row[2].(int64), Flags: uint32(row[3].(int64))}
	r.Given, _ = row[4].(string)
	body, _ := row[5].([]byte)
	before := len(w.values)
	values, err := pack.Decode(w.values, body)
	if err != nil || len(values) == before || len(values)-before > block.MaxMetrics || !isBlockTime(r.Time) || row[3].(int64) >= 1<<lineShift {
		return list
	}
	w.values = values
	r.Values = values[before:len(values):len(values)]
	sortValues(r.Values)
	r.Values = slices.CompactFunc(r.Values, func(a, b block.Value) bool { return a.Metric == b.Metric })
	return append(list, r)
}

// mergeTimes makes one reading of those of one time; the list is in order of time. Of two values of one metric the first counts, and
// the rest is that of the first which is not only more metrics.
func mergeTimes(list []block.Reading) []block.Reading {
	if len(list) == 0 {
		return list
	}
	out := list[:1]
	for _, r := range list[1:] {
		last := &out[len(out)-1]
		if r.Time != last.Time {
			out = append(out, r)
			continue
		}
		mergeInto(last, &r)
	}
	return out
}

func mergeInto(to, r *block.Reading) {
	values := slices.Clone(to.Values)
	for _, v := range r.Values {
		if _, there := find(to.Values, v.Metric); !there {
			values = append(values, v)
		}
	}
	sortValues(values)
	if to.Flags&flagExtra != 0 && r.Flags&flagExtra == 0 {
		to.Received, to.Flags, to.Given = r.Received, r.Flags, r.Given
	}
	to.Values = values
}

// rowsIn is how many of readings are no more metrics of one that is counted.
func rowsIn(list []block.Reading) (n int64) {
	for i := range list {
		if list[i].Flags&flagExtra == 0 {
			n++
		}
	}
	return n
}

// putBlocks writes readings of a device, in order of time, into blocks, inside the running transaction, and returns those that no
// block can take.
func (s *Store) putBlocks(d *device, list []block.Reading) (left []block.Reading, err error) {
	for len(list) > 0 {
		month := block.Month(list[0].Time)
		n, _ := slices.BinarySearchFunc(list, block.MonthStart(month+1), func(r block.Reading, end int64) int {
			if r.Time < end {
				return -1
			}
			return 1
		})
		some, err := s.putMonth(d, month, list[:n])
		if err != nil {
			return nil, err
		}
		left, list = append(left, some...), list[n:]
	}
	delete(s.lookups, d.id)
	return left, nil
}

func (s *Store) putMonth(d *device, month int64, list []block.Reading) (left []block.Reading, err error) {
	s.mayHaveBlocks(d, month)
	number, list, err := s.growBlocks(d, month, list)
	if err != nil {
		return nil, err
	}
	size := maxReadings
	if number >= scarceNumber {
		size = block.MaxReadings
	}
	for parts := (len(list) + size - 1) / size; parts > 0; parts-- {
		n := (len(list) + parts - 1) / parts
		some, err := s.putBlock(d, month, &number, list[:n])
		if err != nil {
			return nil, err
		}
		left, list = append(left, some...), list[n:]
	}
	return left, nil
}

// growBlocks takes out the last blocks of a device's month that are to grow by a list. It returns the number of the block that comes
// next, and the list with what was in them.
func (s *Store) growBlocks(d *device, month int64, list []block.Reading) (number int, all []block.Reading, err error) {
	last, err := s.lastBlocks(d, month)
	if err != nil || len(last) == 0 {
		return 0, list, err
	}
	_, _, number = block.SplitKey(last[0].Key)
	dec := &s.compaction.work.decoder
	for _, m := range last[:growing(last, len(list), number)] {
		whole, err := s.decodeInto(dec, m)
		if err != nil {
			return 0, nil, err
		}
		if !whole {
			break
		}
		list = withBlock(dec, list)
		if err := s.w.deleteBlock.run(m.Key); err != nil {
			return 0, nil, err
		}
		_, _, number = block.SplitKey(m.Key)
		number-- // the next has its number
	}
	return number + 1, list, nil
}

// lastBlocks are the last blocks of a device's month, the last one first.
func (s *Store) lastBlocks(d *device, month int64) (list []block.Meta, err error) {
	err = s.w.lastBlocks.query(func(row []driver.Value) error {
		list = append(list, block.Meta{Key: row[0].(int64), N: int(row[1].(int64)), First: row[2].(int64), Last: row[3].(int64)})
		return nil
	}, block.Key(month, d.id, 0), block.Key(month, d.id, maxBlockNumber), int64(blockReadings/smallBlock+2))
	return list, err
}

// growing is how many of the last blocks become one with so many readings more. number is that of the last one.
func growing(last []block.Meta, more, number int) int {
	if number >= scarceNumber {
		if last[0].N < scarceBlock {
			return 1
		}
		return 0
	}
	sum := more
	for i, m := range last {
		if m.N >= blockReadings || m.N+sum > maxReadings {
			break
		}
		if sum += m.N; sum >= blockReadings {
			return i + 1
		}
	}
	if last[0].N < smallBlock && last[0].N+more <= maxReadings {
		return 1
	}
	return 0
}

// withBlock is a list with the readings of a block.
func withBlock(dec *block.Decoder, list []block.Reading) []block.Reading {
	all := make([]block.Reading, 0, dec.Len()+len(list))
	values := make([]block.Value, 0, dec.Len()*len(dec.Metrics()))
	for i := range dec.Len() {
		r := dec.Reading(i, values)
		values = values[:len(values)+len(r.Values)]
		r.Values = slices.Clip(r.Values)
		all = append(all, r)
	}
	behind := all[len(all)-1].Time < list[0].Time
	if all = append(all, list...); behind {
		return all // as usual
	}
	slices.SortStableFunc(all, func(a, b block.Reading) int {
		switch {
		case a.Time < b.Time:
			return -1
		case a.Time > b.Time:
			return 1
		}
		return 0
	})
	return mergeTimes(all)
}

// putBlock writes one block, or where the readings have too many metrics for one several.
func (s *Store) putBlock(d *device, month int64, number *int, list []block.Reading) (left []block.Reading, err error) {
	if *number > maxBlockNumber {
		return list, nil
	}
	m, summary, body, err := s.compaction.work.encoder.Encode(block.Key(month, d.id, *number), list)
	switch {
	case err == nil:
		*number++
		return nil, s.w.writeBlock.run(m.Key, int64(m.N), m.First, m.Last, summary, body)
	case len(list) == 1:
		s.log.Warn("a reading that no block takes stays a row", "device", d.name, "err", err)
		return list, nil
	}
	half := len(list) / 2
	if left, err = s.putBlock(d, month, number, list[:half]); err != nil {
		return nil, err
	}
	more, err := s.putBlock(d, month, number, list[half:])
	return append(left, more...), err
}

// newest is what table newest has of a device.
type newest struct {
	flushed, last int64
	readings      []block.Reading // in order of time: of each metric the latest value
}

// newestOf reads table newest for who writes. Where it is damaged it is as if nothing was in it.
func (s *Store) newestOf(d *device) (n newest, err error) {
	n = newest{last: math.MinInt64}
	err = s.w.selectNewest.query(func(row []driver.Value) error {
		n.flushed, n.last = row[0].(int64), row[1].(int64)
		body, _ := row[2].([]byte)
		n.readings, _ = decodeNewest(d.id, body)
		return nil
	}, d.id)
	return n, err
}

func decodeNewest(device int64, body []byte) (list []block.Reading, err error) {
	var r block.CommitReader
	if err := r.Reset(device, body); err != nil {
		return nil, err
	}
	list = make([]block.Reading, 0, r.Len())
	values := make([]block.Value, 0, 2*r.Len()+4) // most devices send all at once
	for r.Next() {
		one := r.Entry().Reading
		from := len(values)
		values = append(values, one.Values...)
		one.Values = values[from:len(values):len(values)]
		list = append(list, one)
	}
	for r.NextChange() {
	}
	if err := r.Err(); err != nil {
		return nil, err
	}
	return list, nil
}

// writeNewest takes readings of a device, in order of time, into table newest, inside the running transaction.
func (s *Store) writeNewest(d *device, list []block.Reading, flushed int64) error {
	n, err := s.newestOf(d)
	if err != nil {
		return err
	}
	n.flushed, n.last = max(n.flushed, flushed), max(n.last, list[len(list)-1].Time)
	n.readings = latest(n.readings, list)
	return s.replaceNewest(d, &n)
}

func (s *Store) replaceNewest(d *device, n *newest) error {
	entries := make([]block.Entry, len(n.readings))
	for i, r := range n.readings {
		entries[i].Reading = r
	}
	return s.w.writeNewest.run(d.id, n.flushed, n.last, block.AppendCommit(nil, d.id, &block.Commit{Readings: entries}))
}

// latest leaves of each metric of two lists, both in order of time, only the latest value; of two of the same time that of the first, which
// has each metric once. The values are theirs.
func latest(a, b []block.Reading) (out []block.Reading) {
	if len(b) == 0 {
		return a
	}
	var few [16]uint32
	seen := few[:0]
	isSeen := func(v block.Value) bool { return slices.Contains(seen, v.Metric) }
	for len(a) > 0 || len(b) > 0 {
		var r *block.Reading
		if len(b) == 0 || len(a) > 0 && a[len(a)-1].Time >= b[len(b)-1].Time {
			r, a = &a[len(a)-1], a[:len(a)-1]
		} else {
			r, b = &b[len(b)-1], b[:len(b)-1]
		}
		one := *r
		if slices.ContainsFunc(one.Values, isSeen) {
			one.Values = slices.DeleteFunc(slices.Clone(one.Values), isSeen)
		}
		for _, v := range one.Values {
			seen = append(seen, v.Metric)
		}
		if len(one.Values) > 0 {
			out = append(out, one)
		}
	}
	slices.Reverse(out)
	return out
}

// eachMonth calls each with the months of which there are blocks, from one to another, for as long as it says so.
func (v *view) eachMonth(ctx context.Context, month, last int64, each func(month int64) (more bool, err error)) error {
	for more := true; more; month++ {
		next, there := int64(0), false
		err := v.query(ctx, func(row []driver.Value) error {
			next, there = row[0].(int64)
			return nil
		}, `SELECT min(key) FROM block WHERE key >= ?`, block.Key(month, 0, 0))
		if err != nil || !there {
			return err
		}
		if month, _, _ = block.SplitKey(next); month > last {
			return nil
		}
		if more, err = each(month); err != nil {
			return err
		}
	}
	return nil
}

// spans are the keys of the blocks of a month, from one to another, which is not included: of each device, or nil for all.
func spans(month int64, devices []int64) [][2]int64 {
	if devices == nil {
		return [][2]int64{{block.Key(month, 0, 0), block.Key(month+1, 0, 0)}}
	}
	list := make([][2]int64, len(devices))
	for i, id := range devices {
		list[i] = [2]int64{block.Key(month, id, 0), block.Key(month, id+1, 0)}
	}
	return list
}

// blocksBefore returns the keys of blocks that have readings before a time, of devices from a month on each.
func (s *Store) blocksBefore(ctx context.Context, from map[int64]int64, before int64) (keys []int64, err error) {
	if len(from) == 0 {
		return nil, nil
	}
	v, err := s.view(ctx)
	if err != nil {
		return nil, err
	}
	defer func() { _ = v.Close() }() // it only reads
	devices := slices.Sorted(maps.Keys(from))
	start := slices.Min(slices.Collect(maps.Values(from)))
	err = v.eachMonth(ctx, max(start, blockMonth(math.MinInt64)), blockMonth(before), func(month int64) (bool, error) {
		some := slices.DeleteFunc(slices.Clone(devices), func(id int64) bool { return from[id] > month })
		for _, of := range spans(month, some) {
			err := v.query(ctx, func(row []driver.Value) error {
				keys = append(keys, row[0].(int64))
				return nil
			}, `SELECT key FROM block WHERE key >= ? AND key < ? AND t0 < ?`, of[0], of[1], before)
			if err != nil {
				return false, err
			}
		}
		return true, nil
	})
	return keys, err
}
