package broker_test

import (
	"regexp"
	"testing"
	"time"

	"github.com/mochi-mqtt/server/v2/packets"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/plantops/plantops/broker"
	"github.com/plantops/plantops/broker/brokertest"
)

// systemForms are the topics below $SYS/broker of Mosquitto 2.0.11 as it published them, and messages/inflight, which its manual
// names, with the form of their values.
var systemForms = map[string]string{
	"version": `^\w+ version \S+$`, "uptime": `^\d+ seconds$`,
	"clients/total": `^\d+$`, "clients/connected": `^\d+$`, "clients/disconnected": `^\d+$`, "clients/active": `^\d+$`,
	"clients/inactive": `^\d+$`, "clients/maximum": `^\d+$`, "clients/expired": `^\d+$`,
	"messages/received": `^\d+$`, "messages/sent": `^\d+$`, "messages/stored": `^\d+$`, "messages/inflight": `^\d+$`,
	"store/messages/count": `^\d+$`, "store/messages/bytes": `^\d+$`,
	"publish/messages/received": `^\d+$`, "publish/messages/sent": `^\d+$`, "publish/messages/dropped": `^\d+$`,
	"publish/bytes/received": `^\d+$`, "publish/bytes/sent": `^\d+$`, "bytes/received": `^\d+$`, "bytes/sent": `^\d+$`,
	"subscriptions/count": `^\d+$`, "shared_subscriptions/count": `^\d+$`, "retained messages/count": `^\d+$`,
	"heap/current": `^\d+$`, "heap/maximum": `^\d+$`,
}

// systemValues are those that a client gets which subscribes now.
func systemValues(t *testing.T, b *brokertest.Broker) map[string]string {
	t.Helper()
	c := brokertest.Dial(t, b, brokertest.TCP, b.AsBackend())
	require.Equal(t, byte(0), c.Subscribe("$SYS/#", 0))
	values := map[string]string{}
	for range broker.SystemTopics {
		pk := c.Await(packets.Publish)
		values[pk.TopicName[len("$SYS/broker/"):]] = string(pk.Payload)
	}
	c.Disconnect()
	c.AwaitClosed()
	return values
}

func TestSYSHasTheNamesAndFormsOfMosquitto(t *testing.T) {
	b := brokertest.Start(t)
	forms := map[string]string{}
	for topic, form := range systemForms {
		forms[topic] = form
	}
	for _, load := range []string{"messages/received", "messages/sent", "publish/received", "publish/sent", "publish/dropped",
		"bytes/received", "bytes/sent", "sockets", "connections"} {
		for _, minutes := range []string{"1min", "5min", "15min"} {
			forms["load/"+load+"/"+minutes] = `^\d+\.\d\d$`
		}
	}
	values := systemValues(t, b)
	for topic, form := range forms {
		value, there := values[topic]
		assert.True(t, there, topic)
		assert.Regexp(t, regexp.MustCompile(form), value, topic)
	}
	for topic := range values {
		assert.Contains(t, forms, topic)
	}
}

func TestWhatSYSCounts(t *testing.T) {
	b := brokertest.Start(t, brokertest.Device("bed-1"))
	login := lasting("bed-1", "away", 4)
	c := brokertest.Dial(t, b, brokertest.TCP, login)
	require.Equal(t, byte(1), c.Subscribe("devices/bed-1/a", 1))
	require.Equal(t, byte(1), c.Subscribe("$share/g/devices/bed-1/b", 1))
	c.Disconnect()
	c.AwaitClosed()
	sender := brokertest.Dial(t, b, brokertest.TCP, as("bed-1", 4))
	require.Equal(t, byte(0), sender.Publish("devices/bed-1/a", "12345", 1))
	sender.Send(packets.Packet{FixedHeader: packets.FixedHeader{Type: packets.Publish, Retain: true}, TopicName: "devices/bed-1/r", Payload: []byte("1")})
	sender.Ping()
	now := time.Now()
	b.UpdateSystem(now)
	v := systemValues(t, b)
	for topic, want := range map[string]string{
		"clients/total": "3", "clients/connected": "2", "clients/disconnected": "1", "clients/maximum": "2", "clients/expired": "0",
		"subscriptions/count": "3", "shared_subscriptions/count": "1", "messages/inflight": "0", "publish/messages/received": "2",
		"publish/bytes/received": "6", "publish/messages/sent": "0", "load/publish/received/1min": "0.00",
		// CONNECT, PINGREQ, 2 SUBSCRIBE and DISCONNECT; CONNECT, PINGREQ, 2 PUBLISH and PINGREQ; CONNECT, PINGREQ and SUBSCRIBE
		"messages/received": "13",
	} {
		assert.Equal(t, want, v[topic], topic)
	}
	assert.NotEqual(t, "0", v["heap/current"])

	// A minute later there were two messages of clients, and 2 * (1 - 1/e) is the average.
	require.Equal(t, byte(0), sender.Publish("devices/bed-1/a", "12345", 1))
	require.Equal(t, byte(0), sender.Publish("devices/bed-1/a", "12345", 1))
	b.UpdateSystem(now.Add(time.Minute))
	v = systemValues(t, b)
	assert.Equal(t, "1.26", v["load/publish/received/1min"])
	assert.Equal(t, "0.36", v["load/publish/received/5min"])
	assert.Equal(t, "0.13", v["load/publish/received/15min"])
}

func TestSYSIsPublishedWhenItChanges(t *testing.T) {
	b := brokertest.Start(t)
	c := brokertest.Dial(t, b, brokertest.TCP, b.AsBackend())
	require.Equal(t, byte(0), c.Subscribe("$SYS/broker/version", 0))
	c.Receive()
	now := time.Now()
	b.UpdateSystem(now)
	assert.False(t, c.Receive().FixedHeader.Retain, "once to those who are there")
	b.UpdateSystem(now.Add(time.Minute))
	c.AwaitNoMessage()
}

func TestSYSCountsSessionsThatExpire(t *testing.T) {
	t.Parallel()
	b := brokertest.Start(t, brokertest.Device("bed-1"))
	login := lasting("bed-1", "esp", 5)
	login.Properties.SessionExpiryInterval, login.Properties.SessionExpiryIntervalFlag = 1, true
	brokertest.Dial(t, b, brokertest.TCP, login).Disconnect()
	require.Eventually(t, func() bool { return len(b.Sessions()) == 0 }, brokertest.Patience, time.Millisecond)
	assert.Equal(t, "1", systemValues(t, b)["clients/expired"])
}
