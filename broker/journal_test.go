package broker_test

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/mochi-mqtt/server/v2/packets"
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

// While the disk does not answer nothing that a client asks for grows without a bound.
func TestWhoAsksOnWhileTheDiskDoesNotAnswer(t *testing.T) {
	t.Parallel()
	long := "devices/bed-1/" + strings.Repeat("x", 10_000)
	for name, ask := range map[string]func(c *brokertest.Client, i int){
		"what waits to be sent": func(c *brokertest.Client, i int) {
			c.SendBytes(bytes.Repeat([]byte{0x62, 2, 1, byte(i)}, 1000)) // PUBREL of nothing
		},
		"changes of filters": func(c *brokertest.Client, i int) {
			filters := packets.Subscriptions{{Filter: fmt.Sprint(long, i/2), Qos: 1}}
			kind := packets.Subscribe
			if i%2 == 1 {
				kind = packets.Unsubscribe
			}
			c.Send(packets.Packet{FixedHeader: packets.FixedHeader{Type: kind, Qos: 1}, PacketID: 1, Filters: filters})
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := journaltest.New()
			b := keeping(t, s, func(o *broker.Options) { o.StallTimeout = 500 * time.Millisecond })
			c := brokertest.Dial(t, b, brokertest.TCP, lasting("bed-1", "asks", 5))
			hold := make(chan struct{})
			s.Before(func(*journal.Batch) error { <-hold; return nil })
			defer close(hold)
			c.Send(packets.Packet{FixedHeader: packets.FixedHeader{Type: packets.Subscribe, Qos: 1}, PacketID: 1,
				Filters: packets.Subscriptions{{Filter: "devices/bed-1/y", Qos: 1}}})
			deadline := time.Now().Add(brokertest.Patience)
			for i := 0; !c.Ended(); i++ {
				require.True(t, time.Now().Before(deadline), "nobody ends it")
				ask(c, i)
			}
			assert.NotEmpty(t, b.Log.Lines("not stored in time", "client=asks"))
		})
	}
}

// The lifetime of a session whose client was there at a crash does not begin anew at each start.
func TestALifetimeGoesOnOverSeveralStarts(t *testing.T) {
	t.Parallel()
	s := journaltest.New()
	now := time.Now()
	at := func(hours int) func(*broker.Options) {
		return func(o *broker.Options) { o.Now = func() time.Time { return now.Add(time.Duration(hours) * time.Hour) } }
	}
	b := keeping(t, s, at(0))
	login := lasting("bed-1", "esp", 5)
	login.Properties.SessionExpiryInterval = 3 * 3600
	brokertest.Dial(t, b, brokertest.TCP, login)
	b, s = crash(t, b, s, at(1)) // its connection was lost now
	require.Eventually(t, func() bool { _, _, _, batches := s.Counts(); return batches > 0 }, brokertest.Patience, time.Millisecond)
	b, s = crash(t, b, s, at(3))
	require.Len(t, b.Sessions(), 1)
	b, _ = crash(t, b, s, at(5))
	require.Eventually(t, func() bool { return len(b.Sessions()) == 0 }, brokertest.Patience, time.Millisecond)
}

// What a client was sent and has not acknowledged waits on disk too when it goes.
func TestWhatWasSentIsInTheDiskQuotaOfWhoGoes(t *testing.T) {
	t.Parallel()
	s := journaltest.New()
	b := keeping(t, s, func(o *broker.Options) { o.Limits = brokertest.Limits(broker.Limits{MaxDiskBytesPerAccount: 60_000}) })
	login := lasting("bed-1", "hoards", 5)
	c := brokertest.Dial(t, b, brokertest.TCP, login)
	c.Subscribe("devices/bed-1/x", 1)
	sender := brokertest.Dial(t, b, brokertest.TCP, as("bed-1", 5))
	publish := func(n int) {
		for range n {
			require.Zero(t, sender.Publish("devices/bed-1/x", string(make([]byte, 4000)), 1))
			c.Await(packets.Publish) // not acknowledged
		}
	}
	of := func() broker.SessionInfo {
		all := b.Sessions()
		if i := slices.IndexFunc(all, func(i broker.SessionInfo) bool { return i.Client == "hoards" }); i >= 0 {
			return all[i]
		}
		return broker.SessionInfo{}
	}
	publish(10)
	c.Disconnect()
	c.AwaitClosed()
	require.Eventually(t, func() bool { return !of().Connected }, brokertest.Patience, time.Millisecond)
	assert.Equal(t, 10, of().OnDisk)
	assert.Greater(t, of().DiskBytes, 40_000)
	c = brokertest.Dial(t, b, brokertest.TCP, login)
	for range 10 {
		c.Await(packets.Publish)
	}
	assert.Zero(t, of().DiskBytes, "it is in memory")
	publish(10)
	c.Disconnect()
	require.Eventually(t, func() bool { return of().Client == "" }, brokertest.Patience, time.Millisecond)
	assert.NotEmpty(t, b.Log.Lines("session ended", "client=hoards", "dropped=20"))
}

// Where space is short, the session goes for which most waits, whoever it is that finds out.
func TestForFreeSpaceTheLargestSessionOfAllEnds(t *testing.T) {
	t.Parallel()
	free := atomic.Int64{}
	free.Store(1 << 30)
	b := keeping(t, journaltest.New(), func(o *broker.Options) {
		o.FreeBytes, o.StallTimeout = free.Load, 5*time.Second // of which a tenth is a tick
	})
	fill := func(device string, bytes int) {
		c := brokertest.Dial(t, b, brokertest.TCP, lasting(device, device+"-away", 5))
		c.Subscribe("devices/"+device+"/x", 1)
		c.Disconnect()
		sender := brokertest.Dial(t, b, brokertest.TCP, as(device, 5))
		for sent := 0; sent < bytes; sent += 20_000 {
			require.Zero(t, sender.Publish("devices/"+device+"/x", string(make([]byte, 20_000)), 1))
		}
	}
	fill("bed-1", 1<<20)
	fill("bed-2", 300<<10)
	free.Store(1)
	sender := brokertest.Dial(t, b, brokertest.TCP, as("bed-2", 5))
	require.Eventually(t, func() bool { // a few messages each time: what waits for bed-2 must not become more than for bed-1
		require.Less(t, sender.Publish("devices/bed-2/x", "1", 1), byte(0x80))
		return len(b.Log.Lines("session ended")) > 0
	}, brokertest.Patience, 10*time.Millisecond)
	assert.Len(t, b.Log.Lines("session ended", "client=bed-1-away"), 1)
}

// What need not stay on disk goes from there, also when the batch that says so fails at first.
func TestAFailedBatchDeletesLater(t *testing.T) {
	t.Parallel()
	s := journaltest.New()
	b := keeping(t, s, nil)
	login := lasting("bed-1", "reader", 5)
	c := brokertest.Dial(t, b, brokertest.TCP, login)
	c.Subscribe("devices/bed-1/x", 1)
	c.Disconnect()
	c.AwaitClosed()
	other := brokertest.Dial(t, b, brokertest.TCP, lasting("bed-1", "other", 5))
	sender := brokertest.Dial(t, b, brokertest.TCP, as("bed-1", 5))
	require.Zero(t, sender.Publish("devices/bed-1/x", "1", 1))
	refused := make(chan struct{}, 1)
	var fail atomic.Bool
	s.Before(func(batch *journal.Batch) error {
		if fail.Load() && len(batch.Trims)+len(batch.Ended) > 1 {
			select {
			case refused <- struct{}{}:
			default:
			}
			return errors.New("the disk is full")
		}
		if fail.Load() {
			return errors.New("the disk is full")
		}
		return nil
	})
	fail.Store(true)
	c = brokertest.Dial(t, b, brokertest.TCP, login)
	assert.Equal(t, "1", string(c.Receive().Payload))
	c.Ping()
	c.Disconnect()
	c.AwaitClosed()
	assert.True(t, b.EndSession("other"))
	other.AwaitClosed()
	select {
	case <-refused:
	case <-time.After(brokertest.Patience):
		t.Fatal("no batch that deletes")
	}
	fail.Store(false)
	require.Eventually(t, func() bool { sessions, queues, _, _ := s.Counts(); return sessions == 1 && queues == 0 },
		brokertest.Patience, time.Millisecond)
}
