package broker_test

import (
	"fmt"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/plantops/plantops/broker"
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

// Rights can change while no broker runs: nothing that was kept goes past them.
func TestRightsThatChangedWhileNothingRan(t *testing.T) {
	t.Parallel()
	s := journaltest.New()
	b := keeping(t, s, nil)
	reader := lasting("bed-1", "reader", 5)
	c := brokertest.Dial(t, b, brokertest.TCP, reader)
	c.Subscribe("devices/bed-1/secret", 1)
	c.Subscribe("devices/bed-1/open", 1)
	c.Disconnect()
	c.AwaitClosed()
	sender := brokertest.Dial(t, b, brokertest.TCP, as("bed-1", 5))
	for _, topic := range []string{"devices/bed-1/secret", "devices/bed-1/open"} {
		send(t, sender, retain(topic, "1"))
	}
	s = s.Crash()
	require.NoError(t, b.Close())

	narrow := brokertest.Device("bed-1")
	narrow.Subscribe, narrow.Publish = []string{"devices/bed-1/open"}, []string{"devices/bed-1/open"}
	b = brokertest.Listen(t, func(o *broker.Options) { o.Storage = s }, narrow, brokertest.Device("bed-2"))
	require.NoError(t, b.Start())
	b.AdmitDevices()
	assert.Equal(t, 1, b.RetainedCount(), "what it may publish")
	sender = brokertest.Dial(t, b, brokertest.TCP, b.AsBackend())
	for _, text := range []string{"2", "3"} {
		for _, topic := range []string{"devices/bed-1/secret", "devices/bed-1/open"} {
			require.Less(t, sender.Publish(topic, text, 1), byte(0x80))
		}
		if text == "2" {
			c = brokertest.Dial(t, b, brokertest.TCP, reader)
		}
	}
	for _, text := range []string{"1", "2", "3"} {
		got := c.Receive()
		assert.Equal(t, []string{"devices/bed-1/open", text}, []string{got.TopicName, string(got.Payload)})
	}
	c.AwaitNoMessage()
	require.Eventually(t, func() bool { _, _, retained, _ := s.Counts(); return retained == 1 }, brokertest.Patience, time.Millisecond)
	require.Len(t, b.Log.Lines("subscription ended", "client=reader", "filter=devices/bed-1/secret"), 1)
	b, _ = crash(t, b, s, nil) // with its old rights
	assert.Equal(t, 1, b.Sessions()[0].Subscriptions, "what has ended stays so")
}
