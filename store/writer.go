package store

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
	"fmt"
	"io"
	"slices"

	"modernc.org/sqlite"
)

// SQLite's result codes that the store tells apart (the low byte of an extended code).
const (
	codeBusy      = 5
	codeReadOnly  = 8
	codeIO        = 10
	codeCorrupt   = 11
	codeFull      = 13
	codeCannotUse = 14 // SQLITE_CANTOPEN
	codeNotADB    = 26
)

// code returns err's primary SQLite result code, 0 if it has none.
func code(err error) int {
	if e, ok := errors.AsType[coded](err); ok {
		return e.Code() & 0xff
	}
	return 0
}

// coded is an error of SQLite.
type coded interface {
	error
	Code() int
}

// writer is the one connection that writes. It uses the driver without database/sql in between, which costs a third of
// the CPU of a prepared INSERT. It is not safe for concurrent use.
type writer struct {
	conn     driver.Conn
	prepared []*statement

	// Each group stands with what uses it.
	transactionStatements
	creationStatements
	gatewayStatements
	placeStatements
	recordStatements
	compactStatements
	retentionStatements
	sequenceStatements
	skippedStatements
	quarantineStatements
	replayStatements
	accountStatements
	settingStatements
	salvageStatements
	asideStatements
	purgeStatements
	redateStatements
	brokerStatements
}

func connectWriter(ctx context.Context, dsn string) (*writer, error) {
	connector, err := sqlite.NewConnector(dsn)
	if err != nil {
		return nil, err
	}
	conn, err := connector.Connect(ctx)
	if err != nil {
		return nil, err
	}
	return &writer{conn: conn}, nil
}

// compile is a statement to be prepared and its text.
type compile struct {
	to   **statement
	text string
}

// prepare compiles every statement; the schema must be there.
func (w *writer) prepare() (err error) {
	for _, c := range slices.Concat(w.transactionStatements.all(), w.creationStatements.all(), w.gatewayStatements.all(), w.placeStatements.all(), w.recordStatements.all(), w.compactStatements.all(),
		w.retentionStatements.all(), w.sequenceStatements.all(), w.skippedStatements.all(), w.quarantineStatements.all(), w.replayStatements.all(), w.accountStatements.all(),
		w.settingStatements.all(), w.salvageStatements.all(), w.asideStatements.all(), w.purgeStatements.all(), w.redateStatements.all(), w.brokerStatements.all()) {
		if *c.to, err = w.statement(c.text); err != nil {
			return fmt.Errorf("prepare %.40q: %w", c.text, err)
		}
		w.prepared = append(w.prepared, *c.to)
	}
	return nil
}

func (w *writer) statement(text string) (*statement, error) {
	stmt, err := w.conn.Prepare(text)
	if err != nil {
		return nil, err
	}
	return &statement{stmt: stmt.(preparedStatement)}, nil
}

// run executes statements that are needed once; text may hold several.
func (w *writer) run(ctx context.Context, text string) error {
	_, err := w.conn.(driver.ExecerContext).ExecContext(ctx, text, nil)
	return err
}

// number runs a query whose answer is one number.
func (w *writer) number(text string) (int64, error) {
	q, err := w.statement(text)
	if err != nil {
		return 0, err
	}
	defer func() { _ = q.stmt.Close() }() // what Close could say, the query has said
	return q.number()
}

// checkpoint copies the write-ahead log into the database if it has grown to a quarter of what makes a commit do it.
func (w *writer) checkpoint() error {
	var pages int64
	noop, err := w.statement(`PRAGMA wal_checkpoint(NOOP)`) // answers: busy, pages in the log, pages copied
	if err != nil {
		return err
	}
	defer func() { _ = noop.stmt.Close() }() // what Close could say, the query has said
	err = noop.query(func(row []driver.Value) error {
		pages = row[1].(int64) - row[2].(int64)
		return nil
	})
	if err == nil && pages >= checkpointPages/4 {
		err = w.run(context.Background(), `PRAGMA wal_checkpoint(PASSIVE)`)
	}
	return err
}

// close ends the statements first: SQLite keeps the file open as long as one of them lives.
func (w *writer) close() error {
	var errs []error
	for _, q := range w.prepared {
		errs = append(errs, q.stmt.Close())
	}
	return errors.Join(append(errs, w.conn.Close())...)
}

// preparedStatement is what the driver's statements are.
type preparedStatement interface {
	driver.Stmt
	driver.StmtExecContext
	driver.StmtQueryContext
}

// statement is a prepared statement with its argument list, kept so that running it allocates little.
type statement struct {
	stmt preparedStatement
	args []driver.NamedValue
}

func (q *statement) bind(values []driver.Value) {
	q.args = q.args[:0]
	for i, v := range values {
		q.args = append(q.args, driver.NamedValue{Ordinal: i + 1, Value: v})
	}
}

// exec runs a statement without rows. It takes no context: the driver would start a goroutine per statement to watch it,
// and what the writer runs is short.
func (q *statement) exec(values ...driver.Value) (driver.Result, error) {
	q.bind(values)
	return q.stmt.ExecContext(context.Background(), q.args)
}

// run is exec for who needs no result.
func (q *statement) run(values ...driver.Value) error {
	_, err := q.exec(values...)
	return err
}

// query calls each for every row, with as many values as the statement has columns. Blobs are each's to keep.
func (q *statement) query(each func(row []driver.Value) error, values ...driver.Value) (err error) {
	q.bind(values)
	rows, err := q.stmt.QueryContext(context.Background(), q.args)
	if err != nil {
		return err
	}
	defer func() {
		if closeErr := rows.Close(); err == nil {
			err = closeErr
		}
	}()
	row := make([]driver.Value, len(rows.Columns()))
	for {
		if err := rows.Next(row); err == io.EOF {
			return nil
		} else if err != nil {
			return err
		}
		if err := each(row); err != nil {
			return err
		}
	}
}

// number runs a query whose answer is one number.
func (q *statement) number(values ...driver.Value) (n int64, err error) {
	err = q.query(func(row []driver.Value) error {
		n, _ = row[0].(int64)
		return nil
	}, values...)
	return n, err
}

// querier is what asks the database: a connection of its own or a transaction.
type querier interface {
	QueryContext(ctx context.Context, query string, args ...any) (*sql.Rows, error)
}

// eachIn calls row for every row of the answer.
func (s *Store) eachIn(ctx context.Context, q querier, row func(scan func(...any) error) error, query string, args ...any) error {
	rows, err := q.QueryContext(ctx, query, args...)
	if err != nil {
		return s.suspect(err)
	}
	defer func() { _ = rows.Close() }() // Err has what matters
	for rows.Next() {
		if err := row(rows.Scan); err != nil {
			return err
		}
	}
	return s.suspect(rows.Err())
}

// each is eachIn for a reading connection.
func (s *Store) each(ctx context.Context, row func(scan func(...any) error) error, query string, args ...any) error {
	return s.eachIn(ctx, anyReader{s}, row, query, args...)
}

// anyReader is a reading connection. The file may be made anew between its choice and its use.
type anyReader struct{ s *Store }

func (r anyReader) QueryContext(ctx context.Context, query string, args ...any) (*sql.Rows, error) {
	for {
		db := r.s.db.Load()
		rows, err := db.QueryContext(ctx, query, args...)
		if err == nil || r.s.db.Load() == db {
			return rows, err
		}
	}
}

// query is that of a reading connection.
func (s *Store) query(ctx context.Context, query string, args ...any) (*sql.Rows, error) {
	return anyReader{s}.QueryContext(ctx, query, args...)
}

// queryRow is a query for one row.
func (s *Store) queryRow(ctx context.Context, query string, args ...any) *sql.Row {
	for {
		db := s.db.Load()
		row := db.QueryRowContext(ctx, query, args...)
		if row.Err() == nil || s.db.Load() == db {
			return row
		}
	}
}

// minRoomBytes is what a write-ahead log may need to grow for one commit; with less than that free, an I/O error means
// that the disk is full: not every system call that SQLite uses tells it so.
const minRoomBytes = 1 << 20

// explain adds the sentinel that fits SQLite's code.
func explain(err error) error {
	switch code(err) {
	case codeNotADB:
		return fmt.Errorf("%w, or not a database at all: %w", ErrDamaged, err)
	case codeCorrupt:
		return fmt.Errorf("%w: %w", ErrDamaged, err)
	case codeReadOnly, codeCannotUse:
		return fmt.Errorf("file or directory cannot be written: %w", err)
	}
	return err
}

// explainWrite says what stands in the way of a commit, where it is and what would help.
func (s *Store) explainWrite(err error) error {
	switch code(err) {
	case codeBusy:
		return fmt.Errorf("%w: another program is writing to %s, close it: %w", ErrLocked, s.path, err)
	case codeFull:
		return fmt.Errorf("%w: make room on the file system of %s: %w", ErrFull, s.path, err)
	case codeIO:
		if space, statErr := s.Space(); statErr == nil && space.FreeBytes < minRoomBytes {
			return fmt.Errorf("%w: make room on the file system of %s: %w", ErrFull, s.path, err)
		}
		return fmt.Errorf("the disk of %s reports an error, see the log of the kernel: %w", s.path, err)
	}
	return explain(err)
}
