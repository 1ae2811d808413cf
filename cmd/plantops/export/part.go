package export

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
)

// partSuffix is behind the name of a file that is not whole yet.
const partSuffix = ".part"

// Part is a file that is being written.
type Part struct {
	Path string // for now
	path string // when it is whole
	file *os.File
	done bool
}

// Begin begins the file at path. A file that is there is fs.ErrExist, unless force replaces it. The file to write to is nil for a
// format that is no text: that makes the file of Path itself.
func Begin(path string, force bool, format Format) (*Part, *os.File, error) {
	if _, err := os.Lstat(path); err == nil && !force {
		return nil, nil, fmt.Errorf("%s %w; --force replaces it", path, fs.ErrExist)
	}
	p := &Part{Path: path + partSuffix, path: path}
	if err := os.Remove(p.Path); err != nil && !errors.Is(err, fs.ErrNotExist) { // of an export that was killed
		return nil, nil, err
	}
	if format == SQLite {
		return p, nil, nil
	}
	var err error
	p.file, err = os.OpenFile(p.Path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	return p, p.file, err
}

// Finish gives the file its name when it is on disk.
func (p *Part) Finish() error {
	file := p.file
	if file == nil {
		var err error
		if file, err = os.OpenFile(p.Path, os.O_RDWR, 0); err != nil {
			return err
		}
	}
	err := errors.Join(file.Sync(), file.Close())
	p.file = nil
	if err == nil {
		err = os.Rename(p.Path, p.path)
	}
	if err != nil {
		return err
	}
	p.done = true
	dir, err := os.Open(filepath.Dir(p.path))
	if err != nil {
		return err
	}
	return errors.Join(dir.Sync(), dir.Close())
}

// Drop removes a file that was not finished.
func (p *Part) Drop() {
	if p.done {
		return
	}
	if p.file != nil {
		_ = p.file.Close() // it goes
	}
	_ = os.Remove(p.Path) // or else the next export does
}
