package store

import (
	"os"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestSettingsOutliveARestart(t *testing.T) {
	path := filepath.Join(t.TempDir(), "plantops.db")
	s, err := Open(t.Context(), Options{Path: path})
	require.NoError(t, err)
	value, err := s.Setting(t.Context(), SettingAuthorities)
	require.NoError(t, err)
	assert.Empty(t, value)
	for _, value := range []string{"AB:CD", "AB:CD 12:34"} {
		require.NoError(t, s.SetSetting(t.Context(), SettingAuthorities, value))
	}
	require.NoError(t, s.Close())

	s, err = Open(t.Context(), Options{Path: path, ReadOnly: true})
	require.NoError(t, err)
	defer func() { require.NoError(t, s.Close()) }()
	value, err = s.Setting(t.Context(), SettingAuthorities)
	require.NoError(t, err)
	assert.Equal(t, "AB:CD 12:34", value)
}

func TestDevicesAreCountedSinceTheyWereTold(t *testing.T) {
	now := time.UnixMilli(1_000_000)
	s, err := Open(t.Context(), Options{Path: filepath.Join(t.TempDir(), "plantops.db"), Now: func() time.Time { return now }})
	require.NoError(t, err)
	defer func() { require.NoError(t, s.Close()) }()
	since := now.Add(time.Second)
	check := func(wantAll, wantTold int64) {
		t.Helper()
		all, told, err := s.DevicesSince(t.Context(), since)
		require.NoError(t, err)
		assert.Equal(t, []int64{wantAll, wantTold}, []int64{all, told})
	}
	check(0, 0)
	for _, id := range []string{"bed-1", "bed-2"} {
		_, err = s.AddDevice(t.Context(), id)
		require.NoError(t, err)
	}
	require.NoError(t, s.AddUser(t.Context(), NewUser{Name: "anna", Password: "right-password"}))
	check(2, 0)
	now = since
	_, err = s.RotateDevice(t.Context(), "bed-1")
	require.NoError(t, err)
	check(2, 1)
	_, err = s.AddDevice(t.Context(), "bed-3")
	require.NoError(t, err)
	check(3, 2)
}

// SQLite puts the log beside the file, not beside the link: it must be found after an unclean stop.
func TestDatabaseBehindALinkFindsItsLog(t *testing.T) {
	dir, real := t.TempDir(), t.TempDir()
	for name, target := range map[string]string{"absolute.db": filepath.Join(real, "a.db"), "relative.db": "b.db", "twice.db": "absolute2.db"} {
		require.NoError(t, os.Symlink(target, filepath.Join(dir, name)))
	}
	require.NoError(t, os.Symlink(filepath.Join(real, "c.db"), filepath.Join(dir, "absolute2.db")))
	for link, file := range map[string]string{"absolute.db": filepath.Join(real, "a.db"), "relative.db": filepath.Join(dir, "b.db"), "twice.db": filepath.Join(real, "c.db")} {
		s, err := Open(t.Context(), Options{Path: filepath.Join(dir, link)})
		require.NoError(t, err, link)
		assert.FileExists(t, file+walSuffix, link)
		assert.Equal(t, file, s.path)
		require.NoError(t, s.Close())

		require.NoError(t, os.Truncate(file, 0))
		require.NoError(t, os.WriteFile(file+walSuffix, []byte("what was acknowledged"), 0o600))
		_, err = Open(t.Context(), Options{Path: filepath.Join(dir, link)})
		require.ErrorIs(t, err, ErrDamaged, "%s: SQLite would throw the log away", link)
	}
}

func TestDatabaseThatRootMakesBelongsToTheOwnerOfItsDirectoryAsRoot(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("only root can give files away")
	}
	const somebody = 12345
	dir := t.TempDir()
	require.NoError(t, os.Chown(dir, somebody, somebody))
	s, err := Open(t.Context(), Options{Path: filepath.Join(dir, "plantops.db")})
	require.NoError(t, err)
	_, err = s.AddDevice(t.Context(), "bed-1")
	require.NoError(t, err)
	entries, err := os.ReadDir(dir)
	require.NoError(t, err)
	require.NotEmpty(t, entries)
	for _, e := range entries {
		info, err := e.Info()
		require.NoError(t, err)
		assert.EqualValues(t, somebody, info.Sys().(*syscall.Stat_t).Uid, e.Name())
	}
	require.NoError(t, s.Close())
}
