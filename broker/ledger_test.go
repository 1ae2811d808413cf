package broker

import (
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/plantops/plantops/broker/journal/journaltest"
	"github.com/plantops/plantops/broker/session"
)

// A session that ends while a batch is taken must not take its client id off the lists for good: nothing of the next one would
// get to the disk.
func TestASessionEndsWhileABatchIsTaken(t *testing.T) {
	r := &router{hook: &hook{now: time.Now}, wall: time.Now, unsure: func() bool { return false }}
	g := &r.ledger
	*g = ledger{r: r, storage: journaltest.New(), next: 1, wake: make(chan struct{}, 1)}
	r.quotas.onDisk = true
	p := newPeer("x", &usage{quotas: &r.quotas}, false)
	p.state.Connect(time.Now(), session.Connection{Version: 5, Expiry: time.Hour}, nil)
	var both sync.WaitGroup
	const rounds = 20_000
	both.Go(func() {
		for range rounds {
			p.mu.Lock()
			g.markState(p)
			g.markLazily(p)
			g.endSession(&work{r: r}, p)
			p.mu.Unlock()
		}
	})
	both.Go(func() {
		for range rounds {
			g.tick()
			if b := g.Take(); b != nil {
				g.Done(b, nil)
			}
		}
	})
	both.Wait()
	p.mu.Lock()
	defer p.mu.Unlock()
	g.markState(p)
	g.markLazily(p)
	require.True(t, slices.Contains(g.dirty, p))
	require.True(t, slices.Contains(g.lazy, p))
}
