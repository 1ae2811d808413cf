// Package swap puts a complete database file in the place of another one. A crash at any point leaves either the old or the
// new database there as a whole, or a state that the next start brings to its end. It knows names of files only, not what is
// in them; who calls it sees to it that nobody has the database open.
package swap

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

// What SQLite has beside a database.
const (
	WAL = "-wal" // the write-ahead log
	SHM = "-shm"
)

// stampFormat is the time in the name of a file that is kept, in UTC.
const stampFormat = "20060102T150405.000Z"

// OldName is what the database at path is called from now on, for instance PATH.damaged-20260107T120000.000Z: a name that no
// file has, nor a log.
func OldName(path, kind string, now time.Time) string {
	for ; ; now = now.Add(time.Millisecond) { // a clock that was never set says the same after each start
		name := path + kind + now.UTC().Format(stampFormat)
		_, err := os.Lstat(name)
		_, logErr := os.Lstat(name + WAL)
		if errors.Is(err, fs.ErrNotExist) && errors.Is(logErr, fs.ErrNotExist) {
			return name
		}
	}
}

// Replace puts fresh, which is complete and synced, in the place of the database at path, whose file stays as old. It can be
// broken off at any point and is then finished by calling it again: fresh is there until the last step. A write-ahead log is not
// bound to its database, so the old one must be gone before the new file has the name.
func Replace(path, fresh, old string) error {
	for _, suffix := range []string{"", WAL} {
		if err := keep(path+suffix, old+suffix); err != nil {
			return fmt.Errorf("keep the old file: %w", err)
		}
	}
	if err := SyncDir(path); err != nil {
		return err
	}
	for _, suffix := range []string{WAL, SHM} {
		if err := os.Remove(path + suffix); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	if err := SyncDir(path); err != nil {
		return err
	}
	if err := os.Rename(fresh, path); err != nil {
		return err
	}
	return SyncDir(path)
}

// keep gives a file that may be there another name. It keeps its own where the file system lets it have two.
func keep(path, old string) error {
	err := os.Link(path, old)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil
	case errors.Is(err, fs.ErrExist) && sameFile(path, old): // by a swap that was broken off
		return nil
	case errors.Is(err, syscall.EPERM), errors.Is(err, syscall.ENOTSUP), errors.Is(err, syscall.ENOSYS), errors.Is(err, syscall.EMLINK): // FAT
		return os.Rename(path, old)
	}
	return err
}

func sameFile(a, b string) bool {
	infoA, errA := os.Lstat(a)
	infoB, errB := os.Lstat(b)
	return errA == nil && errB == nil && os.SameFile(infoA, infoB)
}

// ReplaceOrUndo is Replace for who goes on with the old database when it fails. Then fresh must not stay: the next start would
// put it in the place of a file that has more by then.
func ReplaceOrUndo(path, fresh, old string) error {
	err := Replace(path, fresh, old)
	if err == nil {
		return nil
	}
	if _, statErr := os.Lstat(fresh); errors.Is(statErr, fs.ErrNotExist) {
		return nil // it is in its place, and only its name may not outlive a power cut
	}
	for _, suffix := range []string{WAL, ""} {
		if !sameFile(path+suffix, old+suffix) {
			if undoErr := keep(old+suffix, path+suffix); undoErr != nil {
				return errors.Join(err, undoErr)
			}
		}
		if removeErr := os.Remove(old + suffix); removeErr != nil && !errors.Is(removeErr, fs.ErrNotExist) {
			return errors.Join(err, removeErr)
		}
	}
	return errors.Join(err, RemoveAll(fresh), SyncDir(path))
}

// RemoveAll removes a database with what SQLite has beside it. What is not there is no error.
func RemoveAll(path string) error {
	for _, suffix := range []string{"", WAL, SHM} {
		if err := os.Remove(path + suffix); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	return nil
}

// SyncDir syncs the directory that path is in, so that names outlive a power cut like what is in the files.
func SyncDir(path string) error {
	dir, err := os.Open(filepath.Dir(path))
	if err != nil {
		return err
	}
	return errors.Join(dir.Sync(), dir.Close())
}

// Restoring is what a database is called that is to be restored, until it is complete.
const Restoring = ".restoring"

// Names beside the database while a backup is restored. The time in both names is the same: so it is known, when a restore was
// broken off, what the old database is to be called.
const (
	restored      = ".restored-"       // complete: the restore is decided
	beforeRestore = ".before-restore-" // the database that was there
)

// Restore puts fresh in the place of the database at path and returns the name under which the old one is kept. From
// the moment that fresh has another name the restore is decided: when it is broken off, FinishRestore brings it to its end.
func Restore(path, fresh string, now time.Time) (old string, err error) {
	old = OldName(path, beforeRestore, now)
	decided := path + restored + strings.TrimPrefix(old, path+beforeRestore)
	if err := os.Rename(fresh, decided); err != nil {
		return "", err
	}
	if err := SyncDir(path); err != nil {
		return "", err
	}
	return old, Replace(path, decided, old)
}

// FinishRestore brings a restore of the database at path to its end that was broken off after it was decided, and returns the
// name under which the old database is kept; "" when there was none. What one left that was broken off before is removed.
func FinishRestore(path string) (old string, err error) {
	entries, err := os.ReadDir(filepath.Dir(path))
	if errors.Is(err, fs.ErrNotExist) {
		return "", nil
	}
	if err != nil {
		return "", err
	}
	for _, entry := range entries {
		stamp, decided := strings.CutPrefix(entry.Name(), filepath.Base(path)+restored)
		if _, err := time.Parse(stampFormat, stamp); !decided || err != nil || !entry.Type().IsRegular() {
			continue
		}
		old = path + beforeRestore + stamp
		if err := Replace(path, path+restored+stamp, old); err != nil {
			return "", fmt.Errorf("finish restoring %s: %w", entry.Name(), err)
		}
	}
	if old != "" {
		return old, nil
	}
	return "", RemoveAll(path + Restoring)
}

// GiveToOwnerOf gives a new file to the owner of dir when this is root, so that a command under sudo leaves nothing that the
// server, which runs as the owner, cannot open. SQLite does the same for the log (robustFchown in os_unix.c). chown is that of
// the file.
func GiveToOwnerOf(dir string, chown func(uid, gid int) error) error {
	if os.Geteuid() != 0 {
		return nil
	}
	info, err := os.Stat(dir)
	if err != nil {
		return err
	}
	owner, ok := info.Sys().(*syscall.Stat_t)
	if !ok || owner.Uid == 0 && owner.Gid == 0 {
		return nil
	}
	return chown(int(owner.Uid), int(owner.Gid))
}
