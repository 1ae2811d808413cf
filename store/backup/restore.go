package backup

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"github.com/plantops/plantops/store"
	"github.com/plantops/plantops/store/swap"
)

// ErrUnfinished: the database was being made anew, which the next start finishes.
var ErrUnfinished = errors.New("the database was damaged and is half made anew")

// RestoreOptions say what to put where.
type RestoreOptions struct {
	From     string // the backup
	Database string // path of the database; nobody has it open
	Now      time.Time
	Told     Told // may be nil
}

// Restored is what became of it.
type Restored struct {
	Report Report // of the backup
	Old    string // name of the database that was there; "" when there was none
	Files  []File // that came along with the backup
}

// Verify checks a backup before anything is changed for it. The error wraps store.ErrDamaged and what Check returns.
func Verify(ctx context.Context, path string, told Told) (Report, error) {
	r, err := Check(ctx, path, CheckOptions{Told: told})
	if err != nil {
		return r, err
	}
	if len(r.Findings) > 0 {
		return r, fmt.Errorf("%s is %w: %s", path, store.ErrDamaged, r.Findings[0].Text())
	}
	return r, nil
}

// Restore puts the content of a backup, which Verify has found good, in the place of the database, whose file stays beside it.
// The caller has the locks of a server. A crash at any point leaves the old or the new database as a whole; from the moment
// that the new one is complete and synced, the next start finishes what is left to do. It reads the copy once more before: what
// is put in place is what was checked.
func Restore(ctx context.Context, o RestoreOptions) (Restored, error) {
	r, err := restore(ctx, o)
	if err != nil {
		return r, fmt.Errorf("restore %s to %s: %w", o.From, o.Database, err)
	}
	return r, nil
}

func restore(ctx context.Context, o RestoreOptions) (r Restored, err error) {
	path, err := store.RealPath(o.Database)
	if err != nil {
		return r, err
	}
	if err := mayRestore(o.From, path); err != nil {
		return r, err
	}
	if _, err := swap.FinishRestore(path); err != nil { // one that was broken off
		return r, err
	}
	making := path + swap.Restoring
	hold, err := holdPart(making)
	if err != nil {
		return r, err
	}
	defer func() {
		if err != nil {
			err = explainFull(err, path)
			if _, statErr := os.Lstat(making); statErr == nil {
				err = errors.Join(err, removePart(making))
			}
		}
		_ = hold.Close() // it was synced
	}()
	if err := copyTo(ctx, database{path: o.From}, making, hold, copyOptions{told: o.Told}); err != nil {
		return r, err
	}
	err = database{path: making}.read(ctx, func(conn *sql.Conn) error {
		var err error
		_, r.Files, err = readInfo(ctx, conn)
		return err
	})
	if err != nil {
		return r, err
	}
	if err := write(ctx, making, func(conn *sql.Conn) error { return dropInfo(ctx, conn) }); err != nil {
		return r, err
	}
	if r.Report, err = Verify(ctx, making, o.Told); err != nil {
		return r, err
	}
	if err := hold.Sync(); err != nil {
		return r, err
	}
	if err := ctx.Err(); err != nil {
		return r, err
	}
	there := true
	if _, err := os.Lstat(path); errors.Is(err, fs.ErrNotExist) {
		there = false
	}
	r.Old, err = swap.Restore(path, making, o.Now)
	if !there {
		r.Old = ""
	}
	return r, err
}

func mayRestore(from, path string) error {
	real, err := store.RealPath(from)
	if err != nil {
		return err
	}
	a, errA := os.Stat(real)
	b, errB := os.Stat(path)
	switch {
	case errA != nil:
		return errA
	case real == path, errB == nil && os.SameFile(a, b):
		return errors.New("that is the database itself")
	case errB == nil && !b.Mode().IsRegular():
		return errors.New("in its place is something that is no file")
	}
	if _, err := os.Lstat(path + ".new"); err == nil {
		return fmt.Errorf("%w: %s.new", ErrUnfinished, filepath.Base(path))
	}
	return nil
}

// WriteFiles writes files into a folder, each to a temporary name first, synced, then renamed. A folder that is not there is made.
func WriteFiles(dir string, files []File) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	if err := giveToOwnerOf(filepath.Dir(dir), dir); err != nil {
		return err
	}
	for _, f := range files {
		if f.Name != filepath.Base(f.Name) || f.Name == "." || f.Name == ".." {
			return fmt.Errorf("%q is no name of a file", f.Name)
		}
		if err := writeFile(dir, f); err != nil {
			return fmt.Errorf("write %s: %w", filepath.Join(dir, f.Name), err)
		}
	}
	return swap.SyncDir(filepath.Join(dir, "any"))
}

func writeFile(dir string, f File) error {
	t, err := os.CreateTemp(dir, "."+f.Name+"-") // 0600 from the first moment
	if err != nil {
		return err
	}
	_, err = t.Write(f.Content)
	if err == nil {
		err = t.Chmod(f.Mode.Perm() &^ 0o022)
	}
	if err == nil {
		err = giveToOwnerOf(dir, t.Name())
	}
	if err == nil {
		err = t.Sync()
	}
	if err = errors.Join(err, t.Close()); err == nil {
		err = os.Rename(t.Name(), filepath.Join(dir, f.Name))
	}
	if err != nil {
		_ = os.Remove(t.Name()) // the first error is the one that matters
	}
	return err
}

// SameFiles reports whether a folder has just these files with the same content.
func SameFiles(dir string, files []File) bool {
	there, err := ReadFiles(dir)
	if err != nil || len(there) != len(files) {
		return false
	}
	content := map[string]string{}
	for _, f := range there {
		content[f.Name] = string(f.Content)
	}
	for _, f := range files {
		if content[f.Name] != string(f.Content) {
			return false
		}
	}
	return true
}
