package store

import "fmt"

// minRoomBytes is what a write-ahead log may need to grow for one commit; with less than that free, an I/O error means
// that the disk is full: not every system call that SQLite uses tells it so.
const minRoomBytes = 1 << 20

// explain adds the sentinel that fits SQLite's code.
func explain(err error) error {
	switch code(err) {
	case codeNotADB:
		return fmt.Errorf("%w, or not a database at all: %w", ErrDamaged, err)
	case codeCorrupt:
		return fmt.Errorf("%w: %w", ErrDamaged, err)
	case codeReadOnly, codeCannotUse:
		return fmt.Errorf("file or directory cannot be written: %w", err)
	}
	return err
}

// explainWrite says what stands in the way of a commit, where it is and what would help.
func (s *Store) explainWrite(err error) error {
	switch code(err) {
	case codeBusy:
		return fmt.Errorf("%w: another program is writing to %s, close it: %w", ErrLocked, s.path, err)
	case codeFull:
		return fmt.Errorf("%w: make room on the file system of %s: %w", ErrFull, s.path, err)
	case codeIO:
		if space, statErr := s.Space(); statErr == nil && space.FreeBytes < minRoomBytes {
			return fmt.Errorf("%w: make room on the file system of %s: %w", ErrFull, s.path, err)
		}
		return fmt.Errorf("the disk of %s reports an error, see the log of the kernel: %w", s.path, err)
	}
	return explain(err)
}
