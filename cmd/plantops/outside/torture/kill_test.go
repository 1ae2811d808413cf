//go:build linux

package torture_test

import (
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/plantops/plantops/cmd/plantops/outside/fleet"
	"github.com/plantops/plantops/cmd/plantops/outside/program"
	"github.com/plantops/plantops/cmd/plantops/outside/setting"
)

const (
	upTime    = 700 * time.Millisecond // a server lives so long at most once it is ready
	startTime = 150 * time.Millisecond // every fifth dies before this, most of them while they start
)

// TestKilledServerKeepsWhatItAcknowledged kills the server at random moments under load, over and over, and
// looks at the end whether every acknowledged reading is there exactly once.
func TestKilledServerKeepsWhatItAcknowledged(t *testing.T) {
	kills := setting.Int(t, "PLANTOPS_TORTURE_KILLS", 3)
	random := setting.Random(t)

	in := program.Install(t, t.TempDir())
	devices := fleet.New(in, 16, 800, in.Register)
	in.Start()
	in.AwaitReady()
	devices.OverTLS(in, 2)
	devices.Start()

	began := time.Now()
	for i := range kills {
		if i%5 == 4 {
			program.Pause(in, time.Duration(random.Int64N(int64(startTime))))
		} else {
			in.AwaitReady()
			program.Pause(in, time.Duration(random.Int64N(int64(upTime))))
		}
		in.Kill()
		in.Start()
	}
	in.AwaitReady()
	t.Logf("%d kills, %s each", kills, (time.Since(began) / time.Duration(kills)).Round(time.Millisecond))

	devices.Drain(setting.Patience)
	counts := fleet.VerifyDrained(in, devices)
	in.Stop()
	found, err := fleet.ReadStore(t.Context(), in.Database(), devices)
	require.NoError(t, err)
	s := devices.Snapshot()
	s.Verify(t, "package store", found)
	assert.Greater(t, s.Connections, len(devices.Devices), "no device noticed a kill")

	in.Start()
	in.AwaitReady()
	assert.Equal(t, counts, in.Counts(), "the equation after one more restart")
	in.Stop()
}
