package broker_test

import (
	"context"
	"fmt"
	"runtime"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/plantops/plantops/broker"
	"github.com/plantops/plantops/broker/brokertest"
	"github.com/plantops/plantops/broker/journal"
	"github.com/plantops/plantops/broker/journal/journaltest"
)

// many is a storage in which each session stands n times.
type many struct {
	*journaltest.Storage
	n int
}

type multiplier struct {
	journal.Loader
	n int
}

func (m multiplier) each(f func(id journal.SessionID) error) error {
	for i := range m.n {
		if err := f(journal.SessionID(i + 1000)); err != nil {
			return err
		}
	}
	return nil
}

func (m multiplier) Session(s journal.Session) error {
	return m.each(func(id journal.SessionID) error {
		return m.Loader.Session(journal.Session{ID: id, Client: fmt.Sprint("esp-", id), Account: s.Account, State: s.State})
	})
}

func (m multiplier) Subscription(s journal.Subscription) error {
	return m.each(func(id journal.SessionID) error {
		return m.Loader.Subscription(journal.Subscription{Session: id, Filter: fmt.Sprint(s.Filter, "/", id), Options: s.Options})
	})
}

func (m multiplier) Waiting(w journal.Waiting) error {
	return m.each(func(id journal.SessionID) error {
		w.Session = id
		return m.Loader.Waiting(w)
	})
}

func (m many) Load(ctx context.Context, l journal.Loader) (journal.Next, error) {
	next, err := m.Storage.Load(ctx, multiplier{l, m.n})
	next.Session = max(next.Session, journal.SessionID(m.n+2000))
	return next, err
}

// Sessions whose clients are away cost little, whatever waits for them.
func TestSessionsAwayCostLittle(t *testing.T) {
	s := journaltest.New()
	b := keeping(t, s, nil)
	c := brokertest.Dial(t, b, brokertest.TCP, lasting("bed-1", "esp", 4))
	c.Subscribe("devices/bed-1/commands", 1)
	c.Disconnect()
	sender := brokertest.Dial(t, b, brokertest.TCP, as("bed-1", 5))
	for range 10 {
		require.Zero(t, sender.Publish("devices/bed-1/commands", string(make([]byte, 200)), 1))
	}
	require.NoError(t, b.Close())

	const sessions, most = 10_000, 40 << 20
	heap := func() int {
		runtime.GC()
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		return int(m.HeapAlloc + m.StackInuse)
	}
	before := heap()
	began := time.Now()
	b = brokertest.Listen(t, func(o *broker.Options) {
		o.Storage = many{s.Crash(), sessions}
		o.Limits = brokertest.Limits(broker.Limits{MaxSessions: 2 * sessions, MaxSessionsPerAccount: 2 * sessions})
	}, brokertest.Device("bed-1"))
	require.NoError(t, b.Start())
	t.Logf("%d sessions in %v, %d KiB", sessions, time.Since(began), (heap()-before)>>10)
	assert.Less(t, heap()-before, most)
	assert.Equal(t, sessions, b.Stats().Away)
	assert.EqualValues(t, 10*sessions, b.Stats().WaitingOnDisk)
}
