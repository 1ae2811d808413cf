package broker_test

import (
	"testing"
	"time"

	"github.com/mochi-mqtt/server/v2/packets"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/plantops/plantops/broker"
	"github.com/plantops/plantops/broker/brokertest"
)

func TestOnlyAGoodbyeCancelsAWill(t *testing.T) {
	b := brokertest.Start(t, brokertest.Device("bed-1"))
	watcher := watch(t, b, brokertest.TCP)
	disconnect := func(edit func(*packets.Packet)) func(*brokertest.Client) {
		return func(c *brokertest.Client) {
			pk := packets.Packet{FixedHeader: packets.FixedHeader{Type: packets.Disconnect}}
			edit(&pk)
			c.Send(pk)
			c.AwaitClosed()
		}
	}
	for name, tt := range map[string]struct {
		version byte
		leave   func(c *brokertest.Client)
		sent    bool
	}{
		"lost, 3.1.1":            {4, (*brokertest.Client).Close, true},
		"lost, 5":                {5, (*brokertest.Client).Close, true},
		"goodbye, 3.1.1":         {4, (*brokertest.Client).Disconnect, false},
		"goodbye, 5":             {5, (*brokertest.Client).Disconnect, false},
		"goodbye with will":      {5, disconnect(func(pk *packets.Packet) { pk.ReasonCode = 4; pk.Properties.ReasonString = "bye" }), true},
		"the same in short":      {5, func(c *brokertest.Client) { c.SendBytes([]byte{0xE0, 1, 4}); c.AwaitClosed() }, true},
		"goodbye with one byte":  {5, func(c *brokertest.Client) { c.SendBytes([]byte{0xE0, 1, 0}); c.AwaitClosed() }, false},
		"an error of the client": {5, func(c *brokertest.Client) { c.SendBytes([]byte{0xE0, 1, 0x80}); c.AwaitClosed() }, true},
		"a protocol error":       {5, func(c *brokertest.Client) { c.SendBytes([]byte{0x30, 2, 0, 0}); c.AwaitClosed() }, true},
	} {
		login := as("bed-1", tt.version)
		login.Will = &brokertest.Will{Topic: "devices/bed-1/status", Payload: "offline", QoS: 1}
		tt.leave(brokertest.Dial(t, b, brokertest.TCP, login))
		require.Eventually(t, func() bool { return b.Stats().Connected == 1 }, brokertest.Patience, time.Millisecond)
		watcher.Ping()
		assert.Equal(t, tt.sent, watcher.Has(packets.Publish), name)
		if tt.sent {
			watcher.Receive()
		}
	}
}

func TestAWillKeepsItsProperties(t *testing.T) {
	b := brokertest.Start(t, brokertest.Device("bed-1"))
	watcher := backend(t, b, 5)
	require.Equal(t, byte(1), watcher.SubscribeWith(packets.Subscription{Filter: "#", Qos: 1, RetainAsPublished: true}))
	login := as("bed-1", 5)
	login.Will = &brokertest.Will{Topic: "devices/bed-1/status", QoS: 1, Retain: true, Payload: "offline",
		Properties: packets.Properties{ContentType: "text/plain", User: []packets.UserProperty{{Key: "k", Val: "v"}}, MessageExpiryInterval: 100}}
	brokertest.Dial(t, b, brokertest.TCP, login).Close()
	will := watcher.Receive()
	assert.Equal(t, []any{"text/plain", []packets.UserProperty{{Key: "k", Val: "v"}}, uint32(100), true},
		[]any{will.Properties.ContentType, will.Properties.User, will.Properties.MessageExpiryInterval, will.FixedHeader.Retain})
	later := backend(t, b, 4)
	require.Equal(t, byte(1), later.Subscribe("#", 1))
	assert.Equal(t, "offline", string(later.Receive().Payload))
}

func TestADelayedWill(t *testing.T) {
	t.Parallel()
	b := brokertest.Start(t, brokertest.Device("bed-1"))
	watcher := watch(t, b, brokertest.TCP)
	login := lasting("bed-1", "esp", 5)
	login.Will = &brokertest.Will{Topic: "devices/bed-1/status", Payload: "offline", QoS: 1,
		Properties: packets.Properties{WillDelayInterval: 1}}
	began := time.Now()
	brokertest.Dial(t, b, brokertest.TCP, login).Close()
	watcher.Receive()
	assert.GreaterOrEqual(t, time.Since(began), time.Second)

	login.Will.Properties.WillDelayInterval = 1000
	brokertest.Dial(t, b, brokertest.TCP, login).Close()
	c := brokertest.Dial(t, b, brokertest.TCP, login) // back in time
	watcher.AwaitNoMessage()
	c.Close()
	require.Eventually(t, func() bool { return b.Stats().Connected == 1 }, brokertest.Patience, time.Millisecond)
	login.Resume, login.Will = false, nil
	brokertest.Dial(t, b, brokertest.TCP, login) // ends the session, which ends the delay
	watcher.Receive()
}

func TestAWillToAnIngestTopicIsStored(t *testing.T) {
	b := withIngest(t, 0, brokertest.Device("bed-1"))
	subscriber := ingest(t, b, 5)
	login := as("bed-1", 4)
	login.Will = &brokertest.Will{Topic: telemetry, Payload: "{}", QoS: 0}
	brokertest.Dial(t, b, brokertest.TCP, login).Close()
	message := subscriber.Await(packets.Publish)
	assert.Equal(t, byte(1), message.FixedHeader.Qos)
	assert.Equal(t, int64(1), b.Stats().Ingest.Pending)
	subscriber.Acknowledge(message)
	require.NoError(t, b.Drain(t.Context()))
	assert.Equal(t, int64(1), b.Stats().Ingest.Received)
}

func TestWillsThatIngestMustStoreAreBounded(t *testing.T) {
	b := withIngest(t, 0, brokertest.Device("bed-1"))
	subscriber := ingest(t, b, 5)
	login := as("bed-1", 4)
	login.Will = &brokertest.Will{Topic: telemetry, Payload: string(make([]byte, 60_000)), QoS: 1}
	const losses = 300 // 18 MB
	for range losses {
		brokertest.Dial(t, b, brokertest.TCP, login).Close()
	}
	counted := func() broker.IngestStats { return b.Stats().Ingest }
	require.Eventually(t, func() bool { return counted().Received == losses }, brokertest.Patience, time.Millisecond)
	pending := counted().Pending
	const forced = 2 * 8 << 20 // twice the bytes of credits, see force in intake.go
	assert.LessOrEqual(t, pending*int64(len(login.Will.Payload)), int64(forced), "what is taken in")
	assert.Greater(t, pending*int64(len(login.Will.Payload)), int64(forced-1<<20), "as much as there is room for")
	assert.Equal(t, losses-pending, counted().Refused)
	for range pending {
		subscriber.Receive()
	}
	require.NoError(t, b.Drain(t.Context()))
}
