//go:build linux

package main_test

import (
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

const (
	upTime    = 700 * time.Millisecond // a server lives so long at most once it is ready
	startTime = 150 * time.Millisecond // every fifth dies before this, most of them while they start
)

// TestKilledServerKeepsWhatItAcknowledged kills the server at random moments under load, over and over, and
// looks at the end whether every acknowledged reading is there exactly once.
func TestKilledServerKeepsWhatItAcknowledged(t *testing.T) {
	kills := intSetting(t, "PLANTOPS_TORTURE_KILLS", 3)
	random := seeded(t)

	in := newInstallation(t, t.TempDir())
	devices := newFleet(in, 16, 800, in.register)
	in.start()
	in.awaitReady()
	devices.overTLS(in, 2)
	devices.start()

	began := time.Now()
	for i := range kills {
		if i%5 == 4 {
			pause(in, time.Duration(random.Int64N(int64(startTime))))
		} else {
			in.awaitReady()
			pause(in, time.Duration(random.Int64N(int64(upTime))))
		}
		in.kill()
		in.start()
	}
	in.awaitReady()
	t.Logf("%d kills, %s each", kills, (time.Since(began) / time.Duration(kills)).Round(time.Millisecond))

	devices.drain(patience)
	counts := verifyDrained(in, devices)
	in.stop()
	found, err := readStore(t.Context(), in.database(), devices)
	require.NoError(t, err)
	s := devices.snapshot()
	s.verify(t, "package store", found)
	assert.Greater(t, s.connections, len(devices.devices), "no device noticed a kill")

	in.start()
	in.awaitReady()
	assert.Equal(t, counts, in.counts(), "the equation after one more restart")
	in.stop()
}
