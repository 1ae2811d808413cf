// Package sqldoor answers SQL about the database, for people who ask: it only reads, beside a running server or without one. Readings,
// which are in no plain table, are tables to it: reading and latest (table.go). What a statement may be is in statement.go.
package sqldoor

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
	"fmt"
	"net/url"
	"os"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"
	"modernc.org/sqlite"

	"github.com/plantops/plantops/store/history"
)

// limitAttached is SQLITE_LIMIT_ATTACHED. VACUUM INTO attaches too.
const limitAttached = 7

// Options say what is asked.
type Options struct {
	Path    string // of the database, through no symbolic link
	View    func(context.Context) (history.View, error)
	Damaged func(*history.DamagedError) // is told what cannot be read; what can be is answered
}

// Door answers one statement after the other.
type Door struct {
	db     *sql.DB
	conn   *sql.Conn
	source *source
	left   bool // with a statement that goes on
}

// Open opens the database.
func Open(ctx context.Context, o Options) (*Door, error) {
	d := &Door{source: &source{ctx: ctx, view: o.View, damaged: o.Damaged}}
	d.db = sql.OpenDB(&connector{dsn(o.Path), &sqlite.Driver{}})
	d.db.SetMaxOpenConns(1)
	err := d.open(ctx)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("open %s: %w", o.Path, err), d.Close())
	}
	return d, nil
}

func (d *Door) open(ctx context.Context) (err error) {
	// On a driver of its own: the other connections of this process have nothing to do with it.
	private := d.db.Driver().(*sqlite.Driver)
	for _, t := range tables {
		if err := private.RegisterModule(t.module(), &module{t, d.source}); err != nil {
			return err
		}
	}
	if d.conn, err = d.db.Conn(ctx); err != nil {
		return err
	}
	for _, t := range tables {
		if _, err := d.conn.ExecContext(ctx, `CREATE VIRTUAL TABLE temp.`+t.name+` USING `+t.module()); err != nil {
			return err
		}
	}
	if _, err := d.conn.ExecContext(ctx, `PRAGMA query_only = 1`); err != nil {
		return err
	}
	_, err = sqlite.Limit(d.conn, limitAttached, 0)
	return err
}

// dsn is SQLite's name of the file. It cannot be written by what is opened so, whatever a statement says.
func dsn(path string) string {
	query := url.Values{"mode": {"ro"}, "_error_rc": {"1"}, "_dqs": {"0"}, "_defensive": {"1"},
		"_pragma": {"busy_timeout(5000)", "cache_size(-8000)", "temp_store(" + tempStore() + ")"}}
	name := url.URL{Path: path}
	return "file:" + name.EscapedPath() + "?" + query.Encode()
}

// tempStore is where SQLite sorts what is too much for its cache: in files, where there is a folder for them (unixTempFileDir in
// os_unix.c), else in memory.
func tempStore() string {
	for _, dir := range []string{os.Getenv("SQLITE_TMPDIR"), os.Getenv("TMPDIR"), "/var/tmp", "/usr/tmp", "/tmp", "."} {
		if dir != "" && unix.Access(dir, unix.W_OK|unix.X_OK) == nil {
			return "file"
		}
	}
	return "memory"
}

// connector opens connections on a driver of its own.
type connector struct {
	dsn    string
	driver *sqlite.Driver
}

func (c *connector) Connect(ctx context.Context) (driver.Conn, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	return c.driver.Open(c.dsn)
}

func (c *connector) Driver() driver.Driver { return c.driver }

// Close ends it, unless a statement goes on.
func (d *Door) Close() error {
	if d.left {
		return nil
	}
	var err error
	if d.conn != nil {
		err = d.conn.Close()
	}
	return errors.Join(err, d.db.Close())
}

// Query runs a statement that Statement has passed, gives the names of its columns to begin, and then each row to row, with int64,
// float64, string, []byte or nil for each column; the slice is used again for the next row. It returns with ctx, and calls nothing
// after that. What SQLite does between two rows the driver cannot break off: that goes on until the process ends, and the door is
// of no use any more.
func (d *Door) Query(ctx context.Context, statement string, begin func(columns []string) error, row func(values []any) error) error {
	if d.left {
		return errLeft
	}
	d.source.ctx, d.source.err = ctx, nil
	var calling sync.Mutex
	left := false
	call := func(f func() error) error {
		calling.Lock()
		defer calling.Unlock()
		if left {
			return errLeft
		}
		return f()
	}
	answered := make(chan error, 1)
	go func() {
		answered <- d.query(ctx, statement, func(columns []string) error {
			return call(func() error { return begin(columns) })
		}, func(values []any) error {
			return call(func() error { return row(values) })
		})
	}()
	var err error
	select {
	case err = <-answered:
	case <-ctx.Done():
		select {
		case err = <-answered: // as nearly always
		case <-time.After(patience):
			calling.Lock()
			left, d.left = true, true
			calling.Unlock()
		}
	}
	switch {
	case ctx.Err() != nil:
		return ctx.Err()
	case d.source.err != nil: // SQLite says of it only that there was one
		return d.source.err
	}
	return err
}

// patience is how long a statement gets to end when it is to.
const patience = 200 * time.Millisecond

var errLeft = errors.New("a statement that was left is still running")

func (d *Door) query(ctx context.Context, statement string, begin func([]string) error, row func([]any) error) error {
	rows, err := d.conn.QueryContext(ctx, statement)
	if err != nil {
		return explain(err)
	}
	defer func() { _ = rows.Close() }() // Err has what matters
	columns, err := rows.Columns()
	if err != nil {
		return explain(err)
	}
	if err := begin(columns); err != nil {
		return err
	}
	values, to := make([]any, len(columns)), make([]any, len(columns))
	for i := range values {
		to[i] = &values[i]
	}
	for rows.Next() {
		if err := rows.Scan(to...); err != nil {
			return err
		}
		if err := row(values); err != nil {
			return err
		}
	}
	return explain(rows.Err())
}

// SQLite's result codes (the low byte of an extended code) of which explain says more.
const (
	codeMistake  = 1
	codeReadOnly = 8
	codeCorrupt  = 11
)

// ErrWrites is that of a statement that would write.
var ErrWrites = errors.New("the database is only read")

func explain(err error) error {
	coded, ok := errors.AsType[*sqlite.Error](err)
	if !ok {
		return err
	}
	switch coded.Code() & 0xff {
	case codeMistake: // of who asks: what the library puts around it says nothing more
		return errors.New(strings.TrimSuffix(strings.TrimPrefix(err.Error(), "SQL logic error: "), fmt.Sprintf(" (%d)", coded.Code())))
	case codeReadOnly:
		return ErrWrites
	case codeCorrupt:
		return fmt.Errorf("%w: %w", history.ErrDamaged, err)
	}
	return err
}
