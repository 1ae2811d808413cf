//go:build linux && amd64

package powercut_test

import (
	"compress/gzip"
	"context"
	"database/sql"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/plantops/plantops/cmd/plantops/outside/program"
	"github.com/plantops/plantops/store"
)

func TestStepsOfCompaction(t *testing.T) {
	t.Parallel()
	trial{
		few: 12, act: "compact",
		begin: func(t *testing.T, dir string) { fill(t, dir, 1, 1) },
		judge: func(t *testing.T, in *program.Installation, heard string) {
			closed(t, verify(t, in.Dir, heard, 1, 5, time.Time{}), in.Dir)
		},
	}.run(t)
}

func TestStepsOfRetention(t *testing.T) {
	t.Parallel()
	trial{
		few: 12, act: "retain",
		begin: func(t *testing.T, dir string) { fill(t, dir, 2, 3) },
		judge: func(t *testing.T, in *program.Installation, heard string) {
			s := verify(t, in.Dir, heard, 3, 4, retained())
			_, err := s.DeleteBefore(t.Context(), retained())
			require.NoError(t, err)
			oldest, there, err := s.OldestReading(t.Context(), time.UnixMilli(0))
			require.NoError(t, err)
			require.True(t, there)
			require.False(t, oldest.Before(retained()), "the next deletion goes on")
			require.NoError(t, s.Check(t.Context()))
			closed(t, s, in.Dir)
		},
	}.run(t)
}

// hoursKept is what the acts keep of hours whose readings are deleted.
var hoursKept = store.TableOptions{Hourly: true, Keep: 1000 * time.Hour}

func hoursAct(dir string) error {
	s, err := open(dir, nil)
	if err != nil {
		return err
	}
	if err := writeHours(s); err != nil {
		return err
	}
	return s.Close()
}

// writeHours computes hours before and after readings come late, and after some are deleted.
func writeHours(s *store.Store) error {
	if err := s.WriteTables(context.Background(), hoursKept); err != nil {
		return err
	}
	fmt.Println("written")
	if err := put(s, 2, 3); err != nil {
		return err
	}
	if err := s.WriteTables(context.Background(), hoursKept); err != nil {
		return err
	}
	if _, err := s.DeleteBefore(context.Background(), retained()); err != nil {
		return err
	}
	return s.WriteTables(context.Background(), hoursKept)
}

// tables is all that other programs can read.
func tables(t *testing.T, dir string) (all string) {
	t.Helper()
	db, err := sql.Open("sqlite", "file:"+filepath.Join(dir, "plantops.db")+"?mode=ro")
	require.NoError(t, err)
	defer func() { assert.NoError(t, db.Close()) }()
	for _, query := range []string{
		`SELECT format('%s %s %s', device, metric, time) || format(' %.6f %.6f %.6f %d', min, avg, max, count) FROM hourly ORDER BY 1`,
		`SELECT format('%s %s %s %.6f', device, metric, time, value) FROM latest ORDER BY 1`,
		`SELECT format('%s %s', device, metric) FROM metrics ORDER BY 1`,
	} {
		rows, err := db.Query(query)
		require.NoError(t, err)
		for rows.Next() {
			var line string
			require.NoError(t, rows.Scan(&line))
			all += line + "\n"
		}
		require.NoError(t, rows.Err())
		require.NoError(t, rows.Close())
	}
	return all
}

func TestStepsOfTheHoursForOtherPrograms(t *testing.T) {
	t.Parallel()
	whole := t.TempDir()
	fill(t, whole, 1, 2)
	require.NoError(t, hoursAct(whole))
	want := tables(t, whole)
	trial{
		few: 12, act: "hours",
		begin: func(t *testing.T, dir string) { fill(t, dir, 1, 2) },
		judge: func(t *testing.T, in *program.Installation, heard string) {
			s := verify(t, in.Dir, heard, 2, 3, retained())
			for range 2 {
				require.NoError(t, s.WriteTables(t.Context(), hoursKept))
			}
			_, err := s.DeleteBefore(t.Context(), retained())
			require.NoError(t, err)
			require.NoError(t, s.WriteTables(t.Context(), hoursKept))
			require.NoError(t, s.Close())
			require.Equal(t, want, tables(t, in.Dir))
		},
	}.run(t)
}

func migrateAct(dir string) error {
	s, err := open(dir, nil)
	if err != nil {
		return err
	}
	fmt.Println("opened")
	if err := put(s, 0, 1); err != nil {
		return err
	}
	if err := s.Flush(context.Background()); err != nil {
		return err
	}
	fmt.Println("moved")
	return s.Close()
}

// earlier says what is in a file of testdata: the program of that schema has stored it, with an account.
func earlier(schema int) (want sheet, messages int64) {
	total := 300
	if schema == 2 || schema == 8 {
		total = 1500
	}
	want = sheet{}
	for i := range total {
		at := origin + int64(i)*5*minute
		want[cell("bed-0", at, "temperature")] = float64(i%700) / 10
		want[cell("bed-0", at, "ph")] = float64(600+i%9) / 100
		if messages++; i%10 == 0 {
			messages++
			want[cell(fmt.Sprint("bed-", 1+i/10%4), at, "temperature")] = float64(i%700) / 10
		}
	}
	return want, messages
}

// TestStepsOfMigration brings the data of each earlier version up to date. Schema 2 is that of e896a48, 8 the last with a row for
// each reading.
func TestStepsOfMigration(t *testing.T) {
	t.Parallel()
	for schema := 1; schema <= 9; schema++ {
		t.Run(fmt.Sprint("schema ", schema), func(t *testing.T) {
			want, stored := earlier(schema)
			few, most := 2, 40
			if schema == 2 || schema == 8 {
				few, most = 8, 0
			}
			trial{
				few: few, most: most, act: "migrate",
				begin: func(t *testing.T, dir string) { unpack(t, schema, dir) },
				judge: func(t *testing.T, in *program.Installation, heard string) {
					judgeMigration(t, in.Dir, heard, want, stored)
				},
			}.run(t)
		})
	}
}

func unpack(t *testing.T, schema int, dir string) {
	t.Helper()
	packed, err := os.Open(fmt.Sprintf("testdata/schema-%d.db.gz", schema))
	require.NoError(t, err)
	defer packed.Close()
	from, err := gzip.NewReader(packed)
	require.NoError(t, err)
	content, err := io.ReadAll(from)
	require.NoError(t, err)
	require.NoError(t, os.WriteFile(filepath.Join(dir, "plantops.db"), content, 0o600))
}

func judgeMigration(t *testing.T, dir, heard string, want sheet, stored int64) {
	t.Helper()
	s, err := open(dir, nil)
	require.NoError(t, err)
	require.NoError(t, s.Check(t.Context()))
	found, err := read(s)
	require.NoError(t, err)
	counts, err := s.Totals(t.Context())
	require.NoError(t, err)
	later := counts.Stored > stored
	require.True(t, later || !strings.Contains(heard, "stored 0"), "what was said to be stored")
	full := sheet{}
	for at, value := range want {
		full[at] = value
	}
	full.add(batch(0))
	if later {
		requireSame(t, full, found, time.Time{})
	} else {
		requireSame(t, want, found, time.Time{})
		require.Equal(t, store.Counts{Stored: stored, Duplicate: 1, Quarantined: 1}, counts)
		_, err := s.Append(t.Context(), batch(0), nil)
		require.NoError(t, err)
	}
	require.NoError(t, s.Flush(t.Context()))
	found, err = read(s)
	require.NoError(t, err)
	requireSame(t, full, found, time.Time{})
	require.NoError(t, s.Check(t.Context()))
	counts, err = s.Totals(t.Context())
	require.NoError(t, err)
	require.Equal(t, stored+2+messages(), counts.Stored+counts.Duplicate+counts.Quarantined)
	_, there := s.Account("bed-0")
	require.True(t, there, "the account")
	h, err := s.Health(t.Context())
	require.NoError(t, err)
	require.EqualValues(t, counts.Quarantined, h.Quarantined)
	closed(t, s, dir)
	db, err := sql.Open("sqlite", "file:"+filepath.Join(dir, "plantops.db")+"?mode=ro")
	require.NoError(t, err)
	defer func() { assert.NoError(t, db.Close()) }()
	var rows int
	require.NoError(t, db.QueryRow(`SELECT count(*) FROM reading`).Scan(&rows))
	require.Zero(t, rows, "rows that were not moved into blocks")
}

func rebuildAct(dir string) error {
	s, err := open(dir, nil)
	if err != nil {
		return err
	}
	if err := put(s, 2, 3); err != nil {
		return err
	}
	if err := regain(s); err != nil {
		return err
	}
	fmt.Println("regained")
	return s.Close()
}

// regain waits until what can be found of a damaged file is back.
func regain(s *store.Store) error {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	ended := make(chan error, 1)
	go func() { ended <- s.Regain(ctx) }()
	for {
		list, err := s.Salvages(ctx)
		if err != nil {
			return err
		}
		waits := false
		for _, one := range list {
			waits = waits || one.Finished == 0
		}
		if !waits {
			cancel()
			return <-ended
		}
		time.Sleep(time.Millisecond)
	}
}

func TestStepsOfMakingADamagedFileAnew(t *testing.T) {
	t.Parallel()
	trial{
		few: 12, act: "rebuild",
		begin: func(t *testing.T, dir string) {
			fill(t, dir, 1, 2)
			damage(t, dir)
		},
		judge: func(t *testing.T, in *program.Installation, heard string) {
			var old atomic.Bool
			s, err := open(in.Dir, &old)
			require.NoError(t, err)
			require.NoError(t, regain(s))
			list, err := s.Salvages(t.Context())
			require.NoError(t, err)
			require.Len(t, list, 1, "it was made anew once")
			require.Empty(t, list[0].Missing)
			require.NoError(t, s.Close())
			closed(t, verify(t, in.Dir, heard, 2, 3, time.Time{}), in.Dir, "plantops.db.damaged-*")
		},
	}.run(t)
}

// damage overwrites a page of an index, which nothing is lost with: it can be made anew.
func damage(t *testing.T, dir string) {
	t.Helper()
	path := filepath.Join(dir, "plantops.db")
	db, err := sql.Open("sqlite", "file:"+path+"?mode=ro")
	require.NoError(t, err)
	var root, size int64
	require.NoError(t, db.QueryRow(`SELECT rootpage FROM sqlite_schema WHERE name LIKE 'sqlite_autoindex_device%'`).Scan(&root))
	require.NoError(t, db.QueryRow(`PRAGMA page_size`).Scan(&size))
	require.NoError(t, db.Close())
	file, err := os.OpenFile(path, os.O_WRONLY, 0)
	require.NoError(t, err)
	_, err = file.WriteAt([]byte(strings.Repeat("\xA5", int(size))), (root-1)*size)
	require.NoError(t, err)
	require.NoError(t, file.Close())
}
