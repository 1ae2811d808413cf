package block

import (
	"encoding/binary"
	"math"
)

const summaryVersion = 1

// Summary says of each metric of a block, in order of metric, what can be known without reading the block.
type Summary struct {
	Metrics []MetricSummary
}

// MetricSummary is of the values of one metric in a block. First and Last are by order in the block, which is that of time.
type MetricSummary struct {
	Metric                     uint32
	Count                      int64   // at least 1
	Min, Max, Sum, First, Last float64 // Sum is times SumScale
}

// Metric finds one metric.
func (s *Summary) Metric(metric uint32) (MetricSummary, bool) {
	for _, m := range s.Metrics {
		if m.Metric == metric {
			return m, true
		}
	}
	return MetricSummary{}, false
}

func appendSummary(b []byte, m Meta, sums []MetricSummary) []byte {
	b = append(b, summaryVersion)
	for _, s := range sums {
		b = binary.AppendUvarint(b, uint64(s.Metric))
		b = binary.AppendUvarint(b, uint64(s.Count))
		for _, v := range [...]float64{s.Min, s.Max, s.Sum, s.First, s.Last} {
			b = binary.LittleEndian.AppendUint64(b, math.Float64bits(v))
		}
	}
	return seal(b, 0, m.Key, int64(m.N), m.First, m.Last)
}

// DecodeSummary reads the summary of a block, or says ErrDamaged.
func DecodeSummary(m Meta, b []byte) (s Summary, err error) {
	err = DecodeSummaryInto(&s, m, b)
	return s, err
}

// DecodeSummaryInto is DecodeSummary that uses the memory of s again.
func DecodeSummaryInto(s *Summary, m Meta, b []byte) error {
	s.Metrics = s.Metrics[:0]
	b, ok := unseal(b, m.Key, int64(m.N), m.First, m.Last)
	if !ok || len(b) == 0 || b[0] != summaryVersion {
		return ErrDamaged
	}
	b = b[1:]
	for len(b) > 0 {
		var u [2]uint64
		for i := range u {
			n := 0
			if u[i], n = binary.Uvarint(b); n <= 0 {
				return ErrDamaged
			}
			b = b[n:]
		}
		if len(b) < 40 || u[0] > math.MaxUint32 || u[1] == 0 || u[1] > uint64(m.N) || len(s.Metrics) == MaxMetrics {
			return ErrDamaged
		}
		out := MetricSummary{Metric: uint32(u[0]), Count: int64(u[1])}
		for i, v := range [...]*float64{&out.Min, &out.Max, &out.Sum, &out.First, &out.Last} {
			*v = math.Float64frombits(binary.LittleEndian.Uint64(b[8*i:]))
		}
		b = b[40:]
		s.Metrics = append(s.Metrics, out)
	}
	return nil
}
