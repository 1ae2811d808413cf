package main

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"log/slog"
	"net"
	"os"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/plantops/plantops/broker/brokertest"
	"github.com/plantops/plantops/broker/brokertest/logtest"
	"github.com/plantops/plantops/config"
	"github.com/plantops/plantops/control"
	"github.com/plantops/plantops/ingest"
	"github.com/plantops/plantops/store"
)

// running is the whole program in this process, on free ports and in a directory of its own.
type running struct {
	*service
	control *control.Client
	log     *readyLog
	stop    func() error // tells it to stop, as SIGTERM does, and returns how it ended
}

// readyLog keeps what is logged and says when the program is ready.
type readyLog struct {
	logtest.Log
	ready chan struct{}
}

func (l *readyLog) Write(p []byte) (int, error) {
	if bytes.Contains(p, []byte("PlantOps is ready")) {
		close(l.ready)
	}
	return l.Log.Write(p)
}

// startServer starts the program with settings ("NAME=value") beside those that tests need.
func startServer(t *testing.T, settings ...string) *running {
	t.Helper()
	dir, err := os.MkdirTemp("", "plantops") // short: a socket's path has at most 107 bytes
	require.NoError(t, err)
	t.Cleanup(func() { assert.NoError(t, os.RemoveAll(dir)) })
	r := newServer(t, dir, &app{now: time.Now}, settings...)
	r.start(t)
	return r
}

// newServer prepares the program in a directory; who it runs for may bring a clock.
func newServer(t *testing.T, dir string, a *app, settings ...string) *running {
	t.Helper()
	environ := append([]string{"PLANTOPS_DATA_DIR=" + dir, "PLANTOPS_LISTENERS_TCP_ADDRESS=127.0.0.1:0",
		"PLANTOPS_LISTENERS_TLS_ADDRESS=127.0.0.1:0", "PLANTOPS_LISTENERS_WEBSOCKET_ADDRESS=127.0.0.1:0"}, settings...)
	loaded, err := config.Load("", environ, nil)
	require.NoError(t, err)

	log := &readyLog{ready: make(chan struct{})}
	a.stdout, a.stderr, a.environ = log, log, environ
	r := &running{log: log, service: &service{app: a, loaded: loaded, reload: make(chan os.Signal)}}
	r.service.log, err = newLogger(log, loaded.Config.Log, &r.level, environ)
	require.NoError(t, err)

	return r
}

// start waits until it is ready.
func (r *running) start(t *testing.T) {
	t.Helper()
	log := r.log
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- r.serve(ctx) }()
	r.stop = sync.OnceValue(func() error {
		cancel()
		return <-ended
	})
	t.Cleanup(func() { assert.NoError(t, r.stop()) })
	select {
	case <-log.ready:
	case err := <-ended:
		ended <- err
		require.Fail(t, "serve ended before it was ready", "%v\n%s", err, log)
	case <-time.After(patience):
		require.Fail(t, "serve is not ready", log.String())
	}
	var err error
	r.control, err = control.Dial(ctx, r.loaded.Config.SocketPath())
	require.NoError(t, err)
}

func (r *running) addDevice(t *testing.T, id string) (secret string) {
	t.Helper()
	secret, err := r.control.AddDevice(context.Background(), id)
	require.NoError(t, err)
	return secret
}

// readings opens the database as a command does, beside the server if that runs.
func (r *running) readings(t *testing.T, q store.Query) (found []store.Reading) {
	t.Helper()
	db, err := r.app.openReadOnly(context.Background(), r.loaded.Config)
	require.NoError(t, err)
	defer db.Close()
	for reading, err := range db.Readings(context.Background(), q) {
		require.NoError(t, err)
		found = append(found, reading)
	}
	return found
}

func (r *running) counts(t *testing.T) control.Equation {
	t.Helper()
	s, err := r.control.Status(context.Background())
	require.NoError(t, err)
	return s.Messages
}

func TestReadingFromEveryListenerCanBeReadBack(t *testing.T) {
	r := startServer(t, "MQTT_USE_TLS=true")
	assert.Contains(t, r.log.String(), "Connecting to MQTT broker with TLS at localhost:")
	secret := r.addDevice(t, "bed-1")
	const topic = "devices/bed-1/telemetry"
	payload := func(minute int) string {
		return fmt.Sprintf(`{"timestamp":"2026-01-07T12:%02d:00Z","temperature":%d}`, minute, minute)
	}

	outside := &brokertest.Broker{Broker: r.running.Broker}
	for minute, kind := range []brokertest.Kind{brokertest.TCP, brokertest.WebSocket} {
		device := brokertest.Dial(t, outside, kind, brokertest.Login{User: "bed-1", Password: secret})
		device.Publish(topic, payload(minute), 1)
		device.Disconnect()
	}
	reach, err := r.control.Contact(context.Background())
	require.NoError(t, err)
	roots := x509.NewCertPool()
	require.True(t, roots.AppendCertsFromPEM([]byte(reach.CA)))
	device, err := ingest.Connect(context.Background(), ingest.PublisherOptions{Address: reach.TLS,
		TLS: &tls.Config{RootCAs: roots, ServerName: "localhost"}, Username: "bed-1", Password: secret})
	require.NoError(t, err)
	require.NoError(t, device.Publish(context.Background(), topic, []byte(payload(2)), 1))
	require.NoError(t, device.Close())

	require.Eventually(t, func() bool { return r.counts(t).Stored == 3 }, patience, 10*time.Millisecond)
	found := r.readings(t, store.Query{Devices: []string{"bed-1"}})
	require.Len(t, found, 3)
	for i, reading := range found {
		assert.Equal(t, float64(i), reading.Value)
	}
	assert.Equal(t, int64(0), r.counts(t).Difference)
}

func TestOrderlyStopLosesNothing(t *testing.T) {
	r := startServer(t)
	secret := r.addDevice(t, "bed-1")
	device := brokertest.Dial(t, &brokertest.Broker{Broker: r.running.Broker}, brokertest.TCP, brokertest.Login{User: "bed-1", Password: secret})
	const messages = 300
	for i := range messages { // every second one at QoS 0: once read, it is stored
		device.SendPublish("devices/bed-1/telemetry", fmt.Sprintf(`{"timestamp":%d,"temperature":20}`, 1767787200+i), byte(i%2))
	}
	for range messages / 2 {
		device.Await(4) // PUBACK
	}
	require.NoError(t, r.stop())
	assert.NoFileExists(t, r.loaded.Config.StorePath()+"-wal", "a clean stop leaves one file")
	assert.Equal(t, messages, len(r.readings(t, store.Query{Devices: []string{"bed-1"}})))

	log := r.log.String()
	assert.Contains(t, log, "stopping")
	assert.NotContains(t, log, " ERR ")
}

func TestEveryMessageOfEachDeviceIsAccountedFor(t *testing.T) {
	r := startServer(t)
	want := control.Equation{Received: 7, Outcomes: control.Outcomes{Stored: 3, Duplicate: 1, Quarantined: 2, Refused: 1}}
	for _, id := range []string{"bed-1", "bed-2"} {
		device := brokertest.Dial(t, &brokertest.Broker{Broker: r.running.Broker}, brokertest.TCP,
			brokertest.Login{User: id, Password: r.addDevice(t, id), Version: 5})
		topic := "devices/" + id + "/telemetry"
		device.Publish(topic, `{"timestamp":1767787200,"temperature":20}`, 1)
		device.Publish(topic, `{"timestamp":1767787200,"temperature":20}`, 1) // duplicate
		device.Publish(topic, `{"timestamp":1767787200,"temperature":21}`, 1) // conflict
		device.Publish(topic, `{"timestamp":1767787200,"humidity":50}`, 2)
		device.Publish(topic, `garbage`, 1)
		device.Publish("devices/other/telemetry", `{"temperature":20}`, 1) // refused
		device.Publish("devices/"+id+"/heartbeat", ``, 1)
		device.Publish("devices/"+id+"/notes", `not for the store`, 1)
	}
	check := func(s control.Status) {
		t.Helper()
		for _, d := range s.Devices {
			assert.Equal(t, want, d.Messages, d.ID)
		}
		assert.Equal(t, 2*want.Received, s.Messages.Received)
		assert.Zero(t, s.Messages.Difference)
		assert.Zero(t, s.Messages.Pending)
	}
	s, err := r.control.Status(context.Background())
	require.NoError(t, err)
	check(s)

	require.NoError(t, r.stop())
	s, err = r.app.status(context.Background(), r.loaded.Config)
	require.NoError(t, err)
	assert.False(t, s.Running)
	check(s)
}

func TestRemovedDeviceIsDisconnectedAtOnce(t *testing.T) {
	r := startServer(t)
	outside := &brokertest.Broker{Broker: r.running.Broker}
	for name, end := range map[string]func(context.Context, string) error{
		"removed": r.control.RemoveDevice,
		"rotated": func(ctx context.Context, id string) error {
			_, err := r.control.RotateDevice(ctx, id)
			return err
		},
	} {
		secret := r.addDevice(t, name)
		device := brokertest.Dial(t, outside, brokertest.TCP, brokertest.Login{User: name, Password: secret})
		require.NoError(t, end(context.Background(), name))
		device.AwaitClosed()
		_, answer := brokertest.TryDial(t, outside, brokertest.TCP, brokertest.Login{User: name, Password: secret})
		assert.NotZero(t, answer.ReasonCode, "the old password of the %s device", name)
	}
}

// With every listener disabled the broker is another program.
func TestReadingFromAnotherBrokerIsStored(t *testing.T) {
	other := brokertest.Start(t, brokertest.Device("bed-1"))
	_, port, err := net.SplitHostPort(other.Addrs().TCP.String())
	require.NoError(t, err)
	r := startServer(t, "PLANTOPS_LISTENERS_TCP_ENABLED=false", "PLANTOPS_LISTENERS_TLS_ENABLED=false",
		"PLANTOPS_LISTENERS_WEBSOCKET_ENABLED=false", "MQTT_HOST=127.0.0.1", "MQTT_PORT="+port,
		"MQTT_BACKEND_PASSWORD="+other.Backend.Password)
	require.Eventually(t, func() bool {
		s, err := r.control.Status(context.Background())
		return err == nil && s.Subscriber.Connected
	}, patience, 10*time.Millisecond)

	device := brokertest.Dial(t, other, brokertest.TLS, brokertest.As("bed-1"))
	device.Publish("devices/bed-1/telemetry", `{"temperature":21}`, 1)
	require.Eventually(t, func() bool { return r.counts(t).Stored == 1 }, patience, 10*time.Millisecond)
	assert.NoDirExists(t, r.loaded.Config.CertsDir(), "no listener, no certificates")
}

func TestPartThatEndsByItselfEndsTheProgram(t *testing.T) {
	log := &readyLog{ready: make(chan struct{})}
	s := &service{log: slog.New(slog.NewTextHandler(log, nil))}
	life := newTestLifecycle()
	life.start("ingest", func(context.Context) error { return assert.AnError })
	err := s.wait(context.Background(), life)
	assert.ErrorIs(t, err, assert.AnError)
	assert.Equal(t, exitFailed, exitCode(err))
	assert.Contains(t, log.String(), "stopping because a part ended by itself")
}

func TestCommitsKeepTheirDistance(t *testing.T) {
	const least, messages = 500 * time.Millisecond, 3
	r := startServer(t, "PLANTOPS_STORE_MIN_COMMIT_INTERVAL=500ms")
	device := brokertest.Dial(t, &brokertest.Broker{Broker: r.running.Broker}, brokertest.TCP,
		brokertest.Login{User: "bed-1", Password: r.addDevice(t, "bed-1")})
	began := time.Now()
	send := func(i int, qos byte) {
		device.SendPublish("devices/bed-1/telemetry", fmt.Sprintf(`{"timestamp":%d,"temperature":20}`, 1767787200+i), qos)
	}
	for i := range messages {
		send(i, 1)
		device.Await(4) // PUBACK
	}
	assert.GreaterOrEqual(t, time.Since(began), (messages-1)*least, "each was in a commit of its own")
	for i := range 100 {
		send(messages+i, byte(i%2))
	}
	for range 50 {
		device.Await(4)
	}
	require.NoError(t, r.stop())
	assert.NotContains(t, r.log.String(), " ERR ")
	assert.Len(t, r.readings(t, store.Query{Devices: []string{"bed-1"}}), messages+100, "a stop stores what waits")
}
