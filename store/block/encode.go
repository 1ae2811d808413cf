package block

import (
	"cmp"
	"encoding/binary"
	"fmt"
	"math"
	"slices"
)

// The body of a block: version, step of the times of arrival in ms, then the sections times, arrivals, flags, given times, and
// the columns of the metrics. A section is its length and that many bytes.
const bodyVersion = 1

// ReceivedStep is the precision to which a block keeps times of arrival, in ms: what is kept is the distance from the
// reading's own time, to the nearest step, so an arrival is off by at most half of it. Those of a message in the journal are exact.
//
// What the milliseconds cost is nearly all noise of the network. Bytes of a reading, 512 in a block, of the readings of blocktest:
// 3.68 in steps of 1 ms, 3.27 of 10 ms, 2.99 of 100 ms, 2.87 of 1 s. A block says its step, so it may change.
const ReceivedStep = 100

// A column: distance of its metric from the one before, kind, how it says which readings have it, exceptions, integers.
const (
	kindBits     = 2
	kindMask     = 1<<kindBits - 1
	presentRows  = 1 << kindBits // the readings that have it, as a sequence of integers
	presentBits  = 2 << kindBits // a bit for each reading
	hasException = 4 << kindBits
	headMask     = hasException | presentBits | presentRows | kindMask
)

// maxShared bounds what a given time takes from the one before, and so what a damaged block can make of a few bytes.
const maxShared = 64

// Encoder makes blocks. Its zero value is ready; it keeps its memory from block to block, and is for one goroutine.
type Encoder struct {
	body, summary, part []byte

	columns []column // in order of appearance
	used    int      // columns in use
	order   []int    // of columns, in order of metric
	before  []int    // columns of the reading before

	ints    []int64
	values  intColumn
	numbers intEncoder
	step    int64 // 0: ReceivedStep
}

// column is what a block has of one metric.
type column struct {
	metric uint32
	values []float64
	rows   []int64 // readings that have it; empty as long as all have
	partly bool
}

// Encode makes a block of readings of one device in order of time, at least 1 and at most MaxReadings, with at most MaxMetrics
// metrics, all in the month of the key. summary and body are valid until the next call. What Decode gives back is the same bit
// for bit, but for the times of arrival (see ReceivedStep). An error is a mistake of the caller: what is out of order, too
// much, or not finite.
func (e *Encoder) Encode(key int64, readings []Reading) (m Meta, summary, body []byte, err error) {
	if len(readings) == 0 || len(readings) > MaxReadings {
		return Meta{}, nil, nil, fmt.Errorf("encode block %d: %d readings, want 1 to %d", key, len(readings), MaxReadings)
	}
	m = Meta{Key: key, N: len(readings), First: readings[0].Time, Last: readings[len(readings)-1].Time}
	month, _, _ := SplitKey(key)
	if first, last := Month(m.First), Month(m.Last); first != month || last != month {
		return Meta{}, nil, nil, fmt.Errorf("encode block %d: readings of months %d to %d, want those of month %d", key, first, last, month)
	}
	if err := e.transpose(readings); err != nil {
		return Meta{}, nil, nil, fmt.Errorf("encode block %d: %w", key, err)
	}
	step := cmp.Or(e.step, ReceivedStep)
	b := binary.AppendUvarint(append(e.body[:0], bodyVersion), uint64(step))
	b = e.appendTimes(b, readings, step)
	b = e.appendFlags(b, readings)
	b = e.appendGiven(b, readings)
	b = binary.AppendUvarint(b, uint64(e.used))
	sum := append(e.summary[:0], summaryVersion)
	before := uint32(0)
	for _, at := range e.order {
		c := &e.columns[at]
		e.values.set(c.values)
		sum = appendSummary(sum, c.metric-before, c.values, &e.values, m.N)
		b = e.appendColumn(binary.AppendUvarint(b, uint64(c.metric-before)), c, m.N)
		before = c.metric
	}
	e.body, e.summary = m.seal(b), m.seal(sum)
	return m, e.summary, e.body, nil
}

// transpose sorts the values into columns, and checks them.
func (e *Encoder) transpose(readings []Reading) error {
	e.used, e.order, e.before = 0, e.order[:0], e.before[:0]
	time := readings[0].Time
	for i := range readings {
		r := &readings[i]
		if r.Time < time {
			return fmt.Errorf("reading %d is of %d, after one of %d", i, r.Time, time)
		}
		time = r.Time
		least := int64(-1)
		for j := range r.Values {
			v := &r.Values[j]
			if int64(v.Metric) <= least {
				return fmt.Errorf("reading %d has metric %d after %d", i, v.Metric, least)
			}
			least = int64(v.Metric)
			if v.Value-v.Value != 0 {
				return fmt.Errorf("reading %d, metric %d: %v is not finite", i, v.Metric, v.Value)
			}
			if j == len(e.before) {
				e.before = append(e.before, 0)
			}
			at := e.before[j]
			if at >= e.used || e.columns[at].metric != v.Metric {
				if at = e.find(v.Metric); at < 0 {
					return fmt.Errorf("more than %d metrics", MaxMetrics)
				}
				e.before[j] = at
			}
			c := &e.columns[at]
			if c.partly {
				c.rows = append(c.rows, int64(i))
			} else if len(c.values) < i {
				c.startRows(i)
			}
			c.values = append(c.values, v.Value)
		}
	}
	for i := range e.columns[:e.used] {
		if c := &e.columns[i]; !c.partly && len(c.values) < len(readings) {
			c.startRows(len(readings))
			c.rows = c.rows[:len(c.values)]
		}
	}
	return nil
}

// startRows begins to say which readings have a column, up to reading i.
func (c *column) startRows(i int) {
	c.partly = true
	for row := range c.values {
		c.rows = append(c.rows, int64(row))
	}
	c.rows = append(c.rows, int64(i))
}

// find is the column of a metric, a new one if need be, or -1 if there are too many.
func (e *Encoder) find(metric uint32) int {
	at, there := slices.BinarySearchFunc(e.order, metric, func(i int, metric uint32) int { return cmp.Compare(e.columns[i].metric, metric) })
	if there {
		return e.order[at]
	}
	if e.used == MaxMetrics {
		return -1
	}
	if e.used == len(e.columns) {
		e.columns = append(e.columns, column{})
	}
	c := &e.columns[e.used]
	*c = column{metric: metric, values: c.values[:0], rows: c.rows[:0]}
	e.order = slices.Insert(e.order, at, e.used)
	e.used++
	return e.used - 1
}

// section appends a sequence of integers as a section.
func (e *Encoder) section(b []byte, list []int64) []byte {
	e.part = e.numbers.append(e.part[:0], list)
	return append(binary.AppendUvarint(b, uint64(len(e.part))), e.part...)
}

func (e *Encoder) appendTimes(b []byte, readings []Reading, step int64) []byte {
	list := e.ints[:0]
	for i := range readings {
		list = append(list, readings[i].Time-readings[0].Time)
	}
	b = e.section(b, list)
	list = list[:0]
	for i := range readings {
		list = append(list, lag(&readings[i], step))
	}
	e.ints = list
	return e.section(b, list)
}

// maxReceived is further away than any clock can be.
const maxReceived = 1 << 58

// lag is how many steps after the reading its message arrived.
func lag(r *Reading, step int64) int64 {
	n := max(-maxReceived, min(r.Received, maxReceived)) - r.Time + step/2
	if n < 0 {
		n -= step - 1 // so that the quotient is rounded down
	}
	return n / step
}

func (e *Encoder) appendFlags(b []byte, readings []Reading) []byte {
	list, all := e.ints[:0], uint32(0)
	for i := range readings {
		list = append(list, int64(readings[i].Flags))
		all |= readings[i].Flags
	}
	e.ints = list
	if all == 0 {
		return append(b, 0)
	}
	return e.section(b, list)
}

// appendGiven appends the given times: for each, the distance from the reading that had the one before, how much of its text is
// the same, and the rest of it.
func (e *Encoder) appendGiven(b []byte, readings []Reading) []byte {
	part, last, before := e.part[:0], -1, ""
	for i := range readings {
		text := readings[i].Given
		if text == "" {
			continue
		}
		same := 0
		for same < min(len(before), len(text), maxShared) && before[same] == text[same] {
			same++
		}
		part = binary.AppendUvarint(part, uint64(i-last-1))
		part = binary.AppendUvarint(part, uint64(same))
		part = binary.AppendUvarint(part, uint64(len(text)-same))
		part = append(part, text[same:]...)
		last, before = i, text
	}
	e.part = part
	return append(binary.AppendUvarint(b, uint64(len(part))), part...)
}

func (e *Encoder) appendColumn(b []byte, c *column, n int) []byte {
	at := len(b)
	b = append(b, e.values.form, e.values.power)
	if c.partly {
		e.part = e.numbers.append(e.part[:0], c.rows)
		if size := (n + 7) / 8; len(e.part) < size {
			b[at] |= presentRows
			b = binary.AppendUvarint(b, uint64(len(c.rows)))
			b = append(binary.AppendUvarint(b, uint64(len(e.part))), e.part...)
		} else {
			b[at] |= presentBits
			from := len(b)
			b = append(b, make([]byte, size)...)
			for _, row := range c.rows {
				b[from+int(row>>3)] |= 1 << (row & 7)
			}
		}
	}
	if len(e.values.exceptions) > 0 {
		b[at] |= hasException
		b = binary.AppendUvarint(b, uint64(len(e.values.exceptions)))
		last := int32(-1)
		for _, i := range e.values.exceptions {
			b = binary.AppendUvarint(b, uint64(i-last-1))
			b = binary.LittleEndian.AppendUint64(b, math.Float64bits(c.values[i]))
			last = i
		}
	}
	return e.section(b, e.values.ints)
}
