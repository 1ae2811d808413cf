package control

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// lockPoll is how often a busy lock is tried again.
const lockPoll = 50 * time.Millisecond

// Lock is the exclusive right to write in a data directory. The kernel gives it back when the process
// ends, however it ends; the file stays and means nothing by itself.
type Lock struct{ file *os.File }

// LockedError says who holds the lock of a data directory.
type LockedError struct {
	Dir string // absolute
	PID int    // 0: not known
}

func (e *LockedError) Error() string {
	who := "another plantops"
	if e.PID != 0 {
		who = fmt.Sprintf("another plantops (pid %d)", e.PID)
	}
	return fmt.Sprintf("lock data directory %s: %s is using it", e.Dir, who)
}

// AcquireLock locks dir, trying for as long as wait. Commands hold the lock only for moments, so a short
// wait tells them from a server. The error is a *LockedError when another process holds it, and that of ctx when ctx
// ends first. dir must exist.
func AcquireLock(ctx context.Context, dir string, wait time.Duration) (*Lock, error) {
	abs, err := filepath.Abs(dir)
	if err != nil {
		return nil, fmt.Errorf("lock data directory %s: %w", dir, err)
	}
	deadline := time.Now().Add(wait)
	for {
		lock, err := tryLock(abs)
		if locked := (*LockedError)(nil); !errors.As(err, &locked) || time.Now().After(deadline) {
			return lock, err
		}
		select {
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-time.After(lockPoll):
		}
	}
}

func tryLock(dir string) (*Lock, error) {
	path := filepath.Join(dir, "plantops.lock")
	file, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600) // whoever can open it can lock it
	if err != nil {
		return nil, fmt.Errorf("lock data directory: %w", err)
	}
	err = syscall.Flock(int(file.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
	if err == nil {
		err = writePID(file)
	}
	if err == nil {
		return &Lock{file}, nil
	}
	defer file.Close()
	if errors.Is(err, syscall.EWOULDBLOCK) {
		return nil, &LockedError{dir, readPID(file)}
	}
	return nil, fmt.Errorf("lock data directory %s: %w", dir, err)
}

// Release gives the lock back. It is called once.
func (l *Lock) Release() error {
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
