// Package backup makes, checks and restores backups. A backup is one SQLite file: the database as it was at one moment and,
// beside it in tables of their own, the files that devices depend on (the certificate authority). It is made while a server
// writes, from the same process or another one, in one read transaction.
//
//	backup.go    Make: copy, check, sync, rename
//	copy.go      a consistent copy of a database that others write
//	info.go      what a backup says about itself, and the files in it
//	check.go     Check: everything that can be checked of a file
//	restore.go   Restore: verify first, keep the old database
//	schedule.go  backups by themselves, and which of them go
//	after.go     the command that takes a new backup elsewhere
//
// It knows SQLite and names of files; what the tables of the database mean is the business of package store.
package backup

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
	"time"

	"github.com/plantops/plantops/store"
	"github.com/plantops/plantops/store/swap"
)

// ErrBusy: another process is making the same backup.
var ErrBusy = errors.New("is being made by another process")

// Told is called while something long runs: what is being done, how much of it is done, and of how much. Zero of means that it
// is not known.
type Told func(what string, done, of int64)

func (t Told) tell(what string, done, of int64) {
	if t != nil {
		t(what, done, of)
	}
}

// Options say what to make.
type Options struct {
	Database string // path of the database
	To       string // path of the backup; its directory must exist
	Force    bool   // a backup that is there is replaced
	Gently   bool   // a server writes meanwhile: leave it half of the disk
	Files    []File // go along
	Version  string // of the program
	Host     string // name of the machine
	Now      time.Time
	Unsure   bool // Now is not to be trusted
	By       string
	Told     Told // may be nil
}

// Result is a backup that was made and checked.
type Result struct {
	Path     string        `json:"path"`
	Bytes    int64         `json:"bytes"`
	Devices  int64         `json:"devices"`
	Messages int64         `json:"messages"` // with readings
	Files    int           `json:"files"`    // that went along
	Took     time.Duration `json:"-"`
	Copied   time.Duration `json:"-"` // of that, until the copy was complete
}

// partSuffix is what a backup is called until it is complete.
const partSuffix = ".part"

// Make makes a backup. It has its name only when it is complete, checked and synced; after an error nothing of it is left. The error
// wraps fs.ErrExist when there is a file already, store.ErrFull when there is no room, store.ErrDamaged when the database is
// damaged, and store.ErrForeign and store.ErrNewerSchema as when it is opened.
func Make(ctx context.Context, o Options) (Result, error) {
	began := time.Now()
	r, err := makeBackup(ctx, o)
	if err != nil {
		return r, fmt.Errorf("back up %s to %s: %w", o.Database, o.To, err)
	}
	r.Took = time.Since(began)
	return r, nil
}

func makeBackup(ctx context.Context, o Options) (r Result, err error) {
	if err := mayWrite(o); err != nil {
		return r, err
	}
	part := o.To + partSuffix
	hold, err := holdPart(part)
	if err != nil {
		return r, err
	}
	defer func() {
		if err != nil {
			err = errors.Join(explainFull(err, o.To), removePart(part))
		}
		_ = hold.Close() // what matters of it was synced; the lock ends with it
	}()
	source := database{path: o.Database}
	began := time.Now()
	if err := copyTo(ctx, source, part, hold, copyOptions{gently: o.Gently, told: o.Told}); err != nil {
		return r, err
	}
	r.Copied = time.Since(began)
	if err := writeInfo(ctx, part, o); err != nil {
		return r, err
	}
	report, err := Check(ctx, part, CheckOptions{Told: o.Told})
	if err != nil {
		return r, err
	}
	if len(report.Findings) > 0 {
		return r, fmt.Errorf("%w, and so would be its backup, which is not kept: %s", store.ErrDamaged, report.Findings[0].Text())
	}
	r = Result{Path: o.To, Bytes: report.Bytes, Devices: report.Devices, Messages: report.Messages, Files: len(o.Files), Copied: r.Copied}
	if err := hold.Sync(); err != nil {
		return r, err
	}
	if err := mayWrite(o); err != nil { // again: somebody may have made one meanwhile
		return r, err
	}
	if err := os.Rename(part, o.To); err != nil {
		return r, err
	}
	return r, swap.SyncDir(o.To)
}

// mayWrite refuses what must not be replaced.
func mayWrite(o Options) error {
	info, err := os.Lstat(o.To)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return isOurs(o)
	case err != nil:
		return err
	case !info.Mode().IsRegular():
		return errors.New("there is something that is no file")
	}
	if err := isOurs(o); err != nil {
		return err
	}
	if !o.Force {
		return fmt.Errorf("there is one already: %w", fs.ErrExist)
	}
	if wal, err := os.Stat(o.To + swap.WAL); err == nil && wal.Size() > 0 {
		return errors.New("there is a database that is in use, since it has a log")
	}
	return nil
}

// isOurs refuses the names of the database and what belongs to it.
func isOurs(o Options) error {
	to, err := store.RealPath(o.To)
	if err != nil {
		return err
	}
	from, err := store.RealPath(o.Database)
	if err != nil {
		return err
	}
	for _, suffix := range []string{"", swap.WAL, swap.SHM, "-lock", "-journal", ".new", ".reserve", ".aside", ".making", swap.Restoring} {
		if to == from+suffix {
			return errors.New("that is the database itself, or belongs to it")
		}
	}
	if a, err := os.Stat(to); err == nil {
		if b, err := os.Stat(from); err == nil && os.SameFile(a, b) {
			return errors.New("that is the database itself")
		}
	}
	return nil
}

// holdPart makes an empty file that nobody else may read, and locks it. What a process left that was killed is overwritten.
func holdPart(part string) (*os.File, error) {
	if info, err := os.Lstat(part); err == nil && !info.Mode().IsRegular() {
		return nil, fmt.Errorf("%s is no file", part)
	}
	file, err := os.OpenFile(part, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, err
	}
	err = syscall.Flock(int(file.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
	if errors.Is(err, syscall.EWOULDBLOCK) {
		_ = file.Close() // not ours
		return nil, ErrBusy
	}
	if errors.Is(err, syscall.ENOSYS) || errors.Is(err, syscall.ENOTSUP) || errors.Is(err, syscall.ENOLCK) {
		err = nil // some network file systems have no locks
	}
	if err == nil {
		err = file.Truncate(0)
	}
	if err == nil {
		err = file.Chmod(0o600)
	}
	if err == nil {
		err = giveToOwnerOf(filepath.Dir(part), part)
	}
	if err == nil {
		err = removeBeside(part)
	}
	if err != nil {
		return nil, errors.Join(err, file.Close(), removePart(part))
	}
	return file, nil
}

func removePart(part string) error {
	return errors.Join(swap.RemoveAll(part), removeBeside(part))
}

// removeBeside removes what SQLite may have left beside a copy that was broken off.
func removeBeside(path string) error {
	for _, suffix := range []string{"-journal", swap.WAL, swap.SHM} {
		if err := os.Remove(path + suffix); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	return nil
}

// giveToOwnerOf gives path to the owner of dir when this is root: what a command under sudo makes is of use to whom the folder
// belongs.
func giveToOwnerOf(dir, path string) error {
	return swap.GiveToOwnerOf(dir, func(uid, gid int) error { return os.Lchown(path, uid, gid) })
}
