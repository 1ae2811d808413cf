package backup_test

import (
	"context"
	"database/sql"
	"encoding/binary"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/plantops/plantops/store"
	"github.com/plantops/plantops/store/backup"
)

// largeVariable says how many megabytes the database of TestALargeDatabase has; without it the test is a small one.
const largeVariable = "PLANTOPS_LARGE_MB"

// A large database is ready within ten seconds after an unclean stop, its check runs beside everything else, and a backup
// and a check never hold commits up for long. The times are measured, and only bounded where a person would notice.
func TestALargeDatabase(t *testing.T) {
	megabytes, alone, afterwards := 3, 100*time.Millisecond, 5
	if text := os.Getenv(largeVariable); text != "" {
		var err error
		megabytes, err = strconv.Atoi(text)
		require.NoError(t, err)
		alone, afterwards = 20*time.Second, 200
	}
	path := filepath.Join(t.TempDir(), "plantops.db")
	s, err := store.Open(t.Context(), store.Options{Path: path})
	require.NoError(t, err)
	fill(t, s, 0, 700)
	require.NoError(t, s.Close())
	grow(t, path, int64(megabytes)<<20)
	s, err = store.Open(t.Context(), store.Options{Path: path})
	require.NoError(t, err)
	t.Cleanup(func() { assert.NoError(t, s.Close()) })

	number := 1000
	beside := func(name string, do func() error) {
		ended := make(chan error, 1)
		began := time.Now()
		go func() { ended <- do() }()
		var took []time.Duration
		pause := time.NewTicker(5 * time.Millisecond)
		defer pause.Stop()
		for n := 0; ; n++ {
			before := time.Now()
			fill(t, s, number, 33)
			number += 33
			took = append(took, time.Since(before))
			select {
			case err := <-ended:
				if n < afterwards && err == nil {
					ended <- nil // the checkpoint that waited for it comes with one of the next commits
					continue
				}
				require.NoError(t, err)
				worst := slices.Index(took, slices.Max(took))
				t.Logf("the longest commit beside %s was number %d of %d, the log had %d MB", name, worst, len(took), logSize(path)>>20)
				slices.Sort(took)
				t.Logf("%s took %s: %d commits of 33 beside it, half within %s, 99 %% within %s, the longest %s", name,
					time.Since(began).Round(time.Millisecond), len(took), took[len(took)/2], took[len(took)*99/100], took[len(took)-1])
				return
			case <-pause.C:
			}
		}
	}
	beside("nothing", func() error {
		<-time.After(alone)
		return nil
	})
	to := filepath.Join(t.TempDir(), "backup.db")
	beside("a backup", func() error {
		o := options(path, to)
		o.Gently = true
		r, err := backup.Make(t.Context(), o)
		t.Logf("backup: %d MB, copied in %s, checked in %s", r.Bytes>>20, r.Copied.Round(time.Millisecond), (r.Took - r.Copied).Round(time.Millisecond))
		return err
	})
	beside("a check", func() error {
		r, err := backup.Check(t.Context(), path, backup.CheckOptions{})
		assert.Empty(t, r.Findings)
		return err
	})

	killed := filepath.Join(t.TempDir(), "plantops.db")
	for _, suffix := range []string{"", "-wal"} { // a copy of a database in use is what a kill leaves
		require.NoError(t, copyFile(path+suffix, killed+suffix))
	}
	began := time.Now()
	again, err := store.Open(t.Context(), store.Options{Path: killed})
	took := time.Since(began)
	require.NoError(t, err)
	t.Logf("open after an unclean stop: %s", took.Round(time.Millisecond))
	assert.Less(t, took, 30*time.Second)
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- again.CheckLater(ctx) }()
	fill(t, again, 500_000, 33)
	cancel()
	require.NoError(t, <-ended)
	require.NoError(t, again.Close())
}

func logSize(path string) int64 {
	info, err := os.Stat(path + "-wal")
	if err != nil {
		return 0
	}
	return info.Size()
}

func copyFile(from, to string) error {
	content, err := os.ReadFile(from)
	if err != nil {
		return err
	}
	return os.WriteFile(to, content, 0o600)
}

// grow adds rows to the table of readings until the file is so large.
func grow(t *testing.T, path string, size int64) {
	db, err := sql.Open("sqlite", "file:"+path+"?_pragma=journal_mode(memory)&_pragma=synchronous(off)")
	require.NoError(t, err)
	body := []byte{1}
	for range 90 {
		body = append(body, 1<<3|7)
		body = binary.LittleEndian.AppendUint64(body, math.Float64bits(math.Pi))
	}
	rows := size / int64(len(body)+60)
	_, err = db.Exec(`DELETE FROM journal`) // its records say what was counted before
	require.NoError(t, err)
	for device := range 7 {
		id := 0
		require.NoError(t, db.QueryRow(`SELECT id FROM device WHERE name = ?`, fmt.Sprintf("bed-%d", device)).Scan(&id))
		_, err = db.Exec(`WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < ?1)
			INSERT INTO reading (device, time, received, flags, body) SELECT ?2, i * 1000, i * 1000, 0, ?3 FROM n`, rows/7, id, body)
		require.NoError(t, err)
		_, err = db.Exec(`UPDATE counter SET rows = (SELECT count(*) FROM reading WHERE reading.device = counter.device) WHERE device = ?`, id)
		require.NoError(t, err)
	}
	require.NoError(t, db.Close())
}
