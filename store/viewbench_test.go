package store_test

import (
	"os/exec"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/plantops/plantops/store"
	"github.com/plantops/plantops/store/history"
	"github.com/plantops/plantops/store/storetest"
)

// BenchmarkView looks at a year of readings as people do: what is newest, a day, a month, and the year as 500 points. PLANTOPS_BENCH_DEVICES
// says of how many devices (10).
func BenchmarkView(b *testing.B) {
	path := copyOf(b, benchYear(b))
	open := func() *store.Store {
		s, err := store.Open(b.Context(), store.Options{Path: path})
		require.NoError(b, err)
		return s
	}
	s := open()
	device := storetest.DeviceName(5) // it has five metrics
	from, end := yearFrom.UnixMilli(), yearEnd.UnixMilli()
	scan := func(b *testing.B, v history.View, days int64) {
		n := 0
		for c, err := range v.Scan(b.Context(), store.Query{Devices: []string{device}, From: end - days*86_400_000, To: end}) {
			require.NoError(b, err)
			n += len(c.Times)
		}
		require.InEpsilon(b, days*288, n, 0.05) // some are lost
	}
	year := func(b *testing.B, v history.View) {
		n := int64(0)
		for series, err := range v.Reduce(b.Context(), store.Query{Devices: []string{device}, From: from, To: end}, history.Reduction{Points: 500}) {
			require.NoError(b, err)
			for _, bucket := range series.Buckets {
				n += bucket.Count
			}
		}
		require.InEpsilon(b, 5*yearMessages, n, 0.05)
	}
	latest := func(b *testing.B, v history.View) {
		list, err := v.Latest(b.Context(), device)
		require.NoError(b, err)
		require.Len(b, list, 5)
	}
	all := func(b *testing.B, v history.View) {
		n := 0
		for _, err := range v.LatestAll(b.Context()) {
			require.NoError(b, err)
			n++
		}
		require.Greater(b, n, 4*yearDevices(b))
	}
	cases := []struct {
		name string
		do   func(*testing.B, history.View)
	}{
		{"latest of one", latest},
		{"latest of all", all},
		{"1 d", func(b *testing.B, v history.View) { scan(b, v, 1) }},
		{"30 d", func(b *testing.B, v history.View) { scan(b, v, 30) }},
		{"1 y as 500 points", year},
	}
	for _, c := range cases {
		b.Run(c.name, func(b *testing.B) {
			v, err := s.View(b.Context())
			require.NoError(b, err)
			for b.Loop() {
				c.do(b, v)
			}
			require.NoError(b, v.Close())
		})
	}
	b.Run("latest of one, without a view", func(b *testing.B) {
		for b.Loop() {
			_, err := s.Latest(b.Context(), device)
			require.NoError(b, err)
		}
	})
	b.Run("open a view", func(b *testing.B) {
		for b.Loop() {
			v, err := s.View(b.Context())
			require.NoError(b, err)
			require.NoError(b, v.Close())
		}
	})
	require.NoError(b, s.Close())
	for _, c := range cases {
		b.Run("cold/"+c.name, func(b *testing.B) {
			for b.Loop() {
				b.StopTimer()
				s := open()
				evict(b, path)
				b.StartTimer()
				v, err := s.View(b.Context())
				require.NoError(b, err)
				c.do(b, v)
				b.StopTimer()
				require.NoError(b, v.Close())
				require.NoError(b, s.Close())
				b.StartTimer()
			}
		})
	}
}

// evict takes a file out of the memory of the kernel.
func evict(b *testing.B, path string) {
	require.NoError(b, exec.Command("dd", "if="+path, "iflag=nocache", "count=0", "status=none").Run())
}
