//go:build linux && amd64

package powercut_test

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/plantops/plantops/cmd/plantops/outside/program"
	"github.com/plantops/plantops/store"
	"github.com/plantops/plantops/store/backup"
)

// backedUp makes a store of one batch with a backup, and stores another batch, which is in the log of the database only: a server was
// killed.
func backedUp(t *testing.T, dir string) {
	t.Helper()
	lives := t.TempDir()
	fill(t, lives, 1, 1)
	_, err := backup.Make(t.Context(), backupOptions(lives, filepath.Join(dir, "plantops-backup.db")))
	require.NoError(t, err)
	s, err := open(lives, nil)
	require.NoError(t, err)
	_, err = s.Append(t.Context(), batch(1), nil)
	require.NoError(t, err)
	for _, name := range []string{"plantops.db", "plantops.db-wal"} {
		content, err := os.ReadFile(filepath.Join(lives, name))
		require.NoError(t, err)
		require.NoError(t, os.WriteFile(filepath.Join(dir, name), content, 0o600))
	}
	require.NoError(t, s.Close())
}

func backupOptions(dir, to string) backup.Options {
	return backup.Options{Database: filepath.Join(dir, "plantops.db"), To: to, Now: today(), Version: "1", Host: "box", By: backup.ByPerson}
}

// times is how many times of devices there are in so many batches.
func times(batches int) int64 { return int64(batches) * (messages() - 2) }

// requireBackup looks whether a file is a good backup and returns how many times are in it.
func requireBackup(t *testing.T, path string) int64 {
	t.Helper()
	r, err := backup.Check(t.Context(), path, backup.CheckOptions{})
	require.NoError(t, err)
	require.Empty(t, r.Findings)
	require.NotNil(t, r.Backup)
	return r.Messages
}

func TestStepsOfBackup(t *testing.T) {
	t.Parallel()
	command := func(dir string) []string {
		return []string{"backup", "--force", filepath.Join(dir, "plantops-backup.db")}
	}
	trial{
		few: 12, args: command, begin: backedUp,
		judge: func(t *testing.T, in *program.Installation, heard string) {
			path := filepath.Join(in.Dir, "plantops-backup.db")
			n := requireBackup(t, path)
			require.Contains(t, []int64{times(1), times(2)}, n, "the one before, or the new one")
			if heard != "" {
				require.Equal(t, times(2), n, "it was said to be made")
			}
			in.Run(command(in.Dir)...)
			require.Equal(t, times(2), requireBackup(t, path))
			closed(t, verify(t, in.Dir, "", 2, 3, time.Time{}), in.Dir, "plantops-backup.db")
		},
	}.run(t)
}

func TestStepsOfRestore(t *testing.T) {
	t.Parallel()
	command := func(dir string) []string { return []string{"restore", filepath.Join(dir, "plantops-backup.db")} }
	trial{
		few: 12, args: command, begin: backedUp,
		judge: func(t *testing.T, in *program.Installation, heard string) {
			require.Equal(t, times(1), requireBackup(t, filepath.Join(in.Dir, "plantops-backup.db")))
			s, err := open(in.Dir, nil)
			require.NoError(t, err)
			h, err := s.Health(t.Context())
			require.NoError(t, err)
			require.Contains(t, []int64{times(1), times(2)}, h.Readings, "the restored one, or the old one")
			old, err := filepath.Glob(filepath.Join(in.Dir, "plantops.db.before-restore-*"))
			require.NoError(t, err)
			if heard != "" {
				require.Equal(t, times(1), h.Readings, "it was said to be restored")
			}
			if h.Readings == times(1) {
				require.NotEmpty(t, old, "the old one is kept")
				requireOld(t, strings.TrimSuffix(old[0], "-wal"))
			} else {
				require.NoError(t, s.Close())
				in.Run(command(in.Dir)...)
				s, err = open(in.Dir, nil)
				require.NoError(t, err)
			}
			require.NoError(t, s.Close())
			closed(t, verify(t, in.Dir, "", 1, 3, time.Time{}), in.Dir, "plantops-backup.db", "plantops.db.before-restore-*")
		},
	}.run(t)
}

func requireOld(t *testing.T, path string) {
	t.Helper()
	dir := t.TempDir()
	for _, suffix := range []string{"", "-wal"} {
		content, err := os.ReadFile(path + suffix)
		require.NoError(t, err)
		require.NoError(t, os.WriteFile(filepath.Join(dir, "plantops.db"+suffix), content, 0o600))
	}
	s, err := open(dir, nil)
	require.NoError(t, err)
	found, err := read(s)
	require.NoError(t, err)
	requireSame(t, expected(2), found, time.Time{})
	require.NoError(t, s.Close())
}

const keptBackups = 2

func scheduleAct(dir string) error {
	s, err := open(dir, nil)
	if err != nil {
		return err
	}
	schedule := scheduleOf(s, dir, today())
	for n := 1; n < 4; n++ {
		if err := put(s, n, n+1); err != nil {
			return err
		}
		if err := schedule.Once(context.Background()); err != nil {
			return err
		}
		fmt.Println("made", n)
	}
	return s.Close()
}

func scheduleOf(s *store.Store, dir string, now time.Time) *backup.Schedule {
	return &backup.Schedule{
		Every: time.Hour, Keep: keptBackups, Dir: dir, After: `cp "$PLANTOPS_BACKUP" "$(dirname "$PLANTOPS_BACKUP")/copied"`,
		Settings: s, Log: slog.New(slog.DiscardHandler), Unsure: func() bool { return false },
		Now: func() time.Time { now = now.Add(time.Minute); return now },
		Make: func(ctx context.Context, to string) (backup.Result, error) {
			return backup.Make(ctx, backupOptions(dir, to))
		},
	}
}

func TestStepsOfScheduledBackups(t *testing.T) {
	t.Parallel()
	trial{
		few: 16, act: "schedule",
		begin: func(t *testing.T, dir string) { fill(t, dir, 1, 1) },
		judge: func(t *testing.T, in *program.Installation, heard string) {
			s := verify(t, in.Dir, heard, 1, 4, time.Time{})
			list := scheduled(t, in.Dir)
			require.GreaterOrEqual(t, len(list), min(strings.Count(heard, "made"), keptBackups))
			require.LessOrEqual(t, len(list), keptBackups+1)
			for _, path := range list {
				requireBackup(t, path)
			}
			schedule := scheduleOf(s, in.Dir, today().Add(time.Hour))
			for range keptBackups {
				require.NoError(t, schedule.Once(t.Context()))
			}
			list = scheduled(t, in.Dir)
			require.Len(t, list, keptBackups, "none is left that nobody knows of")
			for _, path := range list {
				require.Equal(t, times(4), requireBackup(t, path))
			}
			require.Equal(t, times(4), requireBackup(t, filepath.Join(in.Dir, "copied")))
			closed(t, s, in.Dir, "plantops-2*.db", "copied")
		},
	}.run(t)
}

func scheduled(t *testing.T, dir string) []string {
	t.Helper()
	list, err := filepath.Glob(filepath.Join(dir, "plantops-2*.db"))
	require.NoError(t, err)
	return list
}

// historyMessages are more than one request of an import.
const historyMessages = 8300

// historyMetrics is how many values each has: in the long form they are more than an import reads at once.
func historyMetrics() int {
	if long() {
		return 17
	}
	return 1
}

func historyValue(i, metric int) float64 { return float64(i%1000)/8 + float64(metric) }

// writeHistory writes a file to be imported.
func writeHistory(t *testing.T, dir string) {
	t.Helper()
	var b strings.Builder
	b.WriteString("time,device,metric,value\n")
	for i := range historyMessages {
		at := time.UnixMilli(origin + int64(i)*minute).UTC().Format(time.RFC3339)
		for m := range historyMetrics() {
			fmt.Fprintf(&b, "%s,old-1,m%d,%v\n", at, m, historyValue(i, m))
		}
	}
	require.NoError(t, os.WriteFile(filepath.Join(dir, "history.csv"), []byte(b.String()), 0o600))
}

func TestStepsOfImport(t *testing.T) {
	t.Parallel()
	command := func(dir string) []string {
		return []string{"import", "readings", "--apply", "--json", filepath.Join(dir, "history.csv")}
	}
	type report struct{ Readings, Stored, Known, Rejected int64 }
	all := int64(historyMessages * historyMetrics())
	trial{
		few: 4, most: 100, args: command,
		begin: func(t *testing.T, dir string) {
			fill(t, dir, 1, 1)
			writeHistory(t, dir)
		},
		judge: func(t *testing.T, in *program.Installation, heard string) {
			writeHistory(t, in.Dir) // it is no file of ours
			var first, second report
			require.NoError(t, json.Unmarshal(in.Run(command(in.Dir)...), &first))
			require.LessOrEqual(t, first.Readings, all)
			require.Equal(t, first.Readings, first.Stored+first.Known)
			if heard != "" {
				require.Zero(t, first.Stored, "it was said to be done")
			}
			require.NoError(t, json.Unmarshal(in.Run(command(in.Dir)...), &second))
			require.Equal(t, report{Readings: all, Known: all}, second)
			s, err := open(in.Dir, nil)
			require.NoError(t, err)
			require.NoError(t, s.Check(t.Context()))
			found, err := read(s)
			require.NoError(t, err)
			want := expected(1)
			for i := range historyMessages {
				for m := range historyMetrics() {
					want[cell("old-1", origin+int64(i)*minute, fmt.Sprint("m", m))] = historyValue(i, m)
				}
			}
			requireSame(t, want, found, time.Time{})
			closed(t, s, in.Dir, "history.csv")
		},
	}.run(t)
}
