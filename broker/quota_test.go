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
)

// limited starts a broker with ingest topics whose accounts are bed-1 and bed-2.
func limited(t *testing.T, limits broker.Limits) *brokertest.Broker {
	t.Helper()
	b := brokertest.Listen(t, func(o *broker.Options) {
		o.Limits, o.IngestTopics = brokertest.Limits(limits), []string{"devices/+/telemetry"}
	}, brokertest.Device("bed-1"), brokertest.Device("bed-2"))
	require.NoError(t, b.Start())
	b.AdmitDevices()
	return b
}

func TestConnectionsAboveTheQuotaAreRefused(t *testing.T) {
	b := limited(t, broker.Limits{MaxConnectionsPerAccount: 2})
	everyWay(t, func(t *testing.T, kind brokertest.Kind, version byte) {
		before := b.Stats().Refused["too many connections of the account"]
		one, two := brokertest.Dial(t, b, kind, as("bed-1", version)), brokertest.Dial(t, b, kind, as("bed-1", version))
		_, ack := brokertest.TryDial(t, b, kind, as("bed-1", version))
		assert.Equal(t, map[byte]byte{4: 3, 5: 0x97}[version], ack.ReasonCode)
		brokertest.Dial(t, b, kind, as("bed-2", version)).Disconnect()
		assert.Equal(t, before+1, b.Stats().Refused["too many connections of the account"])
		two.Disconnect()
		awaitHeld(t, b, "bed-1", broker.Held{Sessions: 1, Connections: 1})
		brokertest.Dial(t, b, kind, as("bed-1", version)).Close()
		one.Disconnect()
		awaitHeld(t, b, "bed-1", broker.Held{})
	})
	assert.Len(t, b.Log.Lines("refused", "user=bed-1", `rule="limits.max_connections_per_account: 2"`), 1)
}

func TestATakeoverNeedsNoRoom(t *testing.T) {
	b := limited(t, broker.Limits{MaxConnectionsPerAccount: 1, MaxSessionsPerAccount: 1})
	old := brokertest.Dial(t, b, brokertest.TCP, lasting("bed-1", "esp", 5))
	brokertest.Dial(t, b, brokertest.TLS, lasting("bed-1", "esp", 5))
	assert.Equal(t, byte(0x8E), old.AwaitClosed())
	awaitHeld(t, b, "bed-1", broker.Held{Sessions: 1, Connections: 1})
}

func TestSessionsAboveTheQuotaAreRefusedAndNoneIsEnded(t *testing.T) {
	for reason, limits := range map[string]broker.Limits{
		"too many sessions of the account": {MaxSessionsPerAccount: 2},
		"too many sessions":                {MaxSessions: 3},
	} {
		b := limited(t, limits)
		ingest(t, b, 5)
		everyWay(t, func(t *testing.T, kind brokertest.Kind, version byte) {
			login := func(i int) brokertest.Login { return lasting("bed-1", fmt.Sprint("esp-", i), version) }
			for i := range 2 {
				brokertest.Dial(t, b, kind, login(i)).Disconnect()
			}
			for i := range 2 { // also as a new connection without a lasting session
				over := login(9)
				over.Resume = i == 0
				_, ack := brokertest.TryDial(t, b, kind, over)
				assert.Equal(t, map[byte]byte{4: 3, 5: 0x97}[version], ack.ReasonCode, reason)
			}
			c, ack := brokertest.TryDial(t, b, kind, login(0))
			assert.True(t, ack.SessionPresent, "those that exist go on")
			c.Disconnect()
			for i := range 2 {
				clean := login(i)
				clean.Resume, clean.Properties.SessionExpiryInterval = false, 0
				brokertest.Dial(t, b, kind, clean).Disconnect()
			}
			awaitHeld(t, b, "bed-1", broker.Held{})
		})
		assert.Equal(t, int64(12), b.Stats().Refused[reason])
	}
}

func TestSubscriptionsAboveTheQuotaAreRefusedOneByOne(t *testing.T) {
	b := limited(t, broker.Limits{MaxSubscriptionsPerAccount: 3})
	everyWay(t, func(t *testing.T, kind brokertest.Kind, version byte) {
		over := map[byte]byte{4: 0x80, 5: 0x97}[version]
		other := brokertest.Dial(t, b, kind, as("bed-1", version))
		require.Equal(t, byte(1), other.Subscribe("devices/bed-1/other", 1))
		c := brokertest.Dial(t, b, kind, as("bed-1", version))
		subscribe := func(filters ...string) []byte {
			pk := packets.Packet{FixedHeader: packets.FixedHeader{Type: packets.Subscribe, Qos: 1}, PacketID: 50}
			for _, f := range filters {
				pk.Filters = append(pk.Filters, packets.Subscription{Filter: f, Qos: 1})
			}
			c.Send(pk)
			return c.Await(packets.Suback).ReasonCodes
		}
		denied := map[byte]byte{4: 0x80, 5: 0x87}[version]
		assert.Equal(t, []byte{1, denied, 1, over}, subscribe("devices/bed-1/a", "devices/bed-2/a", "devices/bed-1/b/+/#", "devices/bed-1/b/+"))
		assert.Equal(t, []byte{1, 1}, subscribe("devices/bed-1/a", "devices/bed-1/a"), "what exists needs no room")
		require.Equal(t, byte(1), brokertest.Dial(t, b, kind, as("bed-2", version)).Subscribe("devices/bed-2/a", 1))

		require.Equal(t, byte(0), other.Publish("devices/bed-1/b/x", "one", 1))
		assert.Equal(t, "one", string(c.Receive().Payload), "the refusal has not hurt the other filter")
		c.Send(packets.Packet{FixedHeader: packets.FixedHeader{Type: packets.Unsubscribe, Qos: 1}, PacketID: 51,
			Filters: packets.Subscriptions{{Filter: "devices/bed-1/a"}, {Filter: "devices/bed-1/never"}}})
		c.Await(packets.Unsuback)
		assert.Equal(t, []byte{1, over}, subscribe("devices/bed-1/c", "devices/bed-1/d"))
		require.Less(t, other.Publish("devices/bed-1/d", "two", 1), byte(0x80), "nobody reads it, which MQTT 5 says")
		c.AwaitNoMessage()
		c.Disconnect()
		other.Close()
		awaitHeld(t, b, "bed-1", broker.Held{})
	})
	assert.Equal(t, int64(12), b.Stats().Refused["too many subscriptions of the account"])
	assert.NotEmpty(t, b.Log.Lines("refused", "user=bed-1", `rule="limits.max_subscriptions_per_account: 3"`))
}

// A will waits for the end of its client, or longer: it is charged like a message that waits.
func TestLargeWillsAreInTheQuota(t *testing.T) {
	b := limited(t, broker.Limits{MaxQueuedBytesPerAccount: 64 << 10})
	everyWay(t, func(t *testing.T, kind brokertest.Kind, version byte) {
		login := func(i, size int) brokertest.Login {
			l := as("bed-1", version)
			l.ClientID = fmt.Sprint("mortal-", i)
			l.Will = &brokertest.Will{Topic: "devices/bed-1/status", Payload: strings.Repeat("x", size)}
			return l
		}
		var all []*brokertest.Client
		for i := range 4 {
			all = append(all, brokertest.Dial(t, b, kind, login(i, 20_000)))
		}
		_, ack := brokertest.TryDial(t, b, kind, login(4, 20_000))
		assert.Equal(t, map[byte]byte{4: 3, 5: 0x97}[version], ack.ReasonCode)
		all = append(all, brokertest.Dial(t, b, kind, login(5, 200)))
		all[0].Disconnect() // its will is not wanted any more
		require.Eventually(t, func() bool {
			c, ack := brokertest.TryDial(t, b, kind, login(0, 20_000))
			all[0] = c
			return ack.ReasonCode == 0
		}, brokertest.Patience, 10*time.Millisecond)
		for _, c := range all {
			c.Close()
		}
		awaitHeld(t, b, "bed-1", broker.Held{})
	})
	assert.NotEmpty(t, b.Log.Lines("refused", "user=bed-1", `reason="too much waits for the account"`, `rule=limits.max_queued_bytes_per_account`))
}

// A filter costs the index a node for each of its levels.
func TestADeepFilterCountsForSeveral(t *testing.T) {
	b := limited(t, broker.Limits{MaxSubscriptionsPerAccount: 10})
	c := brokertest.Dial(t, b, brokertest.TCP, as("bed-1", 5))
	deep := "devices/bed-1" + strings.Repeat("/+", 15)
	require.Equal(t, byte(1), c.Subscribe("devices/bed-1/a/b/c/d/e/f", 1))
	require.Equal(t, byte(1), c.Subscribe(deep, 1), "17 levels are three eights, begun: nine")
	assert.Equal(t, byte(0x97), c.Subscribe("devices/bed-1/a", 1))
	c.Send(packets.Packet{FixedHeader: packets.FixedHeader{Type: packets.Unsubscribe, Qos: 1}, PacketID: 51, Filters: packets.Subscriptions{{Filter: deep}}})
	c.Await(packets.Unsuback)
	assert.Equal(t, byte(0x97), c.Subscribe(deep+strings.Repeat("/+", 8), 1))
	assert.Equal(t, byte(1), c.Subscribe(deep, 1))
	c.Disconnect()
	awaitHeld(t, b, "bed-1", broker.Held{})
}

// sendRetained sends a message to be retained and returns the reason code of its acknowledgement; ended says that the
// connection was closed instead.
func sendRetained(c *brokertest.Client, topic, payload string, qos byte) (code byte, ended bool) {
	pk := packets.Packet{FixedHeader: packets.FixedHeader{Type: packets.Publish, Qos: qos, Retain: true}, TopicName: topic, Payload: []byte(payload)}
	if qos > 0 {
		pk.PacketID = 60_000
	}
	c.Send(pk)
	if qos == 0 {
		c.Ping()
		return 0, false
	}
	return c.AwaitAckOrEnd(map[byte]byte{1: packets.Puback, 2: packets.Pubrec}[qos])
}

func TestARetainedMessageThatCannotBeKeptIsRefused(t *testing.T) {
	const own, all = "too many retained messages of the account", "too many retained messages"
	for reason, limit := range map[string]int{own: 2, all: 100} {
		b := limited(t, broker.Limits{MaxRetainedPerAccount: limit})
		ingest(t, b, 5)
		watcher := brokertest.Dial(t, b, brokertest.TCP, b.AsBackend())
		require.Equal(t, byte(1), watcher.Subscribe("devices/bed-1/state/#", 1))
		watcher.Ping() // the retained messages have come, none
		for i := range 2 {
			c := brokertest.Dial(t, b, brokertest.TCP, as("bed-1", 5))
			code, _ := sendRetained(c, fmt.Sprint("devices/bed-1/state/", i), "kept", 1)
			require.Zero(t, code)
			watcher.Receive()
		}
		if reason == all {
			b.FillRetained(0)
		}
		everyWay(t, func(t *testing.T, kind brokertest.Kind, version byte) {
			for qos := range byte(3) {
				c := brokertest.Dial(t, b, kind, as("bed-1", version))
				code, _ := sendRetained(c, "devices/bed-1/state/1", "newer", 1)
				require.Zero(t, code, "what is there may be replaced")
				assert.Equal(t, "newer", string(watcher.Receive().Payload))
				before := b.Stats()
				code, ended := sendRetained(c, "devices/bed-1/state/9", "over", qos)
				switch {
				case qos == 0:
				case version == 5:
					assert.Equal(t, byte(0x97), code)
				default:
					assert.True(t, ended, "an acknowledgement would mean success")
				}
				watcher.AwaitNoMessage()
				assert.Equal(t, before.Refused[reason]+1, b.Stats().Refused[reason])
				assert.Equal(t, before.Ingest.Devices["bed-1"].Refused+1, b.Stats().Ingest.Devices["bed-1"].Refused)
				c.Close()
			}
		})
		assert.NotEmpty(t, b.Log.Lines("refused", `reason="`+reason+`"`, "user=bed-1", "topic=devices/bed-1/state/9"))
		if reason == own {
			assert.NotEmpty(t, b.Log.Lines("refused", `rule="limits.max_retained_per_account: 2"`))
			code, _ := sendRetained(brokertest.Dial(t, b, brokertest.TCP, as("bed-2", 5)), "devices/bed-2/state", "kept", 1)
			assert.Zero(t, code, "another account has its own")
		}
		c := brokertest.Dial(t, b, brokertest.TCP, as("bed-1", 5))
		code, _ := sendRetained(c, "devices/bed-1/state/1", "", 1)
		require.Zero(t, code)
		code, _ = sendRetained(c, "devices/bed-1/state/9", "fits now", 1)
		assert.Zero(t, code)
	}
}

func TestAReadingIsStoredAlsoWhereItCannotBeRetained(t *testing.T) {
	b := limited(t, broker.Limits{MaxRetainedPerAccount: 1})
	subscriber := ingest(t, b, 5)
	c := brokertest.Dial(t, b, brokertest.TCP, as("bed-1", 4))
	code, _ := sendRetained(c, "devices/bed-1/state", "kept", 1)
	require.Zero(t, code)
	everyWay(t, func(t *testing.T, kind brokertest.Kind, version byte) {
		before := b.Stats()
		c := brokertest.Dial(t, b, kind, as("bed-1", version))
		c.Send(packets.Packet{FixedHeader: packets.FixedHeader{Type: packets.Publish, Qos: 1, Retain: true}, PacketID: 1, TopicName: telemetry, Payload: []byte("{}")})
		subscriber.Receive()
		assert.Zero(t, c.Await(packets.Puback).ReasonCode, "it is stored")
		after := b.Stats()
		assert.Equal(t, before.Refused["too many retained messages of the account"]+1, after.Refused["too many retained messages of the account"])
		assert.Equal(t, before.Ingest.Refused, after.Ingest.Refused, "each message has one outcome")
	})
	assert.Equal(t, 1, b.RetainedCount())
}

func TestAWillThatCannotBeRetainedIsRefused(t *testing.T) {
	b := limited(t, broker.Limits{MaxRetainedPerAccount: 1})
	subscriber := ingest(t, b, 5)
	watcher := brokertest.Dial(t, b, brokertest.TCP, b.AsBackend())
	require.Equal(t, byte(1), watcher.Subscribe("devices/bed-1/#", 1))
	watcher.Ping() // the retained messages have come, none
	_, _ = sendRetained(brokertest.Dial(t, b, brokertest.TCP, as("bed-1", 4)), "devices/bed-1/state", "kept", 1)
	watcher.Receive()
	for i, topic := range []string{"devices/bed-1/status", telemetry} {
		login := as("bed-1", 4)
		login.Will = &brokertest.Will{Topic: topic, Payload: "offline", QoS: 1, Retain: true}
		brokertest.Dial(t, b, brokertest.TCP, login).Close()
		require.Eventually(t, func() bool { return b.Stats().Refused["too many retained messages of the account"] == int64(i+1) },
			brokertest.Patience, time.Millisecond)
	}
	assert.Equal(t, telemetry, subscriber.Receive().TopicName, "what is to be stored is stored")
	assert.Equal(t, telemetry, watcher.Receive().TopicName)
	assert.Equal(t, 1, b.RetainedCount())
}

func TestWhatWaitsForAnAccountIsBounded(t *testing.T) {
	const limit = 1 << 20
	for rule, limits := range map[string]broker.Limits{
		"limits.max_queued_bytes_per_account": {MaxQueuedBytesPerAccount: limit},
		"limits.max_queued_bytes":             {MaxQueuedBytes: limit},
	} {
		b := limited(t, limits)
		subscriber := ingest(t, b, 5)
		const sessions, messages = 40, 20
		payload := string(make([]byte, 10_000)) // 8 MB in all
		for i := range sessions {
			c := brokertest.Dial(t, b, brokertest.TCP, lasting("bed-1", fmt.Sprint("esp-", i), 4))
			require.Equal(t, byte(1), c.Subscribe("devices/bed-1/commands", 1))
			if i%2 == 0 {
				c.Disconnect()
			} // the others do not acknowledge
		}
		reader := brokertest.Dial(t, b, brokertest.TCP, as("bed-1", 4))
		require.Equal(t, byte(1), reader.Subscribe("devices/bed-1/commands", 1))
		sender := brokertest.Dial(t, b, brokertest.TCP, b.AsBackend())
		for range messages {
			require.Equal(t, byte(0), sender.Publish("devices/bed-1/commands", payload, 1))
		}
		charged := b.Charged()["bed-1"]
		assert.LessOrEqual(t, charged().Queued, limit+(sessions/2+1)*len(payload)*3/2, "each connection may have one on its way: %s", rule)
		assert.Greater(t, charged().Queued, limit/4, "what was on its way may have gone, and is not what waits")
		assert.Eventually(t, func() bool { return charged().Queued <= limit+len(payload)+2000 }, brokertest.Patience, time.Millisecond, rule)
		assert.Greater(t, b.Stats().Dropped, int64(sessions))
		assert.NotEmpty(t, b.Log.Lines("session ended", `reason="too much waits for the account"`, "user=bed-1", "rule="+rule))

		other := brokertest.Dial(t, b, brokertest.TCP, as("bed-2", 4))
		require.Equal(t, byte(1), other.Subscribe("devices/bed-2/commands", 1))
		require.Equal(t, byte(0), sender.Publish("devices/bed-2/commands", payload, 1))
		other.Receive()
		sender.SendPublish("devices/bed-2/telemetry", payload, 1)
		subscriber.Receive()

		b.Accounts.Remove("bed-1")
		b.Disconnect("bed-1", "removed")
		require.Eventually(t, func() bool { _, queued := b.Counted(); return queued == 0 }, brokertest.Patience, time.Millisecond)
	}
}

// It may have a little on its way.
func TestAClientThatReadsIsServedAlthoughTooMuchWaitsForItsAccount(t *testing.T) {
	b := limited(t, broker.Limits{MaxQueuedBytesPerAccount: 256 << 10})
	brokertest.Deaf(t, b, withID("bed-1", "deaf"), "devices/bed-1/commands", 0)
	sender := brokertest.Dial(t, b, brokertest.TCP, b.AsBackend())
	payload := string(make([]byte, 200_000))
	for b.Stats().Dropped == 0 {
		require.Equal(t, byte(0), sender.Publish("devices/bed-1/commands", payload, 1))
	}
	reader := brokertest.Dial(t, b, brokertest.TCP, as("bed-1", 4))
	for qos := range byte(3) {
		require.Equal(t, qos, reader.Subscribe("devices/bed-1/other", qos))
		for range 100 {
			require.Equal(t, byte(0), sender.Publish("devices/bed-1/other", "on", qos))
			reader.Receive()
			reader.Ping() // its acknowledgement has arrived
		}
	}
}

// awaitHeld waits until an account is charged for that and nothing else.
func awaitHeld(t *testing.T, b *brokertest.Broker, account string, want broker.Held) {
	t.Helper()
	held := b.Charged()[account]
	require.Eventually(t, func() bool { return held() == want }, brokertest.Patience, time.Millisecond, "%+v", held())
}

// Whatever happens at the same time, in the end each account is charged for what it has.
func TestQuotasAreCountedExactly(t *testing.T) {
	b := brokertest.Listen(t, func(o *broker.Options) {
		o.Limits = brokertest.Limits(broker.Limits{MaxConnectionsPerAccount: 8, MaxSessionsPerAccount: 12, MaxSessions: 30,
			MaxSubscriptionsPerAccount: 20, MaxRetainedPerAccount: 10, MaxQueuedBytesPerAccount: 64 << 10, MaxQueuedBytes: 128 << 10})
	})
	require.NoError(t, b.Start())
	b.AdmitDevices()
	accounts := []string{"bed-1", "bed-2", "bed-3"}
	for _, name := range accounts {
		b.Accounts.Set(brokertest.Device(name))
	}
	var all sync.WaitGroup
	for seed := range uint64(8) {
		all.Go(func() {
			r := rand.New(rand.NewPCG(seed, 1))
			for range 60 {
				oneOf(r, t, b, accounts)
			}
		})
	}
	all.Go(func() { // rights come and go meanwhile
		r := rand.New(rand.NewPCG(99, 1))
		for range 60 {
			name := accounts[r.IntN(len(accounts))]
			if r.IntN(2) == 0 {
				b.Accounts.Remove(name)
			}
			b.Disconnect(name, "for the test")
			b.Accounts.Set(brokertest.Device(name))
		}
	})
	all.Wait()
	charged := b.Charged()
	require.Eventually(t, func() bool {
		counted, queued := b.Counted()
		sum := 0
		for name, held := range charged {
			if held() != counted[name] {
				return false
			}
			sum += held().Queued
		}
		return sum == queued
	}, brokertest.Patience, 10*time.Millisecond)
	for _, name := range accounts {
		b.Accounts.Remove(name)
		b.Disconnect(name, "for the test")
	}
	for name, held := range charged {
		require.Eventually(t, func() bool { return held() == broker.Held{} }, brokertest.Patience, time.Millisecond, "%s: %+v", name, held())
	}
	counted, queued := b.Counted()
	for name, held := range counted { // connections that linger
		assert.Zero(t, held, name)
	}
	assert.Empty(t, b.Charged())
	assert.Zero(t, queued)
	assert.Zero(t, b.RetainedCount())
}

// oneOf is one connection of a random account that does random things and may stay open.
func oneOf(r *rand.Rand, t *testing.T, b *brokertest.Broker, accounts []string) {
	name := accounts[r.IntN(len(accounts))]
	login := withID(name, fmt.Sprint(name, "-", r.IntN(16)))
	if r.IntN(8) == 0 {
		login.Password = "guess"
	}
	login.Version, login.Resume = byte(4+r.IntN(2)), r.IntN(2) == 0
	login.Properties.SessionExpiryInterval, login.Properties.SessionExpiryIntervalFlag = uint32(r.IntN(2)), true
	if r.IntN(2) == 0 {
		login.Will = &brokertest.Will{Topic: "devices/" + name + "/1", Payload: "x", QoS: 1, Retain: true}
	}
	c := brokertest.Open(t, b, brokertest.Kinds[r.IntN(3)], nil)
	c.SendConnect(login)
	for id := range r.IntN(20) {
		topic := fmt.Sprint("devices/", name, "/", r.IntN(30))
		filter := packets.Subscriptions{{Filter: topic, Qos: byte(r.IntN(3))}}
		switch r.IntN(4) {
		case 0:
			c.Send(packets.Packet{FixedHeader: packets.FixedHeader{Type: packets.Subscribe, Qos: 1}, PacketID: uint16(id + 1), Filters: filter})
		case 1:
			c.Send(packets.Packet{FixedHeader: packets.FixedHeader{Type: packets.Unsubscribe, Qos: 1}, PacketID: uint16(id + 1), Filters: filter})
		case 2:
			c.Send(packets.Packet{FixedHeader: packets.FixedHeader{Type: packets.Publish, Qos: 1, Retain: true}, PacketID: uint16(id + 1),
				TopicName: fmt.Sprint("devices/", name, "/", r.IntN(10)), Payload: []byte("x")})
		case 3:
			c.SendPublish(topic, string(make([]byte, r.IntN(20_000))), byte(r.IntN(2)))
		}
	}
	switch r.IntN(3) {
	case 0:
		c.Close()
	case 1:
		c.Send(packets.Packet{FixedHeader: packets.FixedHeader{Type: packets.Disconnect}})
	}
}
