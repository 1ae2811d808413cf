// Package foreign reads SQLite files of other programs, and never writes them; and it makes new ones of readings for other programs.
// What is in the tables that it reads is the caller's to know.
package foreign

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io/fs"
	"net/url"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"
	"modernc.org/sqlite"
)

// SQLite's result codes that Open and Each tell apart (the low byte of an extended code).
const (
	codeBusy      = 5
	codeCorrupt   = 11
	codeCannotUse = 14
	codeNotADB    = 26
)

var (
	// ErrBusy: the program that the file belongs to holds it locked, or its log cannot be read from here. A copy can be read.
	ErrBusy = errors.New("in use")
	// ErrDamaged: SQLite cannot read it.
	ErrDamaged = errors.New("damaged")
)

// busyTimeout is how long to wait for the other program in one query.
const busyTimeout = 5 * time.Second

// File is an open file. Its program may go on writing it: what is read by one query is what was committed when that began.
type File struct {
	db   *sql.DB
	path string
}

// Open opens a file for reading. The program that it belongs to may run meanwhile. The errors wrap ErrBusy, ErrDamaged or
// fs.ErrNotExist.
func Open(ctx context.Context, path string) (*File, error) {
	path, err := filepath.Abs(path)
	if err == nil {
		path, err = filepath.EvalSymlinks(path) // the log is beside the file itself
	}
	if err != nil {
		return nil, err
	}
	query := url.Values{"mode": {"ro"}, "_error_rc": {"1"}, "_pragma": {
		fmt.Sprintf("busy_timeout(%d)", busyTimeout.Milliseconds()), "query_only(1)", "trusted_schema(0)", "cell_size_check(1)",
	}}
	if withoutLog(path) {
		query.Set("immutable", "1")
	}
	name := url.URL{Path: path}
	connector, err := sqlite.NewConnector("file:" + name.EscapedPath() + "?" + query.Encode())
	if err != nil {
		return nil, fmt.Errorf("open %s: %w", path, err)
	}
	f := &File{sql.OpenDB(connector), path}
	f.db.SetMaxOpenConns(1)
	if err := f.Each(ctx, func([]any) error { return nil }, `SELECT count(*) FROM sqlite_schema`); err != nil {
		return nil, errors.Join(err, f.db.Close())
	}
	return f, nil
}

// withoutLog reports whether a file lies where this process may not write, without a log: SQLite would want to make one for a
// database in WAL mode, and nobody else can be writing it here.
func withoutLog(path string) bool {
	if unix.Access(filepath.Dir(path), unix.W_OK) == nil {
		return false
	}
	info, err := os.Stat(path + "-wal")
	return errors.Is(err, fs.ErrNotExist) || err == nil && info.Size() == 0
}

// Close closes the file.
func (f *File) Close() error { return f.db.Close() }

// Tables returns the columns of every table and view, by its name.
func (f *File) Tables(ctx context.Context) (map[string][]string, error) {
	tables := map[string][]string{}
	err := f.Each(ctx, func(row []any) error {
		table, _ := row[0].(string)
		column, _ := row[1].(string)
		tables[table] = append(tables[table], column)
		return nil
	}, `SELECT t.name, c.name FROM sqlite_schema AS t, pragma_table_info(t.name) AS c WHERE t.type IN ('table', 'view') ORDER BY t.name, c.cid`)
	return tables, err
}

// Each calls row for every row of a query's answer, with int64, float64, string, []byte or nil for each column. The slice is
// used again for the next row.
func (f *File) Each(ctx context.Context, row func(values []any) error, query string, args ...any) error {
	rows, err := f.db.QueryContext(ctx, query, args...)
	if err != nil {
		return f.explain(err)
	}
	defer func() { _ = rows.Close() }() // Err has what matters
	columns, err := rows.Columns()
	if err != nil {
		return f.explain(err)
	}
	values, to := make([]any, len(columns)), make([]any, len(columns))
	for i := range values {
		to[i] = &values[i]
	}
	for rows.Next() {
		if err := rows.Scan(to...); err != nil {
			return f.explain(err)
		}
		for i, v := range values { // what the driver makes of the type that a column was declared with
			switch v := v.(type) {
			case time.Time:
				values[i] = v.UTC().Format(time.RFC3339Nano)
			case bool:
				values[i] = int64(0)
				if v {
					values[i] = int64(1)
				}
			}
		}
		if err := row(values); err != nil {
			return err
		}
	}
	return f.explain(rows.Err())
}

// explain adds the sentinel that fits SQLite's code.
func (f *File) explain(err error) error {
	if err == nil {
		return nil
	}
	coded, ok := errors.AsType[interface {
		error
		Code() int
	}](err)
	if ok {
		switch coded.Code() & 0xff {
		case codeBusy, codeCannotUse:
			err = fmt.Errorf("%w: %w", ErrBusy, err)
		case codeCorrupt, codeNotADB:
			err = fmt.Errorf("%w: %w", ErrDamaged, err)
		}
	}
	return fmt.Errorf("read %s: %w", f.path, err)
}
