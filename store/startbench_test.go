package store_test

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/plantops/plantops/store"
	"github.com/plantops/plantops/store/storetest"
)

// BenchmarkStart opens a store with a year of readings in blocks and as many in the journal as there may be, 500,000. PLANTOPS_BENCH_DEVICES
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
	const devices, readings = 1000, 499_000 // fewer of each than become a block, and within a day
	path := copyOf(b, benchYear(b))
	fleet := storetest.NewFleet(devices, yearPast, yearEvery)
	s, err := store.Open(b.Context(), fleet.Options(path))
	require.NoError(b, err)
	require.NoError(b, fleet.Fill(b.Context(), s, readings, 1000))
	require.NoError(b, s.Close())
	return path
}

// BenchmarkRetention deletes a million readings of a thousand devices, or of a smaller store as many days: the oldest three and a half.
func BenchmarkRetention(b *testing.B) {
	s, err := store.Open(b.Context(), store.Options{Path: copyOf(b, benchYear(b))})
	require.NoError(b, err)
	_, err = s.DeleteBefore(b.Context(), yearFrom.AddDate(0, 0, 1))
	require.NoError(b, err)
	oldest, deleted := yearFrom.AddDate(0, 0, 1), int64(0)
	cpu := cpuTime(b)
	b.ResetTimer()
	for range b.N {
		oldest = oldest.Add(1000 * yearEvery)
		n, err := s.DeleteBefore(b.Context(), oldest)
		require.NoError(b, err)
		deleted += n
	}
	b.StopTimer()
	b.ReportMetric(b.Elapsed().Seconds()*1e9/float64(deleted), "ns/reading")
	b.ReportMetric(float64(cpuTime(b)-cpu)/float64(deleted), "cpu-ns/reading")
	require.NoError(b, s.Close())
}
