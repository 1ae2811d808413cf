package store

import (
	"context"
	"database/sql/driver"
	"errors"
	"fmt"
	"iter"
	"math"
	"slices"
	"strings"
	"time"

	"github.com/plantops/plantops/store/block"
	"github.com/plantops/plantops/store/history"
)

// Scan is that of history.View.
func (v *view) Scan(ctx context.Context, q Query) iter.Seq2[*history.Chunk, error] {
	return func(yield func(*history.Chunk, error) bool) {
		devices, err := v.selected(q.Devices)
		if err == nil {
			w := walk{v: v, ctx: ctx, q: &q, yield: yield}
			err = w.devices(devices, func(named) error { return nil })
		}
		if err != nil && err != errStopped {
			yield(nil, fmt.Errorf("read readings: %w", err))
		}
	}
}

// Reduce is that of history.View. Where a block lies within a bucket, and nothing else of the device in its time, its summary will
// do.
func (v *view) Reduce(ctx context.Context, q Query, r history.Reduction) iter.Seq2[history.Series, error] {
	return func(yield func(history.Series, error) bool) {
		if err := v.reduce(ctx, q, r, yield); err != nil && err != errStopped {
			yield(history.Series{}, fmt.Errorf("read readings: %w", err))
		}
	}
}

func (v *view) reduce(ctx context.Context, q Query, r history.Reduction, yield func(history.Series, error) bool) error {
	span, err := r.SpanOf(ctx, v, q)
	if err != nil {
		return err
	}
	devices, err := v.selected(q.Devices)
	if err != nil {
		return err
	}
	reducer := history.NewReducer(span, r)
	w := walk{v: v, ctx: ctx, q: &q, yield: func(c *history.Chunk, err error) bool {
		if err != nil {
			return yield(history.Series{}, err)
		}
		reducer.Add(c)
		return true
	}}
	if r.Aggregates&history.Times == 0 {
		w.reducer = reducer
	}
	return w.devices(devices, func(d named) error {
		for _, s := range reducer.Series(d.name) {
			if !yield(s, nil) {
				return errStopped
			}
		}
		return nil
	})
}

// walk goes through the readings of devices.
type walk struct {
	v       *view
	ctx     context.Context
	q       *Query
	yield   func(*history.Chunk, error) bool
	reducer *history.Reducer // takes summaries; nil: there are none

	device  named
	said    map[[2]int64]bool // of the device: damage
	builder history.Builder
	decoder block.Decoder
	summary block.Summary
	chunk   history.Chunk
	bits    [][]uint64
	flags   []uint8
	zeros   [block.MaxReadings]uint8
}

func (w *walk) devices(list []named, then func(named) error) error {
	if n := w.v.s.damagedRecords.Load(); n > 0 {
		cause := fmt.Errorf("%d records of the journal are damaged", n)
		if !w.yield(nil, &DamagedError{Device: "some devices", From: math.MinInt64, To: math.MaxInt64, Cause: cause}) {
			return errStopped
		}
	}
	for _, d := range list {
		w.device, w.said = d, nil
		err := w.run()
		if err == nil {
			err = then(d)
		}
		if err != nil && err != errStopped {
			return fmt.Errorf("device %q: %w", d.name, err)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// damaged says it once.
func (w *walk) damaged(d *DamagedError) error {
	key := [2]int64{d.From, d.To}
	if w.said[key] {
		return nil
	}
	if w.said == nil {
		w.said = map[[2]int64]bool{}
	}
	w.said[key] = true
	if !w.yield(nil, d) {
		return errStopped
	}
	return nil
}

// run takes blocks as they are where nothing else is in their time, and puts together what is elsewhere.
func (w *walk) run() error {
	from, to := w.q.From, w.q.End()
	blocks, damage, err := w.v.blocks(w.ctx, w.device, from, to)
	if err != nil {
		return err
	}
	for _, d := range damage {
		if err := w.damaged(d); err != nil {
			return err
		}
	}
	rows, err := w.anyRows(from, to)
	if err != nil {
		return err
	}
	// loose tells whether anything that is in no block is in a time, or may be.
	loose := func(from, to int64) bool {
		if from >= to || w.v.tail.Slice(w.device.id, from, to).Len() > 0 {
			return from < to
		}
		if !rows {
			return false
		}
		some, err := w.anyRows(from, to)
		return some || err != nil // who reads there meets the error again
	}
	at := from
	for len(blocks) > 0 {
		n, first, last := 1, blocks[0].First, blocks[0].Last
		for n < len(blocks) && blocks[n].First <= last {
			last = max(last, blocks[n].Last)
			n++
		}
		switch {
		case n > 1 || loose(max(first, at), min(last+1, to)):
			err = w.merged(at, min(last+1, to))
		default:
			if loose(at, first) {
				err = w.merged(at, first)
			}
			if err == nil {
				err = w.whole(blocks[0])
			}
		}
		if err != nil {
			return err
		}
		at, blocks = last+1, blocks[n:]
	}
	if loose(at, to) {
		return w.merged(at, to)
	}
	return nil
}

// anyRows tells whether table reading has something of a time, be it damaged.
func (w *walk) anyRows(from, to int64) (some bool, err error) {
	err = w.v.rangeOfRows(w.ctx, w.device, &Query{From: from, To: to}, func(int64, int64) { some = true })
	return some, err
}

// merged takes what is in a time from wherever it is.
func (w *walk) merged(from, to int64) error {
	w.builder.Begin(w.device.name)
	flush := func() error {
		if err := w.ctx.Err(); err != nil {
			return err
		}
		if w.builder.Len() > 0 && !w.yield(w.builder.Chunk(), nil) {
			return errStopped
		}
		w.builder.Begin(w.device.name)
		return nil
	}
	for r, err := range w.v.merged(w.ctx, w.device, from, to) {
		if damage, ok := errors.AsType[*DamagedError](err); ok {
			if err := flush(); err != nil {
				return err
			}
			if err := w.damaged(damage); err != nil {
				return err
			}
			continue
		}
		if err != nil {
			return err
		}
		if w.builder.Len() == pageRows {
			if err := flush(); err != nil {
				return err
			}
		}
		w.builder.Row(r.Time, r.Received, uint8(r.Flags&(flagTimeSource|flagClockUnsure)), r.Given)
		var unknown error
		for _, value := range r.Values {
			if name, err := w.v.metric(value.Metric); err != nil {
				unknown = err
			} else if w.q.Wants(name) {
				w.builder.Value(name, value.Value)
			}
		}
		if unknown != nil {
			if err := flush(); err != nil {
				return err
			}
			if err := w.damaged(&DamagedError{Device: w.device.name, From: r.Time, To: r.Time + 1, Cause: unknown}); err != nil {
				return err
			}
		}
	}
	return flush()
}

// whole takes a block as it is.
func (w *walk) whole(m block.Meta) error {
	from, to := w.q.From, w.q.End()
	if w.reducer != nil && m.First >= from && m.Last < to {
		if _, end := w.reducer.Bucket(m.First); m.Last < end {
			if done, err := w.summarized(m); done || err != nil {
				return err
			}
		}
	}
	err := w.v.decode(w.ctx, w.device, m, &w.decoder)
	if damage, ok := errors.AsType[*DamagedError](err); ok {
		damage.From, damage.To = max(damage.From, from), min(damage.To, to)
		return w.damaged(damage)
	}
	if err != nil {
		return err
	}
	times := w.decoder.Times()
	i, _ := slices.BinarySearch(times, from)
	j, _ := slices.BinarySearch(times, to)
	for k := i + 1; k < j; k++ {
		if times[k-1] == times[k] { // metrics that came later
			return w.merged(max(m.First, from), min(m.Last+1, to))
		}
	}
	if err := w.columns(i, j); err != nil || len(w.chunk.Columns) == 0 {
		return err
	}
	if !w.yield(&w.chunk, nil) {
		return errStopped
	}
	return nil
}

// columns makes the chunk of readings i to before j of the block.
func (w *walk) columns(i, j int) error {
	c, d := &w.chunk, &w.decoder
	c.Device, c.Columns, c.Given = w.device.name, c.Columns[:0], nil
	if i == j {
		return nil
	}
	c.Times, c.Received, c.Flags = d.Times()[i:j], d.Received()[i:j], w.zeros[:j-i]
	if flags := d.Flags(); flags != nil {
		w.flags = w.flags[:0]
		for _, f := range flags[i:j] {
			w.flags = append(w.flags, uint8(f&(flagTimeSource|flagClockUnsure)))
		}
		c.Flags = w.flags
	}
	if d.HasGiven() {
		c.Given = make([]string, j-i)
		for k := range c.Given {
			c.Given[k] = d.Given(i + k)
		}
	}
	for _, id := range d.Metrics() {
		name, err := w.v.metric(id)
		if err != nil {
			damage := &DamagedError{Device: w.device.name, From: c.Times[0], To: c.Times[len(c.Times)-1] + 1, Cause: err}
			if err := w.damaged(damage); err != nil {
				return err
			}
			continue
		}
		if !w.q.Wants(name) {
			continue
		}
		values, present, _ := d.Column(id)
		column := history.Column{Metric: name, Values: values[i:j]}
		if present != nil {
			if column.Present = w.part(len(c.Columns), present, i, j); column.Count() == 0 {
				continue
			}
		}
		c.Columns = append(c.Columns, column)
	}
	slices.SortFunc(c.Columns, func(a, b history.Column) int { return strings.Compare(a.Metric, b.Metric) })
	return nil
}

// part is bits i to before j, in memory that is kept for column k.
func (w *walk) part(k int, present []uint64, i, j int) []uint64 {
	for len(w.bits) <= k {
		w.bits = append(w.bits, nil)
	}
	to := w.bits[k][:0]
	for at := i; at < j; at += 64 {
		word := present[at/64] >> (at % 64)
		if at%64 != 0 && at/64+1 < len(present) {
			word |= present[at/64+1] << (64 - at%64)
		}
		if left := j - at; left < 64 {
			word &= 1<<left - 1
		}
		to = append(to, word)
	}
	w.bits[k] = to
	return to
}

// summarized takes the summary of a block, which lies within a bucket. It is false where that is damaged: the block may not be.
func (w *walk) summarized(m block.Meta) (done bool, err error) {
	err = w.v.summary(w.ctx, w.device, m, &w.summary)
	if damage := (*DamagedError)(nil); errors.As(err, &damage) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	for i := range w.summary.Metrics {
		s := &w.summary.Metrics[i]
		name, err := w.v.metric(s.Metric)
		if err != nil {
			return false, nil // who reads the block says so
		}
		if w.q.Wants(name) {
			w.reducer.AddBucket(name, m.First, history.Bucket{Count: s.Count, Min: s.Min, Max: s.Max, First: s.First, Last: s.Last, ScaledSum: s.Sum})
		}
	}
	return true, nil
}

// OldestReading returns the time of the oldest reading from a time on, leaving out those that came while the clock was not to
// be trusted; ok is false when there is none. It looks at the blocks of one month.
func (s *Store) OldestReading(ctx context.Context, from time.Time) (oldest time.Time, ok bool, err error) {
	return s.OldestReadingOf(ctx, nil, from)
}

// OldestReadingOf is OldestReading of some devices.
func (s *Store) OldestReadingOf(ctx context.Context, of Devices, from time.Time) (oldest time.Time, ok bool, err error) {
	at, err := s.oldestReading(ctx, of, from.UnixMilli())
	if err != nil {
		return time.Time{}, false, fmt.Errorf("look for the oldest reading: %w", explain(err))
	}
	return time.UnixMilli(at), at != math.MaxInt64, nil
}

func (s *Store) oldestReading(ctx context.Context, of Devices, from int64) (at int64, err error) {
	v, err := s.view(ctx)
	if err != nil {
		return 0, err
	}
	defer func() { _ = v.Close() }() // it only reads
	at = math.MaxInt64
	ids := s.ids(of)
	for _, id := range ids {
		if list := v.tail.Slice(id, from, math.MaxInt64); list.Len() > 0 {
			at = min(at, list.Time(0))
		}
	}
	err = v.query(ctx, func(row []driver.Value) error {
		name, _ := row[0].(string)
		if first, there := row[1].(int64); there && of.has(name) {
			at = min(at, first)
		}
		return nil
	}, `SELECT name, (SELECT time FROM reading WHERE reading.device = device.id AND time >= ? AND flags & 4 = 0 ORDER BY time LIMIT 1) FROM device`, from)
	if err != nil {
		return 0, err
	}
	if of == nil {
		ids = nil
	}
	first, err := v.oldestInBlocks(ctx, ids, from)
	return min(at, first), err
}

// ids are those of some devices, in order.
func (s *Store) ids(of Devices) (list []int64) {
	s.state.mu.RLock()
	defer s.state.mu.RUnlock()
	list = []int64{} // nil is all
	for id, d := range s.state.byID {
		if of.has(d.name) {
			list = append(list, id)
		}
	}
	slices.Sort(list)
	return list
}

// oldestInBlocks is the first time in a block of some devices, or nil for all, from a time on; math.MaxInt64: there is none. Blocks
// that cannot be read do not count.
func (v *view) oldestInBlocks(ctx context.Context, devices []int64, from int64) (first int64, err error) {
	var dec block.Decoder
	first = math.MaxInt64
	take := func(row []driver.Value) error {
		m, err := metaOf(row)
		body, _ := row[4].([]byte)
		if err == nil && m.First >= from {
			first = min(first, m.First)
		} else if err == nil && dec.Decode(m, body) == nil {
			i, _ := slices.BinarySearch(dec.Times(), from)
			first = min(first, dec.Times()[i])
		}
		return err
	}
	err = v.eachMonth(ctx, blockMonth(from), math.MaxInt64, func(month int64) (bool, error) {
		for _, keys := range spans(month, devices) {
			err := v.query(ctx, take,
				`SELECT key, n, t0, t1, CASE WHEN t0 < ?3 THEN body END FROM block WHERE key >= ?1 AND key < ?2 AND t1 >= ?3`, keys[0], keys[1], from)
			if err != nil {
				return false, err
			}
		}
		return first == math.MaxInt64, nil
	})
	return first, err
}
