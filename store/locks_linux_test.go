package store

import (
	"fmt"
	"os"
	"regexp"
	"syscall"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// locked tells whether this process has a lock on a file.
func locked(t *testing.T, path string) bool {
	t.Helper()
	info, err := os.Stat(path)
	require.NoError(t, err)
	list, err := os.ReadFile("/proc/locks")
	if err != nil {
		t.Skip("this system does not list its locks")
	}
	return regexp.MustCompile(fmt.Sprintf(`POSIX .* %d [0-9a-f]+:[0-9a-f]+:%d `, os.Getpid(), info.Sys().(*syscall.Stat_t).Ino)).Match(list)
}

func TestTheFileIsLockedAfterAFailedRebuild(t *testing.T) {
	s := openTest(t, Options{})
	mustAppend(t, s, telemetry("bed-1", noon, Value{"temperature", 1}))
	_, err := s.Salvages(t.Context()) // a reader
	require.NoError(t, err)
	if !locked(t, s.path) {
		t.Skip("this system does not list all locks")
	}
	require.NoError(t, os.MkdirAll(s.path+newSuffix+"/full", 0o700), "what was made cannot have its name")
	require.NoError(t, s.acquire(t.Context()))
	require.Error(t, s.rebuild(t.Context(), ErrDamaged))
	s.release()
	mustAppend(t, s, telemetry("bed-1", noon+1, Value{"temperature", 1}))
	assert.True(t, locked(t, s.path))
	require.NoError(t, os.RemoveAll(s.path+newSuffix))
}
