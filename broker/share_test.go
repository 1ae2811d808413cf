package broker_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/mochi-mqtt/server/v2/packets"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/plantops/plantops/broker"
	"github.com/plantops/plantops/broker/brokertest"
)

// Who takes the name of a device to come as its client id gives it up when the device comes, with everything that it had under it.
func TestAClientIDGoesToTheAccountOfItsName(t *testing.T) {
	everyWay(t, func(t *testing.T, kind brokertest.Kind, version byte) {
		for _, connected := range []bool{true, false} {
			b := brokertest.Start(t, brokertest.Device("evil"))
			squat := lasting("evil", "bed-9", version)
			squat.Will = &brokertest.Will{Topic: "devices/evil/status", Payload: "dead"}
			squatter := brokertest.Dial(t, b, kind, squat)
			require.Equal(t, byte(1), squatter.Subscribe("devices/evil/#", 1))
			if !connected {
				squatter.Disconnect()
			}
			other := brokertest.Dial(t, b, brokertest.TCP, as("evil", version))
			require.Zero(t, other.Publish("devices/evil/notes", "for the squatter", 1))

			b.Accounts.Set(brokertest.Device("bed-9"))
			own := lasting("bed-9", "bed-9", version)
			c, ack := brokertest.TryDial(t, b, kind, own)
			require.Equal(t, byte(0), ack.ReasonCode)
			assert.False(t, ack.SessionPresent)
			c.AwaitNoMessage()
			require.Zero(t, other.Publish("devices/evil/notes", "for nobody", 1))
			c.AwaitNoMessage()
			if connected {
				assert.Equal(t, map[byte]byte{4: 0, 5: 0x87}[version], squatter.AwaitClosed())
			}
			_, ack = brokertest.TryDial(t, b, kind, squat)
			assert.Equal(t, map[byte]byte{4: 2, 5: 0x85}[version], ack.ReasonCode)
			c.Ping()
			awaitHeld(t, b, "evil", broker.Held{Sessions: 1, Connections: 1})
			assert.Len(t, b.Log.Lines("client id taken back by the account of its name", "client=bed-9", "from=evil"), 1)
			assert.Len(t, b.Log.Lines("refused", "client id belongs to another account", "user=evil", "client=bed-9"), 2) // then it tries again
		}
	})
}

// The account of another client id's name does not get that: only its own.
func TestOnlyItsOwnNameIsAnAccountsClientID(t *testing.T) {
	b := brokertest.Start(t, brokertest.Device("bed-1"), brokertest.Device("bed-2"))
	c := brokertest.Dial(t, b, brokertest.TCP, lasting("bed-1", "esp", 5))
	_, ack := brokertest.TryDial(t, b, brokertest.TCP, lasting("bed-2", "esp", 5))
	assert.Equal(t, byte(0x85), ack.ReasonCode)
	c.Ping()
}

// beset starts a broker with the limits, for two who take everything and an honest device.
func beset(t *testing.T, limits broker.Limits) *brokertest.Broker {
	t.Helper()
	b := brokertest.Listen(t, func(o *broker.Options) { o.Limits = brokertest.Limits(limits) },
		brokertest.Device("evil-1"), brokertest.Device("evil-2"), brokertest.Device("honest"))
	require.NoError(t, b.Start())
	b.AdmitDevices()
	return b
}

func TestOthersThatHaveAllSessionsLeaveAnAccountItsShare(t *testing.T) {
	b := beset(t, broker.Limits{MaxSessions: 40, MaxSessionsPerAccount: 20})
	for i := range 40 {
		device := fmt.Sprint("evil-", i%2+1)
		brokertest.Dial(t, b, brokertest.TCP, lasting(device, fmt.Sprint(device, i), 5)).Disconnect()
	}
	everyWay(t, func(t *testing.T, kind brokertest.Kind, version byte) {
		c := brokertest.Dial(t, b, kind, as("honest", version))
		_, ack := brokertest.TryDial(t, b, kind, as("honest", version)) // its share is one
		assert.Equal(t, map[byte]byte{4: 3, 5: 0x97}[version], ack.ReasonCode)
		c.Disconnect()
		awaitHeld(t, b, "honest", broker.Held{})
	})
}

func TestOthersThatHaveAllConnectionsLeaveAnAccountItsShare(t *testing.T) {
	b := beset(t, broker.Limits{MaxConnections: 10})
	ingest(t, b, 5) // it takes no place
	everyWay(t, func(t *testing.T, kind brokertest.Kind, version byte) {
		var all []*brokertest.Client
		for i := range 10 {
			all = append(all, brokertest.Dial(t, b, kind, as([]string{"evil-1", "evil-2", "evil-1"}[i%3], version)))
		}
		_, ack := brokertest.TryDial(t, b, kind, as("evil-2", version))
		require.Equal(t, map[byte]byte{4: 3, 5: 0x97}[version], ack.ReasonCode, "the eleventh")
		c := brokertest.Dial(t, b, kind, as("honest", version))
		assert.Equal(t, map[byte]byte{4: 0, 5: 0x97}[version], all[9].AwaitClosed(), "the newest one of who has most")
		_, ack = brokertest.TryDial(t, b, kind, as("honest", version)) // its share is one
		require.Equal(t, map[byte]byte{4: 3, 5: 0x97}[version], ack.ReasonCode)
		c.Ping()
		for _, other := range all[:9] {
			other.Ping()
			other.Disconnect()
		}
		c.Disconnect()
		for _, name := range []string{"evil-1", "evil-2", "honest"} {
			awaitHeld(t, b, name, broker.Held{})
		}
	})
}

func TestOthersThatFillTheRetainedMessagesLeaveAnAccountItsShare(t *testing.T) {
	b := beset(t, broker.Limits{})
	for _, evil := range []string{"evil-1", "evil-2"} {
		c := brokertest.Dial(t, b, brokertest.TCP, as(evil, 5))
		for _, size := range []int{200_000, 3000, 200, 1} {
			for i := 0; ; i++ {
				if code, _ := sendRetained(c, fmt.Sprintf("devices/%s/%d/%d", evil, size, i), strings.Repeat("x", size), 1); code != 0 {
					break
				}
			}
		}
	}
	watcher := brokertest.Dial(t, b, brokertest.TCP, as("honest", 5))
	require.Equal(t, byte(1), watcher.SubscribeWith(packets.Subscription{Filter: "devices/honest/#", Qos: 1, RetainAsPublished: true}))
	for _, version := range []byte{4, 5} {
		login := as("honest", version)
		login.Will = &brokertest.Will{Topic: "devices/honest/status", Payload: "offline", QoS: 1, Retain: true}
		c := brokertest.Dial(t, b, brokertest.TCP, login)
		for i := range 20 {
			code, ended := sendRetained(c, fmt.Sprint("devices/honest/", version, "/", i), "online", 1)
			require.False(t, ended)
			require.Zero(t, code)
			watcher.Receive()
		}
		c.Close()
		will := watcher.Receive()
		assert.Equal(t, "offline", string(will.Payload))
		assert.True(t, will.FixedHeader.Retain)
		assert.True(t, retainedFor(t, b, as("honest", version), "devices/honest/status"))
	}
}
