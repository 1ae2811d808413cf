package backup_test

import (
	"fmt"
	"os"
	"path/filepath"
	"syscall"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/plantops/plantops/store"
	"github.com/plantops/plantops/store/backup"
)

// mountDisk returns a directory that is a file system of its own. Only root can mount one, and not in every container:
// the names of tests that need it end in AsRoot, and "make check-root" runs these.
func mountDisk(t *testing.T, bytes int) (dir string) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip(`needs root: "make check-root" runs it`)
	}
	dir = t.TempDir()
	if err := syscall.Mount("tmpfs", dir, "tmpfs", 0, fmt.Sprintf("size=%d", bytes)); err != nil {
		t.Skipf("root may not mount a file system here: %v", err)
	}
	t.Cleanup(func() { assert.NoError(t, syscall.Unmount(dir, 0)) })
	return dir
}

func TestADiskWithoutRoomIsToldAndLeftAsItWasAsRoot(t *testing.T) {
	_, database, file := made(t, 50000) // more than half a megabyte
	disk := mountDisk(t, 2<<20)
	to := filepath.Join(disk, "backup.db")
	r, err := backup.Make(t.Context(), options(database, to))
	require.NoError(t, err)
	require.Greater(t, r.Bytes, int64(1<<19))

	_, err = backup.Make(t.Context(), options(database, filepath.Join(disk, "second.db")))
	require.ErrorIs(t, err, store.ErrFull)
	assert.ErrorContains(t, err, "MB free", "before it begins")
	assert.Equal(t, []string{"backup.db"}, names(t, disk))
	_, err = backup.Restore(t.Context(), restoreOptions(file, filepath.Join(disk, "plantops.db")))
	require.ErrorIs(t, err, store.ErrFull)
	assert.Equal(t, []string{"backup.db"}, names(t, disk))

	// And when somebody else takes the room meanwhile.
	require.NoError(t, os.Remove(to))
	o := options(database, to)
	taken := false
	o.Told = func(_ string, done, _ int64) {
		if done > 0 && !taken {
			taken = true
			require.NoError(t, os.WriteFile(filepath.Join(disk, "other"), make([]byte, 16<<20/10), 0o600))
		}
	}
	_, err = backup.Make(t.Context(), o)
	require.ErrorIs(t, err, store.ErrFull)
	assert.ErrorContains(t, err, "make room in "+disk)
	assert.Equal(t, []string{"other"}, names(t, disk))
}

// On the disk of the database a copy leaves room for what devices send.
func TestABackupDoesNotFillTheDiskOfTheDatabaseAsRoot(t *testing.T) {
	disk := mountDisk(t, 100<<20)
	database := filepath.Join(disk, "plantops.db")
	s, err := store.Open(t.Context(), store.Options{Path: database})
	require.NoError(t, err)
	fill(t, s, 0, 50000)
	require.NoError(t, s.Close())
	_, err = backup.Make(t.Context(), options(database, filepath.Join(disk, "first.db")))
	require.NoError(t, err)
	require.NoError(t, os.WriteFile(filepath.Join(disk, "other"), make([]byte, 30<<20), 0o600))
	_, err = backup.Make(t.Context(), options(database, filepath.Join(disk, "second.db")))
	require.ErrorIs(t, err, store.ErrFull)
	_, err = backup.Make(t.Context(), options(database, filepath.Join(t.TempDir(), "elsewhere.db")))
	require.NoError(t, err)
}
