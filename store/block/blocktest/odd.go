package blocktest

import (
	"fmt"
	"math"
	"math/rand/v2"
	"slices"

	"github.com/plantops/plantops/store/block"
)

// Odd makes n readings, from a time in UTC ms on and within ten days of it, that have everything in them that readings may have:
// values of any kind and size, metrics that are there or not after any pattern, times that repeat, messages that came late, flags, and
// given times.
func Odd(r *rand.Rand, n int, start int64) []block.Reading {
	list := make([]block.Reading, n)
	step := []int64{0, 1, 1000, 60_000, 150_000}[r.IntN(5)]
	jitter := []int64{0, 1, 1000}[r.IntN(3)]
	flags, given := []int{0, 0, 1, 10}[r.IntN(4)], []int{0, 0, 1, 30}[r.IntN(4)]
	lag, flag := r.Int64N(1000), uint32(0)
	at := start
	for i := range list {
		if at += step + between(r, jitter); r.IntN(50) == 0 {
			at += step * r.Int64N(5)
		}
		at = max(start, min(at, start+10*86400e3))
		list[i] = block.Reading{Time: at, Received: at + lag + between(r, jitter*5)}
		if r.IntN(100) == 0 {
			list[i].Received = at + between(r, 86400e3)
		}
		if flags > 0 && r.IntN(flags) == 0 {
			flag = r.Uint32N(8)
			if r.IntN(10) == 0 {
				flag = r.Uint32()
			}
		}
		list[i].Flags = flag
		if given > 0 && r.IntN(given) == 0 {
			list[i].Given = fmt.Sprint("1970-01-01 00:00:", r.IntN(60))
		}
	}
	slices.SortStableFunc(list, func(a, b block.Reading) int { return int(a.Time - b.Time) })
	metric := uint32(0)
	for range r.IntN(8) {
		metric += 1 + r.Uint32N(1+uint32(1)<<r.IntN(20))
		value, there := series(r), presence(r)
		for i := range list {
			if there(i) {
				list[i].Values = append(list[i].Values, block.Value{Metric: metric, Value: value()})
			}
		}
	}
	return list
}

// between is a number from -most to most.
func between(r *rand.Rand, most int64) int64 { return r.Int64N(2*most+1) - most }

func presence(r *rand.Rand) func(int) bool {
	period, phase := 2+r.IntN(12), r.IntN(20)
	switch r.IntN(5) {
	case 0:
		return func(i int) bool { return i%period == phase%period }
	case 1:
		return func(int) bool { return r.IntN(period) == 0 }
	case 2:
		return func(i int) bool { return i >= 5*phase }
	}
	return func(int) bool { return true }
}

// series makes the values of one metric.
func series(r *rand.Rand) func() float64 {
	next := smooth(r)
	switch r.IntN(4) {
	case 0:
		rare := 10 + r.IntN(100)
		return func() float64 {
			if r.IntN(rare) == 0 {
				return Nasty[r.IntN(len(Nasty))]
			}
			return next()
		}
	case 1:
		return func() float64 {
			if v := float64(float32(next())); v-v == 0 {
				return v
			}
			return math.MaxFloat32
		}
	}
	return next
}

func smooth(r *rand.Rand) func() float64 {
	scale, x := math.Pow(10, float64(r.IntN(10))), between(r, 1<<r.IntN(40))
	noise := int64(1) << r.IntN(20)
	switch r.IntN(8) {
	case 0:
		return func() float64 { return Finite(r.Uint64()) }
	case 1:
		return func() float64 { return Nasty[r.IntN(len(Nasty))] }
	case 2:
		return func() float64 { return float64(x) / scale }
	case 3: // a counter
		return func() float64 { x += r.Int64N(noise); return float64(x) / scale }
	case 4: // what arithmetic makes of decimals
		return func() float64 { x += between(r, noise); return float64(x)/scale + 0.1 }
	}
	return func() float64 { x += between(r, noise); return float64(x) / scale }
}

// Finite makes a float of any bits that has a value.
func Finite(bits uint64) float64 {
	if v := math.Float64frombits(bits); v-v == 0 {
		return v
	}
	return math.Float64frombits(bits &^ (1 << 62))
}

// Nasty are the values at which codecs break.
var Nasty = []float64{
	0, math.Copysign(0, -1), 1, -1, 0.1, -0.1, 0.1 + 0.2, 1.0 / 3, 1e15, 1e16, 1e22, 1e23, 123456789.123456789, 5e-324, -5e-324,
	2.2250738585072014e-308, 2.225073858507201e-308, math.MaxFloat64, -math.MaxFloat64, math.MaxFloat32, math.SmallestNonzeroFloat32,
	1 << 53, 1<<53 - 1, 1<<53 + 2, -1 << 53, 1 << 62, 1 << 63, -1 << 63, 1 << 64, 1 << 52, 1<<52 + 0.5, 0.5, 1.5, 2.5, -0.5, 0.49999999999999994,
	1e-6, 1e-7, 1e-12, 1e-13, 9007199254740.993, 900719925474099.2, 4.35, 2.675, 1.005, 21.299999237060547, 655.35, math.Pi, 99.99999999999999,
}
