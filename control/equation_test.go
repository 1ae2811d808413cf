package control

import (
	"testing"
	"time"

	"github.com/stretchr/testify/assert"

	"github.com/plantops/plantops/broker"
	"github.com/plantops/plantops/store"
)

func TestDifferenceIsWhatIsNeitherDoneNorPending(t *testing.T) {
	held := settled(store.Counts{Stored: 7, Duplicate: 2, Quarantined: 1, Refused: 3})
	assert.Equal(t, int64(13), held.Received, "without a server everything has an outcome")
	assert.Zero(t, held.Difference)

	for name, c := range map[string]struct {
		before, received, pending int64
		want                      int64
	}{
		"all has an outcome":           {10, 3, 0, 0},
		"some are on their way":        {10, 8, 5, 0},
		"one is lost":                  {10, 9, 5, 1},
		"one is stored that never was": {10, 2, 0, -1},
	} {
		e := held.since(c.before, c.received, c.pending)
		assert.Equal(t, c.want, e.Difference, name)
		assert.Equal(t, e.Received, e.sum()+e.Pending+e.Difference, name)

		moving := e.onItsWay()
		assert.Zero(t, moving.Difference, name)
		assert.Equal(t, c.pending+c.want, moving.Pending, name)
	}
}

func TestADeviceThatWasPurgedBeginsAnew(t *testing.T) {
	s := &Server{now: time.Now, running: &Running{Before: Baseline{devices: map[string]int64{"bed-1": 5}}}}
	seen := func(received, pending int64) broker.IngestStats {
		return broker.IngestStats{Devices: map[string]broker.DeviceStats{"bed-1": {Received: received, Pending: pending}}}
	}
	difference := func(stored int64, in broker.IngestStats) int64 {
		list := s.accountDevices([]store.Device{{ID: "bed-1", Counts: store.Counts{Stored: stored}}}, in, false)
		return list[0].Messages.Difference
	}
	assert.Zero(t, difference(7, seen(3, 1)))
	s.rebase("bed-1", broker.DeviceStats{Received: 3, Pending: 1})
	assert.Zero(t, difference(0, seen(3, 1)))
	assert.Zero(t, difference(1, seen(3, 0)), "what was on its way")
	assert.Zero(t, difference(3, seen(6, 1)))
	assert.EqualValues(t, 1, difference(3, seen(6, 0)), "a lost one is still seen")
}
