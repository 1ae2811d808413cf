package store_test

import (
	"fmt"
	"runtime"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/plantops/plantops/store"
	"github.com/plantops/plantops/store/storetest"
)

// BenchmarkAppend stores messages of five metrics, devices in turn, and reports what one message costs: time, CPU time of
// the whole process (checkpoints included, waiting for the disk not) and allocations.
func BenchmarkAppend(b *testing.B) {
	for _, devices := range []int{10, 1000} {
		for _, size := range []int{1, 100, 1000} {
			b.Run(fmt.Sprintf("devices=%d/batch=%d", devices, size), func(b *testing.B) {
				benchmarkAppend(b, devices, size, store.Telemetry)
			})
		}
	}
}

// BenchmarkAppendBad is a flood of bad payloads for a quarantine that is full, to compare with BenchmarkAppend.
func BenchmarkAppendBad(b *testing.B) {
	for _, devices := range []int{10, 1000} {
		b.Run(fmt.Sprintf("devices=%d/batch=1000", devices), func(b *testing.B) {
			benchmarkAppend(b, devices, 1000, store.Bad)
		})
	}
}

func benchmarkAppend(b *testing.B, devices, size int, kind store.Kind) {
	s := storetest.OpenWith(b, store.Options{QuarantineBytes: 1 << 20, QuarantineAge: 100 * 365 * 24 * time.Hour})
	names := make([]string, devices)
	for i := range names {
		names[i] = fmt.Sprintf("bed-%d", i)
	}
	var batch []store.Message
	var outcomes []store.Outcome
	values := make([]store.Value, 5*size)
	payload := []byte(`{"soil_moisture":45.2,"temperature":22.5,"humidity":65.0,"light_level":800,"battery":NaN}`)
	sent := 0
	next := func(n int) {
		batch = batch[:0]
		for i := range n {
			at := 1_767_787_200_000 + int64(sent/devices)*10_000
			v := values[5*i : 5*i+5]
			v[0] = store.Value{Metric: "soil_moisture", Value: float64(sent%1000) / 10}
			v[1] = store.Value{Metric: "temperature", Value: float64(sent%317) / 10}
			v[2] = store.Value{Metric: "humidity", Value: float64(sent % 100)}
			v[3] = store.Value{Metric: "light_level", Value: float64(sent % 2000)}
			v[4] = store.Value{Metric: "battery", Value: 3.7}
			batch = append(batch, store.Message{
				Kind: kind, Device: names[sent%devices], Topic: "devices/bed/telemetry", Time: at, Received: at, Values: v,
				Payload: payload, Reason: "not JSON",
			})
			sent++
		}
	}
	var memory, after runtime.MemStats
	runtime.ReadMemStats(&memory)
	cpu := cpuTime(b)
	b.ResetTimer()
	for done := 0; done < b.N; done += size {
		next(min(size, b.N-done))
		var err error
		outcomes, err = s.Append(b.Context(), batch, outcomes[:0])
		require.NoError(b, err)
	}
	b.StopTimer()
	runtime.ReadMemStats(&after)
	b.ReportMetric(float64(cpuTime(b)-cpu)/float64(b.N), "cpu-ns/msg")
	b.ReportMetric(float64(after.Mallocs-memory.Mallocs)/float64(b.N), "allocs/msg")
	b.ReportMetric(float64(after.TotalAlloc-memory.TotalAlloc)/float64(b.N), "B/msg")
}

func cpuTime(b *testing.B) time.Duration {
	var usage syscall.Rusage
	require.NoError(b, syscall.Getrusage(syscall.RUSAGE_SELF, &usage))
	return time.Duration(usage.Utime.Nano() + usage.Stime.Nano())
}
