package broker_test

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
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

// flow publishes numbered messages at QoS 1, and waits until all are acknowledged.
func flow(c *brokertest.Client, topic string, from, to int) {
	for i := from; i < to; i++ {
		c.SendPublish(topic, fmt.Sprint(i), 1)
		if i >= from+500 {
			c.Await(packets.Puback)
		}
	}
	for range min(500, to-from) {
		c.Await(packets.Puback)
	}
}

// A subscriber that is alive gets everything, however far it falls behind: with a storage and without one.
func TestWhoFallsFarBehindGetsEverythingInOrder(t *testing.T) {
	t.Parallel()
	for _, kept := range []bool{true, false} {
		for _, resume := range []bool{true, false} {
			s := journaltest.New()
			b := brokertest.Listen(t, func(o *broker.Options) {
				if kept {
					o.Storage = s
				}
			}, brokertest.Device("bed-1"))
			require.NoError(t, b.Start())
			b.AdmitDevices()
			login := as("bed-1", 5)
			if resume {
				login = lasting("bed-1", "slow", 5)
			}
			login.Properties.ReceiveMaximum = 1
			c := brokertest.Dial(t, b, brokertest.TCP, login)
			c.Subscribe("devices/bed-1/x", 1)
			const messages = 20_000 // more than the head has room for
			sender := brokertest.Dial(t, b, brokertest.TCP, as("bed-1", 4))
			flow(sender, "devices/bed-1/x", 0, messages/2)
			done := make(chan struct{})
			go func() {
				defer close(done)
				flow(sender, "devices/bed-1/x", messages/2, messages)
			}()
			for i := range messages {
				require.Equal(t, fmt.Sprint(i), string(c.Receive().Payload))
			}
			<-done
			assert.Zero(t, b.Stats().Dropped)
			c.Ping()
			require.Eventually(t, func() bool { _, queues, _, _ := s.Counts(); return queues == 0 }, brokertest.Patience, time.Millisecond)
			assert.Zero(t, b.Stats().WaitingOnDisk)
		}
	}
}

// Batches whose messages are those of two sessions: one reads all of its tail at once and is trimmed, the other comes back again
// and again in the middle of a batch, over crashes of the broker too.
func TestTailsThatShareBatchesAreReadAtTheirOwnPace(t *testing.T) {
	t.Parallel()
	s := journaltest.New()
	b := keeping(t, s, nil)
	const topic, messages = "devices/bed-1/x", 12_000
	stays, returns := lasting("bed-1", "stays", 5), lasting("bed-1", "returns", 5)
	returns.Properties.ReceiveMaximum = 100
	for _, login := range []brokertest.Login{stays, returns} {
		c := brokertest.Dial(t, b, brokertest.TCP, login)
		c.Subscribe(topic, 1)
		c.Disconnect()
	}
	flow(brokertest.Dial(t, b, brokertest.TCP, as("bed-1", 4)), topic, 0, messages)
	c := brokertest.Dial(t, b, brokertest.TCP, returns)
	got := 0
	read := func(n int) {
		for range n {
			require.Equal(t, fmt.Sprint(got), string(c.Receive().Payload))
			got++
		}
		c.Ping() // its acknowledgements have come
	}
	read(1777)
	reader := brokertest.Dial(t, b, brokertest.TCP, stays)
	for i := range messages {
		require.Equal(t, fmt.Sprint(i), string(reader.Receive().Payload))
		if i%1777 == 0 && got < messages/2 {
			c = brokertest.Dial(t, b, brokertest.TCP, returns) // over the one before
			read(777)
		}
	}
	reader.Ping()
	for _, enough := range []int{got + 500, got + 1500, messages} {
		c.Disconnect()
		reader.Close()
		b, s = crash(t, b, s, nil)
		c = brokertest.Dial(t, b, brokertest.TCP, returns)
		for got < enough {
			var n int
			_, err := fmt.Sscan(string(c.Receive().Payload), &n)
			require.NoError(t, err)
			require.LessOrEqual(t, n, got, "acknowledgements may be lost with the crash, messages may not")
			got = max(got, n+1)
		}
		c.Ping()
	}
	c.AwaitNoMessage()
	assert.Zero(t, b.Stats().Dropped)
}

func TestTheSessionForWhichTooMuchWaitsEnds(t *testing.T) {
	t.Parallel()
	for name, limits := range map[string]broker.Limits{
		"limits.max_disk_messages_per_account 100": {MaxDiskMessagesPerAccount: 100},
		"limits.max_disk_bytes_per_account 30000":  {MaxDiskBytesPerAccount: 30_000},
		"free space": {},
	} {
		s := journaltest.New()
		b := keeping(t, s, func(o *broker.Options) {
			o.Limits = brokertest.Limits(limits)
			if name == "free space" {
				var asked atomic.Bool
				o.FreeBytes = func() int64 { // once a second: what has come since is no room any more
					if asked.Swap(true) {
						return 0
					}
					return 600 << 10
				}
			}
		})
		for _, id := range []string{"forgotten", "alive"} {
			c := brokertest.Dial(t, b, brokertest.TCP, lasting("bed-1", id, 5))
			c.Subscribe("devices/bed-1/"+id, 1)
			c.Disconnect()
		}
		sender := brokertest.Dial(t, b, brokertest.TCP, as("bed-1", 5))
		require.Zero(t, sender.Publish("devices/bed-1/alive", "kept", 1))
		for range 101 {
			require.Less(t, sender.Publish("devices/bed-1/forgotten", string(make([]byte, 4000)), 1), byte(0x80), "no publisher is refused for it")
		}
		for len(b.Log.Lines("session ended")) == 0 {
			require.Less(t, sender.Publish("devices/bed-1/forgotten", string(make([]byte, 4000)), 1), byte(0x80))
		}
		assert.NotEmpty(t, b.Log.Lines("session ended", "client=forgotten", fmt.Sprintf("rule=%q", name)))
		assert.Greater(t, b.Stats().Dropped, int64(5))
		assert.Less(t, b.Stats().Dropped, int64(120))
		_, present := brokertest.TryDial(t, b, brokertest.TCP, lasting("bed-1", "forgotten", 5))
		assert.False(t, present.SessionPresent)
		c := brokertest.Dial(t, b, brokertest.TCP, lasting("bed-1", "alive", 5))
		assert.Equal(t, "kept", string(c.Receive().Payload))
	}
}

// A batch may be on disk although nobody has heard of it: what is sent again is the same message, once.
func TestQoS2OverACrashBetweenCommitAndDone(t *testing.T) {
	t.Parallel()
	for _, committed := range []bool{true, false} {
		for _, dup := range []bool{true, false} {
			s := journaltest.New()
			b := keeping(t, s, nil)
			c := brokertest.Dial(t, b, brokertest.TCP, lasting("bed-1", "reader", 5))
			c.Subscribe("devices/bed-1/x", 2)
			watcher := brokertest.Dial(t, b, brokertest.TCP, as("bed-1", 5))
			watcher.Subscribe("devices/bed-1/x", 2)
			sender := brokertest.Dial(t, b, brokertest.TCP, lasting("bed-1", "writer", 5))
			reached, hold := make(chan struct{}), make(chan struct{})
			var once sync.Once
			stop := func() { once.Do(func() { close(reached) }); <-hold }
			if committed {
				s.After(func(*journal.Batch) { stop() })
			} else {
				s.Before(func(*journal.Batch) error { stop(); return nil })
			}
			message := packets.Packet{FixedHeader: packets.FixedHeader{Type: packets.Publish, Qos: 2}, PacketID: 7, TopicName: "devices/bed-1/x", Payload: []byte("1")}
			sender.Send(message)
			<-reached
			sender.AwaitNone(packets.Pubrec)
			c.AwaitNoMessage()
			watcher.AwaitNoMessage()
			after := s.Crash()
			close(hold)
			require.NoError(t, b.Close())

			b = keeping(t, after, nil)
			sender = brokertest.Dial(t, b, brokertest.TCP, lasting("bed-1", "writer", 5))
			message.FixedHeader.Dup = dup
			sender.Send(message)
			require.Zero(t, sender.Await(packets.Pubrec).ReasonCode)
			c = brokertest.Dial(t, b, brokertest.TCP, lasting("bed-1", "reader", 5))
			got := c.Await(packets.Publish)
			assert.Equal(t, committed, got.FixedHeader.Dup)
			c.Send(packets.Packet{FixedHeader: packets.FixedHeader{Type: packets.Pubrec}, PacketID: got.PacketID})
			c.Await(packets.Pubrel)
			b, after = crash(t, b, after, nil)
			c = brokertest.Dial(t, b, brokertest.TCP, lasting("bed-1", "reader", 5))
			assert.Equal(t, got.PacketID, c.Await(packets.Pubrel).PacketID)
			c.AwaitNoMessage()
			c.Send(packets.Packet{FixedHeader: packets.FixedHeader{Type: packets.Pubcomp}, PacketID: got.PacketID})
			sender = brokertest.Dial(t, b, brokertest.TCP, lasting("bed-1", "writer", 5))
			sender.Send(packets.Packet{FixedHeader: packets.FixedHeader{Type: packets.Pubrel, Qos: 1}, PacketID: 7})
			assert.Zero(t, sender.Await(packets.Pubcomp).ReasonCode)
			b, _ = crash(t, b, after, nil)
			sender = brokertest.Dial(t, b, brokertest.TCP, lasting("bed-1", "writer", 5))
			message.FixedHeader.Dup = false
			sender.Send(message) // another one that says the same
			require.Zero(t, sender.Await(packets.Pubrec).ReasonCode)
			c = brokertest.Dial(t, b, brokertest.TCP, lasting("bed-1", "reader", 5))
			assert.False(t, c.Await(packets.Publish).FixedHeader.Dup)
			require.NoError(t, b.Close())
		}
	}
}

func TestWhatIsDamagedCostsOnlyItself(t *testing.T) {
	t.Parallel()
	for _, what := range []string{"session", "subscription", "queue", "pack", "retained"} {
		s := journaltest.New()
		b := keeping(t, s, nil)
		for _, id := range []string{"one", "two"} {
			c := brokertest.Dial(t, b, brokertest.TCP, lasting("bed-1", id, 5))
			c.Subscribe("devices/bed-1/"+id, 1)
			c.Disconnect()
		}
		sender := brokertest.Dial(t, b, brokertest.TCP, as("bed-1", 5))
		for _, id := range []string{"one", "two"} {
			require.Zero(t, sender.Publish("devices/bed-1/"+id, id, 1))
		}
		send(t, sender, retain("devices/bed-1/r", "kept"))
		first := journal.SessionID(0)
		s.Damage(func(kind string, of journal.SessionID) bool {
			if kind == what && first == 0 {
				first = of
			}
			return kind == what && of == first
		})
		b, _ = crash(t, b, s, nil)
		got := 0
		for _, id := range []string{"one", "two"} {
			c := brokertest.Dial(t, b, brokertest.TCP, lasting("bed-1", id, 5))
			sender = brokertest.Dial(t, b, brokertest.TCP, as("bed-1", 5))
			require.Less(t, sender.Publish("devices/bed-1/"+id, "new", 1), byte(0x80))
			c.Ping()
			for _, text := range []string{id, "new"} {
				if c.Has(packets.Publish) && text == string(c.Receive().Payload) {
					got++
				}
			}
		}
		assert.GreaterOrEqual(t, got, 2, what)
		if what != "queue" && what != "pack" {
			assert.NotEmpty(t, b.Log.Lines("damaged", "count=1"), what)
		}
		require.NoError(t, b.Close())
	}
}

// Sessions come and go, are taken over and evicted, while batches are slow, or refused.
func TestChangesOfHandsWhileTheDiskIsSlow(t *testing.T) {
	t.Parallel()
	s := journaltest.New()
	var mu sync.Mutex
	r := rand.New(rand.NewPCG(1, 2))
	roll := func(n int) int { mu.Lock(); defer mu.Unlock(); return r.IntN(n) }
	pauses := make(chan struct{})
	s.Before(func(*journal.Batch) error {
		switch roll(4) {
		case 0:
			return errors.New("the disk is full")
		case 1:
			select {
			case <-time.After(time.Millisecond):
			case <-pauses:
			}
		}
		return nil
	})
	b := keeping(t, s, nil)
	const topic = "devices/bed-1/x"
	keeper := lasting("bed-1", "keeper", 5)
	c := brokertest.Dial(t, b, brokertest.TCP, keeper)
	c.Subscribe(topic, 1)
	c.Disconnect()
	var all sync.WaitGroup
	const senders, each = 3, 150
	for i := range senders {
		all.Go(func() {
			sender := brokertest.Dial(t, b, brokertest.TCP, lasting("bed-1", fmt.Sprint("sender-", i), 4))
			for n := range each {
				sender.Publish(topic, fmt.Sprint(i, ".", n), byte(1+n%2))
			}
		})
	}
	all.Go(func() { // others are thrown out meanwhile
		for range 30 {
			login := lasting("bed-2", fmt.Sprint("guest-", roll(3)), 5)
			if guest, err := brokertest.TryDial(t, b, brokertest.TCP, login); err.ReasonCode == 0 {
				guest.Send(packets.Packet{FixedHeader: packets.FixedHeader{Type: packets.Subscribe, Qos: 1}, PacketID: 1,
					Filters: packets.Subscriptions{{Filter: "devices/bed-2/#", Qos: 1}}})
			}
			if roll(3) == 0 {
				b.Disconnect("bed-2", "for the test")
			}
		}
	})
	got := map[string]int{}
	deadline := time.Now().Add(6 * brokertest.Patience) // with -race on a machine that is busy
	for len(got) < senders*each && time.Now().Before(deadline) {
		c = brokertest.Dial(t, b, brokertest.TCP, keeper) // over the one before
		for range 1 + roll(40) {
			if len(got) == senders*each {
				break
			}
			got[string(c.Receive().Payload)]++
		}
	}
	all.Wait()
	close(pauses)
	assert.Len(t, got, senders*each)
	s.Before(nil)
	require.NoError(t, b.Close())
}
