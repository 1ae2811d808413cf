package main

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

func TestLockNamesItsHolder(t *testing.T) {
	dir := t.TempDir()
	first, err := acquireLock(context.Background(), dir, 0)
	require.NoError(t, err)

	_, err = acquireLock(context.Background(), dir, 0)
	var locked *lockedError
	require.ErrorAs(t, err, &locked)
	assert.Equal(t, lockedError{dir, os.Getpid()}, *locked)

	require.NoError(t, first.Release())
	second, err := acquireLock(context.Background(), dir, 0)
	require.NoError(t, err)
	require.NoError(t, second.Release())
}

// With flock, whoever can open the file can keep every server from starting.
func TestLockFileIsForItsOwner(t *testing.T) {
	defer unix.Umask(unix.Umask(0))
	dir := t.TempDir()
	lock, err := acquireLock(context.Background(), dir, 0)
	require.NoError(t, err)
	defer lock.Release()
	info, err := os.Stat(filepath.Join(dir, "plantops.lock"))
	require.NoError(t, err)
	assert.Equal(t, os.FileMode(0o600), info.Mode().Perm())
}

func TestLockWaitsForACommandToFinish(t *testing.T) {
	dir := t.TempDir()
	command, err := acquireLock(context.Background(), dir, 0)
	require.NoError(t, err)
	time.AfterFunc(2*lockPoll, func() { assert.NoError(t, command.Release()) })
	server, err := acquireLock(context.Background(), dir, patience)
	require.NoError(t, err)
	require.NoError(t, server.Release())
}

// The server was started in the directory, with a relative path.
func TestCommandSaysWhenThePathToTheServerIsTooLong(t *testing.T) {
	dir := filepath.Join(t.TempDir(), strings.Repeat("d", maxSocketPathBytes))
	require.NoError(t, os.Mkdir(dir, 0o700))
	lock, err := acquireLock(context.Background(), dir, 0)
	require.NoError(t, err)
	defer lock.Release()
	var told strings.Builder
	code := run(t.Context(), []string{"device", "add", "bed-1", "--data-dir", dir}, &app{stderr: &told, now: time.Now})
	assert.Equal(t, exitUnreachable, code)
	assert.Contains(t, told.String(), "by a relative path")
}

func TestLockFileOfADeadProcessDoesNotHinder(t *testing.T) {
	dir := t.TempDir()
	require.NoError(t, os.WriteFile(filepath.Join(dir, "plantops.lock"), []byte("4711\n"), 0o644))
	lock, err := acquireLock(context.Background(), dir, 0)
	require.NoError(t, err)
	require.NoError(t, lock.Release())
}
