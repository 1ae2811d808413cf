// Package blocktest makes readings as sensors in greenhouses and fields send them, for tests and benchmarks: decimals in steps of
// 0.01, 0.1 or 1 with a daily cycle and noise, an interval that is exact for half of the devices and has jitter for the other
// half, a message lost now and then, and one in a thousand that came hours late.
package blocktest

import (
	"math"
	"math/rand/v2"
	"slices"

	"github.com/plantops/plantops/store/block"
)

// The metrics of a fleet. The first four are in every reading; a fifth of the devices has a battery, a tenth measures CO2.
const (
	Temperature uint32 = 1 + iota // °C in steps of 0.1 or 0.01
	Humidity                      // % in steps of 0.1
	Soil                          // % in steps of 1 or 0.1
	Light                         // lux in steps of 1
	Battery                       // V in steps of 0.01
	CO2                           // ppm in steps of 1
)

// Device sends readings, one each time that Next is called.
type Device struct {
	r        *rand.Rand
	time     int64 // of the next reading, as it is planned, UTC ms
	interval int64 // ms
	jitter   float64
	fine     float64 // step of temperature and soil: its reciprocal
	lag      float64 // usual, ms
	battery  bool
	co2      bool

	drift, humid, soil, cloud, charge, air float64
	values                                 []block.Value
}

// New is device number i of a fleet, whose first reading is at a time in UTC ms. The same numbers make the same readings.
func New(seed uint64, i int, start, interval int64) *Device {
	r := rand.New(rand.NewPCG(seed, uint64(i)))
	d := &Device{r: r, interval: interval, fine: []float64{10, 100}[i/2%2], lag: 30 + 100*r.Float64(), battery: i%5 == 0, co2: i%10 == 3,
		humid: 60, soil: 30 + 30*r.Float64(), charge: 4.1, air: 600}
	d.time = start + r.Int64N(interval/1000)*1000
	if i%2 == 1 {
		d.jitter = 15 // ms
		d.time += r.Int64N(1000)
	}
	return d
}

// Next is the next reading. Its values are valid until the next call.
func (d *Device) Next() block.Reading {
	r := d.r
	for r.IntN(300) == 0 {
		d.time += d.interval // lost
	}
	at := d.time
	if d.jitter > 0 {
		at += int64(r.NormFloat64() * d.jitter)
	}
	d.time += d.interval
	out := block.Reading{Time: at, Received: at + int64(d.lag+20*r.ExpFloat64())}
	if r.IntN(1000) == 0 {
		out.Received += r.Int64N(6 * 3600e3)
	}
	day := 2 * math.Pi * float64(at%86400e3) / 86400e3
	sun := max(0, -math.Cos(day))
	d.drift += -d.drift/100 + 0.05*r.NormFloat64()
	d.humid += (60-d.humid)/50 + 0.3*r.NormFloat64()
	d.cloud += (0.6-d.cloud)/20 + 0.05*r.NormFloat64()
	if d.soil -= 0.01 + 0.02*sun; d.soil < 25 {
		d.soil = 60
	}
	noise := 0.1
	if d.fine > 10 {
		noise = 0.03
	}
	values := append(d.values[:0],
		block.Value{Metric: Temperature, Value: round(18+8*sun+d.drift+noise*r.NormFloat64(), d.fine)},
		block.Value{Metric: Humidity, Value: round(min(100, max(0, d.humid-20*sun+0.2*r.NormFloat64())), 10)},
		block.Value{Metric: Soil, Value: round(d.soil+0.15*r.NormFloat64(), d.fine/10)},
		block.Value{Metric: Light, Value: round(20000*sun*max(0.1, d.cloud+0.03*r.NormFloat64()), 1)})
	if d.battery {
		if d.charge -= 0.00002; d.charge < 3.3 {
			d.charge = 4.1
		}
		values = append(values, block.Value{Metric: Battery, Value: round(d.charge+0.004*r.NormFloat64(), 100)})
	}
	if d.co2 {
		d.air += (600-200*sun-d.air)/30 + 5*r.NormFloat64()
		values = append(values, block.Value{Metric: CO2, Value: round(d.air+3*r.NormFloat64(), 1)})
	}
	d.values = values
	out.Values = values
	return out
}

// round gives a decimal as it is read from a message: the float nearest to it.
func round(v, steps float64) float64 {
	return math.Round(v*steps) / steps
}

// Readings are the next n readings with memory of their own, in order of time.
func (d *Device) Readings(n int) []block.Reading {
	list := make([]block.Reading, n)
	for i := range list {
		list[i] = d.Next()
		list[i].Values = slices.Clone(list[i].Values)
	}
	slices.SortStableFunc(list, func(a, b block.Reading) int { return int(a.Time - b.Time) })
	return list
}

// Entropy is how many bits readings of one device take at least when each difference of two that follow each other is written by itself:
// of times, of values, and of times of arrival in steps.
func Entropy(list []block.Reading) (bits float64) {
	var times, received []float64
	columns := map[uint32][]float64{}
	for _, r := range list {
		times = append(times, float64(r.Time))
		received = append(received, math.Floor(float64(r.Received-r.Time+block.ReceivedStep/2)/block.ReceivedStep))
		for _, v := range r.Values {
			columns[v.Metric] = append(columns[v.Metric], math.Round(v.Value*1000))
		}
	}
	bits = entropy(times) + entropy(received)
	for _, c := range columns {
		bits += entropy(c)
	}
	return bits
}

// entropy is how many bits the differences of a sequence take together by how often each of them is there.
func entropy(list []float64) (total float64) {
	counts := map[float64]float64{}
	for i := range list[1:] {
		counts[list[i+1]-list[i]]++
	}
	for _, n := range counts {
		total -= n * math.Log2(n/float64(len(list)-1))
	}
	return total
}
