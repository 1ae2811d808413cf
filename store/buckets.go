package store

import (
	"cmp"
	"slices"
)

// buckets reduces readings in order of time to means.
type buckets struct {
	length, start int64
	open          []bucket // of the time from start on
	index         map[series]int
	yield         func(Reading) bool
	stopped       bool // yield said so
}

type series struct{ device, metric string }

// Values are summed at this scale: so the sum of the largest floats is finite, and a power of two costs no digits.
const sumScale = 0x1p-64

type bucket struct {
	sum   float64 // times sumScale
	count int64
	first Reading
}

func (b *buckets) add(r Reading) bool {
	start := r.Time - mod(r.Time, b.length)
	if start != b.start && !b.flush() {
		return false
	}
	b.start = start
	i, there := b.index[series{r.Device, r.Metric}]
	if !there {
		if i = len(b.open); i == 0 {
			b.index = make(map[series]int)
		}
		b.index[series{r.Device, r.Metric}] = i
		b.open = append(b.open, bucket{first: r})
	}
	b.open[i].sum += r.Value * sumScale
	b.open[i].count++
	return true
}

// mod is what is left of a divided by b, never negative.
func mod(a, b int64) int64 { return (a%b + b) % b }

// flush yields the means of the bucket that ends, unless yield has said stop.
func (b *buckets) flush() bool {
	if b.stopped {
		return false
	}
	slices.SortFunc(b.open, func(x, y bucket) int {
		return cmp.Or(cmp.Compare(x.first.Device, y.first.Device), cmp.Compare(x.first.Metric, y.first.Metric))
	})
	for i := range b.open {
		r := b.open[i].first
		r.Time, r.Value = b.start, b.open[i].sum/float64(b.open[i].count)/sumScale
		if !b.yield(r) {
			b.stopped = true
			return false
		}
	}
	b.open = b.open[:0]
	clear(b.index)
	return true
}
