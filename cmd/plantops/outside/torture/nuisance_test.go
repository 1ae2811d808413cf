//go:build linux

package torture_test

import (
	"bufio"
	"io"
	"net"
	"os"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/plantops/plantops/broker/brokertest/rawmqtt"
	"github.com/plantops/plantops/cmd/plantops/outside/load"
	"github.com/plantops/plantops/cmd/plantops/outside/program"
	"github.com/plantops/plantops/cmd/plantops/outside/setting"
)

// TestBadSubscribersSlowNobodyDown lets devices send beside a client that never reads its socket, one that never
// acknowledges, and one that takes one message at a time. Everything is stored as ever, and the devices' acknowledgements
// may take twice as long as without them at most, or half a second, which a busy machine may take for anything. With
// PLANTOPS_NUISANCE, for example 20s, it measures so long without, with and without them, and only twice as long is allowed.
func TestBadSubscribersSlowNobodyDown(t *testing.T) {
	length := setting.Duration(t, "PLANTOPS_NUISANCE", time.Second)
	const perSecond, secret = 1000, "secret of the backend"
	in := program.Install(t, t.TempDir(), "MQTT_BACKEND_PASSWORD="+secret)
	l := load.Load{QoS: 1, Devices: 10, Window: 100, Rate: perSecond, Readings: int(length.Seconds() * perSecond), Address: in.TCP}
	ids := make([]string, l.Devices)
	for i := range ids {
		ids[i] = load.DeviceID(i)
	}
	l.Secrets = in.Register(ids...)
	in.Start()
	in.AwaitReady()
	measure := func() time.Duration {
		devices, err := l.Connect()
		require.NoError(t, err)
		seen, err := l.Run(devices)
		require.NoError(t, err)
		require.Equal(t, l.Readings, seen.Acknowledged)
		t.Logf("p50 %s ms, p99 %s ms", load.Milliseconds(seen.Quantile(0.5)), load.Milliseconds(seen.Quantile(0.99)))
		return seen.Quantile(0.99)
	}

	before, sent := measure(), int64(l.Readings)
	for attempt := 1; ; attempt++ { // a busy machine holds up anything now and then, but not each time
		bad := []net.Conn{
			nuisance{id: "never-reads"}.disturb(t, in.TCP, secret),
			nuisance{id: "never-acknowledges", reads: true}.disturb(t, in.TCP, secret),
			nuisance{id: "one-by-one", reads: true, acknowledges: true, receiveMaximum: 1}.disturb(t, in.TCP, secret),
		}
		disturbed := measure()
		for _, conn := range bad {
			require.NoError(t, conn.Close())
		}
		after := measure()
		sent += int64(2 * l.Readings)
		bound := 2 * max(before, after)
		if os.Getenv("PLANTOPS_NUISANCE") == "" {
			bound = max(bound, 500*time.Millisecond)
		}
		if disturbed <= bound {
			break
		}
		require.Less(t, attempt, 5, "acknowledgements beside bad subscribers: p99 %s, %s before, %s after", disturbed, before, after)
		before = after
	}
	assert.Equal(t, program.MessageCounts{Received: sent, Stored: sent}, in.Counts())
	in.Stop()
}

// nuisance is a subscriber of everything, at QoS 1 in MQTT 5, that does not do its part.
type nuisance struct {
	id                  string
	reads, acknowledges bool
	receiveMaximum      byte // 0 leaves it out
}

// disturb connects it.
func (n nuisance) disturb(t *testing.T, address, secret string) net.Conn {
	t.Helper()
	conn, err := net.Dial("tcp", address)
	require.NoError(t, err)
	t.Cleanup(func() { _ = conn.Close() })
	if !n.reads {
		require.NoError(t, conn.(*net.TCPConn).SetReadBuffer(4<<10))
	}
	l := rawmqtt.Login{User: "plantops_backend", Secret: secret, ClientID: n.id, NoKeepalive: true}
	if n.receiveMaximum > 0 {
		l.Properties = []byte{0x21, 0, n.receiveMaximum}
	}
	_, err = conn.Write(append(l.Encode(), rawmqtt.EncodeSubscribe(5, 1, 1, "devices/#")...))
	require.NoError(t, err)
	r := bufio.NewReaderSize(conn, 16)
	for _, want := range []byte{rawmqtt.Connack, rawmqtt.Suback} {
		p, err := rawmqtt.Read(r)
		require.NoError(t, err)
		require.Equal(t, []byte{want, 0}, []byte{p.Kind, p.Reason}, n.id)
	}
	switch {
	case n.acknowledges:
		go acknowledgeAll(conn)
	case n.reads:
		go func() { _, _ = io.Copy(io.Discard, conn) }()
	}
	return conn
}

// acknowledgeAll acknowledges what comes at QoS 1 until the connection ends.
func acknowledgeAll(conn net.Conn) {
	for in := bufio.NewReader(conn); ; {
		p, err := rawmqtt.Read(in)
		if err != nil {
			return
		}
		if p.Kind == rawmqtt.Publish && p.QoS() == 1 {
			_, _ = conn.Write(rawmqtt.EncodeAck(rawmqtt.Puback, p.ID))
		}
	}
}
