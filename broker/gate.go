package broker

import (
	"errors"
	"sync"
	"time"

	"github.com/plantops/plantops/broker/refusal"
)

// gateWait is how long a client waits for the program to be ready before it is sent away to try again.
const gateWait = 30 * time.Second

// errGone ends the wait of a client that nobody needs to answer any more.
var errGone = errors.New("connection closed while waiting")

// gate keeps clients out until somebody is there to take what they publish, and out again when the program stops.
type gate struct {
	opened, closed       chan struct{}
	openOnce, closedOnce sync.Once
}

func newGate() *gate { return &gate{opened: make(chan struct{}), closed: make(chan struct{})} }

func (g *gate) open() { g.openOnce.Do(func() { close(g.opened) }) }

// close is for good.
func (g *gate) close() { g.closedOnce.Do(func() { close(g.closed) }) }

func (g *gate) isClosed() bool {
	select {
	case <-g.closed:
		return true
	default:
		return false
	}
}

// pass returns nil when the client may go on. It waits for the gate to open, at most limit and no longer than the
// connection lasts.
func (g *gate) pass(gone <-chan struct{}, limit time.Duration) error {
	if g.isClosed() {
		return refusal.Stopping
	}
	timer := time.NewTimer(limit)
	defer timer.Stop()
	select {
	case <-g.opened:
		return nil
	case <-g.closed:
		return refusal.Stopping
	case <-gone:
		return errGone
	case <-timer.C:
		return refusal.NotReady
	}
}
