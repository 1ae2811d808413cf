package main

import (
	"context"
	"log/slog"
	"net"
	"path/filepath"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// serviceManager listens where systemd does.
func serviceManager(t *testing.T) *net.UnixConn {
	t.Helper()
	socket := filepath.Join(t.TempDir(), "notify")
	manager, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: socket, Net: "unixgram"})
	require.NoError(t, err)
	t.Cleanup(func() { manager.Close() })
	t.Setenv("NOTIFY_SOCKET", socket)
	require.NoError(t, manager.SetReadDeadline(time.Now().Add(patience)))
	return manager
}

func TestServiceManagerIsTold(t *testing.T) {
	manager := serviceManager(t)
	t.Setenv("WATCHDOG_USEC", "3600000000")
	// told returns the states in order, up to one that begins with last.
	told := func(last string) (states []string) {
		text := make([]byte, 1024)
		require.NoError(t, manager.SetReadDeadline(time.Now().Add(patience)))
		for {
			n, err := manager.Read(text)
			require.NoError(t, err, "waiting for %s after %v", last, states)
			state, _, _ := strings.Cut(string(text[:n]), "\n")
			if state != "WATCHDOG=1" || last == state {
				states = append(states, state)
			}
			if state == last {
				return states
			}
		}
	}

	r := startServer(t)
	assert.Equal(t, []string{"READY=1"}, told("READY=1"))
	r.reload <- syscall.SIGHUP
	assert.Equal(t, []string{"RELOADING=1", "READY=1"}, told("READY=1"))
	require.NoError(t, r.stop())
	assert.Equal(t, []string{"STOPPING=1"}, told("STOPPING=1"))
}

func TestWatchdogIsFedOnlyWhileThePartsAnswer(t *testing.T) {
	socket := filepath.Join(t.TempDir(), "notify")
	manager, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: socket, Net: "unixgram"})
	require.NoError(t, err)
	defer manager.Close()
	t.Setenv("NOTIFY_SOCKET", socket)
	t.Setenv("WATCHDOG_USEC", "10000")

	var asked atomic.Int64
	part, err := watchdog(slog.New(slog.DiscardHandler), func(context.Context) error {
		if asked.Add(1) < 3 {
			return assert.AnError
		}
		return nil
	})
	require.NoError(t, err)
	life := newTestLifecycle()
	life.start("watchdog", part)
	require.NoError(t, manager.SetReadDeadline(time.Now().Add(patience)))
	text := make([]byte, 64)
	n, err := manager.Read(text)
	require.NoError(t, err)
	assert.Equal(t, "WATCHDOG=1", string(text[:n]))
	assert.GreaterOrEqual(t, asked.Load(), int64(3), "told before the parts answered")
	require.NoError(t, life.stop(patience))
}

func TestPartsAnswerWhileTheServerRuns(t *testing.T) {
	r := startServer(t)
	assert.NoError(t, r.server.Alive(context.Background()))
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	assert.Error(t, r.server.Alive(ctx))
}
