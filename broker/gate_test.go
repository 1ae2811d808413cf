package broker

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"

	"github.com/plantops/plantops/broker/refusal"
)

func TestGate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		gone := make(chan struct{})
		g := newGate()
		start := time.Now()
		assert.Equal(t, refusal.NotReady, g.pass(gone, gateWait))
		assert.Equal(t, gateWait, time.Since(start))

		close(gone)
		assert.Equal(t, errGone, g.pass(gone, gateWait))

		passed := make(chan error, 1)
		go func() { passed <- g.pass(nil, gateWait) }()
		synctest.Wait()
		g.open()
		assert.NoError(t, <-passed)

		g.close()
		assert.Equal(t, refusal.Stopping, g.pass(nil, gateWait), "open and closed is closed")
	})
}
