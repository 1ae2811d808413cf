package history

import (
	"fmt"
	"strings"
)

// Aggregate is one number of a bucket, or a set of them.
type Aggregate uint16

const (
	Average Aggregate = 1 << iota
	Min
	Max
	Count
	Sum
	First
	Last
	Times // of Min and Max: costs what the readings cost where a summary would do

	// Aggregates is a set of all that a summary has too.
	Aggregates = Average | Min | Max | Count | Sum | First | Last
)

var aggregateNames = []string{"avg", "min", "max", "count", "sum", "first", "last"}

// String is the word of one aggregate.
func (a Aggregate) String() string {
	for i, name := range aggregateNames {
		if a == 1<<i {
			return name
		}
	}
	return fmt.Sprintf("aggregates %#b", uint16(a))
}

// ParseAggregates reads words with commas between them, in their order. Each stands once.
func ParseAggregates(text string) (list []Aggregate, err error) {
	var seen Aggregate
	for word := range strings.SplitSeq(text, ",") {
		one := Aggregate(0)
		for i, name := range aggregateNames {
			if strings.TrimSpace(word) == name {
				one = 1 << i
			}
		}
		if one == 0 || seen&one != 0 {
			return nil, fmt.Errorf("%q: use some of %s, each once", word, strings.Join(aggregateNames, ","))
		}
		seen |= one
		list = append(list, one)
	}
	return list, nil
}

// SumScale is at what scale values are summed: so the sum of the largest floats is finite, and a power of two costs no digits.
const SumScale = 0x1p-64

// Bucket is what the values of a span of time come to. There is at least one value: a gap has no bucket.
type Bucket struct {
	Start, End   int64 // UTC ms; End is not included. Those of the calendar, also where a query asks for a part
	Count        int64
	Min, Max     float64
	MinAt, MaxAt int64 // UTC ms, the first such; zero unless Times was asked for
	First, Last  float64
	ScaledSum    float64 // the sum times SumScale
}

// Mean is the arithmetic mean of the values. It is finite.
func (b *Bucket) Mean() float64 { return b.ScaledSum / float64(b.Count) / SumScale }

// Sum may be beyond the largest float, and is infinite then.
func (b *Bucket) Sum() float64 { return b.ScaledSum / SumScale }

// Value is one aggregate.
func (b *Bucket) Value(a Aggregate) float64 {
	switch a {
	case Min:
		return b.Min
	case Max:
		return b.Max
	case Count:
		return float64(b.Count)
	case Sum:
		return b.Sum()
	case First:
		return b.First
	case Last:
		return b.Last
	default:
		return b.Mean()
	}
}

// Linear makes the bucket that of its values times factor, plus offset. The product is rounded by itself on every processor, as
// where single values are corrected.
func (b *Bucket) Linear(factor, offset float64) {
	of := func(v float64) float64 { return float64(v*factor) + offset }
	b.First, b.Last = of(b.First), of(b.Last)
	b.Min, b.Max = of(b.Min), of(b.Max)
	if factor < 0 {
		b.Min, b.Max = b.Max, b.Min
		b.MinAt, b.MaxAt = b.MaxAt, b.MinAt
	}
	b.ScaledSum = b.ScaledSum*factor + offset*SumScale*float64(b.Count)
}

// Series is the buckets of one metric of one device in order of time.
type Series struct {
	Device, Metric string
	Buckets        []Bucket
}
