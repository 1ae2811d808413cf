package store

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
)

// Health is what there is to know about the file.
type Health struct {
	Path      string
	SizeBytes int64 // of the database
	WALBytes  int64 // of its write-ahead log
	Space
	Pages         int64 // of PageBytes each
	FreePages     int64 // inside the file, used before it grows
	PageBytes     int64
	Readings      int64 // rows: messages with values
	Quarantined   int64 // entries that can be looked at
	SchemaVersion int
}

// Space is the room on the file system of the database.
type Space struct {
	FreeBytes  int64 // left for this user
	TotalBytes int64
}

// Space asks the file system only; it is cheap.
func (s *Store) Space() (Space, error) {
	var disk syscall.Statfs_t
	if err := syscall.Statfs(filepath.Dir(s.path), &disk); err != nil {
		return Space{}, fmt.Errorf("free space for store %s: %w", s.path, err)
	}
	block := int64(disk.Bsize) // the types differ between systems
	return Space{FreeBytes: int64(disk.Bavail) * block, TotalBytes: int64(disk.Blocks) * block}, nil
}

// Health looks at the file and its file system.
func (s *Store) Health(ctx context.Context) (Health, error) {
	h, err := s.health(ctx)
	if err != nil {
		return Health{}, fmt.Errorf("health of store %s: %w", s.path, err)
	}
	return h, nil
}

func (s *Store) health(ctx context.Context) (Health, error) {
	h := Health{Path: s.path}
	info, err := os.Stat(s.path)
	if err != nil {
		return h, reason(err)
	}
	h.SizeBytes = info.Size()
	if info, err := os.Stat(s.path + walSuffix); err == nil {
		h.WALBytes = info.Size()
	} else if !errors.Is(err, fs.ErrNotExist) {
		return h, reason(err)
	}
	if h.Space, err = s.Space(); err != nil {
		return h, err
	}
	for query, to := range map[string]any{
		`PRAGMA page_count`:                          &h.Pages,
		`PRAGMA freelist_count`:                      &h.FreePages,
		`PRAGMA page_size`:                           &h.PageBytes,
		`PRAGMA user_version`:                        &h.SchemaVersion,
		`SELECT coalesce(sum(rows), 0) FROM counter`: &h.Readings,
	} {
		if err := s.queryRow(ctx, query).Scan(to); err != nil {
			return h, s.suspect(err)
		}
	}
	h.Quarantined, err = s.countQuarantined(ctx)
	return h, err
}

// countQuarantined looks at the table when who writes has not counted it yet: with many entries that takes thousands of reads.
func (s *Store) countQuarantined(ctx context.Context) (n int64, err error) {
	if known := s.entries.Load(); known > 0 && !s.options.ReadOnly {
		return known - 1, nil
	}
	err = s.queryRow(ctx, `SELECT count(*) FROM quarantine`).Scan(&n)
	if err == nil {
		s.entries.CompareAndSwap(0, n+1)
	}
	return n, err
}

// QuarantineGrowth says how many entries arrived since a time, and when the newest did (UTC ms; zero: none).
func (s *Store) QuarantineGrowth(ctx context.Context, since int64) (count, newest int64, err error) {
	err = s.queryRow(ctx, `SELECT count(*) FILTER (WHERE time >= ?), coalesce(max(time), 0)
		FROM (SELECT time FROM quarantine ORDER BY id DESC LIMIT ?)`, since, maxGrowth).Scan(&count, &newest)
	if err != nil {
		err = fmt.Errorf("growth of the quarantine: %w", s.suspect(err))
	}
	return count, newest, err
}

// maxGrowth bounds what QuarantineGrowth looks at; a larger count is at least that.
const maxGrowth = 1000
