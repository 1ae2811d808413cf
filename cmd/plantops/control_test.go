package main

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

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

	defer unix.Umask(unix.Umask(0))
	listener, err := listenControl(path)
	require.NoError(t, err)
	assert.Equal(t, 0, unix.Umask(0), "the umask is as it was")
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
	for _, id := range []string{"a/b", "a?b/../c"} {
		_, err := r.control.AddDevice(context.Background(), id)
		assert.ErrorIs(t, err, store.ErrInvalidID, id)
		assert.Equal(t, exitUsage, exitCode(err))
	}
	for _, id := range []string{".", ".."} { // odd, though good; no part of a path
		_, err := r.control.AddDevice(context.Background(), id)
		require.NoError(t, err, id)
		_, err = r.control.RotateDevice(context.Background(), id)
		require.NoError(t, err, id)
		require.NoError(t, r.control.RemoveDevice(context.Background(), id), id)
	}
}

func TestWhatStandsInTheWayOfACommitKeepsItsRemedyOverTheSocket(t *testing.T) {
	for _, sentinel := range []error{store.ErrFull, store.ErrLocked} {
		w := httptest.NewRecorder()
		answer(w, nil, fmt.Errorf("add device: %w", sentinel))
		var failed controlError
		require.NoError(t, json.NewDecoder(w.Body).Decode(&failed))
		assert.ErrorIs(t, remoteError{failed, controlKinds()[failed.Kind]}, sentinel)
	}
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
