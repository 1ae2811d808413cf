package control

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/plantops/plantops/store"
)

// lockPoll is how often a busy lock is tried again.
const lockPoll = 50 * time.Millisecond

// Lock is the exclusive right to write in a data directory or a database. The kernel gives it back when the process
// ends, however it ends; the file stays and means nothing by itself.
type Lock struct{ file *os.File }

// LockedError says who holds the lock of a data directory.
type LockedError struct {
	Dir string // absolute
	PID int    // 0: not known
}

func (e *LockedError) Error() string {
	return fmt.Sprintf("lock data directory %s: %s is using it", e.Dir, another(e.PID))
}

// DatabaseLockedError says who has a database in use, from another data directory.
type DatabaseLockedError struct {
	Path string // absolute, without symbolic links
	PID  int    // 0: not known
}

func (e *DatabaseLockedError) Error() string {
	return fmt.Sprintf("lock database %s: %s with another data directory is using it", e.Path, another(e.PID))
}

func another(pid int) string {
	if pid == 0 {
		return "another plantops"
	}
	return fmt.Sprintf("another plantops (pid %d)", pid)
}

// errBusy: another process holds the lock.
type errBusy struct{ pid int }

func (e errBusy) Error() string { return "busy" }

// AcquireLock locks dir, trying for as long as wait. Commands hold the lock only for moments, so a short
// wait tells them from a server. The error is a *LockedError when another process holds it, and that of ctx when ctx
// ends first. dir must exist.
func AcquireLock(ctx context.Context, dir string, wait time.Duration) (*Lock, error) {
	abs, err := filepath.Abs(dir)
	if err != nil {
		return nil, fmt.Errorf("lock data directory %s: %w", dir, err)
	}
	lock, err := acquire(ctx, filepath.Join(abs, "plantops.lock"), wait)
	var busy errBusy
	switch {
	case errors.As(err, &busy):
		return nil, &LockedError{abs, busy.pid}
	case ctx.Err() != nil && errors.Is(err, ctx.Err()):
		return nil, err
	case err != nil:
		return nil, fmt.Errorf("lock data directory: %w", err)
	}
	return lock, nil
}

// AcquireDatabase is AcquireLock for the database at path, which can be shared by several data directories (store.path). The error is
// a *DatabaseLockedError when another process holds it. Where no file can be made beside the database there is no lock, and no
// error: opening the database says why.
func AcquireDatabase(ctx context.Context, path string, wait time.Duration) (*Lock, error) {
	real, err := store.RealPath(path)
	if err != nil {
		return nil, fmt.Errorf("lock database %s: %w", path, err)
	}
	lock, err := acquire(ctx, real+"-lock", wait)
	var busy errBusy
	switch {
	case errors.As(err, &busy):
		return nil, &DatabaseLockedError{real, busy.pid}
	case errors.Is(err, fs.ErrNotExist), errors.Is(err, fs.ErrPermission), errors.Is(err, syscall.EROFS), errors.Is(err, syscall.ENOTDIR):
		return &Lock{}, nil
	case ctx.Err() != nil && errors.Is(err, ctx.Err()):
		return nil, err
	case err != nil:
		return nil, fmt.Errorf("lock database: %w", err)
	}
	return lock, nil
}

func acquire(ctx context.Context, path string, wait time.Duration) (*Lock, error) {
	deadline := time.Now().Add(wait)
	for {
		lock, err := tryLock(path)
		if !errors.As(err, new(errBusy)) || time.Now().After(deadline) {
			return lock, err
		}
		select {
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-time.After(lockPoll):
		}
	}
}

func tryLock(path string) (*Lock, error) {
	file, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600) // whoever can open it can lock it
	if err != nil {
		return nil, err
	}
	err = GiveToOwnerOf(filepath.Dir(path), path)
	if err == nil {
		err = syscall.Flock(int(file.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
	}
	if err == nil {
		err = writePID(file)
	}
	if err == nil {
		return &Lock{file}, nil
	}
	defer file.Close()
	if errors.Is(err, syscall.EWOULDBLOCK) {
		return nil, errBusy{readPID(file)}
	}
	return nil, fmt.Errorf("%s: %w", path, err)
}

// GiveToOwnerOf gives path to the owner of dir when this is root, so that a command under sudo leaves nothing that the
// server, which runs as the owner, cannot use.
func GiveToOwnerOf(dir, path string) error {
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
	return os.Lchown(path, int(owner.Uid), int(owner.Gid))
}

// Release gives the lock back. It is called once.
func (l *Lock) Release() error {
	if l.file == nil {
		return nil
	}
	// The PID goes first: a PID in the file always belongs to a holder of the lock.
	return errors.Join(l.file.Truncate(0), l.file.Close())
}

func writePID(file *os.File) error {
	if err := file.Truncate(0); err != nil {
		return err
	}
	_, err := file.WriteAt([]byte(strconv.Itoa(os.Getpid())+"\n"), 0)
	if errors.Is(err, syscall.ENOSPC) {
		return nil // the lock holds without its text, and a server on a full disk can make room
	}
	return err
}

// readPID returns 0 when there is none to read, for instance when its holder has not written it yet.
func readPID(file *os.File) int {
	text := make([]byte, 32)
	n, _ := file.ReadAt(text, 0)
	pid, _ := strconv.Atoi(strings.TrimSpace(string(text[:n])))
	return pid
}
