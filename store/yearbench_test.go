package store_test

import (
	"cmp"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/plantops/plantops/store"
	"github.com/plantops/plantops/store/storetest"
)

// What benchmarks of a large store look at: a year in which devices send every five minutes, 4.3 metrics on average.
const (
	yearDays     = 365
	yearEvery    = 5 * time.Minute
	yearMessages = yearDays * 24 * int(time.Hour/yearEvery) // of a device
)

var (
	yearFrom = time.UnixMilli(1_735_689_600_000)
	yearEnd  = yearFrom.AddDate(0, 0, yearDays)
	yearPast = yearEnd.AddDate(0, 0, 10) // behind all readings: some are lost, so the last ones are later
)

// yearDevices is how many there are: PLANTOPS_BENCH_DEVICES, or 10.
func yearDevices(b *testing.B) int {
	text := cmp.Or(os.Getenv("PLANTOPS_BENCH_DEVICES"), "10")
	n, err := strconv.Atoi(text)
	require.NoError(b, err, "PLANTOPS_BENCH_DEVICES")
	return n
}

// benchYear is the path of a store with a year of readings, all in blocks. PLANTOPS_BENCH_STORES is a directory in which it is kept for
// the next time: a thousand devices take minutes to write. Who changes it takes a copy.
func benchYear(b *testing.B) string {
	devices, dir := yearDevices(b), os.Getenv("PLANTOPS_BENCH_STORES")
	if dir == "" {
		dir = b.TempDir()
	}
	path := filepath.Join(dir, fmt.Sprintf("year-of-%d.db", devices))
	if _, err := os.Stat(path); err == nil {
		return path
	}
	part := path + ".part"
	for _, end := range []string{"", "-wal", "-shm"} {
		require.NoError(b, os.RemoveAll(part+end))
	}
	fleet := storetest.NewFleet(devices, yearFrom, yearEvery)
	s, err := store.Open(b.Context(), fleet.Options(part))
	require.NoError(b, err)
	require.NoError(b, fleet.Fill(b.Context(), s, devices*yearMessages, 10_000))
	require.NoError(b, s.Flush(b.Context()))
	require.NoError(b, s.Close())
	require.NoError(b, os.Rename(part, path))
	require.NoError(b, os.RemoveAll(part+".reserve"))
	return path
}

// copyOf is a copy of a store that is closed, in a directory of the benchmark.
func copyOf(b *testing.B, path string) string {
	from, err := os.Open(path)
	require.NoError(b, err)
	defer func() { _ = from.Close() }() // it only reads
	to, err := os.Create(filepath.Join(b.TempDir(), "plantops.db"))
	require.NoError(b, err)
	_, err = io.Copy(to, from)
	require.NoError(b, err)
	require.NoError(b, to.Sync())
	require.NoError(b, to.Close())
	return to.Name()
}
