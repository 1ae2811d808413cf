package store

import (
	"cmp"
	"context"
	"database/sql/driver"
	"errors"
	"fmt"
	"iter"
	"math"
	"slices"
	"strings"
	"sync"

	"github.com/plantops/plantops/store/history"
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

// Latest returns the newest reading of each metric of a device, in order of metric, found among its newest 16 rows. It
// is empty for a device without readings and ErrNotFound for one that is not known.
func (s *Store) Latest(ctx context.Context, device string) ([]Reading, error) {
	v, err := s.View(ctx)
	if err != nil {
		return nil, err
	}
	defer func() { _ = v.Close() }() // it has said what it has to say
	return v.Latest(ctx, device)
}

// view is a read transaction of SQLite. What it reads, it reads page by page; between pages it does not hold mu.
type view struct {
	s  *Store
	mu sync.Mutex
	c  *viewing // nil when closed

	devices map[string]int64 // of a file that another process may write; nil: the state has them
	names   map[uint32]string
}

// View returns what is stored now. It must be closed; Close of the store closes it too.
func (s *Store) View(ctx context.Context) (history.View, error) {
	v := &view{s: s, names: map[uint32]string{}}
	err := v.begin(ctx)
	if err == nil && s.options.ReadOnly {
		err = v.loadNames(ctx)
	}
	if err != nil {
		_ = v.Close() // the first error is the one that matters
		return nil, fmt.Errorf("read readings: %w", s.suspect(explain(err)))
	}
	return v, nil
}

// begin takes a connection and begins its transaction, which is that of the first read.
func (v *view) begin(ctx context.Context) (err error) {
	if err := ctx.Err(); err != nil {
		return err
	}
	if v.c, err = v.s.viewing(ctx); err != nil {
		return err
	}
	v.s.views.mu.Lock()
	if v.s.views.end {
		v.s.views.mu.Unlock()
		return ErrClosed
	}
	v.s.views.open[v] = struct{}{}
	v.s.views.mu.Unlock()
	if err := v.c.exec("BEGIN"); err != nil {
		return err
	}
	// The first page is all that this reads: what else is damaged stands in nobody's way.
	return v.query(ctx, func([]driver.Value) error { return nil }, `SELECT 1 FROM sqlite_schema LIMIT 1`)
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
	err := c.exec("ROLLBACK")
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

const (
	selectRows = `SELECT time, received, flags, coalesce(given, ''), body FROM reading WHERE device = ? AND time >= ? AND time < ? `
	upwards    = selectRows + `ORDER BY time LIMIT ?`
	downwards  = selectRows + `ORDER BY time DESC LIMIT ?`
)

// Scan is that of history.View.
func (v *view) Scan(ctx context.Context, q Query) iter.Seq2[*history.Chunk, error] {
	return func(yield func(*history.Chunk, error) bool) {
		devices, err := v.selected(q.Devices)
		c := cursor{v: v, to: q.End(), q: &q, yield: yield}
		for _, d := range devices {
			c.device, c.from = d, q.From
			for err == nil && c.from < c.to {
				err = c.page(ctx)
			}
			if err != nil {
				break
			}
		}
		if err != nil && err != errLeft {
			yield(nil, fmt.Errorf("read readings: %w", err))
		}
	}
}

// errLeft says that who asked has enough.
var errLeft = errors.New("left")

// cursor walks through the rows of one device.
type cursor struct {
	v        *view
	device   named
	from, to int64
	q        *Query
	yield    func(*history.Chunk, error) bool

	chunk history.Builder
	row   row
	pairs []pair
}

// row is one row of table reading.
type row struct {
	time, received, flags int64
	given                 string
	body                  []byte
}

// read takes over what selectRows says. In a damaged file a value may be of any type.
func (r *row) read(values []driver.Value) error {
	var ok [5]bool
	r.time, ok[0] = values[0].(int64)
	r.received, ok[1] = values[1].(int64)
	r.flags, ok[2] = values[2].(int64)
	r.given, ok[3] = values[3].(string)
	r.body, ok[4] = values[4].([]byte)
	if slices.Contains(ok[:], false) {
		return errBody
	}
	return nil
}

// page yields the next rows, or what is damaged there.
func (c *cursor) page(ctx context.Context) error {
	c.chunk.Begin(c.device.name)
	n := 0
	err := c.v.query(ctx, func(row []driver.Value) error {
		n++
		return c.add(row)
	}, upwards, c.device.id, c.from, c.to, int64(pageRows))
	if c.chunk.Len() > 0 && !c.yield(c.chunk.Chunk(), nil) {
		return errLeft
	}
	switch {
	case err == nil && n < pageRows:
		c.from = c.to
	case err != nil && isDamage(err):
		err = c.pass(ctx, err)
	}
	if err != nil && err != errLeft {
		return fmt.Errorf("device %q: %w", c.device.name, err)
	}
	return err
}

// add takes a row into the chunk, and moves on behind it.
func (c *cursor) add(row []driver.Value) (err error) {
	if err := c.row.read(row); err != nil {
		return err
	}
	at := c.row.time
	if at < c.from {
		return errBody
	}
	if c.pairs, err = decodeBody(c.pairs[:0], c.row.body); err != nil {
		return &rowError{at}
	}
	c.chunk.Row(at, c.row.received, uint8(c.row.flags&(flagTimeSource|flagClockUnsure)), c.row.given)
	for _, p := range c.pairs {
		name, err := c.v.metric(p.metric)
		if err != nil {
			return &rowError{at}
		}
		if c.q.Wants(name) {
			c.chunk.Value(name, p.value)
		}
	}
	c.from = at + 1
	return nil
}

// Reduce is that of history.View.
func (v *view) Reduce(ctx context.Context, q Query, r history.Reduction) iter.Seq2[history.Series, error] {
	return history.Reduce(ctx, v, q, r)
}

// Readings is that of history.View.
func (v *view) Readings(ctx context.Context, q Query) iter.Seq2[Reading, error] {
	return history.Readings(ctx, v, q)
}

// Range is that of history.View. Where the rows at an end cannot be read, it is that of the query.
func (v *view) Range(ctx context.Context, q Query) (first, last int64, err error) {
	devices, err := v.selected(q.Devices)
	if err != nil {
		return 0, 0, fmt.Errorf("read readings: %w", err)
	}
	first, last = math.MaxInt64, math.MinInt64
	to := func(time *int64, choose func(a, b int64) int64) func([]driver.Value) error {
		return func(row []driver.Value) error {
			t, ok := row[0].(int64)
			if !ok {
				return errBody
			}
			*time = choose(*time, t)
			return nil
		}
	}
	least := func(a, b int64) int64 { return min(a, b) }
	most := func(a, b int64) int64 { return max(a, b) }
	const times = `SELECT time FROM reading WHERE device = ? AND time >= ? AND time < ? ORDER BY time `
	for _, d := range devices {
		err := v.query(ctx, to(&first, least), times+`LIMIT 1`, d.id, q.From, q.End())
		if isDamage(err) {
			first, err = min(first, q.From), nil
		}
		if err == nil {
			err = v.query(ctx, to(&last, most), times+`DESC LIMIT 1`, d.id, q.From, q.End())
		}
		if isDamage(err) {
			last, err = max(last, q.End()-1), nil
		}
		if err != nil {
			return 0, 0, fmt.Errorf("read readings: device %q: %w", d.name, err)
		}
	}
	return first, last, nil
}

// Latest is that of history.View.
func (v *view) Latest(ctx context.Context, device string) ([]Reading, error) {
	devices, err := v.selected([]string{device})
	if err != nil {
		return nil, fmt.Errorf("latest readings: %w", err)
	}
	return v.latest(ctx, devices[0])
}

// LatestAll is that of history.View.
func (v *view) LatestAll(ctx context.Context) iter.Seq2[Reading, error] {
	return func(yield func(Reading, error) bool) {
		devices, _ := v.selected(nil)
		for _, d := range devices {
			list, err := v.latest(ctx, d)
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

func (v *view) latest(ctx context.Context, d named) (newest []Reading, err error) {
	var r row
	var pairs []pair
	err = v.query(ctx, func(values []driver.Value) error {
		if err := r.read(values); err != nil {
			return err
		}
		if pairs, err = decodeBody(pairs[:0], r.body); err != nil {
			return &rowError{r.time}
		}
		for _, p := range pairs {
			name, err := v.metric(p.metric)
			if err != nil {
				return err
			}
			if !slices.ContainsFunc(newest, func(r Reading) bool { return r.Metric == name }) {
				newest = append(newest, Reading{
					Device: d.name, Metric: name, Time: r.time, Value: p.value, Received: r.received,
					TimeSource: TimeSource(r.flags & flagTimeSource), Given: r.given, ClockUnsure: r.flags&flagClockUnsure != 0,
				})
			}
		}
		return nil
	}, downwards, d.id, int64(math.MinInt64), int64(math.MaxInt64), int64(latestRows))
	if err != nil && !(isDamage(err) && len(newest) > 0) { // what is damaged further back is not the newest
		return nil, fmt.Errorf("latest readings: device %q: %w", d.name, err)
	}
	slices.SortFunc(newest, func(a, b Reading) int { return cmp.Compare(a.Metric, b.Metric) })
	return newest, nil
}

// rowError is one row that is there and says nothing.
type rowError struct{ time int64 }

func (e *rowError) Error() string { return fmt.Sprintf("row at %d: %v", e.time, errBody) }
func (e *rowError) Unwrap() error { return ErrDamaged }

// pass goes on behind what cannot be read and says what that was. The error is one that has nothing to do with damage.
func (c *cursor) pass(ctx context.Context, cause error) (err error) {
	bad := c.from
	var good int64
	if row, ok := errors.AsType[*rowError](cause); ok {
		bad, good = row.time, row.time+1
	} else if good, err = c.behind(ctx, bad); err != nil {
		return err
	}
	c.from = good
	if !c.yield(nil, &DamagedError{Device: c.device.name, From: bad, To: good, Cause: cause}) {
		return errLeft
	}
	return nil
}

// behind returns the first time behind one that cannot be read.
func (c *cursor) behind(ctx context.Context, bad int64) (good int64, err error) {
	readable := func(time int64) (ok bool) {
		if err == nil {
			ok, err = c.readable(ctx, time)
		}
		return ok
	}
	good = c.to
	for step := int64(1000); step > 0 && bad <= c.to-step; step *= 2 {
		if readable(bad + step) {
			good = bad + step
			break
		}
	}
	for low := bad; good-low > 1 && err == nil; {
		if middle := low + (good-low)/2; readable(middle) {
			good = middle
		} else {
			low = middle
		}
	}
	return good, err
}

// readable reports whether the row at a time, or the next one after it, can be read.
func (c *cursor) readable(ctx context.Context, time int64) (bool, error) {
	var r row
	err := c.v.query(ctx, r.read, upwards, c.device.id, time, c.to, int64(1))
	if err == nil {
		return true, nil
	}
	if isDamage(err) {
		return false, nil
	}
	return false, err
}
