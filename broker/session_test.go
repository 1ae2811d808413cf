package broker_test

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/mochi-mqtt/server/v2/packets"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/plantops/plantops/broker"
	"github.com/plantops/plantops/broker/brokertest"
	"github.com/plantops/plantops/certs/certstest"
)

func TestListenSaysWhatItOpens(t *testing.T) {
	b := brokertest.Listen(t, nil)
	port := func(a net.Addr) string { return strconv.Itoa(a.(*net.TCPAddr).Port) }
	for _, line := range []string{
		"Opening ipv4 listen socket on port " + port(b.Addrs().TCP) + ".",
		"Opening ipv4 listen socket on port " + port(b.Addrs().TLS) + ".",
		"Opening websockets listen socket on port " + port(b.Addrs().WebSocket) + ".",
	} {
		assert.Len(t, b.Log.Lines("level=INFO", `msg="`+line+`"`), 1, line)
	}
}

func TestListenNamesEveryAddressThatFailsAndKeepsNone(t *testing.T) {
	busy, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	defer busy.Close()
	free, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	require.NoError(t, free.Close())

	_, err = broker.Listen(broker.Options{TCP: free.Addr().String(), TLS: busy.Addr().String(), WebSocket: "256.0.0.1:1",
		TLSConfig: certstest.New(t).ServerTLS(), Limits: brokertest.Limits(broker.Limits{}), StallTimeout: time.Second})
	require.ErrorContains(t, err, busy.Addr().String())
	require.ErrorContains(t, err, "256.0.0.1")
	again, err := net.Listen("tcp", free.Addr().String())
	require.NoError(t, err, "nothing stays bound")
	require.NoError(t, again.Close())
}

func TestClientsWaitUntilDevicesAreAdmitted(t *testing.T) {
	b := brokertest.Listen(t, nil, brokertest.Device("bed-1"))
	require.NoError(t, b.Start())
	device := brokertest.Open(t, b, brokertest.TLS, nil)
	device.SendConnect(brokertest.As("bed-1"))
	stranger, ack := brokertest.TryDial(t, b, brokertest.TLS, brokertest.Login{User: "bed-1", Password: "guess"})
	assert.Equal(t, byte(5), ack.ReasonCode, "who is refused need not wait")
	stranger.Close()

	ingest := b.AsBackend()
	ingest.ClientID = b.Backend.ClientID
	subscriber := brokertest.Dial(t, b, brokertest.TLS, ingest)
	require.Equal(t, byte(1), subscriber.Subscribe("devices/+/telemetry", 1))
	assert.Equal(t, 1, b.Stats().Connected)

	b.AdmitDevices()
	require.Equal(t, byte(0), device.Await(packets.Connack).ReasonCode)
	require.Equal(t, byte(0), device.Publish("devices/bed-1/telemetry", "{}", 1))
	subscriber.Receive()
	assert.Equal(t, 2, b.Stats().Connected)
}

func TestDisconnectDevicesLeavesTheSubscriberAndPublishesNoWills(t *testing.T) {
	b := brokertest.Start(t, brokertest.Device("bed-1"), brokertest.Device("bed-2"))
	ingest := b.AsBackend()
	ingest.ClientID = b.Backend.ClientID
	subscriber := brokertest.Dial(t, b, brokertest.TLS, ingest)
	require.Equal(t, byte(1), subscriber.Subscribe("#", 1))
	login := as("bed-1", 5)
	login.Will = &brokertest.Will{Topic: "devices/bed-1/status", Payload: "offline", QoS: 1}
	v5 := brokertest.Dial(t, b, brokertest.TCP, login)
	v3 := brokertest.Dial(t, b, brokertest.WebSocket, as("bed-2", 4))

	ctx, cancel := context.WithTimeout(t.Context(), brokertest.Patience)
	defer cancel()
	require.NoError(t, b.DisconnectDevices(ctx))
	assert.Equal(t, byte(0x8B), v5.AwaitClosed())
	assert.Equal(t, byte(0), v3.AwaitClosed(), "MQTT 3.1.1 has no DISCONNECT from the server")
	_, ack := brokertest.TryDial(t, b, brokertest.TCP, as("bed-1", 5))
	assert.Equal(t, byte(0x8B), ack.ReasonCode)
	_, ack = brokertest.TryDial(t, b, brokertest.TCP, as("bed-1", 4))
	assert.Equal(t, byte(3), ack.ReasonCode)
	subscriber.AwaitNoMessage()
	assert.Equal(t, 1, b.Stats().Connected)
}

func TestAWillIsPublishedWhenItsDeviceIsLost(t *testing.T) {
	b := brokertest.Start(t, brokertest.Device("bed-1"))
	everyWay(t, func(t *testing.T, kind brokertest.Kind, version byte) {
		watcher := watch(t, b, kind)
		login := as("bed-1", version)
		login.Will = &brokertest.Will{Topic: "devices/bed-1/status", Payload: "offline", QoS: 1}
		brokertest.Dial(t, b, kind, login).Disconnect()
		watcher.AwaitNoMessage()
		brokertest.Dial(t, b, kind, login).Close()
		assert.Equal(t, "devices/bed-1/status", watcher.Receive().TopicName)
	})
}

func TestAWillObeysTheRulesOfTheMoment(t *testing.T) {
	b := brokertest.Start(t, brokertest.Device("bed-1"))
	watcher := watch(t, b, brokertest.TCP)
	login := as("bed-1", 4)
	login.Will = &brokertest.Will{Topic: "devices/bed-1/status", Payload: "offline", QoS: 1}
	c := brokertest.Dial(t, b, brokertest.TCP, login)
	narrower := brokertest.Device("bed-1")
	narrower.Publish = []string{"devices/bed-1/telemetry"}
	b.Accounts.Set(narrower)
	c.Close()
	require.Eventually(t, func() bool { return b.Stats().Connected == 1 }, brokertest.Patience, time.Millisecond)
	watcher.AwaitNoMessage()
	assert.Equal(t, int64(1), b.Stats().Refused["will not allowed"])
}

func TestDisconnectEndsSessionsAndForgetsWhatTheyHeld(t *testing.T) {
	b := brokertest.Start(t, brokertest.Device("bed-1"), brokertest.Device("bed-2"))
	watcher := watch(t, b, brokertest.TCP)
	stored := as("bed-1", 4)
	stored.ClientID, stored.Resume = "stored", true
	c := brokertest.Dial(t, b, brokertest.TCP, stored)
	require.Equal(t, byte(1), c.Subscribe("devices/bed-1/commands/#", 1))
	c.Disconnect()
	require.Eventually(t, func() bool { return b.Stats().Connected == 1 }, brokertest.Patience, time.Millisecond)
	require.Equal(t, byte(0), watcher.Publish("devices/bed-1/commands/pump", "on", 1)) // waits for the stored session

	login := as("bed-1", 5)
	login.Will = &brokertest.Will{Topic: "devices/bed-1/status", Payload: "offline", QoS: 1}
	v5 := brokertest.Dial(t, b, brokertest.TLS, login)
	live := stored
	live.ClientID = "live"
	v3 := brokertest.Dial(t, b, brokertest.WebSocket, live)
	require.Equal(t, byte(1), v3.Subscribe("devices/bed-1/commands/#", 1))
	other := brokertest.Dial(t, b, brokertest.TCP, as("bed-2", 4))
	watcher.Receive() // its own command

	b.Accounts.Remove("bed-1")
	assert.Equal(t, 2, b.Disconnect("bed-1", "device removed"))
	assert.Equal(t, byte(0x98), v5.AwaitClosed())
	v3.AwaitClosed()
	watcher.AwaitNoMessage() // an account that is no more has no will
	other.Ping()
	_, ack := brokertest.TryDial(t, b, brokertest.TCP, stored)
	assert.Equal(t, byte(5), ack.ReasonCode)

	b.Accounts.Set(brokertest.Device("bed-1"))
	for _, login := range []brokertest.Login{stored, live} {
		again, ack := brokertest.TryDial(t, b, brokertest.TCP, login)
		require.Equal(t, byte(0), ack.ReasonCode)
		assert.False(t, ack.SessionPresent, login.ClientID)
		require.Equal(t, byte(0), watcher.Publish("devices/bed-1/commands/pump", "off", 1))
		again.AwaitNoMessage() // neither the queue nor the subscription is left
	}
}

func TestASessionIsItsAccountsAlone(t *testing.T) {
	b := brokertest.Start(t, brokertest.Device("bed-1"), brokertest.Device("bed-2"))
	everyWay(t, func(t *testing.T, kind brokertest.Kind, version byte) {
		mine := as("bed-1", version)
		mine.ClientID, mine.Resume = fmt.Sprintf("esp-%s-%d", kind, version), true
		mine.Properties.SessionExpiryInterval, mine.Properties.SessionExpiryIntervalFlag = 100, true
		theirs := mine
		theirs.User, theirs.Password = "bed-2", brokertest.Password("bed-2")
		wrong := mine
		wrong.Password = "guess"

		c := brokertest.Dial(t, b, kind, mine)
		require.Equal(t, byte(1), c.Subscribe("devices/bed-1/commands/#", 1))
		_, ack := brokertest.TryDial(t, b, kind, theirs)
		assert.NotZero(t, ack.ReasonCode)
		_, ack = brokertest.TryDial(t, b, kind, wrong)
		assert.NotZero(t, ack.ReasonCode)
		c.Ping() // neither threw it out

		c.Disconnect()
		_, ack = brokertest.TryDial(t, b, kind, theirs)
		assert.NotZero(t, ack.ReasonCode, "a stored session too")
		sender := brokertest.Dial(t, b, kind, as("bed-1", version))
		require.Equal(t, byte(0), sender.Publish("devices/bed-1/commands/pump", "on", 1))
		c, ack = brokertest.TryDial(t, b, kind, mine)
		assert.True(t, ack.SessionPresent)
		assert.Equal(t, "on", string(c.Receive().Payload))
	})
	assert.Equal(t, int64(12), b.Stats().Refused["session belongs to another account"])
}

func TestTheNewerConnectionOfAClientIDWins(t *testing.T) {
	b := brokertest.Start(t, brokertest.Device("bed-1"))
	login := withID("bed-1", "esp")
	login.Version = 5
	old := brokertest.Dial(t, b, brokertest.TCP, login)
	brokertest.Dial(t, b, brokertest.TLS, login)
	assert.Equal(t, byte(0x8E), old.AwaitClosed())
}

func TestNoConnectionIsDeafAfterFastReconnects(t *testing.T) {
	b := brokertest.Start(t, brokertest.Device("bed-1"))
	login := withID("bed-1", "esp")
	for range 100 {
		brokertest.Dial(t, b, brokertest.TCP, login).Close() // a clean session each time: mochi would delete the next one's
		c := brokertest.Dial(t, b, brokertest.TCP, login)
		require.Equal(t, byte(1), c.Subscribe("devices/bed-1/#", 1))
		require.Equal(t, byte(0), c.Publish("devices/bed-1/telemetry", "{}", 1))
		c.Receive()
	}
}

func TestOfManyAtOnceWithOneClientIDOneStays(t *testing.T) {
	b := brokertest.Start(t, brokertest.Device("bed-1"))
	for range 5 {
		clients := make([]*brokertest.Client, 20)
		var all sync.WaitGroup
		for i := range clients {
			clients[i] = brokertest.Open(t, b, brokertest.TCP, nil)
			all.Go(func() { clients[i].SendConnect(withID("bed-1", "esp")) })
		}
		all.Wait()
		open := func() []*brokertest.Client {
			return slices.DeleteFunc(slices.Clone(clients), (*brokertest.Client).Ended)
		}
		require.Eventually(t, func() bool { return len(open()) == 1 }, brokertest.Patience, time.Millisecond)
		last := open()[0]
		require.Equal(t, byte(0), last.Await(packets.Connack).ReasonCode)
		require.Equal(t, byte(1), last.Subscribe("devices/bed-1/#", 1))
		require.Equal(t, byte(0), last.Publish("devices/bed-1/telemetry", "{}", 1))
		last.Receive()
	}
}

// A subscriber with a Receive Maximum hangs mochi within a second under load: the whole topic, then the broker.
func TestReceiveMaximumOfASubscriberDoesNotStopTheBroker(t *testing.T) {
	b := brokertest.Start(t, brokertest.Device("bed-1"))
	login := b.AsBackend()
	login.Version, login.Properties.ReceiveMaximum = 5, 1
	subscriber := brokertest.Dial(t, b, brokertest.TCP, login)
	require.Equal(t, byte(1), subscriber.Subscribe("devices/+/telemetry", 1))
	const publishers, each = 4, 1000
	var all sync.WaitGroup
	for range publishers {
		c := brokertest.Dial(t, b, brokertest.TCP, as("bed-1", 5))
		all.Go(func() {
			for range each {
				c.Publish("devices/bed-1/telemetry", "{}", 1)
			}
		})
	}
	for range publishers * each {
		subscriber.Receive()
	}
	all.Wait()
}

func TestWhatIsTooLargeForAClientIsLeftOut(t *testing.T) {
	b := brokertest.Start(t, brokertest.Device("bed-1"))
	login := withID("bed-1", "small")
	login.Version, login.Resume = 5, true
	login.Properties.SessionExpiryInterval, login.Properties.SessionExpiryIntervalFlag = 100, true
	c := brokertest.Dial(t, b, brokertest.TCP, login)
	require.Equal(t, byte(1), c.Subscribe("devices/bed-1/#", 1))
	c.Disconnect()
	sender := brokertest.Dial(t, b, brokertest.TCP, as("bed-1", 5))
	large := string(make([]byte, 1000))
	send := func() {
		require.Equal(t, byte(0), sender.Publish("devices/bed-1/a", large, 1))
		require.Equal(t, byte(0), sender.Publish("devices/bed-1/b", "fits", 1))
	}
	send()
	login.Properties.MaximumPacketSize = 200
	c, ack := brokertest.TryDial(t, b, brokertest.TCP, login)
	require.True(t, ack.SessionPresent)
	assert.Equal(t, "fits", string(c.Receive().Payload), "waiting")
	send()
	assert.Equal(t, "fits", string(c.Receive().Payload), "live")
	c.Disconnect()
	c, _ = brokertest.TryDial(t, b, brokertest.TCP, login)
	c.AwaitNoMessage()
}

func TestStatsTellWhoIsConnected(t *testing.T) {
	b := brokertest.Start(t, brokertest.Device("bed-1"))
	c := brokertest.Dial(t, b, brokertest.TLS, withID("bed-1", "esp"))
	require.Equal(t, byte(0), c.Publish("devices/bed-1/telemetry", "{}", 1))
	s := b.Stats()
	require.Len(t, s.Clients, 1)
	assert.Equal(t, []any{"esp", "bed-1", "tls", byte(4)}, []any{s.Clients[0].ID, s.Clients[0].User, s.Clients[0].Listener, s.Clients[0].Version})
	assert.Equal(t, map[string]int{"tls": 1}, s.ByListener)
	assert.Equal(t, int64(1), s.PublishReceived)
	assert.Positive(t, s.BytesReceived)
	assert.NotEmpty(t, b.Log.Lines("level=INFO", "client connected", "user=bed-1", "client=esp", "listener=tls"))
	c.Disconnect()
	require.Eventually(t, func() bool { return len(b.Log.Lines("level=INFO", "client disconnected", "client=esp")) == 1 }, brokertest.Patience, time.Millisecond)
	require.Eventually(t, func() bool { return b.Stats().Connected == 0 }, brokertest.Patience, time.Millisecond) // a moment after the line
}

func TestCloseEndsConnectionsAndMayBeCalledTwice(t *testing.T) {
	b := brokertest.Start(t, brokertest.Device("bed-1"))
	c := brokertest.Dial(t, b, brokertest.TCP, as("bed-1", 5))
	brokertest.Open(t, b, brokertest.TCP, nil) // mochi alone would wait for this one for ever
	require.NoError(t, b.Close())
	assert.Equal(t, byte(0x8B), c.AwaitClosed())
	require.NoError(t, b.Close())
	select {
	case err := <-b.Died():
		require.NoError(t, err, "closing is not dying")
	default:
	}
}

// racing is an Accounts in which an account is removed at the worst moment: its password has just been found right.
type racing struct {
	*brokertest.Accounts
	during func()
}

func (r racing) Authenticate(user string, password []byte, w broker.Wait) (broker.Account, bool) {
	account, ok := r.Accounts.Authenticate(user, password, w)
	r.during()
	return account, ok
}

func TestNoLoginSlipsPastARemoval(t *testing.T) {
	var b *brokertest.Broker
	b = brokertest.Listen(t, func(o *broker.Options) {
		o.Accounts = racing{o.Accounts.(*brokertest.Accounts), func() {
			b.Accounts.Remove("bed-1")
			b.Disconnect("bed-1", "device removed")
		}}
	}, brokertest.Device("bed-1"))
	require.NoError(t, b.Start())
	b.AdmitDevices()
	_, ack := brokertest.TryDial(t, b, brokertest.TCP, brokertest.As("bed-1"))
	assert.Equal(t, byte(5), ack.ReasonCode)
}

// onLine calls do once when armed, in the goroutine that logs it, when a line with the message is logged.
type onLine struct {
	slog.Handler
	message string
	armed   *atomic.Bool
	do      func()
}

func (o *onLine) Enabled(context.Context, slog.Level) bool { return true }

func (o *onLine) Handle(ctx context.Context, r slog.Record) error {
	if strings.Contains(r.Message, o.message) && o.armed.CompareAndSwap(true, false) {
		o.do()
	}
	return o.Handler.Handle(ctx, r)
}

func TestARemovalWhileASessionIsTakenUpLeavesNothing(t *testing.T) {
	t.Parallel()
	var b *brokertest.Broker
	var armed atomic.Bool
	b = brokertest.Listen(t, func(o *broker.Options) {
		o.Log = slog.New(&onLine{Handler: o.Log.Handler(), message: "client connected", armed: &armed,
			do: func() { b.Disconnect("bed-1", "device removed") }})
	}, brokertest.Device("bed-1"), brokertest.Device("bed-2"))
	require.NoError(t, b.Start())
	b.AdmitDevices()
	login := withID("bed-1", "esp")
	login.Resume = true
	c := brokertest.Dial(t, b, brokertest.TCP, login)
	require.Equal(t, byte(1), c.Subscribe("devices/bed-1/#", 1))
	c.Disconnect()
	c = brokertest.Open(t, b, brokertest.TCP, nil)
	armed.Store(true)
	c.SendConnect(login) // it has taken over the old session when Disconnect comes
	c.AwaitClosed()

	login.User, login.Password = "bed-2", brokertest.Password("bed-2")
	require.Eventually(t, func() bool { return len(b.Log.Lines("sessions ended", "count=1")) == 1 }, brokertest.Patience, time.Millisecond)
	c, ack := brokertest.TryDial(t, b, brokertest.TCP, login)
	require.Zero(t, ack.ReasonCode, "the client id is free")
	assert.False(t, ack.SessionPresent)
	sender := brokertest.Dial(t, b, brokertest.TCP, brokertest.As("bed-1"))
	require.Equal(t, byte(0), sender.Publish("devices/bed-1/telemetry", "{}", 1))
	c.AwaitNoMessage()
}

func TestAnExpiredSessionLeavesNothingBehind(t *testing.T) {
	t.Parallel()
	b := brokertest.Start(t, brokertest.Device("bed-1"), brokertest.Device("bed-2"))
	login := as("bed-1", 5)
	login.ClientID, login.Resume = "esp", true
	login.Properties.SessionExpiryInterval, login.Properties.SessionExpiryIntervalFlag = 1, true
	c := brokertest.Dial(t, b, brokertest.TCP, login)
	require.Equal(t, byte(1), c.Subscribe("devices/bed-1/commands/#", 1))
	c.Disconnect()
	other := as("bed-2", 5)
	other.ClientID = "esp"
	require.Eventually(t, func() bool {
		c, ack := brokertest.TryDial(t, b, brokertest.TCP, other)
		c.Close()
		return ack.ReasonCode == 0
	}, brokertest.Patience, 100*time.Millisecond, "the client id is free again")

	require.Eventually(t, func() bool { return b.Stats().Connected == 0 }, brokertest.Patience, time.Millisecond)
	c, ack := brokertest.TryDial(t, b, brokertest.TCP, login)
	require.Zero(t, ack.ReasonCode)
	assert.False(t, ack.SessionPresent)
	sender := brokertest.Dial(t, b, brokertest.TCP, as("bed-1", 4))
	require.Equal(t, byte(0), sender.Publish("devices/bed-1/commands/pump", "on", 1))
	c.AwaitNoMessage()
}
