package control

import (
	"testing"

	"github.com/stretchr/testify/assert"

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
