package block

import (
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"math"
	"slices"
)

const bodyVersion = 1

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// Encoder makes blocks. Its zero value is ready; it keeps its memory from block to block, and is for one goroutine.
type Encoder struct {
	body, summary []byte
	sums          []MetricSummary
}

// Encode makes a block of readings of one device in order of time, at least 1 and at most MaxReadings, with at most MaxMetrics
// metrics, all in the month of the key. summary and body are valid until the next call. An error is a mistake of the caller:
// what is out of order, too much, or not finite.
func (e *Encoder) Encode(key int64, readings []Reading) (m Meta, summary, body []byte, err error) {
	if err := check(key, readings); err != nil {
		return Meta{}, nil, nil, fmt.Errorf("encode block %d: %w", key, err)
	}
	m = Meta{Key: key, N: len(readings), First: readings[0].Time, Last: readings[len(readings)-1].Time}
	b := append(e.body[:0], bodyVersion)
	time := m.First
	for i := range readings {
		r := &readings[i]
		b = binary.AppendUvarint(b, uint64(r.Time-time))
		time = r.Time
		b = binary.AppendVarint(b, r.Received-r.Time)
		b = binary.AppendUvarint(b, uint64(r.Flags))
		b = binary.AppendUvarint(b, uint64(len(r.Given)))
		b = append(b, r.Given...)
		b = binary.AppendUvarint(b, uint64(len(r.Values)))
		for _, v := range r.Values {
			b = binary.AppendUvarint(b, uint64(v.Metric))
			b = binary.LittleEndian.AppendUint64(b, math.Float64bits(v.Value))
		}
	}
	e.body = seal(b, 0, m.Key, int64(m.N), m.First, m.Last)
	e.sums = summarize(e.sums[:0], readings)
	if len(e.sums) > MaxMetrics {
		return Meta{}, nil, nil, fmt.Errorf("encode block %d: %d metrics, at most %d", key, len(e.sums), MaxMetrics)
	}
	e.summary = appendSummary(e.summary[:0], m, e.sums)
	return m, e.summary, e.body, nil
}

func check(key int64, readings []Reading) error {
	if len(readings) == 0 || len(readings) > MaxReadings {
		return fmt.Errorf("%d readings, want 1 to %d", len(readings), MaxReadings)
	}
	month, _, _ := SplitKey(key)
	if first, last := Month(readings[0].Time), Month(readings[len(readings)-1].Time); first != month || last != month {
		return fmt.Errorf("readings of months %d to %d, want those of month %d", first, last, month)
	}
	for i := range readings {
		r := &readings[i]
		if i > 0 && r.Time < readings[i-1].Time {
			return fmt.Errorf("reading %d is of %d, after one of %d", i, r.Time, readings[i-1].Time)
		}
		for j, v := range r.Values {
			if j > 0 && v.Metric <= r.Values[j-1].Metric {
				return fmt.Errorf("reading %d has metric %d after %d", i, v.Metric, r.Values[j-1].Metric)
			}
			if math.IsNaN(v.Value) || math.IsInf(v.Value, 0) {
				return fmt.Errorf("reading %d, metric %d: %v is not finite", i, v.Metric, v.Value)
			}
		}
	}
	return nil
}

// seal appends the checksum of b from an offset on and of the numbers of the row that it belongs to.
func seal(b []byte, from int, row ...int64) []byte {
	return binary.LittleEndian.AppendUint32(b, checksum(b[from:], row...))
}

func checksum(b []byte, row ...int64) uint32 {
	var head [8]byte
	sum := uint32(0)
	for _, n := range row {
		binary.LittleEndian.PutUint64(head[:], uint64(n))
		sum = crc32.Update(sum, castagnoli, head[:])
	}
	return crc32.Update(sum, castagnoli, b)
}

// unseal checks a checksum of seal and returns what is in front of it.
func unseal(b []byte, row ...int64) ([]byte, bool) {
	if len(b) < 4 {
		return nil, false
	}
	inner := b[:len(b)-4]
	return inner, binary.LittleEndian.Uint32(b[len(inner):]) == checksum(inner, row...)
}

func summarize(sums []MetricSummary, readings []Reading) []MetricSummary {
	for i := range readings {
		for _, v := range readings[i].Values {
			at, there := slices.BinarySearchFunc(sums, v.Metric, func(s MetricSummary, metric uint32) int { return int(s.Metric) - int(metric) })
			if !there {
				sums = slices.Insert(sums, at, MetricSummary{Metric: v.Metric, Min: v.Value, Max: v.Value, First: v.Value})
			}
			s := &sums[at]
			s.Count++
			s.Min, s.Max = min(s.Min, v.Value), max(s.Max, v.Value)
			s.Sum += v.Value * SumScale
			s.Last = v.Value
		}
	}
	return sums
}
