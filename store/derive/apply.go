package derive

import (
	"math"
	"slices"
	"strings"
	"time"

	"github.com/plantops/plantops/store/history"
)

// Options say what an Applier gives.
type Options struct {
	Metrics  []string       // none: all
	From     int64          // UTC ms; what is earlier was read for Start, and is left out
	Location *time.Location // whose days light is added up over; nil: UTC
}

// Applier applies rules to the chunks of one device after the other, each in order of time. It is for one goroutine.
type Applier struct {
	rules   *Rules
	options Options
	device  *deviceRules // nil: there are none
	lights  []light      // one for each derived metric
	wanted  []bool       // derived metrics that are asked for, or needed for those

	in      history.Chunk // what is worked on: its columns are of the source, or of columns
	work    []history.Column
	columns []column // memory of columns
	used    int
	keep    []uint64 // the times that remain
	out     history.Chunk
	inputs  []float64
	sources []*history.Column
}

// column is memory for one.
type column struct {
	values  []float64
	present []uint64
}

// Applier makes one.
func (r *Rules) Applier(o Options) *Applier {
	a := &Applier{rules: r, options: o}
	stored := r.Stored(o.Metrics)
	for i := range r.derived {
		a.wanted = append(a.wanted, stored == nil || slices.Contains(stored, r.derived[i].Name))
	}
	a.Begin("")
	return a
}

// Begin says that chunks of a device follow, from its first one on.
func (a *Applier) Begin(device string) {
	a.device = a.rules.devices[device]
	a.lights = a.lights[:0]
	for range a.rules.derived {
		a.lights = append(a.lights, light{grid: history.NewGrid(history.Span{Days: 1}, a.options.Location), start: math.MinInt64})
	}
}

// Apply returns what is to be read of a chunk, which stays as it is: values corrected, what is voided taken out, derived
// metrics added, times without any value left out. What it returns is valid until the next call; it may be c itself, and is nil
// when nothing is left. A value that a calibration or formula makes infinite is not there.
func (a *Applier) Apply(c *history.Chunk) *history.Chunk {
	if a.device == nil && len(a.rules.derived) == 0 && len(a.options.Metrics) == 0 && (len(c.Times) == 0 || c.Times[0] >= a.options.From) {
		return c
	}
	a.used = 0
	a.in = *c
	a.in.Columns = slices.DeleteFunc(append(a.work[:0], c.Columns...), func(c history.Column) bool { return a.rules.derivedOf(c.Metric) != nil })
	if a.device != nil {
		for i := range a.in.Columns {
			a.calibrate(&a.in.Columns[i])
			a.void(&a.in.Columns[i])
		}
	}
	for i := range a.rules.derived {
		if a.wanted[i] {
			a.derive(i)
		}
	}
	a.work = a.in.Columns
	return a.finish()
}

// own gives a column memory of its own, with every bit of what is there.
func (a *Applier) own(c *history.Column) *column {
	n := len(a.in.Times)
	m := a.memory()
	m.values = append(m.values[:0], c.Values...)
	m.present = slices.Grow(m.present[:0], (n+63)/64)[:(n+63)/64]
	if c.Present != nil {
		copy(m.present, c.Present)
	} else {
		for i := range m.present {
			m.present[i] = ^uint64(0)
		}
		if n%64 != 0 {
			m.present[n/64] = 1<<(n%64) - 1
		}
	}
	c.Values, c.Present = m.values, m.present
	return m
}

func (a *Applier) memory() *column {
	if a.used == len(a.columns) {
		a.columns = append(a.columns, column{})
	}
	a.used++
	return &a.columns[a.used-1]
}

// between are the numbers of the times from one on to before another.
func (a *Applier) between(from, to int64) (i, j int) {
	i, _ = slices.BinarySearch(a.in.Times, from)
	j, _ = slices.BinarySearch(a.in.Times, to)
	return i, j
}

// calibrate corrects a column.
func (a *Applier) calibrate(c *history.Column) {
	list := a.device.calibrations[c.Metric]
	owned := false
	for k := range list {
		to := int64(math.MaxInt64)
		if k+1 < len(list) {
			to = list[k+1].From
		}
		i, j := a.between(list[k].From, to)
		if i == j || len(list[k].Points) == 0 {
			continue
		}
		if !owned {
			a.own(c)
			owned = true
		}
		line, isLine := list[k].Line()
		for ; i < j; i++ {
			if !c.Has(i) {
				continue
			}
			v := c.Values[i]
			if isLine {
				v = line.At(v)
			} else {
				v = list[k].At(v)
			}
			if !finite(v) {
				v = 0
				c.Present[i/64] &^= 1 << (i % 64)
			}
			c.Values[i] = v
		}
	}
}

// void takes out of a column what is voided.
func (a *Applier) void(c *history.Column) {
	owned := false
	for k := range a.device.voids {
		v := &a.device.voids[k]
		if v.Metric != "" && v.Metric != c.Metric {
			continue
		}
		i, j := a.between(v.From, v.end())
		if i < j && !owned {
			a.own(c)
			owned = true
		}
		for ; i < j; i++ {
			c.Present[i/64] &^= 1 << (i % 64)
		}
	}
}

// derive adds derived metric k, unless the device does not send all that it needs.
func (a *Applier) derive(k int) {
	d := &a.rules.derived[k]
	a.sources = a.sources[:0]
	for i := range d.Terms {
		source := a.find(d.Terms[i].Metric)
		if source == nil {
			return
		}
		a.sources = append(a.sources, source)
	}
	n := len(a.in.Times)
	m := a.memory()
	m.values = slices.Grow(m.values[:0], n)[:n]
	m.present = slices.Grow(m.present[:0], (n+63)/64)[:(n+63)/64]
	clear(m.present)
	a.inputs = slices.Grow(a.inputs[:0], len(a.sources))[:len(a.sources)]
	for i := range n {
		m.values[i] = 0
		there := true
		for s, source := range a.sources {
			there = there && source.Has(i)
			a.inputs[s] = source.Values[i]
		}
		if !there {
			continue
		}
		var v float64
		if d.Kind == LightIntegral {
			v = a.lights[k].at(a.in.Times[i], float64(a.inputs[0]*d.Terms[0].Factor))
		} else {
			v = d.at(a.inputs)
		}
		if finite(v) {
			m.values[i] = v
			m.present[i/64] |= 1 << (i % 64)
		}
	}
	c := history.Column{Metric: d.Name, Values: m.values, Present: m.present}
	if a.device != nil {
		a.void(&c)
	}
	a.in.Columns = append(a.in.Columns, c)
}

func (a *Applier) find(metric string) *history.Column {
	for i := range a.in.Columns {
		if a.in.Columns[i].Metric == metric {
			return &a.in.Columns[i]
		}
	}
	return nil
}

// finish leaves out what nobody asked for and the times at which there is nothing.
func (a *Applier) finish() *history.Chunk {
	n := len(a.in.Times)
	a.keep = slices.Grow(a.keep[:0], (n+63)/64)[:(n+63)/64]
	clear(a.keep)
	a.in.Columns = slices.DeleteFunc(a.in.Columns, func(c history.Column) bool {
		return len(a.options.Metrics) > 0 && !slices.Contains(a.options.Metrics, c.Metric)
	})
	for _, c := range a.in.Columns {
		for w := range a.keep {
			if c.Present != nil {
				a.keep[w] |= c.Present[w]
			} else {
				a.keep[w] = ^uint64(0)
			}
		}
	}
	first, _ := slices.BinarySearch(a.in.Times, a.options.From)
	for i := range first {
		a.keep[i/64] &^= 1 << (i % 64)
	}
	out := &a.out
	out.Device = a.in.Device
	out.Times = pick(out.Times, a.in.Times, a.keep)
	if len(out.Times) == 0 {
		return nil
	}
	out.Received, out.Flags = pick(out.Received, a.in.Received, a.keep), pick(out.Flags, a.in.Flags, a.keep)
	if a.in.Given != nil {
		out.Given = pick(out.Given, a.in.Given, a.keep)
	} else {
		out.Given = nil
	}
	out.Columns = out.Columns[:0]
	for _, c := range a.in.Columns {
		if picked, some := a.pickColumn(c); some {
			out.Columns = append(out.Columns, picked)
		}
	}
	slices.SortFunc(out.Columns, func(a, b history.Column) int { return strings.Compare(a.Metric, b.Metric) })
	return out
}

// pick appends what is to be kept to the memory of dst.
func pick[T any](dst, list []T, keep []uint64) []T {
	dst = dst[:0]
	for i, v := range list {
		if keep[i/64]>>(i%64)&1 != 0 {
			dst = append(dst, v)
		}
	}
	return dst
}

// pickColumn is the rest of a column, and whether there is any.
func (a *Applier) pickColumn(c history.Column) (picked history.Column, some bool) {
	m := a.memory()
	m.values = pick(m.values, c.Values, a.keep)
	n := len(m.values)
	if c.Present == nil {
		return history.Column{Metric: c.Metric, Values: m.values}, true
	}
	m.present = slices.Grow(m.present[:0], (n+63)/64)[:(n+63)/64]
	clear(m.present)
	at, count := 0, 0
	for i := range c.Values {
		if a.keep[i/64]>>(i%64)&1 == 0 {
			continue
		}
		if c.Has(i) {
			m.present[at/64] |= 1 << (at % 64)
			count++
		}
		at++
	}
	picked = history.Column{Metric: c.Metric, Values: m.values, Present: m.present}
	if count == n {
		picked.Present = nil
	}
	return picked, count > 0
}
