package store

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"
)

// Names beside the database while it is made anew.
const (
	makingSuffix = ".making" // may be half written: begun anew
	newSuffix    = ".new"    // complete
	shmSuffix    = "-shm"
)

// damagedName is what a damaged file is called from now on.
func damagedName(path string, now time.Time) string {
	return path + ".damaged-" + now.UTC().Format("20060102T150405.000Z")
}

// swap puts PATH.new, which is complete, in the place of the database, whose file stays as old. It can be broken off at any
// point and is then finished by finishSwap: PATH.new is there until the last step. A write-ahead log is not bound to its
// database, so the old one must be gone before the new file has the name.
func swap(path, old string) error {
	for _, suffix := range []string{"", walSuffix} {
		err := os.Link(path+suffix, old+suffix)
		if err != nil && !errors.Is(err, fs.ErrExist) && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("keep the damaged file: %w", err)
		}
	}
	if err := syncDir(path); err != nil {
		return err
	}
	for _, suffix := range []string{walSuffix, shmSuffix} {
		if err := os.Remove(path + suffix); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	if err := syncDir(path); err != nil {
		return err
	}
	if err := os.Rename(path+newSuffix, path); err != nil {
		return err
	}
	return syncDir(path)
}

// finishSwap does what an interrupted swap left to do. It must know under which name the new file expects the old one.
func (s *Store) finishSwap(ctx context.Context, path string) error {
	if _, err := os.Stat(path + newSuffix); err != nil {
		return nil // the usual case
	}
	fresh := &Store{options: Options{Path: path + newSuffix, Log: s.log, Now: s.options.Now}, log: s.log, writing: make(chan struct{}, 1)}
	var source string
	err := fresh.open(ctx)
	if err == nil {
		err = fresh.db.Load().QueryRowContext(ctx, `SELECT source FROM salvage ORDER BY id DESC LIMIT 1`).Scan(&source)
	}
	if err = errors.Join(err, fresh.disconnect()); err != nil {
		return fmt.Errorf("finish making the database anew from %s: %w", filepath.Base(path)+newSuffix, err)
	}
	return swap(path, filepath.Join(filepath.Dir(path), source))
}

func syncDir(path string) error {
	dir, err := os.Open(filepath.Dir(path))
	if err != nil {
		return err
	}
	return errors.Join(dir.Sync(), dir.Close())
}
