package main

import (
	"bytes"
	"context"
	"log/slog"
	"path/filepath"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/plantops/plantops/certs"
	"github.com/plantops/plantops/config"
	"github.com/plantops/plantops/store/backup"
	"github.com/plantops/plantops/store/storetest"
)

var built = time.Date(2026, 6, 1, 0, 0, 0, 0, time.UTC)

// A Pi without a battery clock starts in 1970, until the network has told it the time.
func TestClockIsAwaitedBeforeCertificatesAreCreated(t *testing.T) {
	db := storetest.Open(t)
	synctest.Test(t, func(t *testing.T) {
		var log bytes.Buffer
		began := time.Now()
		now := func() time.Time {
			if time.Since(began) < 90*time.Second {
				return time.Unix(0, 0)
			}
			return built.AddDate(0, 1, 0)
		}
		o := certs.Options{Dir: t.TempDir() + "/certs", Now: now, NotBeforeClock: built, Log: slog.New(slog.NewTextHandler(&log, nil))}
		authority, err := openAuthority(context.Background(), o, db)
		require.NoError(t, err)
		assert.Equal(t, 90*time.Second, time.Since(began))
		assert.Contains(t, log.String(), "the clock is not set: waiting for time")
		assert.True(t, authority.Certificates()[0].NotBefore.After(built))
	})
}

func TestWaitForTheClockEndsWithTheProgram(t *testing.T) {
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	err := untilClock(ctx, time.Now, slog.New(slog.DiscardHandler), func() error { return certs.ErrClock })
	assert.ErrorIs(t, err, context.Canceled)
}

func TestSubscriberJudgesCertificatesByATimeThatCanBe(t *testing.T) {
	created := built.AddDate(0, 2, 0)
	authority, err := certs.Create(certs.Options{Dir: t.TempDir() + "/certs", Now: func() time.Time { return created }}, false)
	require.NoError(t, err)
	server := authority.Certificates()[1]

	at := func(clock time.Time, authority *certs.Authority) time.Time {
		return tlsClock(func() time.Time { return clock }, built, authority)()
	}
	right := built.AddDate(1, 0, 0)
	assert.Equal(t, right, at(right, authority), "a clock that can be right is believed")
	assert.Equal(t, server.NotBefore, at(time.Unix(0, 0), authority), "certificates prove that time has passed")
	assert.Equal(t, built, at(time.Unix(0, 0), nil))
}

func TestBackendPasswordIsDrawnForTheEmbeddedBrokerOnly(t *testing.T) {
	cfg := config.Default()
	assert.NotEqual(t, backendPassword(cfg), backendPassword(cfg))
	assert.GreaterOrEqual(t, len(backendPassword(cfg)), 26) // 128 bits in Base32

	cfg.MQTT.BackendPassword = "set"
	assert.Equal(t, "set", backendPassword(cfg))

	cfg.MQTT.BackendPassword = ""
	cfg.Listeners.TCP.Enabled, cfg.Listeners.TLS.Enabled, cfg.Listeners.WebSocket.Enabled = false, false, false
	assert.Empty(t, backendPassword(cfg))
}

// A restore that was broken off between two files is not taken for one that is done.
func TestCertificatesAreRestoredByTheNextAttempt(t *testing.T) {
	file := func(name, of string) backup.File {
		return backup.File{Name: name, Mode: 0o600, Content: []byte(name + of)}
	}
	names := []string{"ca.crt", "ca.key", "revoked", "server.crt", "server.key"}
	var old, files []backup.File
	for _, name := range names {
		old, files = append(old, file(name, " old")), append(files, file(name, " restored"))
	}
	for written := range len(files) {
		dir := filepath.Join(t.TempDir(), "certs")
		require.NoError(t, backup.WriteFiles(dir, old))
		require.NoError(t, backup.WriteFiles(dir, authorityLast(files)[:written]))
		became, _, err := restoreCerts(dir, files, true, time.Now())
		require.NoError(t, err)
		assert.Equal(t, certsRestored, became)
		assert.True(t, backup.SameFiles(dir, files), "after %d files", written)
	}
	assert.Len(t, files, len(names))
	assert.Equal(t, "ca.crt", files[0].Name, "the order of the backup stays")
}
