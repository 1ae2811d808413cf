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

func TestAPassIsGoodOnceAndForTheBackendAlone(t *testing.T) {
	b := brokertest.Start(t, brokertest.Device("bed-1"))
	user, pass := b.Pass()
	_, other := b.Pass()
	assert.NotEqual(t, pass, other)
	login := brokertest.Login{User: "bed-1", Password: pass, Version: 5}
	_, ack := brokertest.TryDial(t, b, brokertest.TLS, login)
	assert.Equal(t, byte(0x86), ack.ReasonCode)
	login.User = user
	c := brokertest.Dial(t, b, brokertest.TLS, login)
	assert.Equal(t, byte(0), c.Subscribe("$SYS/#", 0), "it may read everything")
	_, ack = brokertest.TryDial(t, b, brokertest.TLS, login)
	assert.Equal(t, byte(0x86), ack.ReasonCode, "it was used")
	login.Password, login.ClientID = other, b.Backend.ClientID
	_, ack = brokertest.TryDial(t, b, brokertest.TLS, login)
	assert.Equal(t, byte(0x86), ack.ReasonCode, "only this process acknowledges what is stored")
	login.ClientID = ""
	assert.Equal(t, byte(0), brokertest.Dial(t, b, brokertest.TLS, login).Subscribe("devices/#", 0), "the other pass was not used")
}

func TestSessionsAreListedAndEnded(t *testing.T) {
	b := withIngest(t, 0, brokertest.Device("bed-1"), brokertest.Device("bed-2"))
	ingest(t, b, 5)
	away := lasting("bed-1", "away", 5)
	away.Properties.SessionExpiryInterval, away.Properties.SessionExpiryIntervalFlag = 3600, true
	c := brokertest.Dial(t, b, brokertest.TCP, away)
	require.Equal(t, byte(1), c.Subscribe("devices/bed-1/#", 1))
	c.Disconnect()
	c.AwaitClosed()
	here := brokertest.Dial(t, b, brokertest.TLS, withID("bed-2", "here"))
	require.Equal(t, byte(0), here.Subscribe("devices/bed-2/#", 0))
	sender := brokertest.Dial(t, b, brokertest.TCP, b.AsBackend())
	sender.Publish("devices/bed-1/a", "12345", 1)
	sender.Disconnect()
	sender.AwaitClosed()

	var list []broker.SessionInfo
	require.Eventually(t, func() bool { list = b.Sessions(); return len(list) == 2 }, brokertest.Patience, time.Millisecond)
	assert.Equal(t, "away", list[0].Client)
	assert.Equal(t, "bed-1", list[0].Account)
	assert.False(t, list[0].Connected)
	assert.Equal(t, []int{1, 1, 0}, []int{list[0].Subscriptions, list[0].Waiting, list[0].InFlight})
	assert.Positive(t, list[0].Bytes)
	assert.InDelta(t, time.Hour, list[0].Expiry, float64(time.Minute))
	assert.WithinDuration(t, time.Now(), list[0].Since, time.Minute)
	assert.Equal(t, "here", list[1].Client)
	assert.True(t, list[1].Connected)
	assert.Equal(t, "tls", list[1].Listener)
	assert.NotEmpty(t, list[1].Remote)
	assert.Zero(t, list[1].Expiry)

	assert.False(t, b.EndSession("nobody"))
	assert.False(t, b.EndSession(b.Backend.ClientID), "nothing that is to be stored is lost")
	assert.True(t, b.EndSession("here"))
	here.AwaitClosed()
	assert.True(t, b.EndSession("away"))
	assert.Empty(t, b.Sessions())
	c, ack := brokertest.TryDial(t, b, brokertest.TCP, away)
	assert.False(t, ack.SessionPresent)
	c.AwaitNoMessage()
	assert.Equal(t, int64(0), b.Stats().Ingest.Pending)
}

func TestRetainedMessagesAreListedAndClearedAsIfPublished(t *testing.T) {
	b := withIngest(t, 0, brokertest.Device("bed-1"))
	storing := ingest(t, b, 5)
	sender := brokertest.Dial(t, b, brokertest.TCP, as("bed-1", 5))
	for _, topic := range []string{"devices/bed-1/a", "devices/bed-1/b", telemetry} {
		sender.Send(packets.Packet{FixedHeader: packets.FixedHeader{Type: packets.Publish, Retain: true}, TopicName: topic, Payload: []byte("1")})
	}
	storing.Receive()
	sender.Ping()
	watcher := brokertest.Dial(t, b, brokertest.TCP, b.AsBackend())
	require.Equal(t, byte(1), watcher.Subscribe("devices/#", 1))
	for range 3 {
		assert.True(t, watcher.Receive().FixedHeader.Retain)
	}

	list := b.Retained("#", 10)
	require.Len(t, list, 3)
	assert.Equal(t, "devices/bed-1/a", list[0].Topic)
	assert.Equal(t, "bed-1", list[0].Account)
	assert.Equal(t, 1, list[0].Bytes)
	assert.Len(t, b.Retained("#", 2), 2)
	assert.Empty(t, b.Retained("other/#", 2))

	assert.Equal(t, 1, b.ClearRetained("devices/+/a"))
	assert.Equal(t, 2, b.ClearRetained("devices/#"))
	assert.Equal(t, 0, b.ClearRetained("#"))
	for _, topic := range []string{"devices/bed-1/a", "devices/bed-1/b", telemetry} {
		pk := watcher.Receive()
		assert.Equal(t, topic, pk.TopicName)
		assert.Empty(t, pk.Payload)
		assert.False(t, pk.FixedHeader.Retain, "[MQTT-3.3.1-9]")
	}
	storing.AwaitNoMessage()
	assert.Equal(t, broker.Held{Sessions: 1, Connections: 1}, b.Charged()["bed-1"]())
}
