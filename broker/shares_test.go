package broker_test

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/mochi-mqtt/server/v2/packets"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/plantops/plantops/broker"
	"github.com/plantops/plantops/broker/brokertest"
	"github.com/plantops/plantops/broker/journal/journaltest"
)

const jobs, sharedJobs = "devices/bed-1/jobs", "$share/g/devices/bed-1/jobs"

// worker is a member of the group who may have so many messages that it has not acknowledged.
func worker(t *testing.T, b *brokertest.Broker, id string, window uint16, qos byte) *brokertest.Client {
	t.Helper()
	login := withID("bed-1", id)
	login.Version, login.Properties.ReceiveMaximum = 5, window
	c := brokertest.Dial(t, b, brokertest.TCP, login)
	require.Equal(t, qos, c.Subscribe(sharedJobs, qos))
	return c
}

// What a member has not acknowledged, and what was never sent, others get when its session ends, in the order in which it was
// published; nothing waits for a member that does not read while another one does.
func TestWhatAMemberDoesNotAcknowledgeOthersGet(t *testing.T) {
	b := brokertest.Start(t, brokertest.Device("bed-1"))
	slow, good := worker(t, b, "slow", 3, 1), worker(t, b, "good", 1000, 1)
	sender := brokertest.Dial(t, b, brokertest.TCP, as("bed-1", 4))
	const n = 100
	for i := range n {
		require.Zero(t, sender.Publish(jobs, fmt.Sprintf("%03d", i), 1))
	}
	good.Ping()
	var own []string
	for good.Has(packets.Publish) {
		own = append(own, string(good.Receive().Payload))
	}
	require.Len(t, own, n-3)
	assert.IsIncreasing(t, own)
	slow.Close()
	assert.Equal(t, []string{"000", "002", "004"}, []string{string(good.Receive().Payload), string(good.Receive().Payload), string(good.Receive().Payload)})
	good.AwaitNoMessage()

	good.Close() // the last one
	awaitHeld(t, b, "bed-1", broker.Held{Sessions: 1, Connections: 1})
	assert.Zero(t, b.Stats().Dropped)
}

func TestAMemberThatCannotTakeTheSizeLeavesItToAnother(t *testing.T) {
	b := brokertest.Start(t, brokertest.Device("bed-1"))
	login := withID("bed-1", "small")
	login.Version, login.Properties.MaximumPacketSize = 5, 100
	small := brokertest.Dial(t, b, brokertest.TCP, login)
	require.Equal(t, byte(1), small.Subscribe(sharedJobs, 1))
	sender := brokertest.Dial(t, b, brokertest.TCP, as("bed-1", 4))
	large := string(make([]byte, 500))
	require.Zero(t, sender.Publish(jobs, large, 1))
	assert.EqualValues(t, 1, b.Stats().Dropped, "nobody can take it")

	big := worker(t, b, "big", 1, 1)
	for range 4 {
		require.Zero(t, sender.Publish(jobs, large, 1))
	}
	require.Zero(t, sender.Publish(jobs, "little", 1))
	assert.Equal(t, "little", string(small.Receive().Payload), "it does not wait behind what only the other one can take")
	for range 4 {
		assert.Len(t, big.Receive().Payload, 500)
	}
	assert.EqualValues(t, 1, b.Stats().Dropped)
}

// A member that refuses a message ends it [MQTT-4.8.2-6]; one that has begun to take it at QoS 2 may have it, and nobody else
// gets it [MQTT-4.8.2-5].
func TestWhatNoOtherMemberMayGet(t *testing.T) {
	b := brokertest.Start(t, brokertest.Device("bed-1"))
	one := worker(t, b, "one", 10, 2)
	sender := brokertest.Dial(t, b, brokertest.TCP, as("bed-1", 4))
	require.Zero(t, sender.Publish(jobs, "refused", 1))
	require.Zero(t, sender.Publish(jobs, "begun", 2))
	require.Zero(t, sender.Publish(jobs, "again", 1))
	pk := one.Await(packets.Publish)
	one.Send(packets.Packet{FixedHeader: packets.FixedHeader{Type: packets.Puback}, PacketID: pk.PacketID, ReasonCode: 0x80})
	other := worker(t, b, "other", 10, 2)
	one.Ping()
	one.Close()
	assert.Equal(t, "again", string(other.Receive().Payload))
	other.AwaitNoMessage()
}

// With members that are away and nobody there the group's messages wait, charged to an account, for whoever comes first.
func TestMessagesWaitForAGroupThatIsAway(t *testing.T) {
	b := brokertest.Start(t, brokertest.Device("bed-1"))
	away := brokertest.Dial(t, b, brokertest.TCP, lasting("bed-1", "away", 5))
	require.Equal(t, byte(1), away.Subscribe(sharedJobs, 1))
	away.Disconnect()
	awaitHeld(t, b, "bed-1", broker.Held{Sessions: 1, Subscriptions: 1}) // what it was sent until then would wait for its return
	sender := brokertest.Dial(t, b, brokertest.TCP, as("bed-1", 4))
	for i := range 40 {
		require.Zero(t, sender.Publish(jobs, fmt.Sprintf("%02d", i), 1))
	}
	require.Zero(t, sender.Publish(jobs, "not for those who are away", 0))
	sender.Ping()
	assert.GreaterOrEqual(t, b.Charged()["bed-1"]().Queued, 8<<10)
	first := worker(t, b, "first", 100, 1)
	for i := range 40 {
		require.Equal(t, fmt.Sprintf("%02d", i), string(first.Receive().Payload))
	}
	first.Ping()
	first.AwaitNoMessage()
	awaitHeld(t, b, "bed-1", broker.Held{Sessions: 3, Connections: 2, Subscriptions: 2})
	brokertest.Dial(t, b, brokertest.TCP, withID("bed-1", "away")).AwaitNoMessage()
}

// Members come and go, with sessions that last and that do not, and acknowledge or not: while one lives, whatever was
// acknowledged to its publisher reaches somebody.
func TestNoAcknowledgedMessageIsLostWhileAMemberLives(t *testing.T) {
	b := brokertest.Start(t, brokertest.Device("bed-1"))
	living := worker(t, b, "living", 20, 1)
	const publishers, n, visitors = 2, 600, 4
	var mu sync.Mutex
	got := map[string]bool{}
	note := func(pk packets.Packet) {
		mu.Lock()
		defer mu.Unlock()
		got[string(pk.Payload)] = true
	}
	all := func() bool {
		mu.Lock()
		defer mu.Unlock()
		return len(got) == publishers*n
	}
	var publishing, working sync.WaitGroup
	for p := range publishers {
		sender := brokertest.Dial(t, b, brokertest.TCP, as("bed-1", 4))
		publishing.Go(func() {
			for i := range n {
				sender.Publish(jobs, fmt.Sprint(p, "/", i), 1)
			}
		})
	}
	stop := make(chan struct{})
	for v := range visitors {
		working.Go(func() {
			random := rand.New(rand.NewPCG(uint64(v), 1))
			for round := 0; ; round++ {
				select {
				case <-stop:
					return
				default:
				}
				login := lasting("bed-1", fmt.Sprint("visitor-", v), 5)
				if random.IntN(2) == 0 {
					login = withID("bed-1", fmt.Sprint("visitor-", v))
					login.Version = 5
				}
				login.Properties.ReceiveMaximum = uint16(1 + random.IntN(5))
				c := brokertest.Dial(t, b, brokertest.TCP, login)
				c.Subscribe(sharedJobs, 1)
				for range random.IntN(8) {
					c.Ping()
					if c.Has(packets.Publish) {
						pk := c.Await(packets.Publish)
						if random.IntN(3) > 0 {
							note(pk) // before it is acknowledged
							c.Acknowledge(pk)
						}
					}
				}
				c.Close()
			}
		})
	}
	publishing.Wait()
	close(stop)
	working.Wait()
	for v := range visitors { // the sessions that last end: what they have goes to the one that lives
		brokertest.Dial(t, b, brokertest.TCP, withID("bed-1", fmt.Sprint("visitor-", v))).Disconnect()
	}
	for deadline := time.Now().Add(brokertest.Patience); !all() && time.Now().Before(deadline); {
		if living.Ping(); living.Has(packets.Publish) {
			pk := living.Await(packets.Publish)
			note(pk)
			living.Acknowledge(pk)
		}
	}
	assert.Len(t, got, publishers*n)
	assert.Zero(t, b.Stats().Dropped)
}

// A group that has much waiting slows its publishers down, as long as somebody takes something.
func TestPublishersWaitForAGroupThatIsBehind(t *testing.T) {
	b := brokertest.Start(t, brokertest.Device("bed-1"))
	worker(t, b, "deaf", 1, 1)
	good := worker(t, b, "good", 50, 1)
	const n = 20_000
	go func() {
		c := brokertest.Dial(t, b, brokertest.TCP, as("bed-1", 4))
		c.SendBytes(brokertest.Record(t, 4, func(c *brokertest.Client) {
			for i := range n {
				c.SendPublish(jobs, fmt.Sprint(i), 1)
			}
		}))
	}()
	for range n - 1 {
		good.Receive()
	}
	assert.Zero(t, b.Stats().Dropped)
}

func TestMembersThatKeepUpTakeTurns(t *testing.T) {
	b := brokertest.Start(t, brokertest.Device("bed-1"))
	sender := brokertest.Dial(t, b, brokertest.TCP, as("bed-1", 4))
	var members []*brokertest.Client
	for i := range 3 {
		members = append(members, worker(t, b, fmt.Sprint("w", i), 10, byte(i)))
	}
	for range 9 {
		require.Zero(t, sender.Publish(jobs, "x", 1))
	}
	for i, c := range members {
		for range 3 {
			assert.Equal(t, byte(min(i, 1)), c.Receive().FixedHeader.Qos)
		}
		c.AwaitNoMessage()
	}
}

// A message that is acknowledged waits for a member that can have it: not for one that is away and gets it at QoS 0, or that may
// not read it.
func TestMessagesDoNotWaitWithAMemberThatWouldNotGetThem(t *testing.T) {
	t.Parallel()
	b := keeping(t, journaltest.New(), nil)
	for i := range 3 {
		away := brokertest.Dial(t, b, brokertest.TCP, lasting("bed-1", fmt.Sprint("away-", i), 5))
		require.Equal(t, byte(0), away.Subscribe(sharedJobs, 0))
		away.Disconnect()
	}
	sender := brokertest.Dial(t, b, brokertest.TCP, as("bed-1", 4))
	require.Zero(t, sender.Publish(jobs, "nobody would get it", 1))
	small := worker(t, b, "small", 1, 1)
	const n = 50
	for i := range n {
		require.Zero(t, sender.Publish(jobs, fmt.Sprintf("%02d", i), 1))
	}
	for i := range n {
		pk := small.Receive()
		require.Equal(t, fmt.Sprintf("%02d", i), string(pk.Payload))
		small.Acknowledge(pk)
	}
	small.AwaitNoMessage()
	assert.Zero(t, b.Stats().Dropped)
}

// What a group has no room for waits in the session of a member, which has a disk, and comes in order.
func TestAGroupWithoutRoomUsesTheDiskInOrder(t *testing.T) {
	t.Parallel()
	b := keeping(t, journaltest.New(), nil)
	slow := worker(t, b, "slow", 1, 1)
	const n = 12_000 // a group's queue holds 8,192
	sender := brokertest.Dial(t, b, brokertest.TCP, as("bed-1", 4))
	sender.SendBytes(brokertest.Record(t, 4, func(c *brokertest.Client) {
		for i := range n {
			c.SendPublish(jobs, fmt.Sprint(i), 1)
		}
	}))
	for range n {
		sender.Await(packets.Puback)
	}
	for i := range n {
		pk := slow.Receive()
		require.Equal(t, fmt.Sprint(i), string(pk.Payload))
		slow.Acknowledge(pk)
	}
	assert.Zero(t, b.Stats().Dropped)
}

// Where a message must wait with a member whose session is on disk, it is one that can take it, and not only the least busy.
func TestMessagesWaitWithAMemberThatCanTakeThem(t *testing.T) {
	t.Parallel()
	s := journaltest.New()
	b := keeping(t, s, nil)
	small, big := lasting("bed-1", "small", 5), lasting("bed-1", "big", 5)
	small.Properties.MaximumPacketSize, small.Properties.ReceiveMaximum = 100, 1
	big.Properties.ReceiveMaximum = 1
	for _, login := range []brokertest.Login{small, big} {
		require.Equal(t, byte(1), brokertest.Dial(t, b, brokertest.TCP, login).Subscribe(sharedJobs, 1))
	}
	sender := brokertest.Dial(t, b, brokertest.TCP, as("bed-1", 4))
	const tiny = 4 // two are sent, and for two more there is no room
	var want, got []string
	for i := range tiny + 3 {
		text := fmt.Sprint(i)
		if i >= tiny {
			text += strings.Repeat("x", 500)
			want = append(want, text)
		}
		require.Zero(t, sender.Publish(jobs, text, 1))
	}
	b, _ = crash(t, b, s, nil)
	c := brokertest.Dial(t, b, brokertest.TCP, big)
	for len(got) < len(want) {
		pk := c.Receive()
		if c.Acknowledge(pk); len(pk.Payload) > 1 {
			got = append(got, string(pk.Payload))
		}
	}
	assert.Equal(t, want, got)
}

// A member whose session ends with its connection has what it was sent in memory only.
func TestWhatAGroupWasSentIsOnDiskWhereAMemberLasts(t *testing.T) {
	t.Parallel()
	s := journaltest.New()
	b := keeping(t, s, nil)
	worker(t, b, "clean", 1000, 1)
	member := lasting("bed-1", "member", 5)
	require.Equal(t, byte(1), brokertest.Dial(t, b, brokertest.TCP, member).Subscribe(sharedJobs, 1))
	worker(t, b, "clean too", 1000, 1)
	sender := brokertest.Dial(t, b, brokertest.TCP, as("bed-1", 4))
	var want []string
	for i := range 20 { // nobody acknowledges any
		want = append(want, fmt.Sprintf("%02d", i))
		require.Zero(t, sender.Publish(jobs, want[i], 1))
	}
	b, _ = crash(t, b, s, nil)
	c, again := brokertest.TryDial(t, b, brokertest.TCP, member)
	require.True(t, again.SessionPresent)
	assert.Equal(t, want, texts(c, len(want)))
}
