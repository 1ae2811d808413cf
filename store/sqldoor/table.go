package sqldoor

import (
	"context"
	"errors"
	"iter"
	"math"
	"strings"

	"modernc.org/sqlite/vtab"

	"github.com/plantops/plantops/store/history"
)

// source is where the tables get their rows.
type source struct {
	ctx     context.Context // of the statement
	view    func(context.Context) (history.View, error)
	damaged func(*history.DamagedError)
	err     error // that ended the statement
}

// table is one that is made when it is asked.
type table struct {
	name, schema string
	read         func(context.Context, history.View, history.Query) iter.Seq2[history.Reading, error]
}

func (t *table) module() string { return "plantops_" + t.name }

// Columns of both tables. Names and meanings are for ever: docs/sql.md.
const (
	columnDevice = iota
	columnTime
	columnMetric
	columnValue
	columnReceived
)

var tables = []*table{
	{name: "reading", schema: `CREATE TABLE reading (device TEXT, time INTEGER, metric TEXT, value REAL, received INTEGER)`, read: scan},
	{name: "latest", schema: `CREATE TABLE latest (device TEXT, time INTEGER, metric TEXT, value REAL)`, read: latest},
}

// scan yields readings device by device, in order of time and metric.
func scan(ctx context.Context, v history.View, q history.Query) iter.Seq2[history.Reading, error] {
	return func(yield func(history.Reading, error) bool) {
		for c, err := range v.Scan(ctx, q) {
			if err != nil {
				if !yield(history.Reading{}, err) {
					return
				}
				continue
			}
			for i := range c.Times {
				for k := range c.Columns {
					if of := &c.Columns[k]; of.Has(i) && q.Wants(of.Metric) && !yield(c.Reading(i, of), nil) {
						return
					}
				}
			}
		}
	}
}

func latest(ctx context.Context, v history.View, q history.Query) iter.Seq2[history.Reading, error] {
	if len(q.Devices) == 0 {
		return v.LatestAll(ctx)
	}
	return func(yield func(history.Reading, error) bool) {
		list, err := v.Latest(ctx, q.Devices[0])
		for _, r := range list {
			if !yield(r, nil) {
				return
			}
		}
		if err != nil {
			yield(history.Reading{}, err)
		}
	}
}

// module makes a table for SQLite.
type module struct {
	table  *table
	source *source
}

func (m *module) Create(ctx vtab.Context, args []string) (vtab.Table, error) {
	return m.Connect(ctx, args)
}

func (m *module) Connect(ctx vtab.Context, _ []string) (vtab.Table, error) {
	return m, ctx.Declare(m.table.schema)
}

// Disconnect and Destroy have nothing to let go of.
func (m *module) Disconnect() error { return nil }
func (m *module) Destroy() error    { return nil }

// Open is a scan of the table: several may be going on in one statement.
func (m *module) Open() (vtab.Cursor, error) {
	return &cursor{table: m.table, source: m.source}, nil
}

// What Filter gets of a condition, a letter for each argument.
const (
	argDevice  = 'd'
	argMetric  = 'm'
	argFrom    = 'f' // time >= or >: what is too much SQLite leaves out
	argTo      = 't'
	argExactly = 'e'
)

const (
	// What is assumed of a table when a plan is chosen.
	rowsOfAll  = 1e9
	opening    = 100 // in rows: what it costs to begin
	devicesOf  = 1000
	metricsOf  = 5
	instantsOf = 1e5
)

// BestIndex takes over the conditions on device, metric and time, and the order where it is that of Scan.
func (m *module) BestIndex(info *vtab.IndexInfo) error {
	var plan strings.Builder
	rows := float64(rowsOfAll)
	take := func(c *vtab.Constraint, letter byte, share float64) {
		if strings.IndexByte(plan.String(), letter) < 0 {
			c.ArgIndex = plan.Len()
			plan.WriteByte(letter)
			rows /= share
		}
	}
	fixed := map[int]bool{} // columns of one value
	for i := range info.Constraints {
		c := &info.Constraints[i]
		switch {
		case !c.Usable:
		case c.Column == columnDevice && c.Op == vtab.OpEQ:
			take(c, argDevice, devicesOf)
			fixed[c.Column] = true
		case c.Column == columnMetric && c.Op == vtab.OpEQ:
			take(c, argMetric, metricsOf)
			fixed[c.Column] = true
		case c.Column == columnTime && c.Op == vtab.OpEQ:
			take(c, argExactly, instantsOf)
		case c.Column == columnTime && (c.Op == vtab.OpGE || c.Op == vtab.OpGT):
			take(c, argFrom, 10)
		case c.Column == columnTime && (c.Op == vtab.OpLE || c.Op == vtab.OpLT):
			take(c, argTo, 10)
		}
	}
	info.IdxStr = plan.String()
	info.EstimatedRows = int64(max(rows, 1))
	info.EstimatedCost = rows + opening
	info.OrderByConsumed = m.inOrder(info.OrderBy, fixed)
	return nil
}

// inOrder reports whether rows come in an order without being sorted.
func (m *module) inOrder(wanted []vtab.OrderBy, fixed map[int]bool) bool {
	order := []int{columnDevice, columnTime, columnMetric}
	if m.table.name == "latest" {
		order = []int{columnDevice, columnMetric}
	}
	for _, w := range wanted {
		for len(order) > 0 && fixed[order[0]] && order[0] != w.Column {
			order = order[1:]
		}
		if fixed[w.Column] {
			continue
		}
		if len(order) == 0 || order[0] != w.Column || w.Desc {
			return false
		}
		order = order[1:]
	}
	return len(wanted) > 0
}

// cursor is one scan.
type cursor struct {
	table  *table
	source *source

	view history.View
	next func() (history.Reading, error, bool)
	stop func()
	row  history.Reading
	n    int64
	end  bool
}

// Filter begins it, with the arguments that BestIndex chose.
func (c *cursor) Filter(_ int, plan string, args []vtab.Value) error {
	c.leave()
	c.n, c.end = 0, true
	q, some := queryOf(plan, args)
	if !some {
		return nil
	}
	// One moment for each cursor. The next loop of a join looks at the same.
	if c.view == nil {
		v, err := c.source.view(c.source.ctx)
		if err != nil {
			return c.failed(err)
		}
		c.view = v
	}
	c.next, c.stop = iter.Pull2(c.table.read(c.source.ctx, c.view, q))
	c.end = false
	return c.Next()
}

// queryOf is what the conditions select; some is false when that is nothing.
func queryOf(plan string, args []vtab.Value) (q history.Query, some bool) {
	q = history.Query{From: math.MinInt64}
	to := int64(math.MaxInt64) // included
	for i, arg := range args {
		if arg == nil {
			return q, false // nothing is equal to NULL, nor more or less
		}
		text, isText := arg.(string)
		low, high, isNumber := bounds(arg)
		switch plan[i] {
		case argDevice:
			if isText {
				q.Devices = []string{text}
			}
		case argMetric:
			if isText {
				q.Metrics = []string{text}
			}
		case argFrom:
			if isNumber {
				q.From = max(q.From, low)
			}
		case argTo:
			if isNumber {
				to = min(to, high)
			}
		case argExactly:
			if isNumber {
				q.From, to = max(q.From, low), min(to, high)
			}
		}
	}
	if to < q.From {
		return q, false
	}
	if to < math.MaxInt64 {
		q.To = to + 1
	}
	if q.To == 0 && to < math.MaxInt64 { // which means no end: what is too much SQLite leaves out
		q.To = 1
	}
	return q, true
}

// bounds are the whole numbers around one.
func bounds(arg vtab.Value) (low, high int64, ok bool) {
	switch v := arg.(type) {
	case int64:
		return v, v, true
	case float64:
		const most = 1 << 62
		if math.Abs(v) < most {
			return int64(math.Floor(v)), int64(math.Ceil(v)), true
		}
	}
	return 0, 0, false
}

// Next goes to the next row.
func (c *cursor) Next() error {
	for {
		if err := c.source.ctx.Err(); err != nil {
			return c.failed(err)
		}
		r, err, more := c.next()
		damaged, isDamaged := errors.AsType[*history.DamagedError](err)
		switch {
		case !more, errors.Is(err, history.ErrNotFound):
			c.leave()
			return nil
		case isDamaged:
			c.source.damaged(damaged)
		case err != nil:
			return c.failed(err)
		default:
			c.row = r
			c.n++
			return nil
		}
	}
}

// failed remembers an error of which SQLite does not tell the text.
func (c *cursor) failed(err error) error {
	if c.source.err == nil {
		c.source.err = err
	}
	c.leave()
	return err
}

// leave ends the sequence.
func (c *cursor) leave() {
	if c.stop != nil {
		c.stop()
	}
	c.next, c.stop, c.end = nil, nil, true
}

func (c *cursor) Eof() bool { return c.end }

func (c *cursor) Column(i int) (vtab.Value, error) {
	switch i {
	case columnDevice:
		return c.row.Device, nil
	case columnTime:
		return c.row.Time, nil
	case columnMetric:
		return c.row.Metric, nil
	case columnValue:
		return c.row.Value, nil
	case columnReceived:
		return c.row.Received, nil
	}
	return nil, nil
}

func (c *cursor) Rowid() (int64, error) { return c.n, nil }

func (c *cursor) Close() error {
	c.leave()
	if c.view == nil {
		return nil
	}
	err := c.view.Close()
	c.view = nil
	return err
}
