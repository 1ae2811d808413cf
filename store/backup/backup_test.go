package backup_test

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	_ "modernc.org/sqlite"

	"github.com/plantops/plantops/store"
	"github.com/plantops/plantops/store/backup"
	"github.com/plantops/plantops/store/storetest"
)

var noon = time.Date(2026, 1, 7, 12, 0, 0, 0, time.UTC)

// fill stores n messages of several devices, from a number on.
func fill(t testing.TB, s *store.Store, from, n int) {
	t.Helper()
	var batch []store.Message
	for i := from; i < from+n; i++ {
		at := noon.Add(time.Duration(i) * time.Second).UnixMilli()
		batch = append(batch, store.Message{Kind: store.Telemetry, Device: fmt.Sprintf("bed-%d", i%7), Topic: "t", Time: at, Received: at,
			Values: []store.Value{{Metric: "temperature", Value: float64(i) / 10}, {Metric: "ph", Value: 6.5}}})
	}
	_, err := s.Append(t.Context(), batch, nil)
	require.NoError(t, err)
	require.NoError(t, s.Flush(t.Context()), "into blocks, where there are enough of a device")
}

func rows(t testing.TB, s *store.Store) int64 {
	t.Helper()
	h, err := s.Health(t.Context())
	require.NoError(t, err)
	return h.Readings
}

var files = []backup.File{{Name: "ca.crt", Mode: 0o644, Content: []byte("certificate")}, {Name: "ca.key", Mode: 0o600, Content: []byte("key")}}

func options(database, to string) backup.Options {
	return backup.Options{Database: database, To: to, Files: files, Version: "1.2.3", Host: "box", Now: noon, By: backup.ByPerson}
}

// made returns a backup of a store with n messages, which is open.
func made(t *testing.T, n int) (s *store.Store, database, file string) {
	database = filepath.Join(t.TempDir(), "plantops.db")
	s, err := store.Open(t.Context(), store.Options{Path: database})
	require.NoError(t, err)
	t.Cleanup(func() { assert.NoError(t, s.Close()) }) // also when the test has closed it
	fill(t, s, 0, n)
	_, err = s.AddDevice(t.Context(), "bed-1")
	require.NoError(t, err)
	file = filepath.Join(t.TempDir(), "backup.db")
	r, err := backup.Make(t.Context(), options(database, file))
	require.NoError(t, err)
	assert.EqualValues(t, n, r.Messages)
	assert.Equal(t, file, r.Path)
	return s, database, file
}

func names(t *testing.T, dir string) (list []string) {
	entries, err := os.ReadDir(dir)
	require.NoError(t, err)
	for _, e := range entries {
		list = append(list, e.Name())
	}
	return list
}

func TestABackupIsOnePrivateFileThatIsGood(t *testing.T) {
	_, _, file := made(t, 2000)
	assert.Equal(t, []string{"backup.db"}, names(t, filepath.Dir(file)), "and nothing beside it, after it was checked too")
	info, err := os.Stat(file)
	require.NoError(t, err)
	assert.Equal(t, fs.FileMode(0o600), info.Mode().Perm())
	r, err := backup.Check(t.Context(), file, backup.CheckOptions{})
	require.NoError(t, err)
	assert.Empty(t, r.Findings)
	assert.EqualValues(t, 2000, r.Messages)
	assert.EqualValues(t, 7, r.Devices)
	require.NotNil(t, r.Backup)
	assert.Equal(t, backup.Info{Made: noon, Version: "1.2.3", Host: "box", By: backup.ByPerson, Files: []string{"ca.crt", "ca.key"}}, *r.Backup)
	assert.Equal(t, []string{"backup.db"}, names(t, filepath.Dir(file)))
}

func TestABackupReplacesNothingThatItMustNot(t *testing.T) {
	_, database, file := made(t, 10)
	before, err := os.ReadFile(file)
	require.NoError(t, err)
	_, err = backup.Make(t.Context(), options(database, file))
	require.ErrorIs(t, err, fs.ErrExist)
	after, err := os.ReadFile(file)
	require.NoError(t, err)
	assert.Equal(t, before, after)

	o := options(database, file)
	o.Force = true
	_, err = backup.Make(t.Context(), o)
	require.NoError(t, err)

	link := filepath.Join(t.TempDir(), "link")
	require.NoError(t, os.Link(database, link))
	for _, to := range []string{database, database + "-wal", database + ".new", link, t.TempDir()} {
		o.To = to
		_, err = backup.Make(t.Context(), o)
		assert.Error(t, err, to)
		assert.NoFileExists(t, to+".part")
	}
	o.To = filepath.Join(t.TempDir(), "no", "folder")
	_, err = backup.Make(t.Context(), o)
	assert.ErrorIs(t, err, fs.ErrNotExist)
}

func TestABackupIsOfOneMomentWhileOthersWrite(t *testing.T) {
	database := filepath.Join(t.TempDir(), "plantops.db")
	s := storetest.OpenWith(t, store.Options{Path: database})
	fill(t, s, 0, 20000)
	ctx, cancel := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	wg.Go(func() {
		for i := 20000; ctx.Err() == nil; i += 7 {
			fill(t, s, i, 7)
		}
	})
	dir := t.TempDir()
	for i := range 3 {
		o := options(database, filepath.Join(dir, fmt.Sprint(i)))
		o.Gently = true
		before := rows(t, s)
		r, err := backup.Make(t.Context(), o)
		require.NoError(t, err)
		assert.GreaterOrEqual(t, r.Messages, before)
		assert.LessOrEqual(t, r.Messages, rows(t, s))
		assert.Zero(t, (r.Messages-20000)%7, "a commit is in it or not")
	}
	cancel()
	wg.Wait()
}

func TestABackupThatIsBrokenOffLeavesNothing(t *testing.T) {
	database := filepath.Join(t.TempDir(), "plantops.db")
	s := storetest.OpenWith(t, store.Options{Path: database})
	fill(t, s, 0, 20000)
	for _, at := range []string{"copy", "check the pages", "read what is stored"} {
		ctx, cancel := context.WithCancel(t.Context())
		o := options(database, filepath.Join(t.TempDir(), "backup.db"))
		o.Told = func(what string, _, _ int64) {
			if what == at {
				cancel()
			}
		}
		_, err := backup.Make(ctx, o)
		require.ErrorIs(t, err, context.Canceled, at)
		assert.Empty(t, names(t, filepath.Dir(o.To)), at)
	}
}

func TestNoTwoMakeTheSameBackup(t *testing.T) {
	database := filepath.Join(t.TempDir(), "plantops.db")
	s := storetest.OpenWith(t, store.Options{Path: database})
	fill(t, s, 0, 100)
	o := options(database, filepath.Join(t.TempDir(), "backup.db"))
	var second error
	inner := o
	o.Told = func(string, int64, int64) { _, second = backup.Make(context.Background(), inner) }
	_, err := backup.Make(t.Context(), o)
	require.NoError(t, err)
	assert.ErrorIs(t, second, backup.ErrBusy)
}

func TestADamagedDatabaseMakesNoBackup(t *testing.T) {
	s, database, _ := made(t, 7000)
	require.NoError(t, s.Close())
	damage(t, database)
	to := filepath.Join(t.TempDir(), "backup.db")
	_, err := backup.Make(t.Context(), options(database, to))
	require.ErrorIs(t, err, store.ErrDamaged)
	assert.Empty(t, names(t, filepath.Dir(to)))
}

// damage overwrites blocks and records of the journal, as a disk would.
func damage(t *testing.T, path string) {
	db, err := sql.Open("sqlite", "file:"+path)
	require.NoError(t, err)
	for _, table := range []string{"journal", "block"} {
		_, err = db.Exec(`UPDATE ` + table + ` SET body = zeroblob(length(body))`)
		require.NoError(t, err)
	}
	require.NoError(t, db.Close())
}

func TestCheckSaysWhatIsDamagedAndWhere(t *testing.T) {
	_, _, file := made(t, 14_000)
	damage(t, file)
	r, err := backup.Check(t.Context(), file, backup.CheckOptions{})
	require.NoError(t, err)
	require.NotEmpty(t, r.Findings)
	assert.Contains(t, fmt.Sprint(r.Findings), "the journal")
	assert.Contains(t, fmt.Sprint(r.Findings), `device "bed-`)

	_, err = backup.Verify(t.Context(), file, nil)
	assert.ErrorIs(t, err, store.ErrDamaged)
}

func TestCheckTellsWhatIsNotOurs(t *testing.T) {
	other := filepath.Join(t.TempDir(), "other.db")
	_, err := backup.Check(t.Context(), other, backup.CheckOptions{})
	require.ErrorIs(t, err, fs.ErrNotExist)
	require.NoError(t, os.WriteFile(other, nil, 0o600))
	_, err = backup.Check(t.Context(), other, backup.CheckOptions{})
	require.ErrorIs(t, err, store.ErrForeign)
	require.NoError(t, os.WriteFile(other, []byte(strings.Repeat("no database ", 1000)), 0o600))
	r, err := backup.Check(t.Context(), other, backup.CheckOptions{})
	require.NoError(t, err)
	assert.Contains(t, fmt.Sprint(r.Findings), "not a database")

	_, _, file := made(t, 10)
	header(t, file, 60, 99)
	_, err = backup.Check(t.Context(), file, backup.CheckOptions{})
	require.ErrorIs(t, err, store.ErrNewerSchema)
	header(t, file, 68, 1)
	_, err = backup.Check(t.Context(), file, backup.CheckOptions{})
	require.ErrorIs(t, err, store.ErrForeign)
}

// header changes the last byte of a number in the header of a database.
func header(t *testing.T, path string, at int, to byte) {
	content, err := os.ReadFile(path)
	require.NoError(t, err)
	content[at+3] = to
	require.NoError(t, os.WriteFile(path, content, 0o600))
}

func restoreOptions(from, database string) backup.RestoreOptions {
	return backup.RestoreOptions{From: from, Database: database, Now: noon}
}

func TestARestoreBringsBackWhatWasThere(t *testing.T) {
	s, database, file := made(t, 500)
	fill(t, s, 500, 300)
	require.NoError(t, s.Close())
	r, err := backup.Restore(t.Context(), restoreOptions(file, database))
	require.NoError(t, err)
	assert.Equal(t, database+".before-restore-20260107T120000.000Z", r.Old)
	assert.Equal(t, files, r.Files)
	assert.Equal(t, []string{"plantops.db", filepath.Base(r.Old)}, slicesWithout(names(t, filepath.Dir(database)), "plantops.db.reserve"))

	for path, want := range map[string]int64{database: 500, r.Old: 800} {
		s := storetest.OpenWith(t, store.Options{Path: path})
		assert.Equal(t, want, rows(t, s), path)
		fill(t, s, 10_000, 10)
	}
	check, err := backup.Check(t.Context(), database, backup.CheckOptions{})
	require.NoError(t, err)
	assert.Empty(t, check.Findings)
	assert.Nil(t, check.Backup, "the files that went along are not in it any more")
}

func slicesWithout(list []string, name string) (rest []string) {
	for _, one := range list {
		if one != name {
			rest = append(rest, one)
		}
	}
	return rest
}

func TestARestoreOnANewCardHasNothingToKeep(t *testing.T) {
	_, _, file := made(t, 500)
	database := filepath.Join(t.TempDir(), "plantops.db")
	r, err := backup.Restore(t.Context(), restoreOptions(file, database))
	require.NoError(t, err)
	assert.Empty(t, r.Old)
	assert.Equal(t, []string{"plantops.db"}, names(t, filepath.Dir(database)))
	assert.EqualValues(t, 500, rows(t, storetest.OpenWith(t, store.Options{Path: database})))
}

// The log of a server that was killed belongs to its database: it goes with it, and is not taken for one of the new file.
func TestARestoreKeepsTheLogWithTheOldDatabase(t *testing.T) {
	s, database, file := made(t, 500)
	fill(t, s, 500, 300)
	killed := filepath.Join(t.TempDir(), "plantops.db")
	for _, suffix := range []string{"", "-wal"} {
		content, err := os.ReadFile(database + suffix)
		require.NoError(t, err)
		require.NotEmpty(t, content)
		require.NoError(t, os.WriteFile(killed+suffix, content, 0o600))
	}
	r, err := backup.Restore(t.Context(), restoreOptions(file, killed))
	require.NoError(t, err)
	assert.NoFileExists(t, killed+"-wal")
	assert.FileExists(t, r.Old+"-wal")
	assert.EqualValues(t, 800, rows(t, storetest.OpenWith(t, store.Options{Path: r.Old})))
	assert.EqualValues(t, 500, rows(t, storetest.OpenWith(t, store.Options{Path: killed})))

	// And what was kept so can be restored itself, with its log.
	again := filepath.Join(t.TempDir(), "plantops.db")
	_, err = backup.Restore(t.Context(), restoreOptions(killed, again))
	require.NoError(t, err)
}

func TestARestoreOfWhatIsDamagedChangesNothing(t *testing.T) {
	s, database, file := made(t, 3000)
	require.NoError(t, s.Close())
	damage(t, file)
	before := names(t, filepath.Dir(database))
	_, err := backup.Restore(t.Context(), restoreOptions(file, database))
	require.ErrorIs(t, err, store.ErrDamaged)
	assert.Equal(t, before, names(t, filepath.Dir(database)))
	_, err = backup.Restore(t.Context(), restoreOptions(database, database))
	require.Error(t, err)
	_, err = backup.Restore(t.Context(), restoreOptions(filepath.Join(t.TempDir(), "none"), database))
	require.ErrorIs(t, err, fs.ErrNotExist)
	require.NoError(t, os.WriteFile(database+".new", nil, 0o600))
	_, err = backup.Restore(t.Context(), restoreOptions(file, database))
	require.ErrorIs(t, err, backup.ErrUnfinished)
	require.NoError(t, os.Remove(database+".new"))
	assert.EqualValues(t, 3000, rows(t, storetest.OpenWith(t, store.Options{Path: database})))
}

func TestARestoreThatIsBrokenOffChangesNothing(t *testing.T) {
	s, database, file := made(t, 3000)
	require.NoError(t, s.Close())
	before := names(t, filepath.Dir(database))
	for _, at := range []string{"copy", "check the pages", "read what is stored"} {
		ctx, cancel := context.WithCancel(t.Context())
		o := restoreOptions(file, database)
		o.Told = func(what string, _, _ int64) {
			if what == at {
				cancel()
			}
		}
		_, err := backup.Restore(ctx, o)
		require.ErrorIs(t, err, context.Canceled, at)
		assert.Equal(t, before, names(t, filepath.Dir(database)), at)
	}
}

func TestFilesGoWhereTheyWere(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "certs")
	require.NoError(t, backup.WriteFiles(dir, files))
	read, err := backup.ReadFiles(dir)
	require.NoError(t, err)
	assert.Equal(t, files, read)
	assert.True(t, backup.SameFiles(dir, files))
	assert.False(t, backup.SameFiles(dir, files[:1]))
	require.Error(t, backup.WriteFiles(dir, []backup.File{{Name: "../evil", Mode: 0o600}}))
	none, err := backup.ReadFiles(filepath.Join(dir, "none"))
	require.NoError(t, err)
	assert.Empty(t, none)
	assert.False(t, errors.Is(err, fs.ErrNotExist))
}
