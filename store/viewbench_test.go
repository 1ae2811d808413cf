package store_test

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/plantops/plantops/store"
	"github.com/plantops/plantops/store/history"
)

// benchYear fills a store with what some devices send in a year, one reading of four or five metrics every five minutes.
func benchYear(b *testing.B) (path string, from int64) {
	devices := 10
	if n, err := strconv.Atoi(os.Getenv("PLANTOPS_BENCH_DEVICES")); err == nil {
		devices = n
	}
	path, from = filepath.Join(b.TempDir(), "plantops.db"), int64(1_735_689_600_000)
	s, err := store.Open(b.Context(), store.Options{Path: path})
	require.NoError(b, err)
	var batch []store.Message
	for step := range int64(365 * 288) {
		for d := range devices {
			day := float64(step%288) / 288
			m := store.Message{Kind: store.Telemetry, Device: fmt.Sprintf("bed-%d", d), Topic: "t", Time: from + step*300_000 + int64(d), Received: from + step*300_000 + 900,
				Values: []store.Value{
					{Metric: "temperature", Value: tenth(200 + 60*day + float64((step*7+int64(d))%13))}, {Metric: "humidity", Value: tenth(600 - 100*day + float64((step*11)%17))},
					{Metric: "soil_moisture", Value: tenth(400 + float64(step%500)/5)}, {Metric: "light", Value: float64((step*37 + int64(d)) % 2000)},
				}}
			if d%5 == 0 {
				m.Values = append(m.Values, store.Value{Metric: "battery", Value: tenth(37 + float64(step%4))})
			}
			if batch = append(batch, m); len(batch) == 2000 {
				_, err := s.Append(b.Context(), batch, nil)
				require.NoError(b, err)
				batch = batch[:0]
			}
		}
	}
	_, err = s.Append(b.Context(), batch, nil)
	require.NoError(b, err)
	require.NoError(b, s.Flush(b.Context()))
	require.NoError(b, s.Close())
	file, err := os.Stat(path)
	require.NoError(b, err)
	b.Logf("%d readings in %d bytes: %.2f each", devices*365*288, file.Size(), float64(file.Size())/float64(devices*365*288))
	return path, from
}

func tenth(tenths float64) float64 { return float64(int64(tenths)) / 10 }

// BenchmarkView looks at a year of readings as people do: what is newest, a day, a month, and the year as 500 points. PLANTOPS_BENCH_DEVICES
// says of how many devices (10).
func BenchmarkView(b *testing.B) {
	path, from := benchYear(b)
	s, err := store.Open(b.Context(), store.Options{Path: path})
	require.NoError(b, err)
	end := from + 365*86_400_000
	scan := func(b *testing.B, v history.View, days int64) {
		n := 0
		for c, err := range v.Scan(b.Context(), store.Query{Devices: []string{"bed-5"}, From: end - days*86_400_000, To: end}) {
			require.NoError(b, err)
			n += len(c.Times)
		}
		require.EqualValues(b, days*288, n)
	}
	year := func(b *testing.B, v history.View) {
		n := int64(0)
		for series, err := range v.Reduce(b.Context(), store.Query{Devices: []string{"bed-5"}, From: from, To: end}, history.Reduction{Points: 500}) {
			require.NoError(b, err)
			for _, bucket := range series.Buckets {
				n += bucket.Count
			}
		}
		require.EqualValues(b, 5*365*288, n)
	}
	for _, c := range []struct {
		name string
		do   func(*testing.B, history.View)
	}{
		{"latest of one", func(b *testing.B, v history.View) {
			list, err := v.Latest(b.Context(), "bed-5")
			require.NoError(b, err)
			require.Len(b, list, 5)
		}},
		{"latest of all", func(b *testing.B, v history.View) {
			for _, err := range v.LatestAll(b.Context()) {
				require.NoError(b, err)
			}
		}},
		{"1 d", func(b *testing.B, v history.View) { scan(b, v, 1) }},
		{"30 d", func(b *testing.B, v history.View) { scan(b, v, 30) }},
		{"1 y as 500 points", year},
	} {
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
			_, err := s.Latest(b.Context(), "bed-5")
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
	b.Run("1 y as 500 points, cold", func(b *testing.B) {
		for b.Loop() {
			b.StopTimer()
			require.NoError(b, exec.Command("dd", "if="+path, "iflag=nocache", "count=0", "status=none").Run())
			s, err := store.Open(b.Context(), store.Options{Path: path, ReadOnly: true})
			require.NoError(b, err)
			b.StartTimer()
			began := time.Now()
			v, err := s.View(b.Context())
			require.NoError(b, err)
			year(b, v)
			b.ReportMetric(float64(time.Since(began).Milliseconds()), "last-ms")
			b.StopTimer()
			require.NoError(b, v.Close())
			require.NoError(b, s.Close())
			b.StartTimer()
		}
	})
}
