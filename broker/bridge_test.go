package broker_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/plantops/plantops/broker"
	"github.com/plantops/plantops/broker/brokertest"
)

const bridgeState = "$SYS/broker/connection/farm.cloud/state"

// bridge is a login as a bridge of Mosquitto makes it, in the bytes that it sends; ways cuts them into pieces.
func bridge(t *testing.T, b *brokertest.Broker, kind brokertest.Kind, name string, version byte, pieces bool) *brokertest.Client {
	t.Helper()
	text := func(s string) string { return string([]byte{byte(len(s) >> 8), byte(len(s))}) + s }
	body := text(name) + string([]byte{version | 0x80, 0x80 | 0x40 | 0x20 | 1<<3 | 4, 0, 60}) + // will: retained, QoS 1; Clean Session 0
		text("farm.cloud") + text(bridgeState) + text("0") + text("bridge") + text("secret of bridge")
	packet := append([]byte{0x10, byte(len(body))}, body...)
	c := brokertest.Open(t, b, kind, nil)
	if !pieces {
		c.SendBytes(packet)
	}
	for i := range packet {
		if pieces {
			c.SendBytes(packet[i : i+1])
		}
	}
	pk := c.Await(2) // CONNACK
	require.Zero(t, pk.ReasonCode)
	return c
}

func bridgeAccount() brokertest.Account {
	return brokertest.Account{Password: "secret of bridge",
		Account: broker.Account{Name: "bridge", Publish: []string{"#"}, Subscribe: []string{"#"}}}
}

func TestBridgeOfMosquittoConnectsWithItsDefaults(t *testing.T) {
	for name, c := range map[string]struct {
		protocol string
		version  byte
		pieces   bool
	}{
		"MQTT 3.1.1":               {"MQTT", 4, false},
		"MQTT 3.1":                 {"MQIsdp", 3, false},
		"MQTT 3.1.1, byte by byte": {"MQTT", 4, true},
	} {
		for _, kind := range brokertest.Kinds {
			t.Run(fmt.Sprint(name, " ", kind), func(t *testing.T) {
				b := brokertest.Start(t, bridgeAccount())
				watcher := brokertest.Dial(t, b, brokertest.TCP, b.AsBackend())
				require.Equal(t, byte(1), watcher.Subscribe("#", 1))
				require.Equal(t, byte(1), watcher.Subscribe("$SYS/broker/connection/#", 1))

				link := bridge(t, b, kind, c.protocol, c.version, c.pieces)
				assert.Equal(t, byte(0), link.Publish(bridgeState, "1", 1), "acknowledged, or it would come for ever")
				require.Equal(t, byte(1), link.Subscribe("#", 1))
				require.Len(t, b.Log.Lines("the state of a bridge is ignored", "user=bridge", bridgeState), 1, "once")
				assert.EqualValues(t, 1, b.Stats().Connected-1)

				require.Equal(t, byte(0), link.Publish("farm/a", "from the other side", 1))
				got := watcher.Receive()
				assert.Equal(t, "farm/a", got.TopicName, "the state is nobody's")
				watcher.Acknowledge(got)
				require.Equal(t, byte(0), watcher.Publish("farm/b", "from here", 1))
				got = link.Receive()
				assert.Equal(t, "farm/b", got.TopicName, "and not what it has published itself: that would go round for ever")
				link.Acknowledge(got)
				watcher.Acknowledge(watcher.Receive())

				link.Close() // the will is not sent
				require.Eventually(t, func() bool { return b.Stats().Connected == 1 }, brokertest.Patience, 5*time.Millisecond)
				watcher.AwaitNoMessage()
			})
		}
	}
}

func TestNeighbourOfABridgesVersionIsRefused(t *testing.T) {
	for name, version := range map[string]byte{"MQTT": 0x83, "MQIsdp": 0x84, "MQTX": 0x84} {
		b := brokertest.Start(t, bridgeAccount())
		c := brokertest.Open(t, b, brokertest.TCP, nil)
		body := string([]byte{0, byte(len(name))}) + name + string([]byte{version, 2, 0, 60, 0, 1}) + "x"
		c.SendBytes(append([]byte{0x10, byte(len(body))}, body...))
		c.AwaitClosed()
		assert.EqualValues(t, 1, b.Stats().Refused["unsupported protocol version"], name)
	}
}

// Any other topic of $SYS is refused as before.
func TestOnlyTheStateOfABridgeIsIgnored(t *testing.T) {
	b := brokertest.Start(t, bridgeAccount())
	for _, will := range []string{"$SYS/broker/uptime", "$SYS/broker/connection/x", "$SYS/broker/connection/x/state/y", "$plantops/x/state"} {
		login := brokertest.Login{User: "bridge", Password: "secret of bridge", Will: &brokertest.Will{Topic: will, Payload: "0"}}
		_, pk := brokertest.TryDial(t, b, brokertest.TCP, login)
		assert.NotZero(t, pk.ReasonCode, will)
	}
	c := brokertest.Dial(t, b, brokertest.TCP, brokertest.Login{User: "bridge", Password: "secret of bridge", Version: 5})
	assert.Equal(t, byte(0x87), c.Publish("$SYS/broker/uptime", "x", 1))
	assert.Equal(t, byte(0), c.Publish(bridgeState, "1", 2))
}

func TestClientIDsWithSlashes(t *testing.T) {
	account := func(name string, rules ...string) brokertest.Account {
		return brokertest.Account{Password: "p", Account: broker.Account{Name: name, Publish: rules, Subscribe: []string{"a/#"}}}
	}
	listener := account("listener", "a/#")
	listener.Subscribe = []string{"clients/%c/#"}
	b := brokertest.Start(t, account("free", "a/#", "b/%u/#"), account("bound", "a/#", "clients/%c/#"), listener, brokertest.Device("bed-1"))
	for _, c := range []struct {
		user, password, id string
		accepted           bool
	}{
		{"free", "p", "app/kitchen/1", true},
		{"free", "p", "/", true},
		{"bed-1", brokertest.Password("bed-1"), "esp32/bed-1", true},
		{"bound", "p", "app/kitchen", false},
		{"bound", "p", "app-kitchen", true},
		{"listener", "p", "app/kitchen", false},
		{"free", "p", "app/+", false},
		{"free", "p", "app/#", false},
		{"free", "p", "$app/x", false},
		{"free", "p", "app/%u", false},
		{"free", "p", "app/\n", false},
	} {
		_, pk := brokertest.TryDial(t, b, brokertest.TCP, brokertest.Login{User: c.user, Password: c.password, ClientID: c.id, Version: 5})
		want := byte(0x85)
		if c.accepted {
			want = 0
		}
		assert.Equal(t, want, pk.ReasonCode, "%s as %q", c.user, c.id)
	}
}

// Our own bridges log in as the backend, under client ids that nobody else has.
func TestClientIDsOfOurBridgesAreTheBackends(t *testing.T) {
	b := brokertest.Listen(t, func(o *broker.Options) { o.Backend.ClientIDPrefix = "plantops-bridge-" }, brokertest.Device("bed-1"))
	require.NoError(t, b.Start())
	b.AdmitDevices()
	_, ack := brokertest.TryDial(t, b, brokertest.TCP, withID("bed-1", "plantops-bridge-cloud"))
	assert.Equal(t, byte(2), ack.ReasonCode)

	login := func(id string) brokertest.Login {
		l := b.AsBackend()
		l.ClientID, l.Resume = id, true
		return l
	}
	for _, id := range []string{"plantops-bridge-old", "plantops-bridge-live", "plantops-bridge-kept", "other"} {
		c := brokertest.Dial(t, b, brokertest.TCP, login(id))
		require.Equal(t, byte(1), c.Subscribe("a", 1))
		if id != "plantops-bridge-live" {
			c.Disconnect()
		}
	}
	send := brokertest.Dial(t, b, brokertest.TCP, b.AsBackend())
	send.Publish("a", "1", 1)
	send.Publish("a", "2", 1)
	assert.Equal(t, int64(2), b.Waiting("plantops-bridge-kept"))
	assert.Zero(t, b.Waiting("plantops-bridge-nobody"))

	assert.Equal(t, 2, b.EndSessions(func(id string) bool { return id == "plantops-bridge-kept" }))
	for id, present := range map[string]bool{"plantops-bridge-old": false, "plantops-bridge-live": false, "plantops-bridge-kept": true, "other": true} {
		_, ack := brokertest.TryDial(t, b, brokertest.TCP, login(id))
		require.Equal(t, byte(0), ack.ReasonCode)
		assert.Equal(t, present, ack.SessionPresent, id)
	}
}
