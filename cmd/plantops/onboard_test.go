package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"fmt"
	"io"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/plantops/plantops/control"
	"github.com/plantops/plantops/ingest"
)

// longPatience is for a machine with much else to do: passwords are checked in it.
const longPatience = 3 * patience

// told is a standard error that can be read while it is written.
type told struct {
	mu   sync.Mutex
	text strings.Builder
}

func (t *told) Write(p []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.text.Write(p)
}

func (t *told) String() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.text.String()
}

// inProcess is a server in this process and what its command line needs.
type inProcess struct {
	t       *testing.T
	environ []string
	dir     string
	log     *told
}

func startBox(t *testing.T) *inProcess {
	t.Helper()
	b := &inProcess{t: t, dir: t.TempDir(), log: &told{}}
	b.environ = []string{"PLANTOPS_DATA_DIR=" + b.dir, "PLANTOPS_LISTENERS_TCP_ADDRESS=127.0.0.1:0", "PLANTOPS_LISTENERS_TLS_ADDRESS=127.0.0.1:0",
		"PLANTOPS_LISTENERS_WEBSOCKET_ADDRESS=127.0.0.1:0", "PLANTOPS_HTTP_ADDRESS=off", "MQTT_USE_TLS=true"}
	ctx, stop := context.WithCancel(context.Background())
	ended := make(chan int, 1)
	go func() { ended <- run(ctx, []string{"serve"}, b.app(io.Discard, b.log)) }()
	t.Cleanup(func() {
		stop()
		assert.Equal(t, exitDone, <-ended, b.log.String())
	})
	require.Eventually(t, func() bool {
		_, err := control.Dial(t.Context(), filepath.Join(b.dir, "plantops.sock"))
		return err == nil && strings.Contains(b.log.String(), "next: ")
	}, longPatience, 10*time.Millisecond, "the server gets ready")
	return b
}

func (b *inProcess) app(stdout, stderr io.Writer) *app {
	return &app{stdout: stdout, stderr: stderr, environ: b.environ, now: time.Now}
}

// add registers a device and returns its credentials.
func (b *inProcess) add(id string) credentials {
	b.t.Helper()
	var out strings.Builder
	require.Equal(b.t, exitDone, run(b.t.Context(), []string{"device", "add", id, "--json"}, b.app(&out, io.Discard)))
	var given credentials
	require.NoError(b.t, json.Unmarshal([]byte(out.String()), &given))
	return given
}

// send publishes over TLS as the device would.
func (b *inProcess) send(given credentials, payload string) error {
	roots := x509.NewCertPool()
	require.True(b.t, roots.AppendCertsFromPEM([]byte(given.CA)))
	device, err := ingest.Connect(b.t.Context(), ingest.PublisherOptions{Address: hostPort(given.Host, given.Port),
		TLS: &tls.Config{RootCAs: roots}, Username: given.Username, Password: given.Password})
	if err != nil {
		return err
	}
	defer device.Close()
	return device.Publish(b.t.Context(), given.Topic, []byte(payload), 1)
}

func TestWaitingForTheFirstReadingSaysWhyNoneComesAndThatItCame(t *testing.T) {
	b := startBox(t)
	old := b.add("bed-1")
	assert.Contains(t, b.log.String(), "next: register a device")

	var out, err told
	done := make(chan int, 1)
	go func() {
		done <- run(t.Context(), []string{"device", "rotate", "bed-1", "--json", "--wait=1m"}, b.app(&out, &err))
	}()
	awaitText(t, &err, "waiting for the first reading of bed-1 …")
	var given credentials
	require.NoError(t, json.Unmarshal([]byte(out.String()), &given))

	require.Error(t, b.send(old, `{"temperature":1}`))
	awaitText(t, &err, "refused to bed-1: wrong password, ")
	require.NoError(t, b.send(given, `21 degrees`))
	awaitText(t, &err, `a message of bed-1 was no reading; "plantops quarantine list" says why`)
	require.NoError(t, b.send(given, `{"temperature":21.5}`))
	assert.Equal(t, exitDone, <-done)
	assert.Contains(t, err.String(), "✓ the first reading of bed-1 is stored: temperature 21.5")
	require.NoError(t, b.send(given, `{"temperature":22.5}`))
	assert.Equal(t, 1, strings.Count(b.log.String(), "the first reading of a device is stored"), "once for each device")
}

func TestWaitingForTheFirstReadingHasAnEnd(t *testing.T) {
	b := startBox(t)
	var err told
	code := run(t.Context(), []string{"device", "add", "bed-1", "--wait=10ms"}, b.app(io.Discard, &err))
	assert.Equal(t, exitFailed, code)
	assert.Contains(t, err.String(), "no reading of bed-1 came within 10ms")
	assert.Contains(t, err.String(), "plantops device show bed-1")
}

func TestReadingsFollowsWhatComes(t *testing.T) {
	b := startBox(t)
	given := b.add("bed-1")
	require.NoError(t, b.send(given, `{"timestamp":"2026-01-07T12:00:00Z","temperature":1}`))
	now := time.Now().UTC().Truncate(time.Second)
	at := func(d time.Duration, text string) string {
		return `{"timestamp":"` + now.Add(d).Format(time.RFC3339) + `",` + text + `}`
	}
	require.NoError(t, b.send(given, at(-time.Minute, `"temperature":2`)))

	for i, format := range []string{"table", "csv", "json"} {
		fresh, merged, late := fmt.Sprintf("%d.0625", 100+i), fmt.Sprintf("%d.0625", 200+i), fmt.Sprintf("%d.0625", 300+i) // no part of a date
		ctx, stop := context.WithCancel(t.Context())
		var out, err told
		done := make(chan int, 1)
		go func() { done <- run(ctx, []string{"readings", "--follow", "--format", format}, b.app(&out, &err)) }()
		awaitText(t, &err, "readings of the last 24 h")
		shift := time.Duration(i) * time.Second
		require.NoError(t, b.send(given, at(shift, `"temperature":`+fresh)))
		awaitText(t, &out, fresh)
		require.NoError(t, b.send(given, at(shift, `"humidity":`+merged)))
		awaitText(t, &out, merged)
		require.NoError(t, b.send(given, at(shift-time.Hour, `"temperature":`+late))) // from a device that was away
		awaitText(t, &out, late)
		stop()
		assert.Equal(t, exitDone, <-done, "Ctrl-C is how it ends: %s", err.String())
		text := out.String()
		if format == "table" {
			assert.Contains(t, text, "  bed-1   temperature  2\n")
		}
		assert.NotContains(t, text, "2026-01-07")
		assert.Equal(t, 1, strings.Count(text, merged), text)
	}
}

func awaitText(t *testing.T, where *told, what string) {
	t.Helper()
	require.Eventually(t, func() bool { return strings.Contains(where.String(), what) }, longPatience, 10*time.Millisecond, "%s: %s", what, where)
}
