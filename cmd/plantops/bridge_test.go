package main

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/plantops/plantops/broker/brokertest"
	"github.com/plantops/plantops/config"
	"github.com/plantops/plantops/control"
	"github.com/plantops/plantops/store"
)

// startWithFile is startServer with a configuration file, which the test may change.
func startWithFile(t *testing.T, text string, settings ...string) (r *running, path string) {
	t.Helper()
	dir, err := os.MkdirTemp("", "plantops")
	require.NoError(t, err)
	t.Cleanup(func() { assert.NoError(t, os.RemoveAll(dir)) })
	path = filepath.Join(dir, "plantops.yaml")
	require.NoError(t, os.WriteFile(path, []byte(text), 0o600))
	r = newServer(t, dir, &app{now: time.Now, configPath: path}, settings...)
	r.loaded, err = config.Load(path, r.app.environ, nil)
	require.NoError(t, err)
	r.start(t)
	return r, path
}

// bridgeNamed waits until the status says what a bridge is to be like.
func (r *running) bridgeNamed(t *testing.T, name string, fits func(control.BridgeStatus) bool) (found control.BridgeStatus) {
	t.Helper()
	require.Eventually(t, func() bool {
		s, err := r.control.Status(context.Background())
		require.NoError(t, err)
		for _, b := range s.Bridges {
			if b.Name == name {
				found = b
				return fits(b)
			}
		}
		return false
	}, patience, 20*time.Millisecond, "%+v", found)
	return found
}

// A box with devices sends what they measure to another one, which stores it too. All connections are TLS.
func TestReadingsGoOverABridge(t *testing.T) {
	far := startServer(t)
	far.addUser(t, "box", "operator", rules{Publish: []string{"farm/#", "devices/#"}, Subscribe: []string{"orders/#"}})
	reach, err := far.control.Contact(context.Background())
	require.NoError(t, err)
	ca := filepath.Join(t.TempDir(), "ca.crt")
	require.NoError(t, os.WriteFile(ca, []byte(reach.CA), 0o600))
	bridges := fmt.Sprintf(`
bridges:
  - name: farm
    address: localhost:%s
    ca_cert: %s
    username: box
    password: %s
    client_id: box-1
    topics:
      - {filter: devices/+/telemetry}
      - {filter: orders/#, direction: in, local_prefix: farm/}
`, reach.TLS[strings.LastIndex(reach.TLS, ":")+1:], ca, userPassword)
	near, path := startWithFile(t, bridges, "MQTT_USE_TLS=true", "PLANTOPS_LISTENERS_TLS_REQUIRE_CERTIFICATE=true")
	near.bridgeNamed(t, "farm", func(b control.BridgeStatus) bool { return b.Connected })

	secret := near.addDevice(t, "bed-1")
	device := brokertest.Dial(t, near.outside(t), brokertest.TCP, brokertest.Login{User: "bed-1", Password: secret})
	require.Equal(t, byte(0), device.Publish("devices/bed-1/telemetry", `{"temperature":21.5}`, 1))
	require.Eventually(t, func() bool { return len(far.readings(t, store.Query{})) == 1 }, patience, 20*time.Millisecond)
	assert.Len(t, near.readings(t, store.Query{}), 1)

	near.addUser(t, "vera", "operator", rules{Subscribe: []string{"farm/#"}})
	far.addUser(t, "otto", "operator", rules{Publish: []string{"orders/#"}})
	reader := brokertest.Dial(t, near.outside(t), brokertest.TCP, brokertest.Login{User: "vera", Password: userPassword})
	require.Equal(t, byte(1), reader.Subscribe("farm/#", 1))
	boss := brokertest.Dial(t, far.outside(t), brokertest.TCP, brokertest.Login{User: "otto", Password: userPassword})
	require.Equal(t, byte(0), boss.Publish("orders/1", "water", 1))
	assert.Equal(t, "farm/orders/1", reader.Receive().TopicName)

	s, err := near.control.Status(context.Background())
	require.NoError(t, err)
	require.Len(t, s.Bridges, 1)
	assert.Equal(t, control.Healthy, s.Health, "%v", s.Problems)
	assert.Equal(t, int64(1), s.Bridges[0].Out.Carried)
	assert.Equal(t, int64(1), s.Bridges[0].In.Carried)
	var out bytes.Buffer
	require.NoError(t, printStatus(&app{now: time.Now, stdout: &out}, s, false))
	assert.Contains(t, out.String(), "bridge farm")
	assert.Contains(t, out.String(), "1 message out, 1 in, 0")

	// The other box is away: readings wait, and the status says why.
	require.NoError(t, far.stop())
	near.bridgeNamed(t, "farm", func(b control.BridgeStatus) bool {
		return !b.Connected && strings.Contains(b.Reason, "nothing listens there")
	})
	require.Equal(t, byte(0), device.Publish("devices/bed-1/telemetry", `{"temperature":22}`, 1))
	near.bridgeNamed(t, "farm", func(b control.BridgeStatus) bool { return b.Waiting == 1 })
	s, err = near.control.Status(context.Background())
	require.NoError(t, err)
	assert.Equal(t, control.Degraded, s.Health)

	// Bridges change while the server runs. What waited for one that is no more is gone.
	require.NoError(t, os.WriteFile(path, []byte(strings.Replace(bridges, "name: farm", "name: field", 1)), 0o600))
	near.reload <- syscall.SIGHUP
	near.bridgeNamed(t, "field", func(b control.BridgeStatus) bool { return !b.Connected && b.Waiting == 0 })
	require.Eventually(t, func() bool { return len(near.log.Lines("what waited for bridges that are no more is gone")) == 1 }, patience, 20*time.Millisecond)
	assert.Zero(t, near.running.Broker.Waiting("plantops-bridge-farm"))

	// A configuration that cannot be leaves the bridges alone.
	require.NoError(t, os.WriteFile(path, []byte(strings.Replace(bridges, ca, ca+".gone", 1)), 0o600))
	near.reload <- syscall.SIGHUP
	require.Eventually(t, func() bool {
		return len(near.log.Lines("the configuration stays as it was", "bridges[0].ca_cert")) == 1
	}, patience, 20*time.Millisecond)
	near.bridgeNamed(t, "field", func(control.BridgeStatus) bool { return true })
}
