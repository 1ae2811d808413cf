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
		err = t.Sync()
	}
	if err = errors.Join(err, t.Close()); err != nil {
		_ = os.Remove(t.Name())
		return "", err
	}
	return t.Name(), nil
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
		err = syncDir(filepath.Dir(path))
	}
	return err
}

// readRegular reads a certificate or key file; check, when not nil, judges the opened file first.
func readRegular(path string, check func(fs.FileInfo) error) ([]byte, error) {
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
			err = check(info)
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

// readCertificates returns the certificates of a PEM file, at least one, and the file itself.
func readCertificates(path string) ([]*x509.Certificate, []byte, error) {
	data, err := readRegular(path, nil)
	if err == nil {
		var certs []*x509.Certificate
		if certs, err = parseCertificates(data); err == nil {
			return certs, data, nil
		}
	}
	return nil, nil, fmt.Errorf("certificate %s %w", path, explain(err))
}

// readKey returns the private key of a PEM file that only its owner can read.
func readKey(path string) (crypto.Signer, error) {
	data, err := readRegular(path, func(info fs.FileInfo) error {
		if mode := info.Mode().Perm(); mode&0o077 != 0 {
			return fmt.Errorf("%w (mode %04o): chmod 600 %s", ErrInsecureKey, mode, path)
		}
		return nil
	})
	if errors.Is(err, ErrInsecureKey) {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	if err == nil {
		var key crypto.Signer
		if key, err = parseKey(data); err == nil {
			return key, nil
		}
	}
	return nil, fmt.Errorf("key %s %w", path, explain(err))
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

// stamp is the outward state of the certificate files: nil for one that is not there.
type stamp []fs.FileInfo

func (a *Authority) stat() stamp {
	var s stamp
	for _, path := range []string{a.caCert, a.caKey, a.serverCert, a.serverKey, a.crl} {
		info, err := os.Stat(path)
		if err != nil {
			info = nil
		}
		s = append(s, info)
	}
	return s
}

func (s stamp) same(t stamp) bool {
	if len(s) != len(t) {
		return false
	}
	for i := range s {
		x, y := s[i], t[i]
		if x == nil || y == nil {
			if x != y {
				return false
			}
			continue
		}
		if !os.SameFile(x, y) || x.Size() != y.Size() || x.Mode() != y.Mode() || !x.ModTime().Equal(y.ModTime()) {
			return false
		}
	}
	return true
}
