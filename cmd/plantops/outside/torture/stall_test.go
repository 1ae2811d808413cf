//go:build linux

package torture_test

import (
	"errors"
	"os"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/plantops/plantops/cmd/plantops/outside/fleet"
	"github.com/plantops/plantops/cmd/plantops/outside/program"
	"github.com/plantops/plantops/cmd/plantops/outside/setting"
)

// maxGrowthBytes is how much memory a stall may cost.
const maxGrowthBytes = 32 << 20

// TestStalledStorage takes the storage away under load: nothing may be acknowledged that is not stored, the server may
// not grow, and when the storage is back, everything must be.
func TestStalledStorage(t *testing.T) {
	t.Parallel()
	stall(t, t.TempDir(), lockDatabase)
}

// The same on a full disk; "make check-root" runs what ends in AsRoot.
func TestStalledStorageOnAFullDiskAsRoot(t *testing.T) {
	t.Parallel()
	stall(t, smallDisk(t), fillDisk)
}

// stall runs a server under load in dir, without storage for a while; begin takes it away, end gives it back.
func stall(t *testing.T, dir string, begin func(*program.Installation) (end func())) {
	t.Helper()
	length := setting.Duration(t, "PLANTOPS_STALL", 3*time.Second)
	timeout := min(length/3, 10*time.Second)
	in := program.Install(t, dir, "PLANTOPS_INGEST_STALL_TIMEOUT="+timeout.String())
	devices := fleet.New(in, 20, 500, in.Register)
	in.Start()
	in.AwaitReady()
	devices.Start()
	program.Pause(in, length/3) // until memory is what it is under this load
	before := in.Memory("VmRSS")

	end := begin(in)
	silent := awaitSilence(devices)
	program.Pause(in, length)
	s := devices.Snapshot()
	assert.Equal(t, silent, s.Acknowledged, "acknowledged, while nothing could be stored")
	s.Verify(t, "in the stall", fleet.ReadCSV(in, devices))
	assert.Greater(t, s.Connections, len(devices.Devices), "no device was sent away to try again later")
	assert.NotZero(t, s.SentAway, "no MQTT 5 device was told why")

	end()
	began := time.Now()
	devices.Drain(length + setting.Patience)
	t.Logf("caught up with %d readings in %s", devices.Snapshot().Sent-s.Acknowledged, time.Since(began).Round(time.Millisecond))
	highest := in.Memory("VmHWM")
	t.Logf("memory: %.1f MiB before the stall, %.1f MiB at most; MQTT 5 devices were sent away %d times",
		float64(before)/(1<<20), float64(highest)/(1<<20), devices.Snapshot().SentAway)
	assert.Less(t, highest-before, int64(maxGrowthBytes), "growth of memory in bytes")

	fleet.VerifyDrained(in, devices)
	in.Stop()
	found, err := fleet.ReadStore(t.Context(), in.Database(), devices)
	require.NoError(t, err)
	devices.Snapshot().Verify(t, "package store", found)
}

// awaitSilence waits until no acknowledgement comes any more, but not for ever, and returns how many came until then.
// A full disk stops nobody before a file has to grow.
func awaitSilence(devices *fleet.Fleet) (acknowledged int) {
	const silence, bound = 2 * time.Second, 20 * time.Second
	began := time.Now()
	for since := began; time.Since(since) < silence && time.Since(began) < bound; {
		if now := devices.Snapshot().Acknowledged; now != acknowledged {
			acknowledged, since = now, time.Now()
		}
		<-time.After(silence / 10)
	}
	return acknowledged
}

// lockDatabase takes the lock that a writer of a database in WAL mode has, as another program would: one byte of the
// -shm file (https://sqlite.org/walformat.html#wal_locks).
func lockDatabase(in *program.Installation) (end func()) {
	in.T.Helper()
	const walWriteLock = 120
	shm, err := os.OpenFile(in.Database()+"-shm", os.O_RDWR, 0)
	require.NoError(in.T, err)
	lock := &syscall.Flock_t{Type: syscall.F_WRLCK, Start: walWriteLock, Len: 1}
	require.NoError(in.T, syscall.FcntlFlock(shm.Fd(), unix.F_OFD_SETLKW, lock))
	return func() { require.NoError(in.T, shm.Close()) }
}

// smallDisk mounts a file system that is soon full. Free, it has more space than what the server warns at.
func smallDisk(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	err := syscall.Mount("tmpfs", dir, "tmpfs", 0, "size=300m")
	if errors.Is(err, syscall.EPERM) {
		t.Skip(`needs root that may mount: "make check-root" runs it`)
	}
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, syscall.Unmount(dir, 0)) })
	return dir
}

// fillDisk leaves no space on the disk of the installation.
func fillDisk(in *program.Installation) (end func()) {
	in.T.Helper()
	path := filepath.Join(filepath.Dir(in.Dir), "ballast")
	ballast, err := os.Create(path)
	require.NoError(in.T, err)
	defer ballast.Close()
	const large, small = 1 << 20, 4 << 10
	for size, step := int64(0), int64(large); step >= small; {
		switch err := syscall.Fallocate(int(ballast.Fd()), 0, size, step); err {
		case nil:
			size += step
		case syscall.ENOSPC:
			step /= 2
		default:
			require.NoError(in.T, err)
		}
	}
	return func() { require.NoError(in.T, os.Remove(path)) }
}
