package block

import (
	"encoding/binary"
	"math"
	"math/bits"
)

const summaryVersion = 1

// Summary says of each metric of a block, in order of metric, what can be known without reading the block.
type Summary struct {
	Metrics []MetricSummary
}

// MetricSummary is of the values of one metric in a block. First and Last are by order in the block, which is that of time.
// All but Sum is exact. Sum is SumScale times the float nearest to the sum of what the sensor sent, where the values are short
// decimals; else SumScale times each value, added up in order. So what the values add up to one by one may differ from it by
// Count * 2^-52 times the sum of their magnitudes, and no more.
type MetricSummary struct {
	Metric                     uint32
	Count                      int64 // at least 1
	Min, Max, Sum, First, Last float64
}

// A metric's summary: distance of the metric from the one before, how many readings do not have it, and either a power of ten,
// minimum, and the distances of maximum, first, last, and sum from the minimum (of the sum: from Count times it), or summaryFloats
// and five floats.
const summaryFloats = 255

// Metric finds one metric.
func (s *Summary) Metric(metric uint32) (MetricSummary, bool) {
	for _, m := range s.Metrics {
		if m.Metric == metric {
			return m, true
		}
	}
	return MetricSummary{}, false
}

func appendSummary(b []byte, distance uint32, values []float64, c *intColumn, n int) []byte {
	b = binary.AppendUvarint(b, uint64(distance))
	b = binary.AppendUvarint(b, uint64(n-len(values)))
	first, last := 0, len(values)-1
	if c.form == formDecimal && len(c.exceptions) == 0 {
		low, high, sum := c.ints[0], c.ints[0], int64(0)
		for _, v := range c.ints {
			low, high = min(low, v), max(high, v)
			sum += v
		}
		if summable(low, high, len(values)) {
			b = append(b, c.power)
			b = binary.AppendVarint(b, low)
			for _, above := range [...]int64{high - low, c.ints[first] - low, c.ints[last] - low, sum - int64(len(values))*low} {
				b = binary.AppendUvarint(b, uint64(above))
			}
			return b
		}
	}
	low, high, sum := values[0], values[0], 0.0
	for _, v := range values {
		low, high = min(low, v), max(high, v)
		sum += v * SumScale
	}
	b = append(b, summaryFloats)
	for _, v := range [...]float64{low, high, sum, values[first], values[last]} {
		b = binary.LittleEndian.AppendUint64(b, math.Float64bits(v))
	}
	return b
}

// DecodeSummary reads the summary of a block, or says ErrDamaged.
func DecodeSummary(m Meta, b []byte) (s Summary, err error) {
	err = DecodeSummaryInto(&s, m, b)
	return s, err
}

// DecodeSummaryInto is DecodeSummary that uses the memory of s again.
func DecodeSummaryInto(s *Summary, m Meta, b []byte) error {
	list := s.Metrics[:0]
	s.Metrics = list
	if m.N < 1 || m.N > MaxReadings {
		return ErrDamaged
	}
	b, ok := m.unseal(b)
	if !ok || len(b) == 0 || b[0] != summaryVersion {
		return ErrDamaged
	}
	in := scanner{b: b[1:]}
	before := uint64(0)
	for len(in.b) > 0 {
		distance := in.atMost(math.MaxUint32 - before)
		if in.bad || distance == 0 && len(list) > 0 || len(list) == MaxMetrics {
			return ErrDamaged
		}
		before += distance
		out := MetricSummary{Metric: uint32(before), Count: int64(m.N) - int64(in.atMost(uint64(m.N-1)))}
		if power := in.byte(); power == summaryFloats {
			out.floats(&in)
		} else if power <= maxPower {
			out.decimals(&in, powersOfTen[power])
		} else {
			return ErrDamaged
		}
		if in.bad {
			return ErrDamaged
		}
		list = append(list, out)
	}
	s.Metrics = list
	return nil
}

// summable tells whether the sum of so many integers fits into one.
func summable(low, high int64, n int) bool {
	return bits.Len64(uint64(max(high, -low)))+bits.Len(uint(n)) < 63
}

func (s *MetricSummary) decimals(in *scanner, power float64) {
	low := in.signed()
	span := in.atMost(2 * maxMantissa)
	if high := low + int64(span); low < -maxMantissa || high > maxMantissa || !summable(low, high, int(s.Count)) {
		in.bad = true
		return
	}
	first, last, sum := in.atMost(span), in.atMost(span), in.atMost(span*uint64(s.Count))
	s.Min, s.Max = float64(low)/power, float64(low+int64(span))/power
	s.First, s.Last = float64(low+int64(first))/power, float64(low+int64(last))/power
	s.Sum = float64(s.Count*low+int64(sum)) / power * SumScale
}

func (s *MetricSummary) floats(in *scanner) {
	for _, v := range [...]*float64{&s.Min, &s.Max, &s.Sum, &s.First, &s.Last} {
		*v = math.Float64frombits(in.word())
		in.bad = in.bad || *v-*v != 0
	}
	in.bad = in.bad || s.First < s.Min || s.First > s.Max || s.Last < s.Min || s.Last > s.Max
}
