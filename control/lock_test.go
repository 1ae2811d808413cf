package control

import (
	"context"
	"os"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

func TestLockNamesItsHolder(t *testing.T) {
	dir := t.TempDir()
	first, err := AcquireLock(context.Background(), dir, 0)
	require.NoError(t, err)

	_, err = AcquireLock(context.Background(), dir, 0)
	var locked *LockedError
	require.ErrorAs(t, err, &locked)
	assert.Equal(t, LockedError{dir, os.Getpid()}, *locked)

	require.NoError(t, first.Release())
	second, err := AcquireLock(context.Background(), dir, 0)
	require.NoError(t, err)
	require.NoError(t, second.Release())
}

// With flock, whoever can open the file can keep every server from starting.
func TestLockFileIsForItsOwner(t *testing.T) {
	defer unix.Umask(unix.Umask(0))
	dir := t.TempDir()
	lock, err := AcquireLock(context.Background(), dir, 0)
	require.NoError(t, err)
	defer lock.Release()
	info, err := os.Stat(filepath.Join(dir, "plantops.lock"))
	require.NoError(t, err)
	assert.Equal(t, os.FileMode(0o600), info.Mode().Perm())
}

func TestLockWaitsForACommandToFinish(t *testing.T) {
	dir := t.TempDir()
	command, err := AcquireLock(context.Background(), dir, 0)
	require.NoError(t, err)
	time.AfterFunc(2*lockPoll, func() { assert.NoError(t, command.Release()) })
	server, err := AcquireLock(context.Background(), dir, 30*time.Second)
	require.NoError(t, err)
	require.NoError(t, server.Release())
}

func TestLockFileOfADeadProcessDoesNotHinder(t *testing.T) {
	dir := t.TempDir()
	require.NoError(t, os.WriteFile(filepath.Join(dir, "plantops.lock"), []byte("4711\n"), 0o644))
	lock, err := AcquireLock(context.Background(), dir, 0)
	require.NoError(t, err)
	require.NoError(t, lock.Release())
}

// Two data directories can name one database: the second server is refused, through whatever link it comes.
func TestDatabaseIsLockedForAllDataDirectories(t *testing.T) {
	dir := t.TempDir()
	path, link := filepath.Join(dir, "plantops.db"), filepath.Join(t.TempDir(), "other.db")
	require.NoError(t, os.Symlink(path, link))
	first, err := AcquireDatabase(context.Background(), path, 0)
	require.NoError(t, err)
	for _, same := range []string{path, link} {
		_, err = AcquireDatabase(context.Background(), same, 0)
		var locked *DatabaseLockedError
		require.ErrorAs(t, err, &locked, same)
		assert.Equal(t, DatabaseLockedError{path, os.Getpid()}, *locked)
		assert.Contains(t, Hints(err)[0], "store.path")
	}
	require.NoError(t, first.Release())
	second, err := AcquireDatabase(context.Background(), link, 0)
	require.NoError(t, err)
	require.NoError(t, second.Release())

	nowhere, err := AcquireDatabase(context.Background(), filepath.Join(dir, "missing", "plantops.db"), 0)
	require.NoError(t, err, "opening it says why")
	require.NoError(t, nowhere.Release())
}

func TestLockThatRootMakesBelongsToTheOwnerOfTheDirectoryAsRoot(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("only root can give files away")
	}
	const somebody = 12345
	dir := t.TempDir()
	require.NoError(t, os.Chown(dir, somebody, somebody))
	lock, err := AcquireLock(context.Background(), dir, 0)
	require.NoError(t, err)
	require.NoError(t, lock.Release())
	info, err := os.Stat(filepath.Join(dir, "plantops.lock"))
	require.NoError(t, err)
	assert.EqualValues(t, somebody, info.Sys().(*syscall.Stat_t).Uid)
}
