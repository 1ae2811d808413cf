package backup

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"syscall"
	"time"

	"modernc.org/sqlite"

	"github.com/plantops/plantops/store"
	"github.com/plantops/plantops/store/swap"
)

const (
	// stepBytes is what is copied without a pause. On an SD card that writes 20 MB a second it takes some 10 ms.
	stepBytes = 256 << 10
	// syncBytes is after how much the copy is synced: what waits in the memory of the kernel would have to be written before the
	// next commit of the server is on disk.
	syncBytes = 2 << 20
	// maxPause bounds the pause after a step that took long, so that a backup ends.
	maxPause = 250 * time.Millisecond

	// roomKept stays free on the file system of the database, for what devices send.
	roomKept = 64 << 20
	// roomLeft is when a copy is given up on the file system of the database although there was room when it began.
	roomLeft = 32 << 20
)

// database is a file to be read.
type database struct {
	path      string
	immutable bool // nobody changes it, and nothing can be made beside it
}

// dsn is SQLite's name of the file.
func dsn(path, mode string, immutable bool, pragmas ...string) string {
	query := url.Values{"mode": {mode}, "_error_rc": {"1"}, "_dqs": {"0"}}
	query["_pragma"] = append([]string{"busy_timeout(5000)", "temp_store(memory)"}, pragmas...)
	if immutable {
		query.Set("immutable", "1")
	}
	name := url.URL{Path: path}
	return "file:" + name.EscapedPath() + "?" + query.Encode()
}

// connect opens one connection to a database. The caller closes both, the connection first.
func connect(ctx context.Context, name string) (*sql.DB, *sql.Conn, error) {
	connector, err := sqlite.NewConnector(name)
	if err != nil {
		return nil, nil, err
	}
	db := sql.OpenDB(connector)
	db.SetMaxOpenConns(1)
	conn, err := db.Conn(ctx)
	if err != nil {
		return nil, nil, errors.Join(err, db.Close())
	}
	return db, conn, nil
}

// read calls do with a connection that only reads, in one transaction: all that do reads is of one moment.
func (d database) read(ctx context.Context, do func(*sql.Conn) error) error {
	path, err := store.RealPath(d.path)
	if err != nil {
		return err
	}
	if _, err := os.Stat(path); err != nil {
		return err
	}
	err = readAs(ctx, path, d.immutable, do)
	if code(err) == codeCannotUse && !d.immutable { // on a medium that nobody may write to, SQLite cannot make its index of the log
		if wal, statErr := os.Stat(path + swap.WAL); statErr != nil || wal.Size() == 0 {
			err = readAs(ctx, path, true, do)
		}
	}
	return explain(err)
}

func readAs(ctx context.Context, path string, immutable bool, do func(*sql.Conn) error) (err error) {
	db, conn, err := connect(ctx, dsn(path, "ro", immutable, "query_only(1)", "cache_size(-2000)"))
	if err != nil {
		return err
	}
	defer func() { _ = errors.Join(conn.Close(), db.Close()) }() // it only reads
	if _, err := conn.ExecContext(ctx, `BEGIN`); err != nil {
		return err
	}
	if _, err := number(ctx, conn, `SELECT count(*) FROM sqlite_schema`); err != nil { // now the moment is chosen
		return err
	}
	return do(conn)
}

func number(ctx context.Context, conn *sql.Conn, query string) (n int64, err error) {
	err = conn.QueryRowContext(ctx, query).Scan(&n)
	return n, err
}

// identify returns the schema of a database of ours.
func identify(ctx context.Context, conn *sql.Conn) (schema int64, err error) {
	id, err := number(ctx, conn, `PRAGMA application_id`)
	if err != nil {
		return 0, err
	}
	if schema, err = number(ctx, conn, `PRAGMA user_version`); err != nil {
		return 0, err
	}
	switch {
	case id != store.ApplicationID || schema == 0:
		return 0, fmt.Errorf("%w (application id %#x)", store.ErrForeign, id)
	case schema > store.LatestSchema():
		return 0, fmt.Errorf("%w: it has schema %d, this one knows up to %d", store.ErrNewerSchema, schema, store.LatestSchema())
	}
	return schema, nil
}

type copyOptions struct {
	gently bool
	told   Told
	what   string // for told; "" is "copy"
}

// copyTo copies what the database holds now into the empty file at path, which is open as file. The copy needs no log beside
// it. SQLite's own function copies page by page; the read transaction that is open meanwhile keeps it at one moment, without
// which each commit of somebody else would make it begin anew.
func copyTo(ctx context.Context, from database, path string, file *os.File, o copyOptions) error {
	return from.read(ctx, func(conn *sql.Conn) error {
		if _, err := identify(ctx, conn); err != nil {
			return err
		}
		pages, err := number(ctx, conn, `PRAGMA page_count`)
		if err != nil {
			return err
		}
		pageBytes, err := number(ctx, conn, `PRAGMA page_size`)
		if err != nil {
			return err
		}
		room, err := roomFor(from.path, path, pages*pageBytes)
		if err != nil {
			return err
		}
		c := copying{copyOptions: o, file: file, pages: pages, pageBytes: pageBytes, room: room}
		err = conn.Raw(func(raw any) error {
			b, err := raw.(interface {
				NewBackup(name string) (*sqlite.Backup, error)
			}).NewBackup(dsn(path, "rw", false, "journal_mode(off)", "synchronous(off)", "cache_size(-1000)"))
			if err != nil {
				return err
			}
			return errors.Join(c.run(ctx, b), b.Finish())
		})
		if err != nil {
			return err
		}
		return ownJournal(file)
	})
}

// copying is one copy on its way.
type copying struct {
	copyOptions
	file             *os.File
	pages, pageBytes int64
	room             room
}

func (c *copying) run(ctx context.Context, b *sqlite.Backup) error {
	step := max(stepBytes/c.pageBytes, 1)
	what := c.what
	if what == "" {
		what = "copy"
	}
	for done, synced := int64(0), int64(0); ; {
		if err := ctx.Err(); err != nil {
			return err
		}
		began := time.Now()
		more, err := b.Step(int32(step))
		if err != nil {
			return err
		}
		done = min(done+step, c.pages)
		c.told.tell(what, done*c.pageBytes, c.pages*c.pageBytes)
		if (done-synced)*c.pageBytes >= syncBytes {
			synced = done
			if err := c.file.Sync(); err != nil {
				return err
			}
			if err := c.room.look(); err != nil {
				return err
			}
		}
		if !more {
			return nil
		}
		if c.gently {
			pause(ctx, min(time.Since(began), maxPause))
		}
	}
}

func pause(ctx context.Context, d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
	}
}

// ownJournal makes of a copied file one that needs no log: the header of the original says that it has one. Bytes 18 and 19 are 1
// for a rollback journal and 2 for a log, see section 1.3.3 of SQLite's file format.
func ownJournal(file *os.File) error {
	_, err := file.WriteAt([]byte{1, 1}, 18)
	return err
}

// room is where a copy goes.
type room struct {
	dir  string
	same bool // the file system is that of the database
}

// roomFor says before the work begins that there is no room.
func roomFor(database, path string, bytes int64) (room, error) {
	r := room{dir: filepath.Dir(path), same: sameFileSystem(filepath.Dir(database), filepath.Dir(path))}
	free, err := freeBytes(r.dir)
	if err != nil {
		return r, nil // it will be seen
	}
	need := bytes + bytes/50 + 1<<20
	if r.same {
		need += roomKept
	}
	if free < need {
		return r, fmt.Errorf("%w: it needs %d MB, and %s has %d MB free", store.ErrFull, need/1_000_000+1, r.dir, free/1_000_000)
	}
	return r, nil
}

// look gives a copy up that would take the last room from the database.
func (r room) look() error {
	if !r.same {
		return nil
	}
	if free, err := freeBytes(r.dir); err == nil && free < roomLeft {
		return fmt.Errorf("%w: what is left of it is for new readings; back up to another disk", store.ErrFull)
	}
	return nil
}

func freeBytes(dir string) (int64, error) {
	var disk syscall.Statfs_t
	if err := syscall.Statfs(dir, &disk); err != nil {
		return 0, err
	}
	return int64(disk.Bavail) * int64(disk.Bsize), nil // the types differ between systems
}

func sameFileSystem(a, b string) bool {
	infoA, errA := os.Stat(a)
	infoB, errB := os.Stat(b)
	if errA != nil || errB != nil {
		return true // the careful answer
	}
	statA, okA := infoA.Sys().(*syscall.Stat_t)
	statB, okB := infoB.Sys().(*syscall.Stat_t)
	return !okA || !okB || statA.Dev == statB.Dev
}

// SQLite's result codes that matter here.
const (
	codeIO        = 10
	codeCorrupt   = 11
	codeFull      = 13
	codeCannotUse = 14
	codeNotADB    = 26
)

// code is SQLite's primary result code, 0 if an error has none.
func code(err error) int {
	if e, ok := errors.AsType[*sqlite.Error](err); ok {
		return e.Code() & 0xff
	}
	return 0
}

// explain adds the sentinel that fits SQLite's code.
func explain(err error) error {
	switch code(err) {
	case codeNotADB:
		return fmt.Errorf("%w, or not a database at all: %w", store.ErrDamaged, err)
	case codeCorrupt:
		return fmt.Errorf("%w: %w", store.ErrDamaged, err)
	}
	return err
}

// explainFull says that it is the disk of path that is full, where it is.
func explainFull(err error, path string) error {
	dir := filepath.Dir(path)
	full := code(err) == codeFull || errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT)
	if code(err) == codeIO {
		if free, statErr := freeBytes(dir); statErr == nil && free < 1<<20 {
			full = true
		}
	}
	if full && !errors.Is(err, store.ErrFull) {
		return fmt.Errorf("%w: make room in %s, or back up elsewhere: %w", store.ErrFull, dir, err)
	}
	return err
}
