package broker_test

import (
	"cmp"
	"fmt"
	"testing"
	"time"

	"github.com/mochi-mqtt/server/v2/packets"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/plantops/plantops/broker"
	"github.com/plantops/plantops/broker/brokertest"
)

const (
	telemetry = "devices/bed-1/telemetry"
	shortly   = 100 * time.Millisecond // a stall timeout that a test waits for
)

// withIngest starts a broker whose telemetry must be stored. stall 0 is that of the default configuration.
func withIngest(t *testing.T, stall time.Duration, accounts ...brokertest.Account) *brokertest.Broker {
	t.Helper()
	b := brokertest.Listen(t, func(o *broker.Options) {
		o.IngestTopics, o.StallTimeout = []string{"devices/+/telemetry", "devices/+/heartbeat"}, cmp.Or(stall, o.StallTimeout)
	}, accounts...)
	require.NoError(t, b.Start())
	b.AdmitDevices()
	return b
}

// ingest connects the backend's subscriber, which acknowledges only what the test tells it to.
func ingest(t *testing.T, b *brokertest.Broker, version byte) *brokertest.Client {
	t.Helper()
	c := brokertest.Dial(t, b, brokertest.TLS, b.AsIngest(version))
	require.Equal(t, byte(1), c.Subscribe("devices/+/telemetry", 1))
	require.Equal(t, byte(1), c.Subscribe("devices/+/heartbeat", 1))
	return c
}

// readingsOf is so many messages, to be read together.
func readingsOf(t *testing.T, version byte, topic string, qos byte, n int) []byte {
	return brokertest.Record(t, version, func(c *brokertest.Client) {
		for range n {
			c.SendPublish(topic, "{}", qos)
		}
	})
}

func TestNothingIsAcknowledgedBeforeIngestHasAcknowledgedIt(t *testing.T) {
	b := withIngest(t, 0, brokertest.Device("bed-1"))
	for _, ingestVersion := range []byte{4, 5} {
		subscriber := ingest(t, b, ingestVersion)
		everyWay(t, func(t *testing.T, kind brokertest.Kind, version byte) {
			for qos, ack := range map[byte]byte{1: packets.Puback, 2: packets.Pubrec} {
				device := brokertest.Dial(t, b, kind, as("bed-1", version))
				id := device.SendPublish(telemetry, "{}", qos)
				message := subscriber.Await(packets.Publish)
				assert.Equal(t, byte(1), message.FixedHeader.Qos)
				device.AwaitNone(ack)
				assert.Equal(t, int64(1), b.Stats().Ingest.Pending)
				subscriber.Acknowledge(message)
				assert.Equal(t, id, device.Await(ack).PacketID)
				assert.Zero(t, b.Stats().Ingest.Pending)
				device.Disconnect()
			}
		})
		subscriber.Disconnect()
	}
}

func TestQoS0IsDeliveredToIngestForAcknowledgement(t *testing.T) {
	b := withIngest(t, 0, brokertest.Device("bed-1"))
	subscriber := ingest(t, b, 5)
	watcher := watch(t, b, brokertest.TCP)
	device := brokertest.Dial(t, b, brokertest.TCP, brokertest.As("bed-1"))
	device.SendPublish(telemetry, "{}", 0)
	assert.Equal(t, byte(0), watcher.Receive().FixedHeader.Qos, "others get it as it was sent")
	message := subscriber.Await(packets.Publish)
	assert.Equal(t, byte(1), message.FixedHeader.Qos)
	subscriber.Close()
	subscriber = brokertest.Dial(t, b, brokertest.TLS, b.AsIngest(5))
	message = subscriber.Await(packets.Publish)
	assert.True(t, message.FixedHeader.Dup, "and it comes again")
	subscriber.Acknowledge(message)
	require.NoError(t, b.Drain(t.Context()))
}

func TestAcknowledgementsKeepTheOrderOfTheMessages(t *testing.T) {
	b := withIngest(t, 0, brokertest.Device("bed-1"))
	subscriber := ingest(t, b, 5)
	for qos, ack := range map[byte]byte{1: packets.Puback, 2: packets.Pubrec} {
		device := brokertest.Dial(t, b, brokertest.TCP, as("bed-1", 5))
		var want, got []string
		for i, topic := range []string{telemetry, "devices/bed-2/telemetry", "devices/bed-1/other", telemetry, "devices/bed-2/x"} {
			id := device.SendPublish(topic, "{}", qos)
			want = append(want, fmt.Sprintf("%d %#x", id, []byte{0, 0x87, 0x10, 0, 0x87}[i]))
		}
		first, second := subscriber.Await(packets.Publish), subscriber.Await(packets.Publish)
		subscriber.Acknowledge(second)
		subscriber.Ping()
		device.AwaitNone(ack) // the first holds them all up
		subscriber.Acknowledge(first)
		for range want {
			pk := device.Await(ack)
			got = append(got, fmt.Sprintf("%d %#x", pk.PacketID, pk.ReasonCode))
		}
		assert.Equal(t, want, got)
	}
}

func TestWhatIsNotStoredInTimeIsNeverAcknowledged(t *testing.T) {
	t.Parallel()
	b := withIngest(t, shortly, brokertest.Device("bed-1"))
	subscriber := ingest(t, b, 5)
	for _, away := range []bool{false, true} {
		if away {
			subscriber.Close()
		}
		everyWay(t, func(t *testing.T, kind brokertest.Kind, version byte) {
			for qos, ack := range map[byte]byte{1: packets.Puback, 2: packets.Pubrec} {
				device := brokertest.Dial(t, b, kind, as("bed-1", version))
				device.SendPublish(telemetry, "{}", qos)
				code := device.AwaitClosed()
				assert.False(t, device.Has(ack))
				if version == 5 {
					assert.Equal(t, byte(0x97), code)
				}
			}
		})
	}
	assert.NotZero(t, b.Stats().Refused["not stored in time"])
	assert.Equal(t, int64(24), b.Stats().Ingest.Pending, "they are not lost either")
	subscriber = brokertest.Dial(t, b, brokertest.TLS, b.AsIngest(5))
	for range 24 {
		subscriber.Receive()
	}
	require.NoError(t, b.Drain(t.Context()))
}

func TestWithoutASubscriptionOfIngestSendersAreSentAway(t *testing.T) {
	t.Parallel()
	b := withIngest(t, shortly, brokertest.Device("bed-1"))
	for qos := byte(1); qos <= 2; qos++ {
		device := brokertest.Dial(t, b, brokertest.TCP, as("bed-1", 5))
		device.SendPublish(telemetry, "{}", qos)
		assert.Equal(t, byte(0x97), device.AwaitClosed())
		assert.False(t, device.Has(packets.Puback) || device.Has(packets.Pubrec))
	}
	assert.Zero(t, b.Stats().Ingest.Received)
}

// What was read and is acknowledged to nobody is stored or refused and counted, also what was read together with the message
// that had to wait.
func TestAReadingOfQoS0ThatWasReadIsInTheEquation(t *testing.T) {
	t.Parallel()
	everyWay(t, func(t *testing.T, kind brokertest.Kind, version byte) {
		b := withIngest(t, shortly, brokertest.Device("bed-1")) // ingest is not there
		device := brokertest.Dial(t, b, kind, as("bed-1", version))
		const readings = 20
		device.SendBytes(readingsOf(t, version, telemetry, 0, readings))
		if code := device.AwaitClosed(); version == 5 {
			assert.Equal(t, byte(0x97), code)
		}
		require.Eventually(t, func() bool { return b.Stats().Connected == 0 }, brokertest.Patience, time.Millisecond)
		want := broker.DeviceStats{Received: readings, Refused: readings}
		assert.Equal(t, want, b.Stats().Ingest.Devices["bed-1"])
		assert.Equal(t, int64(readings+1), b.Stats().Refused["not stored in time"], "and the connection")
	})
}

func TestAQoS2MessageIsStoredOnceHoweverOftenItIsSent(t *testing.T) {
	t.Parallel()
	b := withIngest(t, shortly, brokertest.Device("bed-1"))
	for _, version := range []byte{4, 5} {
		subscriber := ingest(t, b, version)
		login := as("bed-1", version)
		login.ClientID, login.Resume = fmt.Sprint("esp", version), true
		login.Properties.SessionExpiryInterval, login.Properties.SessionExpiryIntervalFlag = 100, true
		message := packets.Packet{FixedHeader: packets.FixedHeader{Type: packets.Publish, Qos: 2}, PacketID: 7, TopicName: telemetry, Payload: []byte("{}")}
		device := brokertest.Dial(t, b, brokertest.TCP, login)
		device.Send(message)
		device.AwaitClosed() // it was not stored in time

		message.FixedHeader.Dup = true
		device = brokertest.Dial(t, b, brokertest.TCP, login)
		device.Send(message)
		subscriber.Receive()
		assert.Equal(t, byte(0), device.Await(packets.Pubrec).ReasonCode)
		device.Send(message) // its PUBREC was lost
		assert.Equal(t, byte(0), device.Await(packets.Pubrec).ReasonCode)
		device.Send(packets.Packet{FixedHeader: packets.FixedHeader{Type: packets.Pubrel, Qos: 1}, PacketID: 7})
		device.Await(packets.Pubcomp)
		subscriber.AwaitNoMessage()
		device.Send(packets.Packet{FixedHeader: packets.FixedHeader{Type: packets.Pubrel, Qos: 1}, PacketID: 7})
		assert.Equal(t, byte(0), device.Await(packets.Pubcomp).ReasonCode, "its PUBCOMP was lost")
		subscriber.Disconnect()
	}
}

func TestARestartedDeviceMayUseAPacketIDAgain(t *testing.T) {
	b := withIngest(t, 0, brokertest.Device("bed-1"))
	subscriber := ingest(t, b, 5)
	for _, version := range []byte{4, 5} {
		login := lasting("bed-1", fmt.Sprint("esp", version), version)
		message := packets.Packet{FixedHeader: packets.FixedHeader{Type: packets.Publish, Qos: 2}, PacketID: 1, TopicName: telemetry}
		for _, payload := range []string{`{"temperature":1}`, `{"temperature":2}`} {
			device := brokertest.Dial(t, b, brokertest.TCP, login)
			message.Payload = []byte(payload)
			device.Send(message) // without DUP
			assert.Equal(t, payload, string(subscriber.Receive().Payload), "what is acknowledged is stored")
			device.Await(packets.Pubrec)
			device.Close() // before it says PUBREL, and it forgets everything
		}
	}
}

func TestWhenIngestLosesItsSessionTheSendersRepeat(t *testing.T) {
	b := withIngest(t, 0, brokertest.Device("bed-1"))
	login := b.AsIngest(4)
	login.Resume = false
	subscriber := brokertest.Dial(t, b, brokertest.TCP, login)
	require.Equal(t, byte(1), subscriber.Subscribe("devices/+/telemetry", 1))
	device := brokertest.Dial(t, b, brokertest.TCP, as("bed-1", 5))
	device.SendPublish(telemetry, "{}", 1)
	subscriber.Await(packets.Publish)
	subscriber.Close()
	assert.Equal(t, byte(0x97), device.AwaitClosed())
	assert.False(t, device.Has(packets.Puback))
	require.NoError(t, b.Drain(t.Context()))
	assert.Zero(t, b.Stats().Ingest.Received, "the sender has it still")
}

func TestSendersWaitForCredits(t *testing.T) {
	t.Parallel()
	const flood, credits = 20_000, 128 // nothing was stored yet
	b := withIngest(t, 0, brokertest.Device("bed-1"), brokertest.Device("bed-2"))
	subscriber := ingest(t, b, 5)
	device := brokertest.Dial(t, b, brokertest.TCP, as("bed-1", 4))
	go func() {
		for i := range flood {
			device.SendPublish(telemetry, fmt.Sprint(i), 0)
		}
	}()
	require.Eventually(t, func() bool { return b.Stats().Ingest.Pending == credits }, brokertest.Patience, time.Millisecond)
	other := brokertest.Dial(t, b, brokertest.TCP, as("bed-2", 4))
	other.SendPublish("devices/bed-2/heartbeat", "", 1)
	assert.Equal(t, int64(credits), b.Stats().Ingest.Pending)
	var last string
	for range flood + 1 {
		if pk := subscriber.Receive(); pk.TopicName == telemetry {
			last = string(pk.Payload)
		}
	}
	assert.Equal(t, fmt.Sprint(flood-1), last)
	other.Await(packets.Puback)
	require.NoError(t, b.Drain(t.Context()))
	assert.Equal(t, int64(flood+1), b.Stats().Ingest.Received)
}

// A queue that is as long as the store is fast is no stall, whoever fills it.
func TestAStoreThatIsSlowEndsNoConnection(t *testing.T) {
	t.Parallel()
	// What the flood has would wait for 13 s. What is let in waits for 4 s, so a busy machine may lose 8 s now and then.
	b := withIngest(t, 12*time.Second, brokertest.Device("bed-1"), brokertest.Device("bed-2"))
	subscriber := ingest(t, b, 5)
	const flood, devices, each = 6600, 50, 40
	var all []*brokertest.Client
	for range devices {
		all = append(all, brokertest.Dial(t, b, brokertest.TCP, as("bed-1", 4)))
	}
	brokertest.Dial(t, b, brokertest.TCP, as("bed-2", 4)).SendBytes(readingsOf(t, 4, "devices/bed-2/telemetry", 0, flood))
	for before := int64(-1); before != b.Stats().Ingest.Pending || before == 0; { // until the flood gets no further
		before = b.Stats().Ingest.Pending
		for _, device := range all {
			device.Ping()
		}
	}
	for i, device := range all {
		device.SendBytes(readingsOf(t, 4, telemetry, byte(i%2), each))
	}
	tick := time.NewTicker(80 * time.Millisecond) // a store of 500 messages a second
	defer tick.Stop()
	for range (flood + devices*each) / 40 {
		<-tick.C
		for range 40 {
			subscriber.Acknowledge(subscriber.Await(packets.Publish))
		}
	}
	for i, device := range all {
		for range each * (i % 2) {
			device.Await(packets.Puback)
		}
		device.Ping()
	}
	require.NoError(t, b.Drain(t.Context()))
	assert.Equal(t, int64(flood+devices*each), b.Stats().Ingest.Received)
	assert.Zero(t, b.Stats().Ingest.Refused)
}

func TestWhoWaitsForACreditMayLeave(t *testing.T) {
	b := withIngest(t, 3*brokertest.Patience, brokertest.Device("bed-1"))
	login := withID("bed-1", "esp")
	device := brokertest.Dial(t, b, brokertest.TCP, login) // nobody is subscribed: there is no credit
	device.SendPublish(telemetry, "{}", 2)
	brokertest.Dial(t, b, brokertest.TCP, login).Ping() // a newer connection does not wait for the older one's credit
	device.AwaitClosed()
	assert.Zero(t, b.Stats().Ingest.Pending)
}

func TestTheDoorCountsEveryMessageOnce(t *testing.T) {
	b := withIngest(t, 0, brokertest.Device("bed-1"), brokertest.Device("bed-2"))
	subscriber := ingest(t, b, 5)
	device := brokertest.Dial(t, b, brokertest.TCP, as("bed-1", 5))
	device.SendPublish(telemetry, "1", 1)
	device.SendPublish(telemetry, "2", 0)
	device.SendPublish("devices/bed-2/telemetry", "forged", 1)
	device.SendPublish("devices/bed-1/other", "not for ingest", 0)
	subscriber.Await(packets.Publish)
	subscriber.Await(packets.Publish)
	device.Ping()
	assert.Equal(t, map[string]broker.DeviceStats{"bed-1": {Received: 3, Refused: 1, Pending: 2}}, b.Stats().Ingest.Devices)
	subscriber.Close()
	subscriber = brokertest.Dial(t, b, brokertest.TLS, b.AsIngest(5))
	subscriber.Receive()
	subscriber.Receive()
	require.NoError(t, b.Drain(t.Context()))
	assert.Equal(t, map[string]broker.DeviceStats{"bed-1": {Received: 3, Refused: 1}}, b.Stats().Ingest.Devices)
}

func TestProbe(t *testing.T) {
	b := withIngest(t, 0, brokertest.Device("bed-1"))
	require.ErrorContains(t, b.Probe(t.Context()), "nobody is subscribed")
	subscriber := ingest(t, b, 5)
	require.Equal(t, byte(1), subscriber.Subscribe(broker.ProbeTopic, 1))
	done := make(chan error, 1)
	go func() { done <- b.Probe(t.Context()) }()
	message := subscriber.Await(packets.Publish)
	assert.Equal(t, broker.ProbeTopic, message.TopicName)
	assert.Empty(t, done)
	subscriber.Acknowledge(message)
	require.NoError(t, <-done)
	assert.Zero(t, b.Stats().Ingest.Received)

	backend := brokertest.Dial(t, b, brokertest.TCP, b.AsBackend())
	for _, filter := range []string{broker.ProbeTopic, "$plantops/#", "$share/g/$plantops/#"} {
		assert.Equal(t, byte(0x80), backend.Subscribe(filter, 1), filter)
	}
	backend.SendPublish(broker.ProbeTopic, "", 1)
	backend.AwaitClosed()
}
