package history

import (
	"slices"
	"strings"
)

// Builder makes chunks of readings that come in order of time. Readings of the same time become one: what came first counts.
type Builder struct {
	chunk   Chunk
	columns []building // of the chunk, in order of coming
	spare   []building // from chunks before
	near    int        // index of the column that was asked for last
	row     pending
}

// pending is a time that has no value yet, or had its first.
type pending struct {
	time, received int64
	given          string
	flags          uint8
	begun, added   bool
}

// building is a column to which values are added.
type building struct {
	metric  string
	values  []float64
	present []uint64
	count   int
}

// Begin forgets what is there: what comes is of a device.
func (b *Builder) Begin(device string) {
	b.chunk.Device = device
	b.chunk.Times, b.chunk.Received, b.chunk.Flags, b.chunk.Given = b.chunk.Times[:0], b.chunk.Received[:0], b.chunk.Flags[:0], b.chunk.Given[:0]
	b.chunk.Columns = b.chunk.Columns[:0]
	b.spare = append(b.spare, b.columns...)
	b.columns, b.near, b.row = b.columns[:0], 0, pending{}
}

// Len is how many times there are.
func (b *Builder) Len() int { return len(b.chunk.Times) }

// Row begins a time, which is the last one or later; it is there when it has a value. given is the time that the device gave,
// if it was not used.
func (b *Builder) Row(time, received int64, flags uint8, given string) {
	r := &b.row
	same := r.begun && r.time == time
	if same && received >= r.received {
		return
	}
	*r = pending{time, received, given, flags, true, same && r.added}
	if r.added {
		b.describe(len(b.chunk.Times) - 1)
	}
}

// describe says of a time what is known of the row.
func (b *Builder) describe(i int) {
	c, r := &b.chunk, &b.row
	c.Times[i], c.Received[i], c.Flags[i] = r.time, r.received, r.flags
	if r.given != "" || len(c.Given) > 0 {
		for len(c.Given) <= i {
			c.Given = append(c.Given, "")
		}
		c.Given[i] = r.given
	}
}

// Value adds a value to the last time. If there is one of the metric, that one stays.
func (b *Builder) Value(metric string, v float64) {
	if !b.row.added {
		c := &b.chunk
		c.Times, c.Received, c.Flags = append(c.Times, 0), append(c.Received, 0), append(c.Flags, 0)
		b.describe(len(c.Times) - 1)
		b.row.added = true
	}
	i := len(b.chunk.Times) - 1
	c := b.column(metric)
	for len(c.present) <= i/64 {
		c.present = append(c.present, 0)
	}
	if bit := uint64(1) << (i % 64); c.present[i/64]&bit == 0 {
		c.present[i/64] |= bit
		c.count++
		for len(c.values) < i {
			c.values = append(c.values, 0)
		}
		c.values = append(c.values, v)
	}
}

// column finds that of a metric. Metrics come in the same order again and again.
func (b *Builder) column(metric string) *building {
	for i := range b.columns {
		if k := (b.near + i) % len(b.columns); b.columns[k].metric == metric {
			b.near = k + 1
			return &b.columns[k]
		}
	}
	var c building
	if n := len(b.spare); n > 0 {
		c, b.spare = b.spare[n-1], b.spare[:n-1]
	}
	b.columns = append(b.columns, building{metric: metric, values: c.values[:0], present: c.present[:0]})
	b.near = len(b.columns)
	return &b.columns[len(b.columns)-1]
}

// Chunk returns what is there, until Begin.
func (b *Builder) Chunk() *Chunk {
	n := len(b.chunk.Times)
	if len(b.chunk.Given) > 0 {
		for len(b.chunk.Given) < n {
			b.chunk.Given = append(b.chunk.Given, "")
		}
	} else {
		b.chunk.Given = nil
	}
	b.chunk.Columns = b.chunk.Columns[:0]
	for i := range b.columns {
		c := &b.columns[i]
		for len(c.values) < n {
			c.values = append(c.values, 0)
		}
		column := Column{Metric: c.metric, Values: c.values}
		if c.count < n {
			for len(c.present) < (n+63)/64 {
				c.present = append(c.present, 0)
			}
			column.Present = c.present
		}
		b.chunk.Columns = append(b.chunk.Columns, column)
	}
	slices.SortFunc(b.chunk.Columns, func(x, y Column) int { return strings.Compare(x.Metric, y.Metric) })
	return &b.chunk
}
