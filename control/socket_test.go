package control

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
	_, err = Dial(context.Background(), path)
	require.ErrorIs(t, err, ErrUnreachable)

	defer unix.Umask(unix.Umask(0))
	listener, err := listen(path)
	require.NoError(t, err)
	assert.Equal(t, 0, unix.Umask(0), "the umask is as it was")
	info, err := os.Stat(path)
	require.NoError(t, err)
	assert.Equal(t, os.FileMode(0o600), info.Mode().Perm())
	require.NoError(t, listener.Close())
}

func TestWhatStandsInTheWayOfACommitKeepsItsRemedyOverTheSocket(t *testing.T) {
	for _, c := range []struct{ failed, want error }{
		{store.ErrFull, store.ErrFull},
		{store.ErrLocked, store.ErrLocked},
		{store.ErrInDoubt, store.ErrInDoubt},
		{fmt.Errorf("%w: %w", store.ErrInDoubt, store.ErrFull), store.ErrInDoubt}, // the cause matters less
	} {
		w := httptest.NewRecorder()
		answer(w, nil, fmt.Errorf("add device: %w", c.failed))
		var failed socketError
		require.NoError(t, json.NewDecoder(w.Body).Decode(&failed))
		err := remoteError{failed, socketKinds()[failed.Kind]}
		assert.ErrorIs(t, err, c.want)
		assert.NotEmpty(t, Hints(err))
	}
}

func TestServerOfAnotherVersionIsRecognised(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s")
	listener, err := listen(path)
	require.NoError(t, err)
	other := &http.Server{Handler: http.NotFoundHandler(), ReadHeaderTimeout: time.Second}
	go func() { _ = other.Serve(listener) }()
	defer other.Close()
	client, err := Dial(context.Background(), path)
	require.NoError(t, err)
	_, err = client.Status(context.Background())
	assert.ErrorContains(t, err, "is it another version?")
}

func TestControlSocketThatClosesByItselfIsAnError(t *testing.T) {
	socket, err := Listen(filepath.Join(t.TempDir(), "s"), nil, slog.New(slog.DiscardHandler))
	require.NoError(t, err)
	require.NoError(t, socket.listener.Close())
	assert.ErrorIs(t, socket.Run(context.Background()), net.ErrClosed)
}
