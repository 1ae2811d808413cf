package foreign

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"net/url"
	"os"
	"path/filepath"

	"modernc.org/sqlite"
)

// exportedSchema is documented in docs/commands.md, and what others read: it only grows.
const exportedSchema = `CREATE TABLE reading (
	device   TEXT    NOT NULL,
	time     INTEGER NOT NULL, -- UTC, milliseconds since 1970
	metric   TEXT    NOT NULL,
	value    REAL    NOT NULL,
	received INTEGER NOT NULL  -- the same; when it came
) STRICT`

// insertsPerCommit bounds what SQLite keeps of a transaction.
const insertsPerCommit = 1 << 17

// Readings is a new file with a table of readings, reading(device, time, metric, value, received), for other programs.
type Readings struct {
	ctx     context.Context
	db      *sql.DB
	tx      *sql.Tx
	insert  *sql.Stmt
	pending int
}

// CreateReadings makes the file; one that is there is fs.ErrExist. It is whole, and on disk, when Close returns nil.
func CreateReadings(ctx context.Context, path string) (*Readings, error) {
	file, err := os.OpenFile(path, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err != nil {
		return nil, err
	}
	if err := file.Close(); err != nil {
		return nil, err
	}
	if path, err = filepath.Abs(path); err != nil {
		return nil, err
	}
	name := url.URL{Path: path}
	// Without a journal: after a failure the file is of no use in any case.
	query := url.Values{"_pragma": {"journal_mode(off)", "synchronous(off)", "locking_mode(exclusive)", "page_size(4096)"}}
	connector, err := sqlite.NewConnector("file:" + name.EscapedPath() + "?" + query.Encode())
	if err != nil {
		return nil, fmt.Errorf("make %s: %w", path, err)
	}
	r := &Readings{ctx: ctx, db: sql.OpenDB(connector)}
	r.db.SetMaxOpenConns(1)
	if _, err = r.db.ExecContext(ctx, exportedSchema); err == nil {
		err = r.begin()
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("make %s: %w", path, err), r.db.Close())
	}
	return r, nil
}

func (r *Readings) begin() (err error) {
	if r.tx, err = r.db.BeginTx(r.ctx, nil); err == nil {
		r.insert, err = r.tx.PrepareContext(r.ctx, `INSERT INTO reading (device, time, metric, value, received) VALUES (?, ?, ?, ?, ?)`)
	}
	return err
}

// Add adds a reading; times are UTC milliseconds.
func (r *Readings) Add(device string, time int64, metric string, value float64, received int64) error {
	if _, err := r.insert.Exec(device, time, metric, value, received); err != nil {
		return err
	}
	if r.pending++; r.pending < insertsPerCommit {
		return nil
	}
	r.pending = 0
	if err := errors.Join(r.insert.Close(), r.tx.Commit()); err != nil {
		return err
	}
	return r.begin()
}

// Close ends the file.
func (r *Readings) Close() error {
	err := errors.Join(r.insert.Close(), r.tx.Commit())
	if err == nil {
		_, err = r.db.Exec(`PRAGMA user_version = 1`)
	}
	return errors.Join(err, r.db.Close())
}
