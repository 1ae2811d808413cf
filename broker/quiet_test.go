package broker_test

import (
	"fmt"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/mochi-mqtt/server/v2/packets"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/plantops/plantops/broker/brokertest"
)

// served is how many connections have a goroutine at the moment.
func served() int {
	all := make([]byte, 4<<20)
	all = all[:runtime.Stack(all, true)]
	return strings.Count(string(all), "network.(*Conn).run(")
}

// A connection that is quiet has no goroutine; whatever happens to it, it is as if it had one.
func TestWhoIsQuietMissesNothing(t *testing.T) {
	if runtime.GOOS != "linux" {
		t.Skip("connections keep their goroutines on this system")
	}
	b := brokertest.Listen(t, nil, brokertest.Device("bed-1"), brokertest.Device("bed-2"), brokertest.Device("bed-3"))
	b.SetQuietAfter(50 * time.Millisecond)
	require.NoError(t, b.Start())
	b.AdmitDevices()
	type way struct {
		kind    brokertest.Kind
		version byte
	}
	dial := func(w way, device, client string, keepalive uint16) *brokertest.Client {
		login := lasting(device, fmt.Sprint(client, w), w.version)
		login.Keepalive = keepalive
		login.Will = &brokertest.Will{Topic: "devices/" + device + "/status", Payload: login.ClientID}
		return brokertest.Dial(t, b, w.kind, login)
	}
	allQuiet := func() {
		t.Helper()
		require.Eventually(t, func() bool { return served() == 0 }, 3*brokertest.Patience, 10*time.Millisecond)
	}
	ways := []way{{brokertest.TCP, 4}, {brokertest.TCP, 5}, {brokertest.TLS, 4}, {brokertest.TLS, 5}}
	var readers, taken, silent, left, ended []*brokertest.Client
	for _, w := range ways {
		reader := dial(w, "bed-1", "reader", 0)
		reader.Subscribe("devices/bed-1/#", 1)
		readers = append(readers, reader)
		taken = append(taken, dial(w, "bed-2", "taken", 0))
		left = append(left, dial(w, "bed-1", "left", 0))
		ended = append(ended, dial(w, "bed-3", "ended", 0))
	}
	for range 50 {
		brokertest.Dial(t, b, brokertest.TCP, as("bed-2", 5))
	}
	allQuiet()

	for i, w := range ways {
		left[i].Close() // the will goes to those who are quiet
		for _, reader := range readers {
			assert.Equal(t, fmt.Sprint("left", w), string(reader.Await(packets.Publish).Payload))
		}
		next := dial(w, "bed-2", "taken", 0)
		taken[i].AwaitClosed()
		next.Publish("devices/bed-2/telemetry", "21.5", 1)
	}
	assert.Equal(t, len(ways), b.Disconnect("bed-3", "removed"))
	for _, w := range ways {
		silent = append(silent, dial(w, "bed-1", "silent", 1))
	}
	var late []string
	for range ways { // which ends with a will, too
		late = append(late, string(readers[0].Await(packets.Publish).Payload))
	}
	for i, w := range ways {
		ended[i].AwaitClosed()
		assert.Contains(t, late, fmt.Sprint("silent", w))
		assert.Equal(t, map[byte]byte{4: 0, 5: packets.ErrKeepAliveTimeout.Code}[w.version], silent[i].AwaitClosed(), w)
		readers[i].Ping()
	}
	allQuiet()
	require.NoError(t, b.Close())
	for _, reader := range readers {
		reader.AwaitClosed()
	}
	assert.Zero(t, served())
}
