package main

import (
	"context"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/plantops/plantops/store"
)

func TestControlSocketIsForItsOwnerAndReplacesAStaleOne(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s")
	stale, err := net.Listen("unix", path)
	require.NoError(t, err)
	stale.(*net.UnixListener).SetUnlinkOnClose(false)
	require.NoError(t, stale.Close())
	require.FileExists(t, path, "as a killed server leaves it")
	_, err = dialControl(context.Background(), path)
	require.ErrorIs(t, err, errUnreachable)

	listener, err := listenControl(path)
	require.NoError(t, err)
	info, err := os.Stat(path)
	require.NoError(t, err)
	assert.Equal(t, os.FileMode(0o600), info.Mode().Perm())
	require.NoError(t, listener.Close())
}

// Callers branch on these errors, and a person reads the same text with and without a server.
func TestErrorsKeepTheirIdentityOverTheSocket(t *testing.T) {
	r := startServer(t)
	r.addDevice(t, "bed-1")
	_, there := r.control.AddDevice(context.Background(), "bed-1")
	_, here := r.box.AddDevice(context.Background(), "bed-1")
	assert.ErrorIs(t, there, store.ErrExists)
	assert.Equal(t, here.Error(), there.Error())
	assert.ErrorIs(t, r.control.RemoveDevice(context.Background(), "bed-9"), store.ErrNotFound)
}

func TestServerOfAnotherVersionIsRecognised(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s")
	listener, err := listenControl(path)
	require.NoError(t, err)
	other := &http.Server{Handler: http.NotFoundHandler(), ReadHeaderTimeout: time.Second}
	go func() { _ = other.Serve(listener) }()
	defer other.Close()
	client, err := dialControl(context.Background(), path)
	require.NoError(t, err)
	_, err = client.Status(context.Background())
	assert.ErrorContains(t, err, "is it another version?")
}

func TestControlSocketThatClosesByItselfIsAnError(t *testing.T) {
	listener, err := listenControl(filepath.Join(t.TempDir(), "s"))
	require.NoError(t, err)
	require.NoError(t, listener.Close())
	run := serveControl(listener, nil, slog.New(slog.DiscardHandler))
	assert.ErrorIs(t, run(context.Background()), net.ErrClosed)
}
