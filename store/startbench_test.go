package store_test

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/plantops/plantops/store"
	"github.com/plantops/plantops/store/storetest"
)

// BenchmarkStart opens a store with a year of readings in blocks and as many in the journal as there may be, 250,000. PLANTOPS_BENCH_DEVICES
// says how large the year is (10).
func BenchmarkStart(b *testing.B) {
	path := benchJournal(b)
	for _, c := range []struct {
		name   string
		before func()
	}{{"warm", func() {}}, {"cold", func() { evict(b, path) }}} {
		b.Run(c.name, func(b *testing.B) {
			cpu := time.Duration(0)
			for b.Loop() {
				b.StopTimer()
				c.before()
				before := cpuTime(b)
				b.StartTimer()
				s, err := store.Open(b.Context(), store.Options{Path: path})
				b.StopTimer()
				cpu += cpuTime(b) - before
				require.NoError(b, err)
				require.NoError(b, s.Close())
				b.StartTimer()
			}
			b.ReportMetric(cpu.Seconds()*1000/float64(b.N), "cpu-ms/op")
		})
	}
}

// benchJournal is a copy of the year with a journal that is as long as it may be.
func benchJournal(b *testing.B) string {
	const devices, readings = 1000, 249_000 // fewer of each than become a block, and within a day
	path := copyOf(b, benchYear(b))
	fleet := storetest.NewFleet(devices, yearPast, yearEvery)
	s, err := store.Open(b.Context(), fleet.Options(path))
	require.NoError(b, err)
	require.NoError(b, fleet.Fill(b.Context(), s, readings, 1000))
	require.NoError(b, s.Close())
	return path
}
