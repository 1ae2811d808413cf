package block

import (
	"math"
	"math/bits"
	"slices"
)

// Decoder reads blocks. Its zero value is ready; it keeps its memory from block to block, and is for one goroutine. What its
// methods return is valid until the next Decode.
type Decoder struct {
	n        int
	times    []int64
	received []int64
	flags    []uint32
	given    []givenTime
	metrics  []uint32
	columns  []packed
	step     int64

	lags, flagBits []byte // sections that nobody asked for yet
	ints           []int64
	numbers        []uint64
	bad            bool
}

// givenTime is the given time of one reading.
type givenTime struct {
	at   int
	text string
}

// packed is a column as it stands in a block, and what came out of it when it was asked for.
type packed struct {
	kind
	head                byte
	count               int // values, as it was written for presentRows
	rows                []byte
	exceptions          int
	exceptional, ints   []byte
	read, bad           bool
	values              []float64
	present, presentBuf []uint64
}

// Decode reads a block, or says ErrDamaged; then nothing of it is to be used. Columns, times of arrival and flags are unpacked
// when they are asked for.
func (d *Decoder) Decode(m Meta, body []byte) error {
	if !d.decode(m, body) {
		d.n, d.times, d.metrics, d.columns, d.given = 0, d.times[:0], d.metrics[:0], d.columns[:0], d.given[:0]
		d.lags, d.flagBits, d.received, d.flags = nil, nil, d.received[:0], nil
		return ErrDamaged
	}
	return nil
}

func (d *Decoder) decode(m Meta, body []byte) bool {
	if m.N < 1 || m.N > MaxReadings {
		return false
	}
	b, ok := m.unseal(body)
	if !ok || len(b) == 0 || b[0] != bodyVersion {
		return false
	}
	in := scanner{b: b[1:]}
	d.bad, d.n, d.received, d.flags = false, m.N, d.received[:0], d.flags[:0]
	d.step = int64(in.atMost(1 << 20))
	if !d.readTimes(m, in.section()) {
		return false
	}
	d.lags, d.flagBits = in.section(), in.section()
	if !d.readGiven(in.section()) || d.step == 0 || len(d.lags) == 0 {
		return false
	}
	count := in.atMost(MaxMetrics)
	d.metrics = d.metrics[:0]
	d.columns = slices.Grow(d.columns[:0], int(count))
	before := uint64(0)
	for i := range count {
		distance := in.atMost(math.MaxUint32 - before)
		if in.bad || distance == 0 && i > 0 {
			return false
		}
		before += distance
		d.metrics = append(d.metrics, uint32(before))
		d.columns = d.columns[:i+1]
		if !d.columns[i].parse(&in, m.N) {
			return false
		}
	}
	return !in.bad && len(in.b) == 0
}

func (d *Decoder) readTimes(m Meta, b []byte) bool {
	d.times = slices.Grow(d.times[:0], m.N)[:m.N]
	if !readInts(d.times, &d.numbers, b) || d.times[0] != 0 {
		return false
	}
	before, sorted := m.First, true
	for i, t := range d.times {
		t += m.First
		sorted = sorted && t >= before
		before = t
		d.times[i] = t
	}
	return sorted && before == m.Last
}

func (d *Decoder) readGiven(b []byte) bool {
	d.given = d.given[:0]
	in := scanner{b: b}
	at, before := -1, ""
	for len(in.b) > 0 {
		at += 1 + int(in.atMost(uint64(d.n)))
		same := in.atMost(uint64(min(len(before), maxShared)))
		rest := in.section()
		if in.bad || at >= d.n || same == 0 && len(rest) == 0 {
			return false
		}
		before = before[:same] + string(rest)
		d.given = append(d.given, givenTime{at, before})
	}
	return true
}

// parse takes one column from in, and leaves it packed.
func (c *packed) parse(in *scanner, n int) bool {
	c.read, c.bad, c.present = false, false, nil
	c.head = in.byte()
	c.kind = kind{c.head & kindMask, in.byte()}
	limit := uint8(maxPower)
	if c.form == formBits {
		limit = 63
	}
	if c.head&^headMask != 0 || c.form > formBits || c.power > limit {
		return false
	}
	c.count, c.rows, c.exceptions, c.exceptional = n, nil, 0, nil
	switch c.head & (presentRows | presentBits) {
	case presentRows:
		c.count = int(in.atMost(uint64(n)))
		c.rows = in.section()
	case presentBits:
		c.rows = in.bytes(uint64(n+7) / 8)
		c.count = 0
		for _, b := range c.rows {
			c.count += bits.OnesCount8(b)
		}
		if n%8 != 0 && !in.bad && c.rows[len(c.rows)-1]>>(n%8) != 0 {
			return false
		}
	case presentRows | presentBits:
		return false
	}
	if c.head&hasException != 0 {
		c.exceptions = int(in.atMost(uint64(c.count)))
		from := in.b
		for range c.exceptions {
			in.unsigned()
			in.bytes(8)
		}
		c.exceptional = from[:len(from)-len(in.b)]
	}
	c.ints = in.section()
	return !in.bad && c.count > 0 && (c.form != formBits || c.exceptions == 0)
}

// Err is ErrDamaged when something that was asked for since Decode turned out to be damaged behind a checksum that is right:
// Column said false for a metric of Metrics, or Received or Flags gave nothing.
func (d *Decoder) Err() error {
	if d.bad {
		return ErrDamaged
	}
	return nil
}

// Len is the number of readings.
func (d *Decoder) Len() int { return d.n }

// Times are those of the readings, in order, in UTC ms.
func (d *Decoder) Times() []int64 { return d.times }

// Received are the times of arrival, in UTC ms, to the nearest ReceivedStep after Times.
func (d *Decoder) Received() []int64 {
	if len(d.received) > 0 || d.n == 0 {
		return d.received
	}
	d.received = slices.Grow(d.received, d.n)[:d.n]
	if !readInts(d.received, &d.numbers, d.lags) {
		d.bad = true
		clear(d.received)
	}
	for i, t := range d.times {
		d.received[i] = t + d.received[i]*d.step
	}
	return d.received
}

// Flags are those of the readings; nil stands for zero at all of them.
func (d *Decoder) Flags() []uint32 {
	if len(d.flagBits) == 0 {
		return nil
	}
	if len(d.flags) > 0 {
		return d.flags
	}
	d.ints = slices.Grow(d.ints[:0], d.n)[:d.n]
	if !readInts(d.ints, &d.numbers, d.flagBits) {
		d.bad = true
		clear(d.ints)
	}
	for _, f := range d.ints {
		if f < 0 || f > math.MaxUint32 {
			d.bad = true
		}
		d.flags = append(d.flags, uint32(f))
	}
	return d.flags
}

// HasGiven tells whether any reading has a time that was given and not used.
func (d *Decoder) HasGiven() bool { return len(d.given) > 0 }

// Given is the time that the device gave with reading i, when it was not used.
func (d *Decoder) Given(i int) string {
	at, there := slices.BinarySearchFunc(d.given, i, func(g givenTime, i int) int { return g.at - i })
	if !there {
		return ""
	}
	return d.given[at].text
}

// Metrics are those of the block, in order.
func (d *Decoder) Metrics() []uint32 { return d.metrics }

// Column returns the values of a metric: one for each reading, and a bit in present for each that there is, or nil when there are
// all. Values that there are not are 0. It is false when the block has nothing of the metric, or when that is damaged (Err).
func (d *Decoder) Column(metric uint32) (values []float64, present []uint64, ok bool) {
	at, there := slices.BinarySearch(d.metrics, metric)
	if !there {
		return nil, nil, false
	}
	return d.column(at)
}

func (d *Decoder) column(at int) (values []float64, present []uint64, ok bool) {
	c := &d.columns[at]
	if !c.read {
		c.read, c.bad = true, !d.unpack(c)
		d.bad = d.bad || c.bad
	}
	if c.bad {
		return nil, nil, false
	}
	return c.values, c.present, true
}

func (d *Decoder) unpack(c *packed) bool {
	n := d.n
	c.values = slices.Grow(c.values[:0], n)[:n]
	d.ints = slices.Grow(d.ints[:0], n)[:n]
	if c.rows != nil {
		c.presentBuf = slices.Grow(c.presentBuf[:0], (n+63)/64)[:(n+63)/64]
		clear(c.presentBuf)
		c.present = c.presentBuf
		if !d.unpackRows(c) {
			return false
		}
	}
	ints := d.ints[:c.count]
	if !readInts(ints, &d.numbers, c.ints) {
		return false
	}
	values := c.values[:c.count]
	switch c.form {
	case formDecimal:
		power := powersOfTen[c.power]
		for i, v := range ints {
			values[i] = float64(v) / power
		}
	case formSingle:
		power := powersOfTen[c.power]
		for i, v := range ints {
			values[i] = float64(float32(float64(v) / power))
		}
	case formBits:
		for i, v := range ints {
			values[i] = math.Float64frombits(uint64(v) << c.power)
			if values[i]-values[i] != 0 {
				return false
			}
		}
	}
	in := scanner{b: c.exceptional}
	at := -1
	for range c.exceptions {
		at += 1 + int(in.atMost(uint64(n)))
		v := math.Float64frombits(in.word())
		if at >= c.count || v-v != 0 {
			return false
		}
		values[at] = v
	}
	if c.present != nil {
		spread(c.values, c.present, c.count)
	}
	return true
}

// unpackRows fills in which readings have a column.
func (d *Decoder) unpackRows(c *packed) bool {
	if c.head&presentBits != 0 {
		for i, b := range c.rows {
			c.present[i/8] |= uint64(b) << (i % 8 * 8)
		}
		return true
	}
	rows := d.ints[:c.count]
	if !readInts(rows, &d.numbers, c.rows) {
		return false
	}
	before := int64(-1)
	for _, row := range rows {
		if row <= before || row >= int64(d.n) {
			return false
		}
		before = row
		c.present[row/64] |= 1 << (row % 64)
	}
	return true
}

// spread moves the first count values to where their bits are set, and puts 0 elsewhere.
func spread(values []float64, present []uint64, count int) {
	for i := len(values) - 1; i >= 0; i-- {
		if present[i/64]>>(i%64)&1 != 0 {
			count--
			values[i] = values[count]
		} else {
			values[i] = 0
		}
	}
}

// Reading puts together reading i, with its values appended to buffer, which may be nil.
func (d *Decoder) Reading(i int, buffer []Value) Reading {
	r := Reading{Time: d.times[i], Received: d.Received()[i], Given: d.Given(i)}
	if flags := d.Flags(); flags != nil {
		r.Flags = flags[i]
	}
	from := len(buffer)
	for at, metric := range d.metrics {
		if values, present, ok := d.column(at); ok && (present == nil || present[i/64]>>(i%64)&1 != 0) {
			buffer = append(buffer, Value{metric, values[i]})
		}
	}
	r.Values = buffer[from:]
	return r
}
