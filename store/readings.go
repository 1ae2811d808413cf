package store

import (
	"cmp"
	"context"
	"database/sql/driver"
	"fmt"
	"iter"
	"math"
	"slices"
	"strings"
	"sync"

	"github.com/plantops/plantops/store/block"
	"github.com/plantops/plantops/store/history"
	"github.com/plantops/plantops/store/pack"
	"github.com/plantops/plantops/store/tail"
)

// What readings are looked at with; package history says what each is.
type (
	Reading      = history.Reading
	Query        = history.Query
	DamagedError = history.DamagedError
)

const (
	pageRows = 1000 // of a chunk

	// latestRows is how far back Latest looks for metrics that the newest row does not have.
	latestRows = 16
)

// Readings iterates over what q selects in order of time, then device, then metric. It holds nothing open for who takes his
// time: readings that arrive meanwhile may or may not be seen.
func (s *Store) Readings(ctx context.Context, q Query) iter.Seq2[Reading, error] {
	return history.Readings(ctx, history.Fresh(s.View), q)
}

// Latest returns the newest reading of each metric of a device, in order of metric, of what waits to be dated anew
// found among the newest 16 rows, corrected as in a View. It is empty for a device without readings and ErrNotFound for one that is
// not known.
func (s *Store) Latest(ctx context.Context, device string) ([]Reading, error) {
	s.state.mu.RLock()
	var ids []int64
	if d, known := s.state.devices[device]; known {
		ids = []int64{d.id}
	}
	s.state.mu.RUnlock()
	if len(ids) == 1 && !s.options.ReadOnly && s.rules.Load().none() {
		if list, ok := s.latestAlone(ctx, named{device, ids[0]}); ok {
			return list, nil
		}
	}
	raw, err := s.view(ctx, ids...)
	if err != nil {
		return nil, err
	}
	v, err := s.corrected(ctx, raw)
	if err != nil {
		return nil, err
	}
	defer func() { _ = v.Close() }() // it has said what it has to say
	return v.Latest(ctx, device)
}

// latestAlone is Latest where one statement will do, without the transaction of a view; false: it will not, or something went wrong.
func (s *Store) latestAlone(ctx context.Context, d named) (list []Reading, ok bool) {
	v := &view{s: s, names: map[uint32]string{}, tail: s.tail.Load().Freeze(d.id)} // before the statement, as in view
	defer func() { _ = v.Close() }()                                               // it only reads
	if v.connect(ctx) != nil {
		return nil, false
	}
	var newest []block.Reading
	err := v.query(ctx, func(row []driver.Value) error {
		v.rows = row[0] != int64(0)
		if body, there := row[1].([]byte); there {
			var bad error
			newest, bad = decodeNewest(d.id, body)
			return bad
		}
		return nil
	}, `SELECT EXISTS (SELECT 1 FROM reading), (SELECT body FROM newest WHERE device = ?)`, d.id)
	if err != nil || v.rows {
		return nil, false
	}
	list, err = v.latest(ctx, d, newest, true)
	return list, err == nil
}

// view is a read transaction of SQLite. What it reads, it reads page by page; between pages it does not hold mu.
type view struct {
	s  *Store
	mu sync.Mutex
	c  *viewing // nil when closed

	begun   bool             // its transaction
	devices map[string]int64 // of a file that another process may write; nil: the state has them
	names   map[uint32]string

	tail tail.Frozen
	rows bool // table reading has some
}

// view is a view of what is stored, as it came; of the tail it has only some devices, or without any all.
func (s *Store) view(ctx context.Context, devices ...int64) (*view, error) {
	v := &view{s: s, names: map[uint32]string{}}
	err := s.refresh(ctx)
	if err == nil {
		v.tail = s.tail.Load().Freeze(devices...) // before the transaction: what leaves the tail is in the database already
		err = v.begin(ctx)
	}
	if err == nil && s.options.ReadOnly {
		err = v.loadNames(ctx)
	}
	if err != nil {
		_ = v.Close() // the first error is the one that matters
		return nil, fmt.Errorf("read readings: %w", s.suspect(explain(err)))
	}
	return v, nil
}

// connect takes a connection.
func (v *view) connect(ctx context.Context) (err error) {
	if err := ctx.Err(); err != nil {
		return err
	}
	if v.c, err = v.s.viewing(ctx); err != nil {
		return err
	}
	v.s.views.mu.Lock()
	defer v.s.views.mu.Unlock()
	if v.s.views.end {
		return ErrClosed
	}
	v.s.views.open[v] = struct{}{}
	return nil
}

// begin takes a connection and begins its transaction, which is that of the first read: whether table reading has something, be it
// damaged.
func (v *view) begin(ctx context.Context) (err error) {
	if err := v.connect(ctx); err != nil {
		return err
	}
	if err := v.c.exec("BEGIN"); err != nil {
		return err
	}
	v.begun = true
	err = v.query(ctx, func(row []driver.Value) error {
		v.rows = row[0] != int64(0)
		return nil
	}, `SELECT EXISTS (SELECT 1 FROM reading)`)
	if isDamage(err) { // the first page is all that this reads: what else is damaged stands in nobody's way
		v.rows = true
		err = v.query(ctx, func([]driver.Value) error { return nil }, `SELECT 1 FROM sqlite_schema LIMIT 1`)
	}
	return err
}

// Close ends the transaction, and keeps the connection for the next view.
func (v *view) Close() error {
	v.mu.Lock()
	c := v.c
	v.c = nil
	v.mu.Unlock()
	if c == nil {
		return nil
	}
	var err error
	if v.begun {
		err = c.exec("ROLLBACK")
	}
	o := &v.s.views
	o.mu.Lock()
	delete(o.open, v)
	keep := err == nil && !o.end && len(o.idle) < idleViews && c.of == v.s.db.Load()
	if keep {
		o.idle = append(o.idle, c)
	}
	o.mu.Unlock()
	if !keep {
		return c.close()
	}
	return nil
}

// query runs a statement that stays prepared.
func (v *view) query(ctx context.Context, each func(row []driver.Value) error, text string, args ...driver.Value) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.c == nil {
		return ErrClosed
	}
	q, err := v.c.compiled(text)
	if err == nil {
		err = q.query(each, args...)
	}
	return v.s.suspect(err)
}

func (v *view) loadNames(ctx context.Context) error {
	v.devices = map[string]int64{}
	err := v.query(ctx, func(row []driver.Value) error {
		v.devices[row[1].(string)] = row[0].(int64)
		return nil
	}, `SELECT id, name, created FROM device`) // without an index, which may be damaged
	if err != nil {
		return err
	}
	return v.query(ctx, func(row []driver.Value) error {
		v.names[uint32(row[0].(int64))] = row[1].(string)
		return nil
	}, `SELECT id, name FROM metric`)
}

// named is a device of a view.
type named struct {
	name string
	id   int64
}

// selected returns devices in order of name; without names, all.
func (v *view) selected(names []string) (list []named, err error) {
	v.s.state.mu.RLock()
	defer v.s.state.mu.RUnlock()
	if len(names) == 0 {
		for name, id := range v.devices {
			list = append(list, named{name, id})
		}
		if v.devices == nil {
			for name, d := range v.s.state.devices {
				list = append(list, named{name, d.id})
			}
		}
	}
	for _, name := range names {
		id, known := v.devices[name]
		if v.devices == nil {
			var d *device
			if d, known = v.s.state.devices[name]; known {
				id = d.id
			}
		}
		if !known {
			return nil, fmt.Errorf("device %q: %w", name, ErrNotFound)
		}
		list = append(list, named{name, id})
	}
	slices.SortFunc(list, func(a, b named) int { return strings.Compare(a.name, b.name) })
	return slices.Compact(list), nil
}

// metric is the name of an id.
func (v *view) metric(id uint32) (string, error) {
	name, known := v.names[id]
	if !known {
		v.s.state.mu.RLock()
		name, known = v.s.state.names[id]
		v.s.state.mu.RUnlock()
		if !known {
			return "", fmt.Errorf("%w: there is no metric %d", ErrDamaged, id)
		}
		v.names[id] = name
	}
	return name, nil
}

// Readings is that of history.View.
func (v *view) Readings(ctx context.Context, q Query) iter.Seq2[Reading, error] {
	return history.Readings(ctx, v, q)
}

// Range is that of history.View. Where the readings at an end cannot be read, it is that of the query, or of the block.
func (v *view) Range(ctx context.Context, q Query) (first, last int64, err error) {
	devices, err := v.selected(q.Devices)
	if err != nil {
		return 0, 0, fmt.Errorf("read readings: %w", err)
	}
	first, last = math.MaxInt64, math.MinInt64
	take := func(a, b int64) { first, last = min(first, a), max(last, b) }
	for _, d := range devices {
		err := v.rangeOfRows(ctx, d, &q, take)
		if list := v.tail.Slice(d.id, q.From, q.End()); list.Len() > 0 {
			take(list.Time(0), list.Time(list.Len()-1))
		}
		if err == nil {
			err = v.rangeOfBlocks(ctx, d, &q, take)
		}
		if err != nil {
			return 0, 0, fmt.Errorf("read readings: device %q: %w", d.name, err)
		}
	}
	return first, last, nil
}

func (v *view) rangeOfRows(ctx context.Context, d named, q *Query, take func(a, b int64)) error {
	if !v.rows {
		return nil
	}
	one := func(row []driver.Value) error {
		t, ok := row[0].(int64)
		if !ok {
			return pack.ErrDamaged
		}
		take(t, t)
		return nil
	}
	const times = `SELECT time FROM reading WHERE device = ? AND time >= ? AND time < ? ORDER BY time `
	err := v.query(ctx, one, times+`LIMIT 1`, d.id, q.From, q.End())
	if isDamage(err) {
		take(q.From, math.MinInt64)
		err = nil
	}
	if err == nil {
		err = v.query(ctx, one, times+`DESC LIMIT 1`, d.id, q.From, q.End())
	}
	if isDamage(err) {
		take(math.MaxInt64, q.End()-1)
		err = nil
	}
	return err
}

// rangeOfBlocks looks at the first month that has some, and at the last.
func (v *view) rangeOfBlocks(ctx context.Context, d named, q *Query, take func(a, b int64)) error {
	month, end, err := v.monthsOf(ctx, q.From, q.End())
	if err != nil {
		return err
	}
	look := func(month int64) (found bool, err error) {
		err = v.query(ctx, func(row []driver.Value) error {
			first, ok := row[0].(int64)
			last, _ := row[1].(int64)
			if found = ok; ok {
				take(max(first, q.From), min(last, q.End()-1))
			}
			return nil
		}, `SELECT min(t0), max(t1) FROM block WHERE key BETWEEN ? AND ? AND t0 < ? AND t1 >= ?`,
			block.Key(month, d.id, 0), block.Key(month, d.id, maxBlockNumber), q.End(), q.From)
		if isDamage(err) {
			take(max(block.MonthStart(month), q.From), min(block.MonthStart(month+1), q.End())-1)
			found, err = true, nil
		}
		return found, err
	}
	for found := false; month <= end && !found && err == nil; month++ {
		found, err = look(month)
	}
	for found := false; month <= end && !found && err == nil; end-- {
		found, err = look(end)
	}
	return err
}

// Latest is that of history.View.
func (v *view) Latest(ctx context.Context, device string) ([]Reading, error) {
	devices, err := v.selected([]string{device})
	if err != nil {
		return nil, fmt.Errorf("latest readings: %w", err)
	}
	list, whole, err := v.newest(ctx, devices[0])
	if err != nil {
		return nil, fmt.Errorf("latest readings: device %q: %w", device, err)
	}
	return v.latest(ctx, devices[0], list, whole)
}

// LatestAll is that of history.View.
func (v *view) LatestAll(ctx context.Context) iter.Seq2[Reading, error] {
	return func(yield func(Reading, error) bool) {
		devices, err := v.selected(nil)
		var inBlocks map[int64][]block.Reading
		if err == nil {
			inBlocks, err = v.allNewest(ctx)
		}
		if err != nil {
			yield(Reading{}, fmt.Errorf("latest readings: %w", err))
			return
		}
		for _, d := range devices {
			inBlock, there := inBlocks[d.id]
			list, err := v.latest(ctx, d, inBlock, inBlock != nil || !there && inBlocks != nil)
			if isDamage(err) {
				err = &DamagedError{Device: d.name, From: math.MinInt64, To: math.MaxInt64, Cause: err}
			}
			if err != nil && (!yield(Reading{}, err) || !isDamage(err)) {
				return
			}
			for _, r := range list {
				if !yield(r, nil) {
					return
				}
			}
		}
	}
}

// allNewest is newest of all devices that are there, those that are not whole with nil; where the table itself is damaged, it is nil.
func (v *view) allNewest(ctx context.Context) (all map[int64][]block.Reading, err error) {
	all = map[int64][]block.Reading{}
	err = v.query(ctx, func(row []driver.Value) error {
		id, ok := row[0].(int64)
		body, _ := row[1].([]byte)
		if ok {
			all[id], _ = decodeNewest(id, body)
		}
		return nil
	}, `SELECT device, body FROM newest`)
	if isDamage(err) {
		return nil, nil
	}
	return all, err
}

// latest completes what table newest has of a device, if that is whole.
func (v *view) latest(ctx context.Context, d named, list []block.Reading, whole bool) (newest []Reading, err error) {
	if list, err = v.latestValues(ctx, d, list, whole); err != nil {
		return nil, fmt.Errorf("latest readings: device %q: %w", d.name, err)
	}
	n := 0
	for i := range list {
		n += len(list[i].Values)
	}
	newest = make([]Reading, 0, n)
	for _, r := range list {
		for _, p := range r.Values {
			name, err := v.metric(p.Metric)
			if err != nil {
				return nil, fmt.Errorf("latest readings: device %q: %w", d.name, err)
			}
			newest = append(newest, Reading{
				Device: d.name, Metric: name, Time: r.Time, Value: p.Value, Received: r.Received,
				TimeSource: TimeSource(r.Flags & flagTimeSource), Given: r.Given, ClockUnsure: r.Flags&flagClockUnsure != 0,
			})
		}
	}
	slices.SortFunc(newest, func(a, b Reading) int { return cmp.Compare(a.Metric, b.Metric) })
	return newest, nil
}

// rowError is one row that is there and says nothing.
type rowError struct{ time int64 }

func (e *rowError) Error() string { return fmt.Sprintf("row at %d: %v", e.time, pack.ErrDamaged) }
func (e *rowError) Unwrap() error { return ErrDamaged }
