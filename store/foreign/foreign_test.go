package foreign

import (
	"database/sql"
	"io/fs"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// makeFile makes a database with that script and leaves it open, as a program that runs would.
func makeFile(t *testing.T, script string) (path string) {
	t.Helper()
	path = filepath.Join(t.TempDir(), "other.db")
	db, err := sql.Open("sqlite", path)
	require.NoError(t, err)
	t.Cleanup(func() { assert.NoError(t, db.Close()) })
	_, err = db.Exec(script)
	require.NoError(t, err)
	return path
}

func rows(t *testing.T, f *File, query string, args ...any) (all [][]any) {
	t.Helper()
	require.NoError(t, f.Each(t.Context(), func(row []any) error {
		all = append(all, append([]any{}, row...))
		return nil
	}, query, args...))
	return all
}

func TestFileOfARunningProgramIsReadWithItsLog(t *testing.T) {
	path := makeFile(t, `PRAGMA journal_mode=wal; CREATE TABLE a (n INTEGER, x REAL, s TEXT, at DATETIME, b BOOLEAN, none);
		INSERT INTO a VALUES (1, 2.5, 'three', '2024-01-02 03:04:05.678901', 1, NULL)`)
	f, err := Open(t.Context(), path)
	require.NoError(t, err)
	defer f.Close()
	tables, err := f.Tables(t.Context())
	require.NoError(t, err)
	assert.Equal(t, map[string][]string{"a": {"n", "x", "s", "at", "b", "none"}}, tables)
	assert.Equal(t, [][]any{{int64(1), 2.5, "three", "2024-01-02T03:04:05.678901Z", int64(1), nil}}, rows(t, f, `SELECT * FROM a WHERE n = ?`, 1))
	assert.ErrorContains(t, f.Each(t.Context(), func([]any) error { return nil }, `DELETE FROM a`), "readonly")
}

func TestFileThatCannotBeReadSaysWhy(t *testing.T) {
	path := filepath.Join(t.TempDir(), "a.db")
	_, err := Open(t.Context(), path)
	assert.ErrorIs(t, err, fs.ErrNotExist)

	text := make([]byte, 4096)
	copy(text, "SQLite format 3\x00 and nothing that goes with it")
	require.NoError(t, os.WriteFile(path, text, 0o600))
	_, err = Open(t.Context(), path)
	assert.ErrorIs(t, err, ErrDamaged)

	locked := makeFile(t, `PRAGMA journal_mode=wal; CREATE TABLE a (n INTEGER)`)
	copied := filepath.Join(t.TempDir(), "copy.db")
	whole, err := os.ReadFile(locked)
	require.NoError(t, err)
	require.NoError(t, os.WriteFile(copied, whole, 0o400))
	f, err := Open(t.Context(), copied)
	require.NoError(t, err, "a copy without the log")
	require.NoError(t, f.Close())
}
