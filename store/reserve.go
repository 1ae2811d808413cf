package store

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
	"time"
)

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
		_, err = file.Write(make([]byte, reserveBytes)) // really written: not every file system takes it from the free room otherwise
	}
	if err = errors.Join(err, file.Sync(), file.Close()); err != nil {
		if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
			s.log.Debug("remove the reserve", "err", err)
		}
	}
}
