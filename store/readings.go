package store

import (
	"cmp"
	"container/heap"
	"context"
	"errors"
	"fmt"
	"github.com/plantops/plantops/store/block"
	"github.com/plantops/plantops/store/pack"
	"iter"
	"math"
	"slices"
	"time"
)

// Reading is one value of one metric at one time.
type Reading struct {
	Device, Metric string
	Time           int64 // UTC ms
	Value          float64
	Received       int64 // UTC ms, of the first message of that device and time
	TimeSource     TimeSource
	Given          string // the time that the device gave, when it was not used; empty: none
	ClockUnsure    bool
}

// Query selects readings.
type Query struct {
	Devices  []string      // none: all
	Metric   string        // empty: all
	From, To int64         // UTC ms; From is included, To is not; To zero means no end
	Every    time.Duration // zero: as stored; else the mean per device, metric and bucket of this length, at the bucket's start
	Limit    int           // at most so many, the first in time; zero means all
}

const (
	// A page is read in one go and its read transaction ends with it, so that no long one holds up checkpoints.
	pageRows    = 1000
	minPageRows = 16
	mergedRows  = 8 * pageRows // in memory over all devices, roughly

	// latestRows is how far back Latest looks for metrics that the newest row does not have.
	latestRows = 16
)

// row is what a device has of one time.
type row struct {
	time, received, flags int64
	given                 string
	pairs                 []block.Value
}

// Readings iterates over what q selects in order of time, then device, then metric. Readings that arrive meanwhile may or
// may not be seen. A device that is not known is ErrNotFound. What cannot be read any more is a *DamagedError in the stream, and
// not its end; any other error is.
func (s *Store) Readings(ctx context.Context, q Query) iter.Seq2[Reading, error] {
	return func(yield func(Reading, error) bool) {
		if err := s.readings(ctx, q, yield); err != nil {
			yield(Reading{}, fmt.Errorf("read readings: %w", err))
		}
	}
}

func (s *Store) readings(ctx context.Context, q Query, to func(Reading, error) bool) error {
	if err := s.refresh(ctx); err != nil {
		return err
	}
	if q.To == 0 {
		q.To = math.MaxInt64
	}
	devices, err := s.selectDevices(q.Devices)
	if err != nil {
		return err
	}
	if n := s.damagedRecords.Load(); n > 0 && !to(Reading{}, &DamagedError{Device: "some devices", From: math.MinInt64, To: math.MaxInt64,
		Cause: fmt.Errorf("%d records of the journal are damaged", n)}) {
		return nil
	}
	yield := func(r Reading) bool { return to(r, nil) }
	damaged := func(d *DamagedError) bool { return to(Reading{}, d) }
	if q.Limit > 0 {
		yield = limited(q.Limit, yield)
	}
	if q.Every <= 0 {
		return s.merged(ctx, q, devices, yield, damaged)
	}
	b := buckets{length: max(q.Every.Milliseconds(), 1), yield: yield}
	if err := s.merged(ctx, q, devices, b.add, damaged); err != nil {
		return err
	}
	b.flush()
	return nil
}

// limited passes on n readings and then says stop.
func limited(n int, yield func(Reading) bool) func(Reading) bool {
	return func(r Reading) bool {
		n--
		return yield(r) && n > 0
	}
}

func (s *Store) selectDevices(names []string) (list []*device, err error) {
	s.state.mu.RLock()
	defer s.state.mu.RUnlock()
	if len(names) == 0 {
		for _, d := range s.state.devices {
			list = append(list, d)
		}
		return list, nil
	}
	for _, name := range names {
		d, known := s.state.devices[name]
		if !known {
			return nil, fmt.Errorf("device %q: %w", name, ErrNotFound)
		}
		if !slices.Contains(list, d) {
			list = append(list, d)
		}
	}
	return list, nil
}

// merged reads the rows of several devices page by page and yields their readings in one order.
func (s *Store) merged(ctx context.Context, q Query, devices []*device, yield func(Reading) bool, damaged func(*DamagedError) bool) error {
	size := min(max(mergedRows/max(len(devices), 1), minPageRows), pageRows)
	var open cursors
	for _, d := range devices {
		c := &cursor{s: s, device: d, from: q.From, to: q.To, size: size, damaged: damaged, told: math.MinInt64}
		if there, err := c.next(ctx); err != nil || c.left {
			return err
		} else if there {
			open = append(open, c)
		}
	}
	heap.Init(&open)
	var out []Reading
	for len(open) > 0 {
		c := open[0]
		var err error
		if out, err = s.export(ctx, out[:0], c.device, &c.rows[0], q.Metric); err != nil {
			return err
		}
		for _, r := range out {
			if !yield(r) {
				return nil
			}
		}
		c.rows = c.rows[1:]
		if there, err := c.next(ctx); err != nil || c.left {
			return err
		} else if there {
			heap.Fix(&open, 0)
		} else {
			heap.Pop(&open)
		}
	}
	return nil
}

// export turns a row into readings in order of metric.
func (s *Store) export(ctx context.Context, to []Reading, d *device, r *row, metric string) ([]Reading, error) {
	for _, p := range r.pairs {
		name, err := s.metricName(ctx, p.Metric)
		if err != nil {
			return to, err
		}
		if metric != "" && name != metric {
			continue
		}
		to = append(to, Reading{
			Device: d.name, Metric: name, Time: r.time, Value: p.Value, Received: r.received,
			TimeSource: TimeSource(r.flags & flagTimeSource), Given: r.given, ClockUnsure: r.flags&flagClockUnsure != 0,
		})
	}
	slices.SortFunc(to, func(a, b Reading) int { return cmp.Compare(a.Metric, b.Metric) })
	return to, nil
}

// metricName looks into the file for a metric that came after the state was loaded.
func (s *Store) metricName(ctx context.Context, id uint32) (name string, err error) {
	s.state.mu.RLock()
	name, known := s.state.names[id]
	s.state.mu.RUnlock()
	if known {
		return name, nil
	}
	if err := s.queryRow(ctx, `SELECT name FROM metric WHERE id = ?`, id).Scan(&name); err != nil {
		return "", fmt.Errorf("metric %d: %w", id, err)
	}
	return name, nil
}

// cursor walks through the readings of one device.
type cursor struct {
	s        *Store
	device   *device
	from, to int64
	size     int
	rows     []row
	last     bool // there is no page after this one

	damaged func(*DamagedError) bool // is told what cannot be read
	told    int64                    // up to here
	left    bool                     // damaged said that it is enough
}

// next makes rows[0] the current row and returns false if there is none.
func (c *cursor) next(ctx context.Context) (bool, error) {
	for len(c.rows) == 0 && !c.last && !c.left {
		if err := c.fill(ctx); err != nil {
			return false, fmt.Errorf("device %q: %w", c.device.name, err)
		}
	}
	return len(c.rows) > 0, nil
}

// fill reads one page. What cannot be read is said on the page that begins with it.
func (c *cursor) fill(ctx context.Context) error {
	src, err := c.s.source(ctx, c.device)
	if err != nil {
		return err
	}
	defer src.close()
	for r, err := range src.readings(ctx, c.device, c.from, c.to) {
		if damage, ok := errors.AsType[*DamagedError](err); ok {
			switch {
			case damage.To <= c.told:
			case len(c.rows) > 0:
				return nil
			default:
				if c.told, c.left = damage.To, !c.damaged(damage); c.left {
					return nil
				}
			}
			continue
		}
		if err != nil {
			return err
		}
		c.rows = append(c.rows, row{time: r.Time, received: r.Received, flags: int64(r.Flags), given: r.Given, pairs: slices.Clone(r.Values)})
		if c.from = r.Time + 1; len(c.rows) == c.size {
			return nil
		}
	}
	c.last = true
	return nil
}

// cursors is a heap of cursors by time of their current row, then name.
type cursors []*cursor

func (c cursors) Len() int { return len(c) }
func (c cursors) Less(i, j int) bool {
	a, b := c[i], c[j]
	return cmp.Or(cmp.Compare(a.rows[0].time, b.rows[0].time), cmp.Compare(a.device.name, b.device.name)) < 0
}
func (c cursors) Swap(i, j int) { c[i], c[j] = c[j], c[i] }
func (c *cursors) Push(x any)   { *c = append(*c, x.(*cursor)) }
func (c *cursors) Pop() any {
	last := len(*c) - 1
	x := (*c)[last]
	*c = (*c)[:last]
	return x
}

// Latest returns the newest reading of each metric of a device, in order of metric, (of what waits to be dated anew, only the newest 16 readings). It
// is empty for a device without readings and ErrNotFound for one that is not known.
func (s *Store) Latest(ctx context.Context, device string) ([]Reading, error) {
	list, err := s.latest(ctx, device)
	if err != nil {
		return nil, fmt.Errorf("latest readings: %w", err)
	}
	return list, nil
}

func (s *Store) latest(ctx context.Context, device string) ([]Reading, error) {
	if err := s.refresh(ctx); err != nil {
		return nil, err
	}
	devices, err := s.selectDevices([]string{device})
	if err != nil {
		return nil, err
	}
	d := devices[0]
	list, err := s.latestOf(ctx, d)
	if err != nil {
		return nil, fmt.Errorf("device %q: %w", device, err)
	}
	var newest []Reading
	for _, r := range list {
		one := row{time: r.Time, received: r.Received, flags: int64(r.Flags), given: r.Given, pairs: r.Values}
		if newest, err = s.export(ctx, newest, d, &one, ""); err != nil {
			return nil, err
		}
	}
	slices.SortFunc(newest, func(a, b Reading) int { return cmp.Compare(a.Metric, b.Metric) })
	return newest, nil
}

// latestOf returns of each metric of a device the latest value, in order of time.
func (s *Store) latestOf(ctx context.Context, d *device) ([]block.Reading, error) {
	src, err := s.source(ctx, d)
	if err != nil {
		return nil, err
	}
	defer src.close()
	list, whole, err := src.newest(ctx, d)
	if err != nil {
		return nil, err
	}
	if !whole { // the values are in the blocks
		list, err = src.latestInBlocks(ctx, d)
	}
	if err == nil && src.rows {
		var rows []block.Reading
		rows, err = src.readRows(ctx, nil, selectRows+`ORDER BY time DESC LIMIT ?`, d.id, int64(math.MinInt64), int64(math.MaxInt64), latestRows)
		if isDamage(err) && len(rows) > 0 { // what is damaged further back is not the newest
			err = nil
		}
		slices.Reverse(rows)
		list = latest(list, rows)
	}
	if err != nil {
		return nil, err
	}
	var work scratch
	return latest(list, work.read(src.tail.Slice(d.id, math.MinInt64, math.MaxInt64))), nil
}

// latestInBlocks is for a device whose row in table newest is damaged.
func (src *source) latestInBlocks(ctx context.Context, d *device) (list []block.Reading, err error) {
	for r, err := range src.readings(ctx, d, math.MinInt64, math.MaxInt64) {
		if damage := (*DamagedError)(nil); errors.As(err, &damage) {
			continue
		}
		if err != nil {
			return nil, err
		}
		one := *r
		one.Values = slices.Clone(r.Values)
		list = latest(list, []block.Reading{one})
	}
	return list, nil
}

// buckets reduces readings in order of time to means.
type buckets struct {
	length, start int64
	open          []bucket // of the time from start on
	index         map[series]int
	yield         func(Reading) bool
	stopped       bool // yield said so
}

type series struct{ device, metric string }

// Values are summed at this scale: so the sum of the largest floats is finite, and a power of two costs no digits.
const sumScale = 0x1p-64

type bucket struct {
	sum   float64 // times sumScale
	count int64
	first Reading
}

func (b *buckets) add(r Reading) bool {
	start := r.Time - mod(r.Time, b.length)
	if start != b.start && !b.flush() {
		return false
	}
	b.start = start
	i, there := b.index[series{r.Device, r.Metric}]
	if !there {
		if i = len(b.open); i == 0 {
			b.index = make(map[series]int)
		}
		b.index[series{r.Device, r.Metric}] = i
		b.open = append(b.open, bucket{first: r})
	}
	b.open[i].sum += r.Value * sumScale
	b.open[i].count++
	return true
}

// mod is what is left of a divided by b, never negative.
func mod(a, b int64) int64 { return (a%b + b) % b }

// flush yields the means of the bucket that ends, unless yield has said stop.
func (b *buckets) flush() bool {
	if b.stopped {
		return false
	}
	slices.SortFunc(b.open, func(x, y bucket) int {
		return cmp.Or(cmp.Compare(x.first.Device, y.first.Device), cmp.Compare(x.first.Metric, y.first.Metric))
	})
	for i := range b.open {
		r := b.open[i].first
		r.Time, r.Value = b.start, b.open[i].sum/float64(b.open[i].count)/sumScale
		if !b.yield(r) {
			b.stopped = true
			return false
		}
	}
	b.open = b.open[:0]
	clear(b.index)
	return true
}

// DamagedError says which readings cannot be read: those of a device from a time on, which is included, to another, which is
// not. It wraps ErrDamaged.
type DamagedError struct {
	Device   string
	From, To int64 // UTC ms
	Cause    error
}

// Error names the device and the times.
func (e *DamagedError) Error() string {
	return fmt.Sprintf("readings of %s from %s to %s cannot be read: %v", e.Device, timeText(e.From), timeText(e.To), e.Cause)
}

// Unwrap returns ErrDamaged.
func (e *DamagedError) Unwrap() error { return ErrDamaged }

func timeText(ms int64) string {
	switch {
	case ms == math.MaxInt64:
		return "the end"
	case ms < firstTime:
		return "the beginning"
	}
	return time.UnixMilli(ms).UTC().Format(time.RFC3339)
}

// rowError is one row that is there and says nothing.
type rowError struct{ time int64 }

func (e *rowError) Error() string { return fmt.Sprintf("row at %d: %v", e.time, pack.ErrDamaged) }
func (e *rowError) Unwrap() error { return ErrDamaged }
