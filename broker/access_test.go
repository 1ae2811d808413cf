package broker_test

import (
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

// watch subscribes the backend to everything.
func watch(t *testing.T, b *brokertest.Broker, kind brokertest.Kind) *brokertest.Client {
	t.Helper()
	c := brokertest.Dial(t, b, kind, b.AsBackend())
	require.Equal(t, byte(2), c.Subscribe("#", 2))
	return c
}

func TestDevicePublishesOnlyBelowItsOwnTopic(t *testing.T) {
	var mu sync.Mutex
	reported := map[string]int{}
	b := brokertest.Listen(t, func(o *broker.Options) {
		o.Refused = func(device, reason string) {
			mu.Lock()
			defer mu.Unlock()
			reported[device+": "+reason]++
		}
	}, brokertest.Device("bed-1"), brokertest.Device("bed-2"))
	require.NoError(t, b.Start())
	b.AdmitDevices()
	forbidden := map[string]string{
		"devices/bed-2/telemetry":  "publish not allowed",
		"devices/bed-11/telemetry": "publish not allowed",
		"devices":                  "publish not allowed",
		"$SYS/broker/version":      "reserved topic",
		"$share/g/devices/bed-1/t": "reserved topic",
	}
	everyWay(t, func(t *testing.T, kind brokertest.Kind, version byte) {
		watcher := watch(t, b, kind)
		before := b.Stats().Refused
		for topic := range forbidden {
			for qos := range byte(3) {
				c := brokertest.Dial(t, b, kind, as("bed-1", version))
				switch {
				case qos == 0:
					c.Publish(topic, "forged", 0)
					c.Ping()
				case version == 5:
					assert.Equal(t, byte(0x87), c.Publish(topic, "forged", qos), "%s QoS %d", topic, qos)
				default:
					c.SendPublish(topic, "forged", qos)
					c.AwaitClosed()
				}
			}
		}
		c := brokertest.Dial(t, b, kind, as("bed-1", version))
		for qos := range byte(3) {
			assert.Equal(t, byte(0), c.Publish("devices/bed-1/telemetry", "true", qos))
			assert.Equal(t, "true", string(watcher.Receive().Payload), "the first message that arrives is the allowed one")
		}
		watcher.AwaitNoMessage()
		after := b.Stats().Refused
		assert.Equal(t, int64(9), after["publish not allowed"]-before["publish not allowed"])
		assert.Equal(t, int64(6), after["reserved topic"]-before["reserved topic"])
	})
	mu.Lock()
	defer mu.Unlock()
	assert.Equal(t, map[string]int{"bed-1: publish not allowed": 54, "bed-1: reserved topic": 36}, reported)
	lines := b.Log.Lines("level=WARN", "refused", `reason="publish not allowed"`, "user=bed-1", "client=", "listener=", "remote=",
		"topic=devices", `rule="publish devices/bed-1/#"`)
	assert.Len(t, lines, 1, "one line a minute for one account and reason")
	assert.NotContains(t, b.Log.String(), "forged", "a payload in the log")
}

func TestDeviceSubscribesOnlyBelowItsOwnTopic(t *testing.T) {
	b := brokertest.Start(t, brokertest.Device("bed-1"), brokertest.Device("bed-2"))
	allowed := []string{"devices/bed-1/#", "devices/bed-1/commands/+", "$share/group/devices/bed-1/#"}
	forbidden := []string{"#", "+/#", "devices/+/telemetry", "devices/bed-2/#", "devices/#", "$share/group/devices/#", "$SYS/#", "$share/g/$SYS/#"}
	invalid := []string{"devices/bed-1/#/x", "devices/bed-1/a+", "$share/group", "$SHARE/g/devices/bed-1/#"}
	everyWay(t, func(t *testing.T, kind brokertest.Kind, version byte) {
		c := brokertest.Dial(t, b, kind, as("bed-1", version))
		refused, wrong := byte(0x80), byte(0x80)
		if version == 5 {
			refused, wrong = 0x87, 0x8F
		}
		for _, filter := range allowed {
			assert.Equal(t, byte(1), c.Subscribe(filter, 1), filter)
		}
		for _, filter := range forbidden {
			assert.Equal(t, refused, c.Subscribe(filter, 1), filter)
		}
		for _, filter := range invalid {
			assert.Equal(t, wrong, c.Subscribe(filter, 1), filter)
		}
		other := brokertest.Dial(t, b, kind, as("bed-2", version))
		require.Equal(t, byte(0), other.Publish("devices/bed-2/telemetry", "private", 1))
		c.AwaitNoMessage()
		assert.NotZero(t, b.Stats().Refused["subscribe not allowed"])
		assert.NotZero(t, b.Stats().Refused["invalid topic filter"])
	})
	assert.NotEmpty(t, b.Log.Lines("refused", `reason="subscribe not allowed"`, "user=bed-1", `rule="subscribe devices/bed-1/#"`))
}

func TestRulesWithNames(t *testing.T) {
	b := brokertest.Start(t, brokertest.Account{Password: "pw", Account: broker.Account{
		Name: "anna", Publish: []string{"people/%u/%c/out"}, Subscribe: []string{"people/%u/+/out", "devices/#"}}})
	everyWay(t, func(t *testing.T, kind brokertest.Kind, version byte) {
		c := brokertest.Dial(t, b, kind, brokertest.Login{User: "anna", Password: "pw", ClientID: "phone", Version: version})
		require.Equal(t, byte(1), c.Subscribe("people/anna/phone/out", 1))
		assert.Equal(t, byte(0), c.Publish("people/anna/phone/out", "hello", 1))
		assert.Equal(t, "hello", string(c.Receive().Payload))
		assert.GreaterOrEqual(t, c.Subscribe("people/+/phone/out", 1), byte(0x80))
		c.Disconnect()
	})
}

func TestOnlyAdministratorsReadSYS(t *testing.T) {
	b := brokertest.Start(t, brokertest.Account{Password: "pw", Account: broker.Account{Name: "viewer", Subscribe: []string{"#", "$SYS/#"}}})
	viewer := brokertest.Dial(t, b, brokertest.TCP, brokertest.Login{User: "viewer", Password: "pw", Version: 5})
	assert.Equal(t, byte(0x87), viewer.Subscribe("$SYS/#", 0))
	admin := brokertest.Dial(t, b, brokertest.TCP, b.AsBackend())
	assert.Equal(t, byte(0), admin.Subscribe("$SYS/#", 0))
	values := map[string]string{}
	for range broker.SystemTopics {
		pk := admin.Await(packets.Publish)
		values[pk.TopicName] = string(pk.Payload)
		assert.True(t, pk.FixedHeader.Retain)
	}
	assert.Equal(t, "2", values["$SYS/broker/clients/connected"])
	assert.Contains(t, values["$SYS/broker/uptime"], " seconds")
	admin.AwaitNoMessage() // mochi's start values are gone
}

func TestPacketsThatEndTheConnection(t *testing.T) {
	b := brokertest.Start(t, brokertest.Device("bed-1"))
	deep := "devices/bed-1" + strings.Repeat("/x", 65000/2)
	publish := func(edit func(*packets.Packet)) packets.Packet {
		pk := packets.Packet{FixedHeader: packets.FixedHeader{Type: packets.Publish, Qos: 1}, PacketID: 1,
			TopicName: "devices/bed-1/telemetry", Payload: []byte("{}")}
		edit(&pk)
		return pk
	}
	subscribe := func(sub packets.Subscription) packets.Packet {
		return packets.Packet{FixedHeader: packets.FixedHeader{Type: packets.Subscribe, Qos: 1}, PacketID: 1, Filters: packets.Subscriptions{sub}}
	}
	cases := map[string]struct {
		packet packets.Packet
		code   byte
		reason string
	}{
		"topic too deep":    {publish(func(p *packets.Packet) { p.TopicName = deep }), 0x90, "too many topic levels"},
		"topic with +":      {publish(func(p *packets.Packet) { p.TopicName = "devices/bed-1/+" }), 0x82, packets.ErrProtocolViolationSurplusWildcard.Reason},
		"topic empty":       {publish(func(p *packets.Packet) { p.TopicName = "" }), 0x82, packets.ErrProtocolViolationNoTopic.Reason},
		"filter too deep":   {subscribe(packets.Subscription{Filter: deep}), 0x8F, "too many filter levels"},
		"slashes":           {subscribe(packets.Subscription{Filter: strings.Repeat("/", 65000)}), 0x8F, "too many filter levels"},
		"shared, too deep":  {subscribe(packets.Subscription{Filter: "$share/g/" + deep}), 0x8F, "too many filter levels"},
		"second CONNECT":    {packets.Packet{FixedHeader: packets.FixedHeader{Type: packets.Connect}, Connect: packets.ConnectParams{ProtocolName: []byte("MQTT")}}, 0x82, ""},
		"unsubscribe, deep": {packets.Packet{FixedHeader: packets.FixedHeader{Type: packets.Unsubscribe, Qos: 1}, PacketID: 1, Filters: packets.Subscriptions{{Filter: deep}}}, 0x8F, "too many filter levels"},
	}
	onlyV5 := map[string]struct {
		packet packets.Packet
		code   byte
		reason string
	}{
		"unknown alias": {publish(func(p *packets.Packet) {
			p.TopicName, p.Properties.TopicAlias, p.Properties.TopicAliasFlag = "", 1, true
		}), 0x82, packets.ErrProtocolViolationNoTopic.Reason},
		"payload format 2":    {publish(func(p *packets.Packet) { p.Properties.PayloadFormat, p.Properties.PayloadFormatFlag = 2, true }), 0x81, "invalid payload format"},
		"retain handling 3":   {subscribe(packets.Subscription{Filter: "devices/bed-1/#", RetainHandling: 3}), 0x82, "invalid retain handling"},
		"AUTH without method": {packets.Packet{FixedHeader: packets.FixedHeader{Type: packets.Auth}, ReasonCode: 0x19}, 0x82, "authentication without a method"},
	}
	everyWay(t, func(t *testing.T, kind brokertest.Kind, version byte) {
		all := cases
		if version == 5 {
			for name, c := range onlyV5 {
				all[name] = c
			}
		} else {
			for name := range onlyV5 {
				delete(all, name)
			}
		}
		for name, c := range all {
			before := b.Stats().Refused[c.reason]
			client := brokertest.Dial(t, b, kind, as("bed-1", version))
			client.Send(c.packet)
			code := client.AwaitClosed()
			if version == 5 {
				assert.Equal(t, c.code, code, name)
			} else {
				assert.Zero(t, code, name)
			}
			if c.reason != "" {
				assert.Greater(t, b.Stats().Refused[c.reason], before, name)
			}
		}
	})
}

func TestATruncatedSubscribeEndsOneConnectionOnly(t *testing.T) {
	b := brokertest.Start(t, brokertest.Device("bed-1"), brokertest.Device("bed-2"))
	for _, kind := range brokertest.Kinds {
		witness := brokertest.Dial(t, b, kind, as("bed-2", 5))
		login := as("bed-1", 5)
		login.ClientID = "attacker"
		attacker := brokertest.Dial(t, b, kind, login)
		require.Equal(t, byte(0), attacker.Subscribe("devices/bed-1/#", 0))
		attacker.SendBytes([]byte{0x82, 0x06, 0x00, 0x02, 0x00, 0x00, 0x01, 'a'}) // the filter's options are missing: mochi panics
		attacker.AwaitClosed()
		witness.Ping()
		require.Eventually(t, func() bool { return b.Stats().Connected == 1 }, brokertest.Patience, time.Millisecond)
		login.User, login.Password = "bed-2", brokertest.Password("bed-2")
		brokertest.Dial(t, b, kind, login).Disconnect() // nothing is left of the session: its client id is free
		witness.Disconnect()
		require.Eventually(t, func() bool { return b.Stats().Connected == 0 }, brokertest.Patience, time.Millisecond)
	}
	assert.Equal(t, int64(3), b.Stats().Refused["malformed packet"])
}
