package broker_test

import (
	"bytes"
	"io"
	"net"
	"testing"
	"time"

	"github.com/mochi-mqtt/server/v2/packets"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/plantops/plantops/broker/brokertest"
)

const (
	flooded = "devices/bed-1/state"
	// floodMessages are more than the kernel and a session hold.
	floodMessages = 24_000
)

// reader is a subscriber at QoS 0 whose pace is the test's.
type reader struct {
	net.Conn
	t *testing.T
}

func subscribeReader(t *testing.T, b *brokertest.Broker, login brokertest.Login, filter string) reader {
	t.Helper()
	conn, err := net.Dial("tcp", b.Addrs().TCP.String())
	require.NoError(t, err)
	t.Cleanup(func() { _ = conn.Close() })
	require.NoError(t, conn.(*net.TCPConn).SetReadBuffer(64<<10))
	_, err = conn.Write(brokertest.Record(t, 4, func(c *brokertest.Client) {
		c.SendConnect(login)
		c.Send(packets.Packet{FixedHeader: packets.FixedHeader{Type: packets.Subscribe, Qos: 1}, PacketID: 1,
			Filters: packets.Subscriptions{{Filter: filter}}})
	}))
	require.NoError(t, err)
	_, err = io.ReadFull(conn, make([]byte, 9)) // CONNACK and SUBACK
	require.NoError(t, err)
	return reader{conn, t}
}

// read takes so many bytes, at most 64 KiB at each tick.
func (r reader) read(n int, tick <-chan time.Time) {
	r.t.Helper()
	require.NoError(r.t, r.SetReadDeadline(time.Now().Add(6*brokertest.Patience)))
	for n > 0 {
		<-tick
		took, err := io.ReadFull(r.Conn, make([]byte, min(n, 64<<10)))
		require.NoError(r.t, err)
		n -= took
	}
}

// always is a tick for those who read as fast as they can.
func always() <-chan time.Time {
	c := make(chan time.Time)
	close(c)
	return c
}

// flood is a QoS 0 message of 1 KiB, as often as it is wanted.
func flood(t *testing.T, topic string, messages int) []byte {
	message := brokertest.Record(t, 4, func(c *brokertest.Client) { c.SendPublish(topic, string(make([]byte, 1024)), 0) })
	return bytes.Repeat(message, messages)
}

func TestASubscriberOfQoS0ThatReadsGetsEverythingHoweverSlow(t *testing.T) {
	t.Parallel()
	b := brokertest.Start(t, brokertest.Device("bed-1"))
	slow := subscribeReader(t, b, as("bed-1", 4), flooded)
	const publishers = 8
	all := flood(t, flooded, floodMessages)
	for i := range publishers {
		sender := brokertest.Dial(t, b, brokertest.TCP, as("bed-1", 4))
		go sender.SendBytes(all[i*len(all)/publishers : (i+1)*len(all)/publishers])
	}
	tick := time.NewTicker(8 * time.Millisecond)
	defer tick.Stop()
	slow.read(len(all), tick.C)
	assert.Zero(t, b.Stats().Dropped)
}

func TestASubscriberOfQoS0ThatTakesNothingLosesAloneAndIsNamed(t *testing.T) {
	t.Parallel()
	b := brokertest.Start(t, brokertest.Device("bed-1"), brokertest.Device("bed-2"))
	brokertest.Deaf(t, b, withID("bed-1", "deaf"), flooded, 0)
	good := subscribeReader(t, b, as("bed-1", 4), flooded)
	all := flood(t, flooded, floodMessages)
	sender := brokertest.Dial(t, b, brokertest.TCP, as("bed-1", 4))
	go sender.SendBytes(all)
	good.read(len(all), always())
	assert.NotZero(t, b.Stats().Dropped)
	assert.Equal(t, b.Stats().Dropped, b.Stats().Refused["too slow for what it subscribed to"])
	lines := b.Log.Lines("refused", `reason="too slow for what it subscribed to"`)
	require.Len(t, lines, 1, "not one for each message")
	assert.Contains(t, lines[0], "client=deaf")
}

func TestASubscriberThatTakesSomethingAgainIsWaitedForAgain(t *testing.T) {
	t.Parallel()
	b := brokertest.Start(t, brokertest.Device("bed-1"))
	slow := subscribeReader(t, b, as("bed-1", 4), flooded)
	sender := brokertest.Dial(t, b, brokertest.TCP, as("bed-1", 4))
	all := flood(t, flooded, floodMessages)
	go func() {
		for !sender.Ended() { // by the end of the test
			sender.SendBytes(all)
		}
	}()
	require.Eventually(t, func() bool { return b.Stats().Dropped > 0 && b.Waited() == 0 }, brokertest.Patience, time.Millisecond)
	tick := time.NewTicker(8 * time.Millisecond)
	defer tick.Stop()
	for deadline := time.Now().Add(brokertest.Patience); b.Waited() == 0; {
		require.True(t, time.Now().Before(deadline))
		slow.read(1024, tick.C)
	}
	dropped := b.Stats().Dropped
	slow.read(floodMessages*1024/2, tick.C)
	assert.Equal(t, dropped, b.Stats().Dropped)
}

func TestClientsThatPublishToEachOtherAndDoNotReadDoNotStopEachOther(t *testing.T) {
	t.Parallel()
	b := brokertest.Start(t, brokertest.Device("bed-1"), brokertest.Device("bed-2"))
	done := make(chan error)
	for mine, other := range map[string]string{"devices/bed-1/a": "devices/bed-1/b", "devices/bed-1/b": "devices/bed-1/a"} {
		c, all := subscribeReader(t, b, as("bed-1", 4), mine), flood(t, other, floodMessages)
		require.NoError(t, c.SetWriteDeadline(time.Now().Add(3*brokertest.Patience)))
		go func() {
			_, err := c.Write(all)
			done <- err
		}()
	}
	assert.NoError(t, <-done)
	assert.NoError(t, <-done)
}

// A viewer that takes a little now and then makes those wait who want to tell it something, and no device.
func TestAReadingWaitsForNoOtherSubscriber(t *testing.T) {
	t.Parallel()
	b := withIngest(t, 0, brokertest.Device("bed-1"), brokertest.Device("bed-2"))
	subscriber := ingest(t, b, 5)
	viewer := subscribeReader(t, b, b.AsBackend(), "devices/#")
	sender := brokertest.Dial(t, b, brokertest.TCP, as("bed-2", 4))
	go sender.SendBytes(flood(t, "devices/bed-2/state", floodMessages)) // the end of the test ends it
	require.Eventually(t, func() bool { return b.Waited() > 0 }, brokertest.Patience, time.Millisecond)

	device := brokertest.Dial(t, b, brokertest.TCP, as("bed-1", 4))
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	taken := make(chan struct{})
	go func() {
		defer close(taken)
		for range 3 {
			device.SendPublish(telemetry, "{}", 1)
			subscriber.Acknowledge(subscriber.Await(packets.Publish))
			device.Await(packets.Puback)
		}
	}()
	for began := time.Now(); ; {
		select {
		case <-taken:
			assert.NotZero(t, b.Waited(), "the viewer is still behind")
			return
		default:
			require.Less(t, time.Since(began), brokertest.Patience)
			viewer.read(1024, tick.C)
		}
	}
}
