package broker_test

import (
	"sync/atomic"
	"testing"
	"time"

	"github.com/mochi-mqtt/server/v2/packets"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/plantops/plantops/broker"
	"github.com/plantops/plantops/broker/brokertest"
)

// The wall clock jumps two years ahead: no session, will or message ends because of it.
func TestNothingExpiresByAJumpOfTheClock(t *testing.T) {
	t.Parallel()
	var ahead atomic.Int64
	b := brokertest.Listen(t, func(o *broker.Options) {
		o.Now = func() time.Time { return time.Now().Add(time.Duration(ahead.Load())) }
	}, brokertest.Device("bed-1"), brokertest.Device("bed-2"), brokertest.Device("bed-3"))
	require.NoError(t, b.Broker.Start())
	b.AdmitDevices()
	session := func(device string, seconds uint32) brokertest.Login {
		login := as(device, 5)
		login.ClientID, login.Resume = "client-of-"+device, true
		login.Properties.SessionExpiryInterval, login.Properties.SessionExpiryIntervalFlag = seconds, true
		return login
	}
	watcher := brokertest.Dial(t, b, brokertest.TCP, as("bed-2", 5))
	require.Equal(t, byte(1), watcher.Subscribe("devices/bed-2/#", 1))

	lasting := session("bed-2", 1000)
	lasting.Will = &brokertest.Will{Topic: "devices/bed-2/gone", Payload: "x", QoS: 1, Properties: packets.Properties{WillDelayInterval: 900}}
	c := brokertest.Dial(t, b, brokertest.TCP, lasting)
	require.Equal(t, byte(1), c.Subscribe("devices/bed-2/commands/#", 1))
	c.Send(packets.Packet{FixedHeader: packets.FixedHeader{Type: packets.Publish, Qos: 1, Retain: true}, PacketID: 9,
		TopicName: "devices/bed-2/kept", Payload: []byte("y"), Properties: packets.Properties{MessageExpiryInterval: 500}})
	c.Await(packets.Puback)
	watcher.Acknowledge(watcher.Await(packets.Publish))
	c.Close() // a lost connection: the will is due in 900 s
	ahead.Store(int64(2 * 365 * 24 * time.Hour))

	brief := session("bed-1", 1) // when this session is over, the router has looked at its clock
	brokertest.Dial(t, b, brokertest.TCP, brief).Disconnect()
	other := as("bed-3", 5)
	other.ClientID = brief.ClientID
	require.Eventually(t, func() bool {
		c, ack := brokertest.TryDial(t, b, brokertest.TCP, other)
		c.Close()
		return ack.ReasonCode == 0
	}, brokertest.Patience, 100*time.Millisecond, "the brief session is over")

	watcher.AwaitNoMessage()
	reader := as("bed-2", 5)
	reader.ClientID = "late"
	late := brokertest.Dial(t, b, brokertest.TCP, reader)
	late.Subscribe("devices/bed-2/kept", 1)
	assert.Equal(t, "y", string(late.Await(packets.Publish).Payload), "the retained message")
	_, ack := brokertest.TryDial(t, b, brokertest.TCP, lasting)
	assert.True(t, ack.SessionPresent)
}
