package store

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"sync"

	"modernc.org/sqlite"

	"github.com/plantops/plantops/store/swap"
)

// SQLite's result codes that the store tells apart (the low byte of an extended code).
const (
	codeError     = 1 // a statement that does not fit the schema
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

// connection uses the driver without database/sql in between, which costs a third of the CPU of a prepared INSERT. It is not
// safe for concurrent use.
type connection struct {
	conn     driver.Conn
	prepared []*statement
}

// writer is the one connection that writes.
type writer struct {
	connection
	log    *os.File // the write-ahead log
	copier *copier  // of the log; nil: there is none yet

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
	correctionStatements
	salvageStatements
	asideStatements
	purgeStatements
	redateStatements
	brokerStatements
	tableStatements
}

func connectWriter(ctx context.Context, dsn string) (*writer, error) {
	c, err := connect(ctx, dsn)
	return &writer{connection: c}, err
}

func connect(ctx context.Context, dsn string) (c connection, err error) {
	connector, err := sqlite.NewConnector(dsn)
	if err != nil {
		return c, err
	}
	c.conn, err = connector.Connect(ctx)
	return c, err
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
		w.settingStatements.all(), w.correctionStatements.all(), w.salvageStatements.all(), w.asideStatements.all(), w.purgeStatements.all(), w.redateStatements.all(), w.brokerStatements.all(), w.tableStatements.all()) {
		if *c.to, err = w.statement(c.text); err != nil {
			return fmt.Errorf("prepare %.40q: %w", c.text, err)
		}
		w.prepared = append(w.prepared, *c.to)
	}
	return nil
}

func (c *connection) statement(text string) (*statement, error) {
	stmt, err := c.conn.Prepare(text)
	if err != nil {
		return nil, err
	}
	return &statement{stmt: stmt.(preparedStatement)}, nil
}

// run executes statements that are needed once; text may hold several.
func (c *connection) run(ctx context.Context, text string) error {
	_, err := c.conn.(driver.ExecerContext).ExecContext(ctx, text, nil)
	return err
}

// number runs a query whose answer is one number.
func (c *connection) number(text string) (int64, error) {
	q, err := c.statement(text)
	if err != nil {
		return 0, err
	}
	defer func() { _ = q.stmt.Close() }() // what Close could say, the query has said
	return q.number()
}

// openLog opens the write-ahead log, which SQLite has made by now, so that sync can be asked for it.
func (w *writer) openLog(path string) (err error) {
	if w.log, err = os.Open(path + walSuffix); err != nil {
		return reason(err)
	}
	return swap.SyncDir(path) // its name must outlive a power cut like what is in it
}

// commitSynced commits, and has on disk what it commits. SQLite itself would sync with fsync, which on ext4 writes the inode too and
// flushes the disk twice; so it is told not to (synchronous=normal), and the log is synced here. SQLite syncs the log itself
// before it copies it into the database. An error after COMMIT leaves it open what is on disk.
func (w *writer) commitSynced() error {
	if err := w.commit.run(); err != nil {
		return err
	}
	if err := swap.SyncData(w.log); err != nil {
		return fmt.Errorf("sync the write-ahead log: %w", err)
	}
	w.copyRest()
	return nil
}

// copyRest copies what the copier has left to a commit.
func (w *writer) copyRest() {
	if w.copier == nil || !w.copier.rest.Swap(false) {
		return
	}
	if err := w.checkpointAll(); err != nil && !errors.Is(err, errHeld) {
		w.copier.failed(err)
	}
}

var errHeld = errors.New("a reader holds up the copy of the write-ahead log into the database")

// checkpointAll copies the whole write-ahead log into the database. It is an error when a reader, or another writer, holds that up.
func (w *writer) checkpointAll() error {
	q, err := w.statement(`PRAGMA wal_checkpoint(PASSIVE)`)
	if err != nil {
		return err
	}
	defer func() { _ = q.stmt.Close() }() // what Close could say, the query has said
	pages, copied, err := checkpoint(q)
	if err == nil && copied < pages {
		err = errHeld
	}
	return err
}

// close closes the log too. It is not the database: to close that would end SQLite's locks.
func (w *writer) close() error {
	var err error
	if w.copier != nil {
		err = w.copier.close()
	}
	if w.log != nil {
		err = errors.Join(err, w.log.Close())
	}
	return errors.Join(err, w.connection.close())
}

// close ends the statements first: SQLite keeps the file open as long as one of them lives.
func (c *connection) close() error {
	var errs []error
	for _, q := range c.prepared {
		errs = append(errs, q.stmt.Close())
	}
	return errors.Join(append(errs, c.conn.Close())...)
}

// viewing is a connection that reads, of its own for each view.
type viewing struct {
	connection
	of         *sql.DB // as it was when this was opened: another, and the file is another one too
	statements map[string]*statement
}

// idleViews is how many connections wait for the next view.
const idleViews = 4

// views are the connections of views.
type views struct {
	mu   sync.Mutex
	open map[*view]struct{}
	idle []*viewing
	end  bool // there are no more
}

// viewing returns a connection to the file as it is now.
func (s *Store) viewing(ctx context.Context) (*viewing, error) {
	for {
		db := s.db.Load()
		s.views.mu.Lock()
		for len(s.views.idle) > 0 {
			last := len(s.views.idle) - 1
			c := s.views.idle[last]
			s.views.idle = s.views.idle[:last]
			if c.of == db {
				s.views.mu.Unlock()
				return c, nil
			}
			_ = c.close() // of a file that is no more
		}
		s.views.mu.Unlock()
		c, err := connect(ctx, s.dsn("ro", "query_only(1)", "cache_size(-2000)"))
		if err != nil {
			return nil, err
		}
		if s.db.Load() == db {
			return &viewing{connection: c, of: db, statements: map[string]*statement{}}, nil
		}
		_ = c.close()
	}
}

// close ends all views.
func (o *views) close() (err error) {
	o.mu.Lock()
	open, idle := o.open, o.idle
	o.open, o.idle = map[*view]struct{}{}, nil
	o.mu.Unlock()
	for v := range open {
		v.mu.Lock()
		c := v.c
		v.c = nil
		v.mu.Unlock()
		if c != nil {
			idle = append(idle, c)
		}
	}
	for _, c := range idle {
		err = errors.Join(err, c.close())
	}
	return err
}

func (c *viewing) exec(text string) error {
	q, err := c.compiled(text)
	if err != nil {
		return err
	}
	return q.run()
}

func (c *viewing) compiled(text string) (q *statement, err error) {
	if q = c.statements[text]; q != nil {
		return q, nil
	}
	if q, err = c.statement(text); err == nil {
		c.statements[text], c.prepared = q, append(c.prepared, q)
	}
	return q, err
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
