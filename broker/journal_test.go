package broker_test

import (
	"fmt"
	"sync/atomic"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/plantops/plantops/broker/brokertest"
	"github.com/plantops/plantops/broker/journal"
	"github.com/plantops/plantops/broker/journal/journaltest"
)

// Who is taken over while its queue is being read gets it on the new connection, though nothing else happens to it.
func TestATakeoverWhileTheQueueIsRead(t *testing.T) {
	t.Parallel()
	s := journaltest.New()
	b := keeping(t, s, nil)
	login := lasting("bed-1", "reader", 5)
	c := brokertest.Dial(t, b, brokertest.TCP, login)
	c.Subscribe("devices/bed-1/x", 1)
	c.Disconnect()
	c.AwaitClosed()
	sender := brokertest.Dial(t, b, brokertest.TCP, as("bed-1", 5))
	const messages = 100
	for i := range messages { // more than is read at a time
		require.Zero(t, sender.Publish("devices/bed-1/x", fmt.Sprintf("%8000d", i), 1))
	}
	reading, hold, reads := make(chan struct{}), make(chan struct{}), atomic.Int32{}
	s.BeforeRead(func() {
		if reads.Add(1) == 2 {
			close(reading)
			<-hold
		}
	})
	first := brokertest.Dial(t, b, brokertest.TCP, login)
	<-reading
	c = brokertest.Dial(t, b, brokertest.TCP, login)
	first.AwaitClosed()
	c.Ping()
	stuck := make(chan struct{})
	s.Before(func(*journal.Batch) error { <-stuck; return nil }) // no batch that is done reminds anybody
	defer close(stuck)
	close(hold)
	for i := range messages {
		require.Equal(t, fmt.Sprintf("%8000d", i), string(c.Receive().Payload))
	}
}
