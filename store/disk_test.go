package store

import (
	"os"
	"syscall"
	"testing"

	"github.com/stretchr/testify/assert"
)

// mountDisk returns a directory that is a file system of its own. Only root can mount one, and not in every container:
// the names of tests that need it end in AsRoot, and "make check-root" runs these.
func mountDisk(t *testing.T, options string) (dir string) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip(`needs root: "make check-root" runs it`)
	}
	dir = t.TempDir()
	if err := syscall.Mount("tmpfs", dir, "tmpfs", 0, options); err != nil {
		t.Skipf("root may not mount a file system here: %v", err)
	}
	t.Cleanup(func() { assert.NoError(t, syscall.Unmount(dir, 0)) })
	return dir
}
