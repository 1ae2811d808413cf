package store

import (
	"context"
	"database/sql"
	"embed"
	"errors"
	"fmt"
	"io/fs"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"syscall"

	"modernc.org/sqlite"

	"github.com/plantops/plantops/store/aside"
	"github.com/plantops/plantops/store/swap"
)

// migrations are run in order of name; how many have run is the user_version of the file.
//
//go:embed migrations/*.sql
var migrations embed.FS

const (
	// ApplicationID marks our files: "Plnt".
	ApplicationID = 0x506c6e74

	// A row goes to the page of its device, so a batch from many devices touches as many pages, and each one that is
	// touched is written whole: with 1000 devices, batches of 1000 took a third of the time that they take with 4096.
	pageBytes = 1024

	// The write-ahead log is copied into the database when it has so many pages, about 4 MB (store.go).
	checkpointPages = 4096
	// As long as room is held in reserve (health.go) it may have so many, about 12 MB: what changes often, or stands beside
	// what changes, is then written to the database less often. With 4096 a tenth more is written for each reading.
	longLogPages = 12_000

	// After an unclean stop, up to this size the whole file is checked before it is used (about a second on a Pi).
	maxCheckBytes = 64 << 20

	writable = 2 // W_OK
)

// walSuffix is what SQLite adds to the name for the write-ahead log.
const walSuffix = swap.WAL

func (s *Store) open(ctx context.Context) error {
	path, err := RealPath(s.options.Path)
	if err != nil {
		return reason(err)
	}
	s.path, s.aside = path, aside.New(path)
	if !s.options.ReadOnly {
		if err := s.finishRestore(path); err != nil {
			return err
		}
		if err := s.finishSwap(ctx, path); err != nil {
			return err
		}
	}
	unclean, err := prepareFile(path, s.options.ReadOnly)
	if err != nil {
		return err
	}
	err = s.openFile(ctx, unclean)
	if s.isFull(err) {
		err = s.openFull(ctx, unclean, err)
	}
	if isDamage(err) && !s.options.ReadOnly {
		err = s.rebuild(ctx, err)
	}
	if err != nil || s.options.ReadOnly {
		return err
	}
	s.keepReserve()
	return s.takeAside(ctx)
}

// finishRestore brings a restore to its end that was broken off after it was decided.
func (s *Store) finishRestore(path string) error {
	old, err := swap.FinishRestore(path)
	if old != "" {
		s.log.Warn("finished restoring a backup, which was broken off", "path", path, "old", old)
	}
	return err
}

// openFull opens a file for which there is no room: with what was held in reserve, or, when it is only to be read and its log
// is empty, as a file that nobody changes.
func (s *Store) openFull(ctx context.Context, unclean bool, cause error) error {
	_ = s.disconnect() // cause is the error that matters
	s.w = nil
	if !s.options.ReadOnly {
		if !s.giveReserve() {
			return cause
		}
		return s.openFile(ctx, unclean)
	}
	if wal, err := os.Stat(s.path + walSuffix); err == nil && wal.Size() > 0 {
		return cause
	}
	s.immutable = true
	return s.openFile(ctx, unclean)
}

// openFile opens what is there and reads what is kept in memory of it.
func (s *Store) openFile(ctx context.Context, unclean bool) (err error) {
	if err := s.openReaders(); err != nil {
		return err
	}
	if s.options.ReadOnly {
		err = s.checkReadable(ctx)
	} else {
		err = s.openWriter(ctx, unclean)
	}
	if err != nil {
		return s.explainWrite(err)
	}
	if err := s.load(ctx); err != nil {
		return explain(err)
	}
	return explain(s.loadAccounts(ctx))
}

// maxLinks is what Linux follows, see path_resolution(7).
const maxLinks = 40

// RealPath is the absolute path of the file that path means, through symbolic links, whether it is there or not. SQLite
// looks for the log beside that one, not beside the link.
func RealPath(path string) (string, error) {
	path, err := filepath.Abs(path)
	if err != nil {
		return "", err
	}
	for range maxLinks {
		real, err := filepath.EvalSymlinks(path)
		if err == nil {
			return real, nil
		}
		target, linkErr := os.Readlink(path)
		if !errors.Is(err, fs.ErrNotExist) || linkErr != nil {
			break // not a link, or one whose target cannot be told
		}
		if !filepath.IsAbs(target) {
			target = filepath.Join(filepath.Dir(path), target)
		}
		path = target
	}
	if dir, err := filepath.EvalSymlinks(filepath.Dir(path)); err == nil {
		return filepath.Join(dir, filepath.Base(path)), nil
	}
	return path, nil // opening it will say what is wrong
}

// prepareFile creates the file with private modes if there is none, and finds out what SQLite would report in riddles.
// It never opens a file that exists: closing it would drop the locks that SQLite holds on it in this process.
// Unclean means that the last program to write the file did not get to close it.
func prepareFile(path string, readOnly bool) (unclean bool, err error) {
	var walBytes int64
	if wal, err := os.Stat(path + walSuffix); err == nil {
		walBytes = wal.Size()
	}
	info, err := os.Stat(path)
	switch {
	case err != nil && (readOnly || !errors.Is(err, fs.ErrNotExist)):
		return false, reason(err)
	case err == nil && !info.Mode().IsRegular():
		return false, errors.New("not a regular file")
	case (err != nil || info.Size() == 0) && walBytes > 0:
		// SQLite would delete the log and begin anew.
		return false, fmt.Errorf("%w: the file is empty or missing, but its log %s is there", ErrDamaged, filepath.Base(path)+walSuffix)
	case err != nil:
		return false, createFile(path)
	case readOnly:
		return false, nil
	}
	for _, name := range []string{path, filepath.Dir(path)} {
		if err := syscall.Access(name, writable); err != nil {
			return false, fmt.Errorf("%s cannot be written: %w", name, err)
		}
	}
	return walBytes > 0, nil
}

func createFile(path string) error {
	file, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600)
	if errors.Is(err, fs.ErrExist) {
		return nil // another process was first
	}
	if err != nil {
		return reason(err)
	}
	if err := errors.Join(swap.GiveToOwnerOf(filepath.Dir(path), file.Chown), file.Close()); err != nil {
		return reason(err)
	}
	return swap.SyncDir(path) // the name must outlive a power cut like what will be in it
}

// reason drops the path from an error: Open names it.
func reason(err error) error {
	if e, ok := errors.AsType[*fs.PathError](err); ok {
		return e.Err
	}
	return err
}

// dsn is SQLite's name of the file with what every connection is set to.
func (s *Store) dsn(mode string, pragmas ...string) string {
	query := url.Values{"mode": {mode}, "_error_rc": {"1"}, "_dqs": {"0"}}
	query["_pragma"] = append([]string{"busy_timeout(1000)", "foreign_keys(1)", "temp_store(memory)"}, pragmas...)
	if s.immutable {
		query.Set("immutable", "1")
	}
	name := url.URL{Path: s.path}
	return "file:" + name.EscapedPath() + "?" + query.Encode()
}

func (s *Store) openReaders() error {
	connector, err := sqlite.NewConnector(s.dsn("ro", "query_only(1)", "cache_size(-2000)"))
	if err != nil {
		return err
	}
	db := sql.OpenDB(connector)
	db.SetMaxOpenConns(readers)
	db.SetMaxIdleConns(readers)
	s.db.Store(db)
	return nil
}

// openWriter brings the file up to date. Nothing is changed before it is known to be ours. After an error there is no writer.
func (s *Store) openWriter(ctx context.Context, unclean bool) (err error) {
	if s.w, err = connectWriter(ctx, s.dsn("rw", "cache_size(-8000)", "page_size("+strconv.Itoa(pageBytes)+")")); err != nil {
		s.w = nil
		return err
	}
	if err = s.prepareWriter(ctx, unclean); err != nil {
		_ = s.w.close() // the first error is the one that matters
		s.w = nil
	}
	return err
}

func (s *Store) prepareWriter(ctx context.Context, unclean bool) error {
	version, err := s.identify(s.w.number)
	if err != nil {
		return err
	}
	// Beyond journal_size_limit the log is cut back after a long reader let it grow; in steady state it keeps its size,
	// because a log that grows again costs more per commit than one that is written over.
	for _, pragma := range []string{
		"journal_mode=wal", "synchronous=normal", "journal_size_limit=16777216", "wal_autocheckpoint=0",
	} {
		if err := s.w.run(ctx, "PRAGMA "+pragma); err != nil {
			return err
		}
	}
	if unclean {
		if err := s.checkAfterUncleanStop(ctx); err != nil {
			return err
		}
	}
	if version > 0 {
		if err := s.checkNames(ctx); err != nil {
			return err
		}
	}
	if err := s.migrate(ctx, version); err != nil {
		return err
	}
	if err := s.w.prepare(); err != nil {
		if code(err) == codeError { // a name in the schema is not what it was
			err = fmt.Errorf("%w: its schema: %w", ErrDamaged, err)
		}
		return err
	}
	if s.tx.version, err = s.w.version.number(); err != nil {
		return err
	}
	if err := s.w.openLog(s.path); err != nil {
		return err
	}
	s.w.copier = newCopier(s.dsn("rw", "synchronous(normal)", "cache_size(-100)"), func(err error, first bool) {
		if err = s.explainWrite(s.suspect(err)); first {
			s.log.Warn("cannot copy the write-ahead log into the database: it grows until that works again", "path", s.path, "err", err)
		}
	})
	return nil
}

// checkReadable is what openWriter is for a file that must not be changed.
func (s *Store) checkReadable(ctx context.Context) error {
	version, err := s.identify(func(query string) (n int64, err error) {
		err = s.queryRow(ctx, query).Scan(&n)
		return n, err
	})
	if err == nil && version < LatestSchema() {
		err = fmt.Errorf("schema %d is older than %d, and opened read-only it cannot be brought up to date", version, LatestSchema())
	}
	return err
}

// identify returns the schema version of a file of ours, 0 for an empty one. Another process may migrate it meanwhile:
// in this order, tables that are there have their mark.
func (s *Store) identify(number func(query string) (int64, error)) (version int64, err error) {
	tables, err := number(`SELECT count(*) FROM sqlite_schema`)
	if err != nil {
		return 0, err
	}
	if version, err = number(`PRAGMA user_version`); err != nil {
		return 0, err
	}
	id, err := number(`PRAGMA application_id`)
	if err != nil {
		return 0, err
	}
	switch {
	case id == 0 && version == 0 && tables == 0:
		return 0, nil
	case id != ApplicationID:
		return 0, fmt.Errorf("%w (application id %#x)", ErrForeign, id)
	case version > LatestSchema():
		return 0, fmt.Errorf("%w: it has schema %d, this one knows up to %d", ErrNewerSchema, version, LatestSchema())
	}
	return version, nil
}

// LatestSchema is the number of the schema that this program brings a file to.
func LatestSchema() int64 {
	files, _ := migrations.ReadDir("migrations") // embedded: it is there
	return int64(len(files))
}

// migrate runs what is missing, each in a transaction of its own.
func (s *Store) migrate(ctx context.Context, version int64) error {
	files, err := migrations.ReadDir("migrations")
	if err != nil {
		return err
	}
	for i, file := range files[version:] {
		if err := s.migrateTo(ctx, version+int64(i)+1, file.Name()); err != nil {
			_ = s.w.run(context.WithoutCancel(ctx), "ROLLBACK") // the first error is the one that matters
			return fmt.Errorf("migrate with %s: %w", file.Name(), err)
		}
	}
	return nil
}

// migrateTo runs one migration. Another process may have come first, because two data directories can share a store.path:
// so it looks again when it has the file to itself.
func (s *Store) migrateTo(ctx context.Context, version int64, name string) error {
	text, err := migrations.ReadFile("migrations/" + name)
	if err != nil {
		return err
	}
	if err := s.w.run(ctx, "BEGIN IMMEDIATE"); err != nil {
		return err
	}
	if there, err := s.identify(s.w.number); err != nil {
		return err
	} else if there >= version {
		return s.w.run(ctx, "COMMIT")
	}
	script := fmt.Sprintf("%s;\nPRAGMA application_id = %d;\nPRAGMA user_version = %d;\nCOMMIT;", text, ApplicationID, version)
	if err := s.w.run(ctx, script); err != nil {
		return err
	}
	s.log.Info("migrated the database", "path", s.path, "migration", name)
	return nil
}
