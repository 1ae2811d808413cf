package certs

import (
	"crypto"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
)

// maxFileBytes is more than any certificate bundle needs (Debian's is 220 kB) and little enough to read.
const maxFileBytes = 4 << 20

// file is one file to be written.
type file struct {
	path string
	data []byte
	mode fs.FileMode
}

// writeFiles writes all files or, as far as the disk allows, none: each goes to a temporary file in its
// directory and is synced first, so that a full disk is found out before anything is replaced; then they
// are renamed in the order given, each rename synced before the next. Modes do not depend on the umask.
func writeFiles(files ...file) error { return replaceFiles(nil, files...) }

// replaceFiles is writeFiles that removes the files obsolete, those that are there, in the order given before the first rename.
func replaceFiles(obsolete []string, files ...file) error {
	staged := make([]string, 0, len(files))
	defer func() {
		for _, path := range staged {
			_ = os.Remove(path) // those that were renamed are not there any more
		}
	}()
	for _, f := range files {
		path, err := stage(f)
		if err != nil {
			return fmt.Errorf("write %s: %w", f.path, err)
		}
		staged = append(staged, path)
	}
	for _, path := range obsolete {
		err := os.Remove(path)
		if err == nil {
			err = syncDir(filepath.Dir(path))
		}
		if err != nil && !isMissing(err) {
			return fmt.Errorf("replace %s: %w", path, err)
		}
	}
	for i, f := range files {
		if err := os.Rename(staged[i], f.path); err != nil {
			return fmt.Errorf("write %s: %w", f.path, err)
		}
		if err := syncDir(filepath.Dir(f.path)); err != nil {
			return fmt.Errorf("write %s: %w", f.path, err)
		}
	}
	return nil
}

func stage(f file) (path string, err error) {
	t, err := os.CreateTemp(filepath.Dir(f.path), "."+filepath.Base(f.path)+"-") // 0600 from the first moment
	if err != nil {
		return "", err
	}
	_, err = t.Write(f.data)
	if err == nil {
		err = t.Chmod(f.mode)
	}
	if err == nil {
		err = giveToOwnerOf(filepath.Dir(f.path), t.Name())
	}
	if err == nil {
		err = t.Sync()
	}
	if err = errors.Join(err, t.Close()); err != nil {
		_ = os.Remove(t.Name())
		return "", err
	}
	return t.Name(), nil
}

// giveToOwnerOf gives path to the owner of dir when this is root, so that a command under sudo leaves nothing that the
// server, which runs as the owner, cannot read.
func giveToOwnerOf(dir, path string) error {
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

func syncDir(path string) error {
	d, err := os.Open(path)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

// makeDir creates the certificate directory, readable by everybody whatever the umask: clients on the same
// machine read ca.crt there. A directory that exists keeps its mode.
func makeDir(path string) error {
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	err := os.Mkdir(path, 0o755)
	if errors.Is(err, fs.ErrExist) {
		return nil
	}
	if err == nil {
		err = os.Chmod(path, 0o755)
	}
	if err == nil {
		err = giveToOwnerOf(filepath.Dir(path), path)
	}
	if err == nil {
		err = syncDir(filepath.Dir(path))
	}
	return err
}

// readRegular reads a certificate or key file; check, when not nil, judges the opened file first.
func readRegular(path string, check func(*os.File, fs.FileInfo) error) ([]byte, error) {
	info, err := os.Stat(path) // before opening: opening a pipe would wait for its writer
	if err != nil {
		return nil, err
	}
	if info.IsDir() {
		return nil, errors.New("is a directory")
	}
	if !info.Mode().IsRegular() {
		return nil, errors.New("is not a regular file")
	}
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer func() { _ = f.Close() }() // only read
	if check != nil {
		if info, err = f.Stat(); err == nil {
			err = check(f, info)
		}
		if err != nil {
			return nil, err
		}
	}
	data, err := io.ReadAll(io.LimitReader(f, maxFileBytes+1))
	if err == nil && len(data) > maxFileBytes {
		err = errors.New("is too large: more than 4 MiB")
	}
	return data, err
}

// readCertificates returns the certificates of a PEM file, at least one.
func readCertificates(path string) ([]*x509.Certificate, error) {
	data, err := readRegular(path, nil)
	if err == nil {
		var certs []*x509.Certificate
		if certs, err = parseCertificates(data); err == nil {
			return certs, nil
		}
	}
	return nil, fmt.Errorf("certificate %s %w", path, explain(err))
}

// readServerCertificates is readCertificates for a file that may hold the key as well, when nobody else can read it.
func readServerCertificates(path string) ([]*x509.Certificate, error) {
	certs, err := readCertificates(path)
	if err != nil {
		return nil, err
	}
	data, err := readRegular(path, nil)
	if err == nil && holdsKey(data) {
		_, err = readPrivate(path)
	}
	if err != nil {
		return nil, err
	}
	return certs, nil
}

// readKey returns the private key of a PEM file that nobody else can use, see checkKeyMode.
func readKey(path string) (crypto.Signer, error) {
	data, err := readPrivate(path)
	if errors.Is(err, ErrInsecureKey) {
		return nil, err
	}
	if err == nil {
		var key crypto.Signer
		if key, err = parseKey(data); err == nil {
			return key, nil
		}
	}
	return nil, fmt.Errorf("key %s %w", path, explain(err))
}

// readPrivate reads a file with a key in it. Only ErrInsecureKey names the file.
func readPrivate(path string) ([]byte, error) {
	return readRegular(path, func(f *os.File, info fs.FileInfo) error {
		self := os.Geteuid()
		owner, group := self, 0
		if stat, ok := info.Sys().(*syscall.Stat_t); ok {
			owner, group = int(stat.Uid), int(stat.Gid)
		}
		remedy := checkKeyMode(info.Mode().Perm(), owner, reader(self, owner, group), func() bool { return onReadOnlyMount(f, info) })
		if remedy == "" {
			return nil
		}
		return fmt.Errorf("%s: %w (mode %04o): %s %s", path, ErrInsecureKey, info.Mode().Perm(), remedy, path)
	})
}

// explain puts an error of the operating system into words that end a sentence beginning with the file.
func explain(err error) error {
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return &because{"does not exist", err}
	case errors.Is(err, fs.ErrPermission):
		return &because{"is not readable by this user", err}
	}
	if pathError := (*fs.PathError)(nil); errors.As(err, &pathError) {
		return fmt.Errorf("is not readable: %w", pathError.Err)
	}
	return err
}

// because is an error told in our own words.
type because struct {
	text  string
	cause error
}

func (b *because) Error() string { return b.text }
func (b *because) Unwrap() error { return b.cause }

func exists(path string) bool {
	_, err := os.Lstat(path)
	return err == nil
}

func isMissing(err error) bool { return errors.Is(err, fs.ErrNotExist) }
