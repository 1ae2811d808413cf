package block_test

import (
	"math"
	"syscall"
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
	start := cpuTime(b)
	for i := 0; b.Loop(); i++ {
		_, _, body, err := e.Encode(block.Key(block.Month(march), 1, 0), blocks[i%len(blocks)])
		if err != nil {
			b.Fatal(err)
		}
		bytes += len(body)
	}
	reportCPU(b, start, 512)
	b.ReportMetric(float64(bytes)/float64(b.N*512), "B/reading")
}

// reportCPU is of the whole process since start: on a busy machine the time that passed says little.
func reportCPU(b *testing.B, start time.Duration, readings int) {
	b.ReportMetric(float64((cpuTime(b)-start).Nanoseconds())/float64(b.N*readings), "cpu-ns/reading")
}

func cpuTime(b *testing.B) time.Duration {
	var usage syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &usage); err != nil {
		b.Fatal(err)
	}
	return time.Duration(usage.Utime.Nano() + usage.Stime.Nano())
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
	start := cpuTime(b)
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
	reportCPU(b, start, 512)
}

func BenchmarkAppendCommit(b *testing.B) {
	var c block.Commit
	for i := range 1000 {
		c.Readings = append(c.Readings, block.Entry{Device: int64(1 + i*37%1000), Reading: blocktest.New(3, i, march, 300_000).Readings(1)[0]})
	}
	var record []byte
	b.ReportAllocs()
	start := cpuTime(b)
	for b.Loop() {
		record = block.AppendCommit(record[:0], 1, &c)
	}
	reportCPU(b, start, 1000)
	b.ReportMetric(float64(len(record))/1000, "B/reading")
}

func BenchmarkReadCommit(b *testing.B) {
	var c block.Commit
	for i := range 1000 {
		c.Readings = append(c.Readings, block.Entry{Device: int64(1 + i*37%1000), Reading: blocktest.New(3, i, march, 300_000).Readings(1)[0]})
	}
	record := block.AppendCommit(nil, 1, &c)
	var r block.CommitReader
	b.ReportAllocs()
	start := cpuTime(b)
	for b.Loop() {
		if err := r.Reset(1, record); err != nil {
			b.Fatal(err)
		}
		for r.Next() {
		}
	}
	reportCPU(b, start, 1000)
}
