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
	Path          string
	SizeBytes     int64 // of the database
	WALBytes      int64 // of its write-ahead log
	FreeBytes     int64 // left on the file system for this user
	Pages         int64 // of PageBytes each
	FreePages     int64 // inside the file, used before it grows
	PageBytes     int64
	Readings      int64 // rows: messages with values
	Quarantined   int64 // entries that can be looked at
	SchemaVersion int
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
	var disk syscall.Statfs_t
	if err := syscall.Statfs(filepath.Dir(s.path), &disk); err != nil {
		return h, fmt.Errorf("free space: %w", err)
	}
	h.FreeBytes = int64(disk.Bavail) * int64(disk.Bsize) //nolint:unconvert // the types differ between systems
	for query, to := range map[string]any{
		`PRAGMA page_count`:                          &h.Pages,
		`PRAGMA freelist_count`:                      &h.FreePages,
		`PRAGMA page_size`:                           &h.PageBytes,
		`PRAGMA user_version`:                        &h.SchemaVersion,
		`SELECT coalesce(sum(rows), 0) FROM counter`: &h.Readings,
		`SELECT count(*) FROM quarantine`:            &h.Quarantined,
	} {
		if err := s.db.QueryRowContext(ctx, query).Scan(to); err != nil {
			return h, err
		}
	}
	return h, nil
}
