package store_test

import (
	"cmp"
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/plantops/plantops/store"
	"github.com/plantops/plantops/store/backup"
	"github.com/plantops/plantops/store/history"
	"github.com/plantops/plantops/store/sqldoor"
	"github.com/plantops/plantops/store/storetest"
)

// holdAfter is how long the load goes on: what is left behind may hold up a commit too.
const holdAfter = time.Second

// disturbed is a large store under full load.
type disturbed struct {
	*store.Store
	path string
}

// BenchmarkHold stores a thousand readings a commit as fast as it goes into a store with a year of readings, while one thing after the
// other goes on beside it, and then all, and reports how long the longest commit took. PLANTOPS_BENCH_DEVICES says how large the
// store is (10).
func BenchmarkHold(b *testing.B) {
	path := copyOf(b, benchYear(b))
	fleet := storetest.NewFleet(1000, yearPast, yearEvery)
	s, err := store.Open(b.Context(), fleet.Options(path))
	require.NoError(b, err)
	d := disturbed{s, path}
	oldest := yearFrom
	list := []struct {
		name string
		do   func(context.Context) error
	}{
		{"nothing", func(ctx context.Context) error { <-ctx.Done(); return nil }},
		{"a view", d.view},
		{"export", d.export},
		{"a long query", d.query},
		{"sql", d.sql},
		{"hours", func(ctx context.Context) error { return s.WriteTables(ctx, store.TableOptions{Hourly: true}) }},
		{"retention", func(ctx context.Context) error {
			oldest = oldest.AddDate(0, 0, 20)
			_, err := s.DeleteBefore(ctx, oldest)
			return err
		}},
		{"backup", d.backup},
	}
	all := list[1:]
	list = append(list, struct {
		name string
		do   func(context.Context) error
	}{"all", func(ctx context.Context) error {
		var wait sync.WaitGroup
		errs := make([]error, len(all))
		for i, c := range all {
			wait.Go(func() { errs[i] = c.do(ctx) })
		}
		wait.Wait()
		return errors.Join(errs...)
	}})
	for _, c := range list {
		b.Run(c.name, func(b *testing.B) {
			for b.Loop() {
				holdUp(b, d, fleet, c.do)
			}
		})
	}
	require.NoError(b, s.Close())
}

// holdUp reports the longest commit while something goes on, and after it.
func holdUp(b *testing.B, d disturbed, fleet *storetest.Fleet, do func(context.Context) error) {
	long, err := time.ParseDuration(cmp.Or(os.Getenv("PLANTOPS_BENCH_HOLD"), "3s"))
	require.NoError(b, err, "PLANTOPS_BENCH_HOLD")
	ctx, stop := context.WithTimeout(b.Context(), long)
	defer stop()
	done := make(chan error, 1)
	go func() { done <- do(ctx) }()
	var took []time.Duration
	var outcomes []store.Outcome
	began, end, largest := time.Now(), time.Time{}, int64(0)
	for end.IsZero() || time.Now().Before(end) {
		batch := fleet.Next(1000)
		at := time.Now()
		var err error
		outcomes, err = d.Append(b.Context(), batch, outcomes[:0])
		require.NoError(b, err)
		took = append(took, time.Since(at))
		select {
		case err := <-done:
			if ctx.Err() == nil {
				require.NoError(b, err)
			}
			end = time.Now().Add(holdAfter)
		default:
		}
		if wal, err := os.Stat(d.path + "-wal"); err == nil {
			largest = max(largest, wal.Size())
		}
	}
	b.ReportMetric(float64(len(took)*1000)/time.Since(began).Seconds(), "readings/s")
	b.ReportMetric(slices.Max(took).Seconds()*1000, "longest-ms")
	slices.Sort(took)
	b.ReportMetric(took[len(took)*99/100].Seconds()*1000, "p99-ms")
	b.ReportMetric(float64(largest)/1e6, "log-MB")
}

// view looks at one moment all the time.
func (d disturbed) view(ctx context.Context) error {
	v, err := d.View(ctx)
	if err != nil {
		return err
	}
	<-ctx.Done()
	return v.Close()
}

// export goes through all readings once and makes lines of them.
func (d disturbed) export(ctx context.Context) error {
	var line []byte
	for c, err := range history.Fresh(d.View).Scan(ctx, store.Query{}) {
		if err != nil {
			return err
		}
		for _, column := range c.Columns {
			for _, v := range column.Values {
				line = strconv.AppendFloat(line[:0], v, 'g', -1, 64)
			}
		}
	}
	return nil
}

// query reduces the whole year of all devices, reading by reading, in one view.
func (d disturbed) query(ctx context.Context) error {
	v, err := d.View(ctx)
	if err != nil {
		return err
	}
	for _, err := range v.Reduce(ctx, store.Query{}, history.Reduction{Every: history.Span{Length: time.Hour}, Location: time.UTC}) {
		if err != nil {
			return errors.Join(err, v.Close())
		}
	}
	return v.Close()
}

func (d disturbed) sql(ctx context.Context) error {
	door, err := sqldoor.Open(ctx, sqldoor.Options{Path: d.path, View: d.View, Damaged: func(*history.DamagedError) {}})
	if err != nil {
		return err
	}
	err = door.Query(ctx, `SELECT metric, count(*), avg(value) FROM reading GROUP BY metric`, func([]string) error { return nil }, func([]any) error { return nil })
	return errors.Join(err, door.Close())
}

func (d disturbed) backup(ctx context.Context) error {
	to := filepath.Join(filepath.Dir(d.path), "backup")
	_, err := backup.Make(ctx, backup.Options{Database: d.path, To: to, Force: true, Gently: true, Now: time.Now()})
	return errors.Join(err, os.RemoveAll(to))
}
