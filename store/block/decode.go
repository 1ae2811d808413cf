package block

import (
	"encoding/binary"
	"math"
	"slices"
)

// Decoder reads blocks. Its zero value is ready; it keeps its memory from block to block, and is for one goroutine. What its
// methods return is valid until the next Decode.
type Decoder struct {
	times, received []int64
	flags           []uint32
	given           []string
	metrics         []uint32
	columns         []column
}

type column struct {
	values  []float64
	present []uint64
}

// Decode reads a block, or says ErrDamaged; then nothing of it is to be used.
func (d *Decoder) Decode(m Meta, body []byte) error {
	d.times, d.received, d.flags, d.given, d.metrics, d.columns = d.times[:0], d.received[:0], d.flags[:0], d.given[:0], d.metrics[:0], d.columns[:0]
	if m.N < 1 || m.N > MaxReadings {
		return ErrDamaged
	}
	b, ok := unseal(body, m.Key, int64(m.N), m.First, m.Last)
	if !ok || len(b) == 0 || b[0] != bodyVersion {
		return ErrDamaged
	}
	b = b[1:]
	bad := false
	number := func() uint64 {
		u, n := binary.Uvarint(b)
		if n <= 0 {
			bad = true
			return 0
		}
		b = b[n:]
		return u
	}
	time := m.First
	for i := range m.N {
		time += int64(number())
		d.times = append(d.times, time)
		lag := number()
		d.received = append(d.received, time+(int64(lag>>1)^-int64(lag&1)))
		d.flags = append(d.flags, uint32(number()))
		length := number()
		if bad || length > uint64(len(b)) {
			return ErrDamaged
		}
		d.given = append(d.given, string(b[:length]))
		b = b[length:]
		for range number() {
			metric := uint32(number())
			if bad || len(b) < 8 {
				return ErrDamaged
			}
			at, there := slices.BinarySearch(d.metrics, metric)
			if !there {
				if len(d.metrics) == MaxMetrics {
					return ErrDamaged
				}
				d.metrics = slices.Insert(d.metrics, at, metric)
				d.columns = slices.Insert(d.columns, at, column{make([]float64, m.N), make([]uint64, (m.N+63)/64)})
			}
			d.columns[at].values[i] = math.Float64frombits(binary.LittleEndian.Uint64(b))
			d.columns[at].present[i/64] |= 1 << (i % 64)
			b = b[8:]
		}
	}
	if bad || len(b) > 0 || time != m.Last {
		return ErrDamaged
	}
	return nil
}

// Len is the number of readings.
func (d *Decoder) Len() int { return len(d.times) }

// Times are those of the readings, in order, in UTC ms.
func (d *Decoder) Times() []int64 { return d.times }

// Received are the times of arrival, in UTC ms.
func (d *Decoder) Received() []int64 { return d.received }

// Flags are those of the readings; nil stands for zero at all of them.
func (d *Decoder) Flags() []uint32 { return d.flags }

// HasGiven tells whether any reading has a time that was given and not used.
func (d *Decoder) HasGiven() bool {
	return slices.ContainsFunc(d.given, func(s string) bool { return s != "" })
}

// Given is the time that the device gave with reading i, when it was not used.
func (d *Decoder) Given(i int) string { return d.given[i] }

// Metrics are those of the block, in order.
func (d *Decoder) Metrics() []uint32 { return d.metrics }

// Column returns the values of a metric: one for each reading, and a bit in present for each that there is, or nil when there are
// all. Values that there are not are 0. It is false when the block has nothing of the metric.
func (d *Decoder) Column(metric uint32) (values []float64, present []uint64, ok bool) {
	at, there := slices.BinarySearch(d.metrics, metric)
	if !there {
		return nil, nil, false
	}
	c := d.columns[at]
	for i := range d.times {
		if c.present[i/64]>>(i%64)&1 == 0 {
			return c.values, c.present, true
		}
	}
	return c.values, nil, true
}

// Reading puts together reading i, with its values appended to buffer, which may be nil.
func (d *Decoder) Reading(i int, buffer []Value) Reading {
	r := Reading{Time: d.times[i], Received: d.received[i], Flags: d.flags[i], Given: d.given[i]}
	from := len(buffer)
	for _, metric := range d.metrics {
		if values, present, _ := d.Column(metric); present == nil || present[i/64]>>(i%64)&1 != 0 {
			buffer = append(buffer, Value{metric, values[i]})
		}
	}
	r.Values = buffer[from:]
	return r
}
