package store

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
	"time"
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
	Readings      int64 // times of devices of which there are values
	Quarantined   int64 // entries that can be looked at
	Damaged       int64 // records of the journal that cannot be read, each with readings of some devices
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
		`PRAGMA page_count`:     &h.Pages,
		`PRAGMA freelist_count`: &h.FreePages,
		`PRAGMA page_size`:      &h.PageBytes,
		`PRAGMA user_version`:   &h.SchemaVersion,
	} {
		if err := s.queryRow(ctx, query).Scan(to); err != nil {
			return h, s.suspect(err)
		}
	}
	if err := s.refresh(ctx); err != nil {
		return h, err
	}
	s.state.mu.RLock()
	for _, d := range s.state.devices {
		h.Readings += d.rows
	}
	s.state.mu.RUnlock()
	h.Damaged = s.damagedRecords.Load()
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

// A database in WAL mode cannot even be read without room for the log's index, nor can anything be deleted from it. So a
// file beside it holds some room in good times, which is given up when the disk is full: then the server starts, what is
// there can be read, and retention can make room.

const (
	reserveSuffix = ".reserve"
	reserveBytes  = 4 << 20
	// reserveRoom is what must be free for the reserve to be made (again).
	reserveRoom  = 16 * reserveBytes
	reserveEvery = time.Minute
)

// isFull reports whether an error comes from a disk without room.
func (s *Store) isFull(err error) bool {
	switch code(err) {
	case codeFull:
		return true
	case codeIO, codeCannotUse:
		space, statErr := s.Space()
		return statErr == nil && space.FreeBytes < minRoomBytes
	}
	return errors.Is(err, ErrFull) || errors.Is(err, syscall.ENOSPC)
}

// giveReserve frees the room that was held, and reports whether there was any.
func (s *Store) giveReserve() bool {
	if err := os.Remove(s.path + reserveSuffix); err != nil {
		return false
	}
	s.log.Warn("the disk is full: the room held in reserve is used, so that old readings can be read and deleted; make room", "path", s.path)
	return true
}

// keepReserve makes the reserve if it is not there and there is room for it. That it cannot be made is no fault.
func (s *Store) keepReserve() {
	if time.Since(s.reserved) < reserveEvery {
		return
	}
	s.reserved = time.Now()
	path := s.path + reserveSuffix
	if info, err := os.Stat(path); err == nil && info.Size() == reserveBytes {
		return
	}
	if space, err := s.Space(); err != nil || space.FreeBytes < reserveRoom {
		return
	}
	file, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return
	}
	err = giveToOwnerOf(filepath.Dir(path), file)
	if err == nil {
		_, err = file.WriteAt(make([]byte, reserveBytes), 0) // really written: not every file system takes it from the free room otherwise
	}
	if err = errors.Join(err, file.Sync(), file.Close()); err != nil {
		if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
			s.log.Debug("remove the reserve", "err", err)
		}
	}
}
