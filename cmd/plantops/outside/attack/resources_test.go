//go:build linux

package attack_test

import (
	"bufio"
	"bytes"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/plantops/plantops/broker/brokertest/rawmqtt"
	"github.com/plantops/plantops/cmd/plantops/outside/program"
	"github.com/plantops/plantops/cmd/plantops/outside/setting"
	"github.com/plantops/plantops/cmd/plantops/outside/siege"
	"github.com/plantops/plantops/store"
)

// What legal use, hostile brokers and damaged files can do: classes V18, V20 and V21.

func TestV18RetainedMessagesAndBacklogsAreBounded(t *testing.T) {
	g := siege.Begin(t, "GOGC=100") // memory is what is kept, not what waits for the collector
	d := g.Doors[0]
	owner := g.As("bed-1")
	owner.ClientID, owner.Resume = "hoarder", true
	a := g.Enter(d, owner)
	_, err := a.Subscribe("devices/bed-1/backlog")
	require.NoError(t, err)
	a.Close()
	before := g.In.Memory("VmRSS")
	payload := bytes.Repeat([]byte("x"), 20_000)
	a = g.Enter(d, g.As("bed-1"))
	for i := range 6000 { // 120 MB to be retained, 120 MB for a session that nobody takes up
		topic := fmt.Sprintf("devices/bed-1/%d", i)
		a.Send(rawmqtt.Encode(rawmqtt.Publish<<4|2|1, append(append(rawmqtt.AppendString(nil, topic), 0, 1, 0), payload...)))
		a.Send(rawmqtt.Message{Topic: "devices/bed-1/backlog", ID: 2, Payload: payload}.Encode())
		for range 2 {
			_, err := a.Await(rawmqtt.Puback)
			require.NoError(t, err)
		}
	}
	grown := g.In.Memory("VmRSS") - before
	t.Logf("240 MB offered, %d MiB kept", grown/siege.Mebibyte)
	assert.Less(t, grown, int64(160*siege.Mebibyte))
	g.ServesAll()
}

func TestV20BrokerMayNotHurtTheSubscriber(t *testing.T) {
	granted := []byte{0x20, 3, 0, 0, 0}
	lies := [][]byte{
		{0x20, 0},                            // no CONNACK at all
		append(granted[:5:5], 0x90, 2, 0, 9), // a SUBACK for nothing
		append(granted[:5:5], 0x32, 4, 0xff, 0xff, 0, 1), // a topic longer than its packet
		append(granted[:5:5], rawmqtt.Encode(rawmqtt.Publish<<4|2, append(rawmqtt.AppendString(nil, "devices/\xff/telemetry"), 0, 1, 0))...),
		append(granted[:5:5], rawmqtt.Encode(rawmqtt.Publish<<4|2, append(append(rawmqtt.AppendString(nil, "devices/x/telemetry"), 0, 1, 0), bytes.Repeat([]byte("["), 1<<20)...))...),
	}
	var told []*atomic.Int64
	var programs []*program.Installation
	for _, lie := range lies {
		count := &atomic.Int64{}
		told = append(told, count)
		in := program.Install(t, t.TempDir(), "PLANTOPS_LISTENERS_TCP_ENABLED=false", "PLANTOPS_LISTENERS_TLS_ENABLED=false",
			"MQTT_USE_TLS=false", "MQTT_HOST=127.0.0.1", "MQTT_PORT="+liar(t, lie, count), "MQTT_BACKEND_PASSWORD=secret", "PLANTOPS_INGEST_STALL_TIMEOUT=1s")
		in.Start()
		programs = append(programs, in)
	}
	for i, in := range programs {
		require.Eventually(t, func() bool { return told[i].Load() > 1 }, setting.Patience, 5*time.Millisecond, "it tries again after lie %d", i)
		in.Kill()
	}
}

func TestV20StopDoesNotWaitForTheBroker(t *testing.T) {
	granted := []byte{0x20, 3, 0, 0, 0}
	for name, lie := range map[string][]byte{
		"says nothing":                    nil,
		"stops in the CONNACK":            granted[:2],
		"never answers the SUBSCRIBE":     granted,
		"stops in a PUBLISH":              append(granted[:5:5], 0x32, 100, 0),
		"announces 256 MiB":               append(granted[:5:5], 0x32, 0xff, 0xff, 0xff, 0x7f),
		"announces 4 GiB":                 append(granted[:5:5], 0x32, 0xff, 0xff, 0xff, 0xff, 0x0f),
		"names an authentication method":  rawmqtt.Encode(2<<4, append([]byte{0, 0, 4}, "\x15\x00\x01x"...)),
		"repeats its CONNACK without end": bytes.Repeat(granted, 100_000),
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var told atomic.Int64
			in := program.Install(t, t.TempDir(), "PLANTOPS_LISTENERS_TCP_ENABLED=false", "PLANTOPS_LISTENERS_TLS_ENABLED=false",
				"MQTT_USE_TLS=false", "MQTT_HOST=127.0.0.1", "MQTT_PORT="+liarThat(t, lie, &told, func(net.Conn) {}), "MQTT_BACKEND_PASSWORD=secret",
				"PLANTOPS_INGEST_STALL_TIMEOUT=1s")
			in.Start()
			in.AwaitReady()
			require.Eventually(t, func() bool { return told.Load() > 1 }, setting.Patience, time.Millisecond, "it tries again")
			assert.Less(t, in.Memory("VmHWM"), int64(96*siege.Mebibyte))
			began := time.Now()
			in.Stop()
			assert.Less(t, time.Since(began), siege.Promptness)
		})
	}
}

// liar is a broker that answers every connection with the same, ends it, and counts them.
func liar(t *testing.T, lie []byte, told *atomic.Int64) (port string) {
	t.Helper()
	return liarThat(t, lie, told, func(c net.Conn) { c.Close() })
}

// liarThat does something else than to end the connection.
func liarThat(t *testing.T, lie []byte, told *atomic.Int64, after func(net.Conn)) (port string) {
	t.Helper()
	broker, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	t.Cleanup(func() { broker.Close() })
	go func() {
		for {
			c, err := broker.Accept()
			if err != nil {
				return
			}
			t.Cleanup(func() { c.Close() })
			_, _ = bufio.NewReader(c).ReadByte() // its CONNECT has begun
			_ = c.SetWriteDeadline(time.Now().Add(time.Second))
			_, _ = c.Write(lie)
			after(c)
			told.Add(1)
		}
	}()
	_, port, err = net.SplitHostPort(broker.Addr().String())
	require.NoError(t, err)
	return port
}

func TestV21DamagedDatabasesAreNoneOfItsOwn(t *testing.T) {
	path := filepath.Join(t.TempDir(), "good.db")
	db, err := store.Open(t.Context(), store.Options{Path: path})
	require.NoError(t, err)
	secret, err := db.AddDevice(t.Context(), "bed-1")
	require.NoError(t, err)
	require.NoError(t, db.Close())
	good, err := os.ReadFile(path)
	require.NoError(t, err)

	random := rand.New(rand.NewPCG(21, 21)) // the same every time
	for i := range 24 {
		bad := bytes.Clone(good)
		switch i % 4 {
		case 0:
			bad = bad[:random.IntN(len(bad))]
		case 1: // in the header
			bad[random.IntN(100)] ^= byte(1 + random.IntN(255))
		case 2:
			from := random.IntN(len(bad) - 600)
			clear(bad[from : from+600])
		case 3:
			for range 40 {
				bad[random.IntN(len(bad))] ^= byte(1 + random.IntN(255))
			}
		}
		path := filepath.Join(t.TempDir(), fmt.Sprintf("%d.db", i))
		require.NoError(t, os.WriteFile(path, bad, 0o600))
		db, err := store.Open(t.Context(), store.Options{Path: path})
		if err != nil {
			continue
		}
		for _, name := range []string{"bed-1", "bed-2", ""} {
			_, ok := db.Authenticate(name, []byte("guessed"), store.Wait{})
			assert.False(t, ok, "damage %d", i)
		}
		_ = db.Close() // what cannot be written to such a file is no matter here
	}
	assert.NotEmpty(t, secret)
}

func TestV21DamagedSettingsAreRefusedByName(t *testing.T) {
	in := program.Install(t, t.TempDir())
	for i, text := range []string{"\x00\x00\x00", "listeners: [", "listeners: {tcp: {enabled: maybe}}", "&a [*a, *a]", "data_dir: {}\n" + string(bytes.Repeat([]byte("["), 100_000)),
		"mqtt: {port: 99999999999999999999}", "no_such_key: 1"} {
		path := filepath.Join(t.TempDir(), fmt.Sprintf("%d.yaml", i))
		require.NoError(t, os.WriteFile(path, []byte(text), 0o600))
		cmd := exec.Command(in.Program, "config", "check", "-c", path)
		cmd.Env = in.Env
		said, err := cmd.CombinedOutput()
		assert.Error(t, err, "%.40q", text)
		assert.Equal(t, 3, cmd.ProcessState.ExitCode(), "%.40q: %.400s", text, said)
		assert.NotContains(t, string(said), "goroutine ")
	}
}
