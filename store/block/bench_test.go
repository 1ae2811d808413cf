package block_test

import (
	"math"
	"testing"
	"time"

	"github.com/plantops/plantops/store/block"
	"github.com/plantops/plantops/store/block/blocktest"
)

var march = time.Date(2026, 3, 1, 0, 0, 0, 0, time.UTC).UnixMilli()

// fleetBlocks are blocks of n readings of some devices.
func fleetBlocks(n int) (list [][]block.Reading) {
	for i := range 20 {
		list = append(list, blocktest.New(7, i, march, 300_000).Readings(n))
	}
	return list
}

func BenchmarkEncode(b *testing.B) {
	blocks := fleetBlocks(512)
	var e block.Encoder
	bytes := 0
	b.ReportAllocs()
	for i := 0; b.Loop(); i++ {
		_, _, body, err := e.Encode(block.Key(block.Month(march), 1, 0), blocks[i%len(blocks)])
		if err != nil {
			b.Fatal(err)
		}
		bytes += len(body)
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*512), "ns/reading")
	b.ReportMetric(float64(bytes)/float64(b.N*512), "B/reading")
}

// BenchmarkDecode unpacks the times and one metric.
func BenchmarkDecode(b *testing.B) {
	var metas []block.Meta
	var bodies [][]byte
	var e block.Encoder
	for _, readings := range fleetBlocks(512) {
		m, _, body, err := e.Encode(block.Key(block.Month(march), 1, 0), readings)
		if err != nil {
			b.Fatal(err)
		}
		metas, bodies = append(metas, m), append(bodies, append([]byte(nil), body...))
	}
	var d block.Decoder
	sum := 0.0
	b.ReportAllocs()
	for i := 0; b.Loop(); i++ {
		i := i % len(bodies)
		if err := d.Decode(metas[i], bodies[i]); err != nil {
			b.Fatal(err)
		}
		values, _, ok := d.Column(blocktest.Temperature)
		if !ok {
			b.Fatal(d.Err())
		}
		sum += values[i]
	}
	if math.IsNaN(sum) {
		b.Fatal()
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*512), "ns/reading")
}
