//go:build linux

package main_test

import (
	"bufio"
	"io"
	"net"
	"os"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// TestBadSubscribersSlowNobodyDown lets devices send beside a client that never reads its socket, one that never
// acknowledges, and one that takes one message at a time. Everything is stored as ever. With PLANTOPS_NUISANCE, for
// example 20s, it measures so long without, with and without them, and the devices' acknowledgements may take twice as long at most.
func TestBadSubscribersSlowNobodyDown(t *testing.T) {
	length := durationSetting(t, "PLANTOPS_NUISANCE", time.Second)
	const perSecond, secret = 1000, "secret of the backend"
	in := newInstallation(t, t.TempDir(), "MQTT_BACKEND_PASSWORD="+secret)
	l := load{qos: 1, devices: 10, window: 100, rate: perSecond, readings: int(length.Seconds() * perSecond), address: in.tcp}
	ids := make([]string, l.devices)
	for i := range ids {
		ids[i] = deviceID(i)
	}
	l.secrets = in.register(ids...)
	in.start()
	in.awaitReady()
	measure := func() time.Duration {
		devices, err := l.connect()
		require.NoError(t, err)
		seen, err := l.run(devices)
		require.NoError(t, err)
		require.Equal(t, l.readings, seen.acknowledged)
		t.Logf("p50 %s ms, p99 %s ms", milliseconds(seen.quantile(0.5)), milliseconds(seen.quantile(0.99)))
		return seen.quantile(0.99)
	}

	before := measure()
	bad := []net.Conn{
		disturb(t, in, "never-reads", secret, 0, false, false),
		disturb(t, in, "never-acknowledges", secret, 0, true, false),
		disturb(t, in, "one-by-one", secret, 1, true, true),
	}
	disturbed := measure()
	for _, conn := range bad {
		require.NoError(t, conn.Close())
	}
	after := measure()
	if os.Getenv("PLANTOPS_NUISANCE") != "" {
		assert.LessOrEqual(t, disturbed, 2*max(before, after))
	}
	sent := int64(3 * l.readings)
	assert.Equal(t, messageCounts{Received: sent, Stored: sent}, in.counts())
	in.stop()
}

// disturb connects a subscriber of everything, at QoS 1 in MQTT 5. receiveMaximum 0 leaves that out.
func disturb(t *testing.T, in *installation, id, secret string, receiveMaximum byte, reads, acknowledges bool) net.Conn {
	t.Helper()
	conn, err := net.Dial("tcp", in.tcp)
	require.NoError(t, err)
	t.Cleanup(func() { _ = conn.Close() })
	if !reads {
		require.NoError(t, conn.(*net.TCPConn).SetReadBuffer(4<<10))
	}
	body := append(appendString(nil, "MQTT"), 5, 0xC2, 0, 0)
	if receiveMaximum > 0 {
		body = append(body, 3, 0x21, 0, receiveMaximum)
	} else {
		body = append(body, 0)
	}
	body = appendString(appendString(appendString(body, id), "plantops_backend"), secret)
	subscription := append(appendString([]byte{0, 1, 0}, "devices/#"), 1)
	_, err = conn.Write(append(encode(1<<4, body), encode(subscribe<<4|2, subscription)...))
	require.NoError(t, err)
	r := bufio.NewReaderSize(conn, 16)
	for _, want := range []byte{connack, suback} {
		p, err := readPacket(r)
		require.NoError(t, err)
		require.Equal(t, packet{kind: want}, packet{kind: p.kind, reason: p.reason}, id)
	}
	switch {
	case acknowledges:
		go acknowledgeAll(conn)
	case reads:
		go func() { _, _ = io.Copy(io.Discard, conn) }()
	}
	return conn
}

// acknowledgeAll acknowledges what comes at QoS 1 until the connection ends.
func acknowledgeAll(conn net.Conn) {
	for in := bufio.NewReader(conn); ; {
		qos, id, err := readDelivery(in)
		if err != nil {
			return
		}
		if qos == 1 {
			_, _ = conn.Write(encode(puback<<4, id))
		}
	}
}
