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
		`SELECT count(*) FROM quarantine`:            &h.Quarantined,
	} {
		if err := s.db.QueryRowContext(ctx, query).Scan(to); err != nil {
			return h, err
		}
	}
	return h, nil
}
