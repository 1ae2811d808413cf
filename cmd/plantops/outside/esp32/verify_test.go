//go:build linux

package esp32_test

import (
	"bufio"
	"fmt"
	"os"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/plantops/plantops/store"
)

// entry is one line of the devices' ledger.
type entry struct {
	device string
	number int
	truth  int64  // UTC ms
	known  string // accepted, or maybe: the power went while it was being accepted
	time   string // timed, late or timeless: what the device knew of the time
	keeps  string // memory, flash or flash-brownout
}

func readLedger(t *testing.T, path string) (entries []entry) {
	t.Helper()
	file, err := os.Open(path)
	require.NoError(t, err)
	defer file.Close()
	for lines := bufio.NewScanner(file); lines.Scan(); {
		var e entry
		_, err := fmt.Sscan(lines.Text(), &e.device, &e.number, &e.truth, &e.known, &e.time, &e.keeps)
		require.NoError(t, err, lines.Text())
		entries = append(entries, e)
	}
	return entries
}

const (
	timedWithin    = time.Second
	timelessWithin = 10 * time.Second
)

// stored is what the server has of one reading.
type stored struct {
	time   int64
	source store.TimeSource
}

// verify compares the ledger with the database.
func (f *field) verify(ledger []entry) {
	db, err := store.Open(f.Context(), store.Options{Path: f.server.Database()})
	require.NoError(f, err)
	defer db.Close()

	found := map[string]map[int]stored{}
	for r, err := range db.Readings(f.Context(), store.Query{Metrics: []string{"n"}}) {
		require.NoError(f, err)
		if found[r.Device] == nil {
			found[r.Device] = map[int]stored{}
		}
		_, twice := found[r.Device][int(r.Value)]
		assert.False(f, twice, "%s: reading %d is stored twice", r.Device, int(r.Value))
		found[r.Device][int(r.Value)] = stored{r.Time, r.TimeSource}
	}

	missing := map[string]int64{}
	keeps := map[string]string{}
	worst := map[string]time.Duration{}
	wrong, aged := 0, 0
	for _, e := range ledger {
		keeps[e.device] = e.keeps
		got, there := found[e.device][e.number]
		if !there {
			if e.known == "accepted" {
				missing[e.device]++
			}
			continue
		}
		limit := timedWithin
		if got.source == store.FromAge {
			aged++
			// Until a device that gets the time late has it, it is one that has none.
			assert.NotEqual(f, "timed", e.time, "%s: reading %d has no time", e.device, e.number)
			limit = timelessWithin
		}
		off := time.Duration(got.time-e.truth) * time.Millisecond
		worst[e.time] = max(worst[e.time], off.Abs())
		if off.Abs() > limit {
			wrong++
			assert.Less(f, wrong, 10, "%s: reading %d is %s off", e.device, e.number, off)
		}
	}
	assert.Zero(f, wrong, "readings with a wrong time")
	assert.NotZero(f, aged)

	var lost, reported int64
	for device, how := range keeps {
		d, err := db.Device(f.Context(), device)
		require.NoError(f, err)
		lost, reported = lost+missing[device], reported+d.Dropped
		assert.LessOrEqual(f, missing[device], d.Dropped, "%s (%s): lost without being reported", device, how)
		if how == "memory" { // nothing that may have arrived is ever given up there
			assert.Equal(f, missing[device], d.Dropped, "%s: reported and stored", device)
		}
	}
	f.Logf("%d readings accepted, %d given up and %d reported as such; furthest from the truth: %v; dated by their age: %d",
		len(ledger), lost, reported, worst, aged)
}
