//go:build linux

package main_test

import (
	"fmt"
	"os"
	"strings"
	"syscall"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// What a server has that nobody uses: descriptors and goroutines that were left behind.

func (in *installation) descriptors() int {
	in.t.Helper()
	used, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", in.server.Pid))
	require.NoError(in.t, err)
	return len(used)
}

// noGoroutinesLeft compares a server without clients, which was started with startLogged, with one that has just
// started. It ends both.
func (in *installation) noGoroutinesLeft(log string) {
	in.t.Helper()
	worn := in.goroutines(log)
	in.startLogged(log + ".fresh")
	fresh := in.goroutines(log + ".fresh")
	in.t.Logf("%d goroutines in the end, %d in a server that has just started", worn, fresh)
	assert.LessOrEqual(in.t, worn, fresh, "goroutines")
}

// goroutines makes the server tell of its goroutines, which ends it, and returns how many there were besides those of
// the runtime.
func (in *installation) goroutines(log string) int {
	in.t.Helper()
	before, err := os.Stat(log)
	require.NoError(in.t, err)
	require.NoError(in.t, in.server.Signal(syscall.SIGQUIT))
	<-in.server.ended
	said := saidSince(in.t, log, before.Size())
	return strings.Count(said, "\ncreated by ") - strings.Count(said, "\ncreated by runtime.")
}

// saidSince returns what a log has had since the moment at which it was so long.
func saidSince(t *testing.T, log string, length int64) string {
	t.Helper()
	text, err := os.ReadFile(log)
	require.NoError(t, err)
	return string(text[length:])
}
