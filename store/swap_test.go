package store

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/plantops/plantops/store/swap"
)

// beside returns what is in the directory of the database, without its name.
func beside(t *testing.T, s *Store) (names []string) {
	t.Helper()
	list, err := os.ReadDir(filepath.Dir(s.path))
	require.NoError(t, err)
	for _, entry := range list {
		names = append(names, strings.TrimPrefix(entry.Name(), filepath.Base(s.path)))
	}
	return names
}

func TestAStoreWhoseFileCannotBeOpenedAfterDamageGoesOnWhenItCan(t *testing.T) {
	s := openTest(t, Options{})
	mustAppend(t, s, telemetry("bed-1", noon, Value{"temperature", 1}))
	away := filepath.Join(t.TempDir(), "away")
	require.NoError(t, os.Rename(s.path, away))
	cause := error(ErrDamaged)
	s.suspected.Store(&cause)
	_, err := s.Append(t.Context(), []Message{telemetry("bed-1", noon+1, Value{"temperature", 1})}, nil)
	require.Error(t, err)
	_, err = s.DeleteBefore(t.Context(), time.UnixMilli(noon+10))
	require.Error(t, err)
	s.whenIdle()
	require.NoError(t, os.Rename(away, s.path))
	assert.Equal(t, []Outcome{Stored}, mustAppend(t, s, telemetry("bed-1", noon+1, Value{"temperature", 1})))
	assert.EqualValues(t, 2, countRows(t, s))
}

func TestASwapThatFailsLeavesNothingForTheNextStart(t *testing.T) {
	for _, stuck := range []string{"", walSuffix, swap.SHM} {
		t.Run("stuck at "+stuck, func(t *testing.T) {
			s := openTest(t, Options{})
			mustAppend(t, s, telemetry("bed-1", noon, Value{"temperature", 1}))
			require.NoError(t, s.Close())
			require.NoError(t, os.WriteFile(s.path+newSuffix, []byte("new"), 0o600))
			old := damagedName(s.path, time.UnixMilli(noon))
			switch stuck {
			case "": // the old file cannot have its name
				require.NoError(t, os.Mkdir(old, 0o700))
			case walSuffix: // nor can the log
				require.NoError(t, os.WriteFile(s.path+walSuffix, []byte("log"), 0o600))
				require.NoError(t, os.Mkdir(old+walSuffix, 0o700))
			case swap.SHM: // the log is gone already
				require.NoError(t, os.WriteFile(s.path+walSuffix, []byte("log"), 0o600))
				require.NoError(t, os.MkdirAll(filepath.Join(s.path+swap.SHM, "full"), 0o700))
			}
			require.Error(t, swap.ReplaceOrUndo(s.path, s.path+newSuffix, old))
			assert.FileExists(t, s.path)
			if stuck == "" {
				return // what bears the name is nobody's to remove
			}
			log, err := os.ReadFile(s.path + walSuffix)
			require.NoError(t, err)
			assert.Equal(t, "log", string(log))
			if stuck == swap.SHM {
				assert.NoFileExists(t, s.path+newSuffix)
				assert.NoFileExists(t, old)
				assert.NoFileExists(t, old+walSuffix)
			}
		})
	}
}

func TestAFailedRebuildKeepsWhatIsStoredAfterIt(t *testing.T) {
	s := openTest(t, Options{})
	mustAppend(t, s, telemetry("bed-1", noon, Value{"temperature", 1}))
	require.NoError(t, os.MkdirAll(filepath.Join(s.path+swap.SHM+"x", "full"), 0o700))
	require.NoError(t, os.Remove(s.path+swap.SHM))
	require.NoError(t, os.Rename(s.path+swap.SHM+"x", s.path+swap.SHM), "a name that cannot be removed: the swap fails")
	require.Error(t, s.rebuild(t.Context(), ErrDamaged))
	require.NoError(t, os.RemoveAll(s.path+swap.SHM))
	mustAppend(t, s, telemetry("bed-2", noon, Value{"temperature", 2}))
	assert.NoFileExists(t, s.path+newSuffix)
	require.NoError(t, s.Close())
	s, err := Open(t.Context(), s.options)
	require.NoError(t, err)
	defer func() { assert.NoError(t, s.Close()) }()
	assert.Equal(t, Counts{Stored: 2}, totals(t, s))
}

func TestTwoRebuildsAtOneTimeKeepBothFiles(t *testing.T) {
	s := openTest(t, Options{}) // its clock stands
	for i := range int64(3) {
		mustAppend(t, s, telemetry("bed-1", noon+i, Value{"temperature", float64(i)}))
		require.NoError(t, s.acquire(t.Context()))
		require.NoError(t, s.rebuild(t.Context(), errors.New("test")))
		s.release()
	}
	require.NoError(t, s.regainAll(t.Context()))
	assert.EqualValues(t, 3, countRows(t, s))
	kept := 0
	for _, name := range beside(t, s) {
		assert.NotContains(t, name, makingSuffix)
		assert.NotContains(t, name, newSuffix)
		if strings.HasPrefix(name, ".damaged-") && !strings.HasSuffix(name, walSuffix) {
			kept++
		}
	}
	assert.Equal(t, 3, kept)
}

func TestARebuildThatFailsTakesNoRoom(t *testing.T) {
	s := openTest(t, Options{})
	require.NoError(t, s.acquire(t.Context()))
	require.NoError(t, s.w.run(t.Context(), `PRAGMA application_id = 1`), "a file of something else")
	require.NoError(t, s.w.run(t.Context(), `DELETE FROM counter; DELETE FROM device`))
	require.NoError(t, s.w.run(t.Context(), `PRAGMA wal_checkpoint(TRUNCATE)`))
	require.Error(t, s.rebuild(t.Context(), errors.New("test")))
	s.release()
	for _, name := range beside(t, s) {
		assert.NotContains(t, name, makingSuffix)
		assert.NotContains(t, name, newSuffix)
	}
}

func TestWhatIsPurgedOfTheQuarantineIsNotCounted(t *testing.T) {
	s := openTest(t, Options{})
	mustAppend(t, s, bad("bed-1", noon, "x"), bad("bed-1", noon, "y"))
	_, err := s.PurgeQuarantine(t.Context())
	require.NoError(t, err)
	h, err := s.Health(t.Context())
	require.NoError(t, err)
	assert.Zero(t, h.Quarantined)
}

func TestDamageThatDeletingFindsIsMended(t *testing.T) {
	s := openTest(t, Options{})
	mustAppend(t, s, telemetry("bed-1", noon, Value{"temperature", 1}))
	require.NoError(t, s.acquire(t.Context()))
	require.ErrorIs(t, s.transact(func() error { return ErrDamaged }), ErrDamaged)
	s.release()
	require.NotNil(t, s.suspected.Load())
	require.Eventually(t, func() bool { // compaction may have the right to write
		s.whenIdle()
		return s.suspected.Load() == nil
	}, 30*time.Second, time.Millisecond)
	list, err := s.Salvages(t.Context())
	require.NoError(t, err)
	assert.Len(t, list, 1)
	_, err = os.Stat(s.path + newSuffix)
	assert.ErrorIs(t, err, fs.ErrNotExist)
}
