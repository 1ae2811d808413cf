package broker_test

import (
	"fmt"
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

// keeping starts a broker on what a storage has.
func keeping(t *testing.T, s *journaltest.Storage, edit func(*broker.Options)) *brokertest.Broker {
	t.Helper()
	b := brokertest.Listen(t, func(o *broker.Options) {
		o.Storage = s
		if edit != nil {
			edit(o)
		}
	}, brokertest.Device("bed-1"), brokertest.Device("bed-2"))
	require.NoError(t, b.Start())
	b.AdmitDevices()
	return b
}

// crash cuts a broker off its storage, and starts another one on what that has then.
func crash(t *testing.T, b *brokertest.Broker, s *journaltest.Storage, edit func(*broker.Options)) (*brokertest.Broker, *journaltest.Storage) {
	t.Helper()
	s = s.Crash()
	require.NoError(t, b.Close())
	return keeping(t, s, edit), s
}

func texts(c *brokertest.Client, n int) (all []string) {
	for range n {
		all = append(all, string(c.Receive().Payload))
	}
	return all
}

func TestWhatIsAcknowledgedSurvivesACrash(t *testing.T) {
	t.Parallel()
	for _, version := range []byte{4, 5} {
		for qos := byte(1); qos <= 2; qos++ {
			s := journaltest.New()
			b := keeping(t, s, nil)
			login := lasting("bed-1", "esp", version)
			c := brokertest.Dial(t, b, brokertest.TCP, login)
			require.Equal(t, qos, c.Subscribe("devices/bed-1/commands", qos))
			sender := brokertest.Dial(t, b, brokertest.TCP, b.AsBackend())
			require.Zero(t, sender.Publish("devices/bed-1/commands", "connected", qos))
			message := c.Await(packets.Publish) // not acknowledged
			require.Zero(t, sender.Publish("devices/bed-1/commands", "connected too", qos))
			c.Await(packets.Publish)
			b, s = crash(t, b, s, nil)

			sender = brokertest.Dial(t, b, brokertest.TCP, b.AsBackend())
			require.Zero(t, sender.Publish("devices/bed-1/commands", "away", qos))
			b, s = crash(t, b, s, nil)

			var present packets.Packet
			c, present = brokertest.TryDial(t, b, brokertest.TCP, login)
			require.True(t, present.SessionPresent)
			again := c.Await(packets.Publish)
			assert.Equal(t, "connected", string(again.Payload))
			assert.Equal(t, message.PacketID, again.PacketID)
			assert.True(t, again.FixedHeader.Dup)
			c.Acknowledge(again)
			assert.Equal(t, []string{"connected too", "away"}, texts(c, 2))
			c.Ping()                      // its acknowledgements have come
			require.NoError(t, b.Close()) // in order
			b = keeping(t, s.Crash(), nil)
			c = brokertest.Dial(t, b, brokertest.TCP, login)
			sender = brokertest.Dial(t, b, brokertest.TCP, b.AsBackend())
			require.Zero(t, sender.Publish("devices/bed-1/commands", "last", qos))
			assert.Equal(t, "last", string(c.Receive().Payload), "and nothing of before")
			require.NoError(t, b.Close())
		}
	}
}

func TestRetainedMessagesSurviveACrash(t *testing.T) {
	t.Parallel()
	s := journaltest.New()
	b := keeping(t, s, nil)
	sender := brokertest.Dial(t, b, brokertest.TCP, as("bed-1", 5))
	for _, m := range [][2]string{{"a", "old"}, {"a", "new"}, {"b", "x"}, {"b", ""}} {
		send(t, sender, retain("devices/bed-1/"+m[0], m[1]))
	}
	b, s = crash(t, b, s, nil)
	assert.Equal(t, 1, b.RetainedCount())
	c := brokertest.Dial(t, b, brokertest.TCP, as("bed-1", 5))
	c.Subscribe("devices/bed-1/#", 1)
	assert.Equal(t, "new", string(c.Receive().Payload))
	assert.Equal(t, 1, b.Charged()["bed-1"]().Retained)
	b.Accounts.Remove("bed-1")
	s = s.Crash()
	require.NoError(t, b.Close())
	b = brokertest.Listen(t, func(o *broker.Options) { o.Storage = s })
	require.NoError(t, b.Start())
	assert.Zero(t, b.RetainedCount(), "of an account that is no more")
	require.Eventually(t, func() bool { _, _, retained, _ := s.Counts(); return retained == 0 }, brokertest.Patience, time.Millisecond)
}

func TestSharedMessagesSurviveACrash(t *testing.T) {
	t.Parallel()
	s := journaltest.New()
	b := keeping(t, s, nil)
	const filter, messages = "$share/g/devices/bed-1/work", 20
	var logins []brokertest.Login
	for i := range 2 {
		logins = append(logins, lasting("bed-1", fmt.Sprint("worker-", i), 5))
		c := brokertest.Dial(t, b, brokertest.TCP, logins[i])
		require.Equal(t, byte(1), c.Subscribe(filter, 1))
		c.Disconnect()
	}
	sender := brokertest.Dial(t, b, brokertest.TCP, b.AsBackend())
	want := map[string]bool{}
	for i := range messages {
		want[fmt.Sprint(i)] = true
		require.Zero(t, sender.Publish("devices/bed-1/work", fmt.Sprint(i), 1))
	}
	b, _ = crash(t, b, s, nil)
	var clients []*brokertest.Client
	for _, login := range logins {
		clients = append(clients, brokertest.Dial(t, b, brokertest.TCP, login))
	}
	got := map[string]bool{}
	require.Eventually(t, func() bool {
		for _, c := range clients {
			for c.Has(packets.Publish) {
				got[string(c.Receive().Payload)] = true
			}
		}
		return len(got) == len(want)
	}, brokertest.Patience, time.Millisecond)
	assert.Equal(t, want, got)
}

// What waits on disk for a member whose session ends, and what it was sent and has not acknowledged, others get.
func TestSharedMessagesOfAMemberThatIsGoneGoToOthers(t *testing.T) {
	t.Parallel()
	s := journaltest.New()
	b := keeping(t, s, nil)
	login := lasting("bed-1", "gone", 5)
	login.Properties.ReceiveMaximum = 5
	gone := brokertest.Dial(t, b, brokertest.TCP, login)
	require.Equal(t, byte(1), gone.Subscribe(sharedJobs, 1))
	sender := brokertest.Dial(t, b, brokertest.TCP, b.AsBackend())
	const messages = 200
	want := map[string]bool{}
	for i := range messages {
		want[fmt.Sprint(i)] = true
		require.Zero(t, sender.Publish(jobs, fmt.Sprint(i), 1))
	}
	for i := range 3 {
		require.Equal(t, fmt.Sprint(i), string(gone.Receive().Payload))
		delete(want, fmt.Sprint(i))
	}
	gone.Ping()
	gone.Close()
	require.Eventually(t, func() bool { return b.Stats().Connected == 1 }, brokertest.Patience, time.Millisecond)
	for _, crashed := range []bool{false, true} {
		if crashed {
			b, s = crash(t, b, s, nil)
		}
		other := worker(t, b, "other", 1000, 1)
		if crashed {
			brokertest.Dial(t, b, brokertest.TCP, withID("bed-1", "gone")).Disconnect() // its session ends
			got := map[string]bool{}
			require.Eventually(t, func() bool {
				for other.Has(packets.Publish) {
					got[string(other.Receive().Payload)] = true
				}
				return len(got) >= len(want)
			}, brokertest.Patience, time.Millisecond, "%d", len(got))
			for text := range want {
				require.True(t, got[text], "message %s", text)
			}
		}
		other.Disconnect()
	}
	require.Eventually(t, func() bool { sessions, _, _, _ := s.Counts(); return sessions == 0 }, brokertest.Patience, time.Millisecond)
}

func TestASessionThatEndsLeavesNothing(t *testing.T) {
	t.Parallel()
	s := journaltest.New()
	b := keeping(t, s, nil)
	login := lasting("bed-1", "esp", 4)
	c := brokertest.Dial(t, b, brokertest.TCP, login)
	c.Subscribe("devices/bed-1/#", 1)
	c.Disconnect()
	sender := brokertest.Dial(t, b, brokertest.TCP, as("bed-1", 5))
	require.Zero(t, sender.Publish("devices/bed-1/x", "1", 1))
	sessions, queues, _, _ := s.Counts()
	assert.Equal(t, []int{1, 1}, []int{sessions, queues})
	login.Resume = false
	brokertest.Dial(t, b, brokertest.TCP, login).Disconnect()
	require.Eventually(t, func() bool {
		sessions, queues, _, _ := s.Counts()
		return sessions == 0 && queues == 0
	}, brokertest.Patience, time.Millisecond)
}

func TestNothingIsAcknowledgedThatIsNotOnDisk(t *testing.T) {
	t.Parallel()
	s := journaltest.New()
	b := keeping(t, s, func(o *broker.Options) { o.StallTimeout = shortly })
	login := lasting("bed-1", "esp", 5)
	c := brokertest.Dial(t, b, brokertest.TCP, login)
	c.Subscribe("devices/bed-1/#", 2)
	c.Disconnect()
	s.Before(func(*journal.Batch) error { return fmt.Errorf("the disk is full") })
	for qos := byte(1); qos <= 2; qos++ {
		sender := brokertest.Dial(t, b, brokertest.TCP, as("bed-1", 5))
		sender.SendPublish("devices/bed-1/x", "1", qos)
		assert.Equal(t, byte(0x97), sender.AwaitClosed())
		assert.False(t, sender.Has(packets.Puback) || sender.Has(packets.Pubrec))
	}
	newcomer := brokertest.Open(t, b, brokertest.TCP, nil)
	newcomer.SendConnect(lasting("bed-1", "another", 5))
	newcomer.AwaitClosed()
	assert.False(t, newcomer.Has(packets.Connack), "nor a session")
	s.Before(nil)
	c = brokertest.Dial(t, b, brokertest.TCP, login)
	assert.Equal(t, []string{"1", "1"}, texts(c, 2), "what nobody was told of may come all the same")
}

// The client may use the id for another message as soon as it has a PUBCOMP, so that is not sent, not the second time either, before
// the end of the message before is on disk.
func TestNoPubcompLeavesBeforeTheReleaseIsOnDisk(t *testing.T) {
	t.Parallel()
	s := journaltest.New()
	b := keeping(t, s, nil)
	login := lasting("bed-1", "esp", 5)
	c := brokertest.Dial(t, b, brokertest.TCP, login)
	c.SendPublish("devices/bed-1/x", "1", 2)
	id := c.Await(packets.Pubrec).PacketID
	pubrel := packets.Packet{FixedHeader: packets.FixedHeader{Type: packets.Pubrel, Qos: 1}, PacketID: id}
	full := make(chan struct{})
	s.Before(func(*journal.Batch) error { <-full; return nil })
	for range 2 {
		c.Send(pubrel)
		c.AwaitNone(packets.Pubcomp)
		c.Close()
		c = brokertest.Dial(t, b, brokertest.TCP, login)
	}
	c.Send(pubrel)
	close(full)
	assert.Zero(t, c.Await(packets.Pubcomp).ReasonCode)
}

func TestWhatAnAdministratorTakesAwayStaysAway(t *testing.T) {
	t.Parallel()
	s := journaltest.New()
	b := keeping(t, s, nil)
	sender := brokertest.Dial(t, b, brokertest.TCP, as("bed-1", 5))
	send(t, sender, retain("devices/bed-1/a", "1"))
	send(t, sender, retain("devices/bed-1/b", "1"))
	for _, id := range []string{"stays", "goes"} {
		c := brokertest.Dial(t, b, brokertest.TCP, lasting("bed-1", id, 5))
		require.Equal(t, byte(1), c.Subscribe("devices/bed-1/a", 1))
		c.Receive()
		c.Ping()
		c.Disconnect()
		c.AwaitClosed()
	}
	assert.Equal(t, 1, b.ClearRetained("devices/+/a"))
	assert.True(t, b.EndSession("goes"))
	require.Eventually(t, func() bool { sessions, _, retained, _ := s.Counts(); return sessions == 1 && retained == 1 },
		brokertest.Patience, time.Millisecond)
	b, _ = crash(t, b, s, nil)
	assert.Equal(t, 1, b.RetainedCount())
	list := b.Sessions()
	require.Len(t, list, 1)
	assert.Equal(t, "stays", list[0].Client)
	assert.WithinDuration(t, time.Now(), list[0].Since, time.Minute)
	assert.Equal(t, []int{1, 1}, []int{list[0].Waiting, list[0].OnDisk})
	assert.Positive(t, list[0].DiskBytes)
	c := brokertest.Dial(t, b, brokertest.TCP, lasting("bed-1", "stays", 5))
	assert.Empty(t, c.Receive().Payload, "it is told that the message was cleared")
}

func TestADelayedWillSurvivesACrash(t *testing.T) {
	t.Parallel()
	s := journaltest.New()
	b := keeping(t, s, nil)
	watching := lasting("bed-2", "watcher", 5)
	c := brokertest.Dial(t, b, brokertest.TCP, watching)
	c.Subscribe("devices/bed-2/status", 1)
	for _, back := range []bool{false, true} {
		login := lasting("bed-2", fmt.Sprint("mortal-", back), 5)
		login.Will = &brokertest.Will{Topic: "devices/bed-2/status", Payload: fmt.Sprint("offline, ", back), QoS: 1,
			Properties: packets.Properties{WillDelayInterval: 4}}
		brokertest.Dial(t, b, brokertest.TCP, login).Close()
	}
	require.Eventually(t, func() bool { return b.Stats().Away == 2 }, brokertest.Patience, time.Millisecond)
	sender := brokertest.Dial(t, b, brokertest.TCP, as("bed-2", 5)) // whose message is in a later batch
	require.Zero(t, sender.Publish("devices/bed-2/status", "before", 1))
	b, _ = crash(t, b, s, nil)
	brokertest.Dial(t, b, brokertest.TCP, lasting("bed-2", "mortal-true", 5))
	c = brokertest.Dial(t, b, brokertest.TCP, watching)
	assert.Equal(t, []string{"before", "offline, false"}, texts(c, 2))
	c.AwaitNoMessage()
}

// What was left of a lifetime goes on where it was, by the clock of the day; while that is unsure, nothing has passed.
func TestOverARestartTimePassesAsFarAsItIsSure(t *testing.T) {
	t.Parallel()
	for _, unsure := range []bool{false, true} {
		s := journaltest.New()
		now := time.Now()
		b := keeping(t, s, func(o *broker.Options) { o.Now = func() time.Time { return now } })
		login := lasting("bed-1", "esp", 5)
		login.Properties.SessionExpiryInterval = 3 * 3600
		c := brokertest.Dial(t, b, brokertest.TCP, login)
		c.Subscribe("devices/bed-1/x", 1)
		c.Disconnect()
		short := lasting("bed-1", "short", 5)
		short.Properties.SessionExpiryInterval = 3600
		brokertest.Dial(t, b, brokertest.TCP, short).Disconnect()
		sender := brokertest.Dial(t, b, brokertest.TCP, as("bed-1", 5))
		send(t, sender, func(pk *packets.Packet) {
			pk.TopicName, pk.Payload, pk.ProtocolVersion = "devices/bed-1/x", []byte("an hour"), 5
			pk.Properties.MessageExpiryInterval = 3600
		})
		require.Zero(t, sender.Publish("devices/bed-1/x", "for ever", 1))
		b, _ = crash(t, b, s, func(o *broker.Options) {
			o.Now, o.Unsure = func() time.Time { return now.Add(2 * time.Hour) }, func() bool { return unsure }
		})
		_, present := brokertest.TryDial(t, b, brokertest.TCP, short)
		assert.Equal(t, unsure, present.SessionPresent)
		c, present = brokertest.TryDial(t, b, brokertest.TCP, login)
		assert.True(t, present.SessionPresent)
		if unsure {
			assert.Equal(t, "an hour", string(c.Receive().Payload))
		}
		assert.Equal(t, "for ever", string(c.Receive().Payload))
		require.NoError(t, b.Close())
	}
}

// Where the file of a running broker is damaged, it may have lost what the broker still has in memory.
func TestWhatIsLostOnDiskIsWrittenAgain(t *testing.T) {
	t.Parallel()
	s := journaltest.New()
	b := keeping(t, s, nil)
	away, present := lasting("bed-1", "away", 5), lasting("bed-1", "present", 5)
	c := brokertest.Dial(t, b, brokertest.TCP, away)
	require.Equal(t, byte(1), c.Subscribe("devices/bed-1/commands", 1))
	require.Equal(t, byte(1), c.Subscribe("devices/bed-1/more", 1))
	c.Close()
	require.Equal(t, byte(1), brokertest.Dial(t, b, brokertest.TCP, present).Subscribe("devices/bed-1/commands", 1))
	sender := brokertest.Dial(t, b, brokertest.TCP, as("bed-1", 5))
	send(t, sender, retain("devices/bed-1/a", "retained"))
	s.Lose()
	require.Eventually(t, func() bool { sessions, _, retained, _ := s.Counts(); return sessions == 2 && retained == 1 },
		brokertest.Patience, time.Millisecond)

	s.Lose() // and a stop before the clock comes round
	require.NoError(t, b.Close())
	b = keeping(t, s.Crash(), nil)
	assert.Equal(t, 1, b.RetainedCount())
	sender = brokertest.Dial(t, b, brokertest.TCP, b.AsBackend())
	for _, topic := range []string{"devices/bed-1/commands", "devices/bed-1/more"} {
		require.Zero(t, sender.Publish(topic, topic, 1))
	}
	c, again := brokertest.TryDial(t, b, brokertest.TCP, away)
	require.True(t, again.SessionPresent)
	assert.Equal(t, []string{"devices/bed-1/commands", "devices/bed-1/more"}, texts(c, 2))
	c, again = brokertest.TryDial(t, b, brokertest.TCP, present)
	require.True(t, again.SessionPresent)
	assert.Equal(t, []string{"devices/bed-1/commands"}, texts(c, 1))
}

// A session that is in a batch for two reasons is as it was when the disk refuses that.
func TestWhatIsAcknowledgedGoesFromTheDiskAfterARefusal(t *testing.T) {
	t.Parallel()
	s := journaltest.New()
	b := keeping(t, s, nil)
	c := brokertest.Dial(t, b, brokertest.TCP, lasting("bed-1", "esp", 5))
	require.Equal(t, byte(1), c.Subscribe("devices/bed-1/commands", 1))
	sender := brokertest.Dial(t, b, brokertest.TCP, b.AsBackend())
	require.Zero(t, sender.Publish("devices/bed-1/commands", "x", 1))
	message := c.Await(packets.Publish) // not acknowledged
	waiting := func() int { _, queues, _, _ := s.Counts(); return queues }
	require.Equal(t, 1, waiting())

	held, goOn, refused := make(chan struct{}), make(chan struct{}), make(chan struct{})
	batches := 0
	s.Before(func(*journal.Batch) error {
		switch batches++; batches {
		case 1:
			close(held)
			<-goOn
		case 2:
			close(refused)
			return fmt.Errorf("the disk is full")
		}
		return nil
	})
	other := brokertest.Dial(t, b, brokertest.TCP, as("bed-2", 5))
	pk := packets.Packet{FixedHeader: packets.FixedHeader{Type: packets.Publish, Qos: 1}, PacketID: 60_000}
	retain("devices/bed-2/a", "something else")(&pk)
	other.Send(pk)
	<-held
	c.Acknowledge(message)
	c.Ping()
	require.Eventually(t, b.LazyDue, brokertest.Patience, time.Millisecond)
	c.Send(packets.Packet{FixedHeader: packets.FixedHeader{Type: packets.Subscribe, Qos: 1}, PacketID: 60_000,
		Filters: packets.Subscriptions{{Filter: "devices/bed-1/more", Qos: 1}}})
	require.Eventually(t, func() bool { return b.Charged()["bed-1"]().Subscriptions > 1 }, brokertest.Patience, time.Millisecond)
	close(goOn)
	<-refused
	require.Eventually(t, func() bool { return waiting() == 0 }, brokertest.Patience, time.Millisecond)
}
