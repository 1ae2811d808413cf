// Package store keeps everything that outlives a restart in one SQLite file: readings, devices, accounts, the
// quarantine, the outcome of every message, and the state of the broker (package journal). A batch that Append took is synced
// to disk when Append returns, and its counters are committed with it, so that what was received can always be accounted for.
//
// One connection writes, a few read; only this package touches the file. What a message means is ingest's business, who
// may log in the broker's, and that one server runs per directory is seen to by package control.
package store

import (
	"context"
	"crypto/sha256"
	"database/sql"
	"database/sql/driver"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"

	"github.com/plantops/plantops/store/aside"
	"github.com/plantops/plantops/store/garden"
	"github.com/plantops/plantops/store/history"
	"github.com/plantops/plantops/store/pace"
	"github.com/plantops/plantops/store/people"
	"github.com/plantops/plantops/store/tail"
)

// What callers tell apart; the errors returned wrap these and name the file or the object.
var (
	ErrNewerSchema = errors.New("written by a newer version")
	ErrForeign     = errors.New("a database of another program")
	ErrDamaged     = history.ErrDamaged
	ErrNotFound    = history.ErrNotFound
	ErrExists      = errors.New("exists already")
	ErrFull        = errors.New("disk full")
	ErrLocked      = errors.New("database is locked")
	ErrInvalidID   = errors.New("invalid name")
	ErrOtherRole   = errors.New("the name is taken by a") // device or user: the text goes on
	ErrClosed      = errors.New("store is closed")
	ErrInDoubt     = errors.New("not known whether it is stored") // given again, it is answered when that is known
	ErrPartly      = errors.New("stored, the rest is not")        // of Append: outcomes has those of the first messages

	ErrInvalidFilter   = errors.New("invalid topic filter")
	ErrInvalidPassword = errors.New("invalid password")
)

const (
	// Bounds on what one sender can make the store keep for ever.
	maxMetrics         = 256     // new metric names per device, and values in a message
	maxMetricNameBytes = 128     //
	maxDevices         = 100_000 // device ids that were never registered included

	readers = 4

	// After this long without an Append, refused counts are committed and a long write-ahead log is checkpointed.
	idleAfter = time.Second
)

// Options say which file to open and how.
type Options struct {
	Path     string // the database; its directory must exist
	ReadOnly bool   // the file must exist with the current schema; nothing is written

	// MinCommitInterval is the least time between the beginnings of two commits of readings and of the broker's state; 0: what comes
	// is committed at once, or gathered by who calls Gather. A batch of FullBatch messages, by default 1000, does not wait.
	MinCommitInterval time.Duration
	FullBatch         int

	QuarantineBytes int64         // bound on the entries, payloads and overhead; zero means 64 MiB
	QuarantineAge   time.Duration // older entries are summarised, at most a day of them per day of uptime; zero means 90 days

	Now     func() time.Time     // zero means time.Now
	Unsure  func() bool          // Now is not to be trusted: nothing is too old; zero means that it is always right
	Elapsed func() time.Duration // never jumps; zero means the time since Open
	Log     *slog.Logger         // zero means none
}

func (o *Options) defaults() {
	if o.FullBatch == 0 {
		o.FullBatch = 1000
	}
	if o.QuarantineBytes == 0 {
		o.QuarantineBytes = 64 << 20
	}
	if o.QuarantineAge == 0 {
		o.QuarantineAge = 90 * 24 * time.Hour
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.Unsure == nil {
		o.Unsure = func() bool { return false }
	}
	if o.Elapsed == nil {
		began := time.Now()
		o.Elapsed = func() time.Duration { return time.Since(began) }
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
}

// Store is an open database. All methods are safe for concurrent use.
type Store struct {
	path    string
	options Options
	log     *slog.Logger
	db      atomic.Pointer[sql.DB] // read-only connections; another when the file was rebuilt
	views   views

	// writing holds one token: who has it may use the writer and the fields below it.
	writing chan struct{}
	w       *writer // nil when ReadOnly
	tx      transaction
	stamp   int64    // of the last transaction
	doubt   *doubt   // nil: none
	answers []answer // of what was in doubt and is stored
	appends appendQueue
	pace    *pace.Pace
	broker  brokerSide
	closed  bool
	idle    *time.Timer
	// suspected is damage that a reader found; nil: none.
	suspected atomic.Pointer[error]

	mended time.Time // when the file was last made anew by a running server
	aside  *aside.File

	rebuilt chan struct{} // tells Regain

	immutable bool        // opened for reading on a full disk
	unchecked atomic.Bool // after an unclean stop, and too large to check at once
	reserved  time.Time   // when the reserve was last looked at

	state   state // as committed, with its own lock
	loading sync.Mutex
	tail    atomic.Pointer[tail.Tail]
	journal journalTail       // for who writes, or loads
	hasRows bool              // in table reading, perhaps
	lookups map[int64]*lookup // by device
	tables  keptTables        // for who writes, or loads

	damagedRecords atomic.Int64 // of the journal
	compaction     compaction
	accounts       atomic.Pointer[map[string]credential]
	rules          atomic.Pointer[rules] // what is done to readings when they are read
	garden         *garden.Keeper
	people         *people.Keeper

	entries atomic.Int64     // of the quarantine, plus one; zero: not counted yet
	said    map[refusal]bool // what the log has said of the quarantine; for who writes

	slow    slowQueue
	markKey []byte // of the marks of right passwords; new at each start
}

// Open opens or creates the database at o.Path, brings its schema up to date and checks it after an unclean stop.
// Errors wrap ErrNewerSchema, ErrForeign or ErrDamaged where they apply, and what a refused file holds is not changed; the
// log of an unclean stop may be copied into it.
func Open(ctx context.Context, o Options) (*Store, error) {
	o.defaults()
	s := &Store{options: o, log: o.Log, pace: pace.New(o.MinCommitInterval), writing: make(chan struct{}, 1), rebuilt: make(chan struct{}, 1), said: map[refusal]bool{}, markKey: random(sha256.Size), stamp: rand.Int64() / 2}
	s.broker.wake, s.compaction.wake, s.views.open = make(chan struct{}, 1), make(chan struct{}, 1), map[*view]struct{}{}
	s.keep()
	if err := s.open(ctx); err != nil {
		_ = s.disconnect() // the first error is the one that matters
		return nil, fmt.Errorf("open store %s: %w", o.Path, err)
	}
	if !o.ReadOnly {
		s.idle = time.AfterFunc(time.Hour, s.whenIdle)
		s.idle.Reset(idleAfter) // whenIdle reads the field: it must be there before the timer runs
	}
	return s, nil
}

// Close commits the refused counts and closes the file. Calls that are running finish first, later ones fail with
// ErrClosed; a second Close does nothing.
func (s *Store) Close() error {
	s.Hurry()
	s.stopCompaction()
	s.writing <- struct{}{}
	defer s.leaveBroker()
	if s.closed {
		return nil
	}
	s.closed, s.broker.source = true, nil
	s.views.mu.Lock()
	s.views.end = true
	s.views.mu.Unlock()
	var err error
	if s.idle != nil {
		s.idle.Stop()
	}
	if s.w != nil {
		err = errors.Join(s.flush(), s.writeDirty())
	}
	if err = errors.Join(err, s.disconnect()); err != nil {
		return fmt.Errorf("close store %s: %w", s.path, err)
	}
	return nil
}

// disconnect closes the readers before the writer: the last one to close copies the write-ahead log into the database
// and removes it, and a log that is still there at the next start tells of an unclean stop.
func (s *Store) disconnect() error {
	errs := []error{s.views.close()}
	if db := s.db.Load(); db != nil {
		errs = append(errs, db.Close())
	}
	if s.w != nil {
		errs = append(errs, s.w.close())
	}
	return errors.Join(errs...)
}

// acquire waits for the right to write.
func (s *Store) acquire(ctx context.Context) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	select {
	case s.writing <- struct{}{}:
	case <-ctx.Done():
		return ctx.Err()
	}
	switch {
	case s.closed:
		s.release()
		return ErrClosed
	case s.options.ReadOnly:
		s.release()
		return errors.New("opened read-only")
	}
	if err := s.reopen(); err != nil {
		s.release()
		return err
	}
	return nil
}

// reopen opens the writer again, after the file could not be made anew nor opened then. The caller has the right to write.
func (s *Store) reopen() error {
	if s.w != nil {
		return nil
	}
	err := s.openWriter(context.Background(), false)
	if err == nil {
		s.tx.version = unknownVersion // what is in memory may be of another file
	}
	return s.explainWrite(err)
}

// Flush commits the refused counts that are in memory only, puts readings into blocks where enough of a device are there, and deletes
// what the journal has of them. The store does so by itself, with time.
func (s *Store) Flush(ctx context.Context) error {
	if err := s.acquire(ctx); err != nil {
		return fmt.Errorf("commit refused counts: %w", err)
	}
	err := s.flush()
	s.release()
	if err != nil {
		return fmt.Errorf("commit refused counts: %w", err)
	}
	for err == nil {
		_, err = s.compactStep(ctx)
	}
	if errors.Is(err, errNothingDue) {
		err = s.cutFlushed(ctx)
	}
	if err != nil {
		return fmt.Errorf("put readings into blocks: %w", err)
	}
	return nil
}

func (s *Store) flush() error {
	if !s.state.anyRefused() && s.doubt == nil {
		return nil
	}
	return s.transact(nil)
}

// writeDirty writes the counters that only the journal has, so that a file that was closed has them in plain columns.
func (s *Store) writeDirty() error {
	var dirty []*device
	for _, d := range s.state.byID {
		if d.dirty != 0 {
			dirty = append(dirty, d)
		}
	}
	if len(dirty) == 0 || s.doubt != nil {
		return nil
	}
	return s.transact(func() error { return s.writeCounters(dirty) })
}

// whenIdle runs when nothing was appended for a while. To copy the log in a quiet moment makes it rare beside commits.
func (s *Store) whenIdle() {
	select {
	case s.writing <- struct{}{}:
	default:
		s.idle.Reset(idleAfter) // busy, not only with an Append that would do it
		return
	}
	defer s.release()
	if s.closed {
		return
	}
	var err error
	if found := s.suspected.Swap(nil); found != nil {
		err = s.mend(context.Background(), *found)
	}
	s.keepReserve()
	if err == nil {
		err = s.reopen()
	}
	if err == nil {
		err = s.flush()
	}
	if err == nil {
		s.w.copier.look(true)
	}
	if err != nil {
		s.log.Warn("store upkeep", "err", err)
		s.idle.Reset(time.Minute)
	}
}

const (
	copyLookBytes = 256 << 10             // after so much is committed, about, the length of the log is looked at
	copyPause     = 20 * time.Millisecond // between two looks at least
	copyHeldPause = 200 * time.Millisecond

	// What is committed while the log is copied is copied next, and so on until so little is left that a commit can do it: only
	// where nobody writes meanwhile the log can begin anew. Where it gets no less, commits must wait for the disk.
	copyRestPages = 1024
	copyRounds    = 8
)

// copier copies the write-ahead log into the database (a checkpoint) on a connection of its own, beside who commits: SQLite would
// do it inside a commit, and after a reader let the log grow for an hour that one would take seconds.
type copier struct {
	dsn    string
	report func(err error, first bool) // first: it has worked before

	unseen int         // bytes that were committed since the last look; for who writes
	quiet  atomic.Bool // little is enough
	long   atomic.Bool // the log may be long
	rest   atomic.Bool // the next commit copies what is left
	fails  atomic.Bool
	wake   chan struct{}
	stop   chan struct{}
	ended  chan error

	conn       connection // of the goroutine
	seen, copy *statement
}

func newCopier(dsn string, report func(err error, first bool)) *copier {
	c := &copier{dsn: dsn, report: report, wake: make(chan struct{}, 1), stop: make(chan struct{}), ended: make(chan error, 1)}
	go c.run()
	return c
}

// close waits for what is being copied. Its connection must not outlive the writer's: the last one removes the log, by its name.
func (c *copier) close() error {
	close(c.stop)
	return <-c.ended
}

// look lets the copier see how long the log is; in a quiet moment a shorter one is copied too.
func (c *copier) look(quiet bool) {
	if quiet {
		c.quiet.Store(true)
	}
	select {
	case c.wake <- struct{}{}:
	default:
	}
}

// committed tells about how much was committed.
func (c *copier) committed(bytes int) {
	if c.unseen += bytes; c.unseen >= copyLookBytes {
		c.unseen = 0
		c.look(false)
	}
}

func (c *copier) run() {
	for {
		pause := copyPause
		select {
		case <-c.stop:
			c.ended <- c.disconnect()
			return
		case <-c.wake:
			held, err := c.copyLog()
			if err != nil {
				c.failed(err)
			} else {
				c.fails.Store(false)
			}
			if held || err != nil {
				pause = copyHeldPause
			}
		}
		select {
		case <-c.stop:
		case <-time.After(pause):
		}
	}
}

func (c *copier) failed(err error) { c.report(err, !c.fails.Swap(true)) }

func (c *copier) disconnect() error {
	if c.seen == nil {
		return nil
	}
	return c.conn.close()
}

// connect opens the connection when it is needed first: a command that changes an account does without.
func (c *copier) connect() (err error) {
	if c.seen != nil {
		return nil
	}
	if c.conn, err = connect(context.Background(), c.dsn); err != nil {
		return err
	}
	seen, err := c.conn.statement(`PRAGMA wal_checkpoint(NOOP)`) // answers: busy, pages in the log, pages copied
	if err == nil {
		c.copy, err = c.conn.statement(`PRAGMA wal_checkpoint(PASSIVE)`)
	}
	if err != nil {
		return errors.Join(err, c.conn.close())
	}
	c.conn.prepared = []*statement{seen, c.copy}
	c.seen = seen
	return nil
}

// copyLog copies what is worth it. held tells that a reader held it up.
func (c *copier) copyLog() (held bool, err error) {
	if err := c.connect(); err != nil {
		return false, err
	}
	length, idle := int64(checkpointPages), int64(checkpointPages/4)
	if c.long.Load() {
		length, idle = longLogPages, longLogPages*3/4
	}
	enough := length
	if c.quiet.Swap(false) {
		enough = idle
	}
	for round, before := 0, int64(math.MaxInt64); ; round++ {
		pages, copied, err := checkpoint(c.seen)
		left := pages - copied
		switch {
		case err != nil:
			return false, err
		case round == 0 && left < enough && (pages < 2*length || left < enough/8): // a long one could not begin anew last time
			return false, nil
		case round > 0 && (left <= copyRestPages || left >= before || round == copyRounds):
			c.rest.Store(left > 0)
			return false, nil
		}
		before = left
		if pages, copied, err = checkpoint(c.copy); err != nil || copied < pages {
			return true, err
		}
	}
}

// checkpoint runs one of SQLite's and returns how many pages the log has, and how many of those are copied.
func checkpoint(q *statement) (pages, copied int64, err error) {
	err = q.query(func(row []driver.Value) error {
		if row[0] != int64(0) {
			pages = math.MaxInt64 // somebody else is about it
			return nil
		}
		pages, copied = row[1].(int64), row[2].(int64)
		return nil
	})
	return pages, copied, err
}
