//go:build linux

package main_test

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// upTime is how long a server lives at most before it is killed, its start included: some die while they start.
const upTime = 900 * time.Millisecond

// TestKilledServerKeepsWhatItAcknowledged kills the server at random moments under load, over and over, and
// looks at the end whether every acknowledged reading is there exactly once.
func TestKilledServerKeepsWhatItAcknowledged(t *testing.T) {
	needsPromise(t)
	kills := intSetting(t, "PLANTOPS_TORTURE_KILLS", 3)
	random := seeded(t)

	in := newInstallation(t, t.TempDir())
	devices := newFleet(in, 16, 1600, in.register)
	in.start()
	in.awaitReady()
	devices.overTLS(in, 2)
	devices.start()

	began := time.Now()
	for range kills {
		pause(in, time.Duration(random.Int64N(int64(upTime))))
		in.kill()
		in.start()
	}
	in.awaitReady()
	t.Logf("%d kills, %s each", kills, (time.Since(began) / time.Duration(kills)).Round(time.Millisecond))

	devices.drain(patience)
	verifyDrained(in, devices)
	in.stop()
	found, err := readStore(t.Context(), in.database(), devices)
	require.NoError(t, err)
	devices.snapshot().verify(t, "package store", found)
}
