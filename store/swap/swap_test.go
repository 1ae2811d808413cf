package swap_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/plantops/plantops/store/swap"
)

var noon = time.Date(2026, 1, 7, 12, 0, 0, 0, time.UTC)

func write(t *testing.T, path, text string) {
	t.Helper()
	require.NoError(t, os.WriteFile(path, []byte(text), 0o600))
}

func read(t *testing.T, path string) string {
	t.Helper()
	text, err := os.ReadFile(path)
	if os.IsNotExist(err) {
		return ""
	}
	require.NoError(t, err)
	return string(text)
}

// steps are what Restore does, one system call each, in the order in which it does them.
func steps(path, stamp string) []func() error {
	decided, old := path+".restored-"+stamp, path+".before-restore-"+stamp
	return []func() error{
		func() error { return os.Rename(path+".restoring", decided) },
		func() error { return os.Link(path, old) },
		func() error { return os.Link(path+"-wal", old+"-wal") },
		func() error { return os.Remove(path + "-wal") },
		func() error { return os.Remove(path + "-shm") },
		func() error { return os.Rename(decided, path) },
	}
}

// A power cut after any step leaves the old database whole, with its log, or a restore that the next start finishes. So does one
// that comes while the next start does that.
func TestACutAtAnyStepOfARestoreLeavesOneWholeDatabase(t *testing.T) {
	stamp := "20260107T120000.000Z"
	for done := range 7 {
		for again := range 7 {
			path := filepath.Join(t.TempDir(), "plantops.db")
			write(t, path, "old")
			write(t, path+"-wal", "old log")
			write(t, path+"-shm", "index")
			write(t, path+".restoring", "new")
			for _, step := range steps(path, stamp)[:done] {
				require.NoError(t, step())
			}
			if done > 0 { // a start that is cut off too: what is done already fails, as it may
				for _, step := range steps(path, stamp)[1:max(1, min(again, 6))] {
					_ = step()
				}
			}
			old, err := swap.FinishRestore(path)
			require.NoError(t, err)
			if done == 0 {
				assert.Empty(t, old)
				assert.Equal(t, []string{"old", "old log"}, []string{read(t, path), read(t, path+"-wal")})
				assert.NoFileExists(t, path+".restoring", "it may be half written")
				continue
			}
			assert.Equal(t, "new", read(t, path), "after %d and %d", done, again)
			assert.NoFileExists(t, path+"-wal", "the log of the old one would be taken for one of the new one")
			kept := path + ".before-restore-" + stamp
			assert.Equal(t, []string{"old", "old log"}, []string{read(t, kept), read(t, kept+"-wal")})
			old, err = swap.FinishRestore(path)
			require.NoError(t, err)
			assert.Empty(t, old, "it is finished")
		}
	}
}

// The steps of the test above are those of the code.
func TestARestoreDoesTheseSteps(t *testing.T) {
	path := filepath.Join(t.TempDir(), "plantops.db")
	write(t, path, "old")
	write(t, path+"-wal", "old log")
	write(t, path+"-shm", "index")
	write(t, path+".restoring", "new")
	old, err := swap.Restore(path, path+".restoring", noon)
	require.NoError(t, err)
	assert.Equal(t, path+".before-restore-20260107T120000.000Z", old)
	entries, err := os.ReadDir(filepath.Dir(path))
	require.NoError(t, err)
	var names []string
	for _, e := range entries {
		names = append(names, strings.TrimPrefix(e.Name(), "plantops.db"))
	}
	assert.Equal(t, []string{"", ".before-restore-20260107T120000.000Z", ".before-restore-20260107T120000.000Z-wal"}, names)
	assert.Equal(t, "new", read(t, path))
}

func TestNoKeptDatabaseIsReplaced(t *testing.T) {
	path := filepath.Join(t.TempDir(), "plantops.db")
	for _, text := range []string{"first", "second", "third"} {
		write(t, path+".restoring", text)
		_, err := swap.Restore(path, path+".restoring", noon) // its clock stands
		require.NoError(t, err)
	}
	assert.Equal(t, "third", read(t, path))
	assert.Equal(t, "first", read(t, path+".before-restore-20260107T120000.000Z"))
	assert.Equal(t, "second", read(t, path+".before-restore-20260107T120000.001Z"))
}

func TestOtherFilesBesideTheDatabaseAreNoRestore(t *testing.T) {
	path := filepath.Join(t.TempDir(), "plantops.db")
	write(t, path, "old")
	write(t, path+".restored-by-me", "mine")
	require.NoError(t, os.Mkdir(path+".restored-20260107T120000.000Z", 0o700))
	old, err := swap.FinishRestore(path)
	require.NoError(t, err)
	assert.Empty(t, old)
	assert.Equal(t, "old", read(t, path))
	old, err = swap.FinishRestore(filepath.Join(t.TempDir(), "no", "folder.db"))
	require.NoError(t, err)
	assert.Empty(t, old)
}
