package store

import (
	"cmp"
	"context"
	"database/sql/driver"
	"errors"
	"math"
	"slices"
	"time"

	"github.com/plantops/plantops/store/tail"
)

// Compaction takes readings from the tail, and rows of table reading, into blocks (blocks.go), and then deletes what the journal has
// of them. Each step is a transaction of its own, between which whoever waits to write comes first, and leaves the database as
// right as it was: what is in a block is not counted again from the journal, because table newest says so.

const (
	// A device's readings become a block when there are so many, or one is so old.
	flushReadings = blockReadings
	flushAge      = 72 * time.Hour

	// Bounds on the journal, and so on the tail and on the time that a start takes: 40 bytes of memory and 0.7 µs a reading. A journal
	// twice as long makes the first blocks of many devices twice as large, which are written again later: it saves 14 bytes written for
	// each reading of 1,000 devices.
	maxJournalReadings = 500_000
	maxJournalBytes    = 16 << 20
	maxJournalRecords  = 100_000

	// What one step does at most: commits of readings wait for it.
	stepReadings = 8192
	stepDevices  = 16
	stepCounters = 500
	stepRecords  = 512
	stepRows     = 1024

	// keepRecords stay in the journal in any case: whether the last transaction is in the file may be looked up there.
	keepRecords = 1

	compactEvery = 10 * time.Minute // where nothing else asks for it
	compactRetry = time.Minute      // after an error
	maxMovePause = time.Second
)

// compaction is what the store knows of it. Who holds the writing token has it, the channels are everybody's.
type compaction struct {
	goal int64 // the journal is too long: records up to this one are to go; 0: it is not

	due    []tail.About  // devices whose readings become blocks next
	looked time.Duration // when it was last looked what is due

	moving bool   // there may be rows to move
	moved  placed // behind this one

	running bool
	wake    chan struct{}
	stop    context.CancelFunc
	stopped chan struct{}

	work scratch
}

// flushed is a device of which the running transaction has put readings into blocks.
type flushed struct {
	device *device
	end    int64 // the newest time of them
	tail   bool  // all that the tail had
}

// startCompaction begins with the first readings that come, or when a broker is attached: a command beside a server leaves it to
// that.
func (s *Store) startCompaction() {
	c := &s.compaction
	if c.running || c.wake == nil || s.closed {
		return
	}
	ctx, cancel := context.WithCancel(context.Background())
	c.running, c.stop, c.stopped = true, cancel, make(chan struct{})
	go s.compact(ctx, c.wake, c.stopped)
	if c.moving || s.compactionDue() {
		s.wakeCompaction()
	}
}

// stopCompaction waits for the step that is running. Nobody holds the writing token.
func (s *Store) stopCompaction() {
	s.writing <- struct{}{}
	c := &s.compaction
	running := c.running
	c.running, c.wake = false, nil // it does not start again
	s.release()
	if running {
		c.stop()
		<-c.stopped
	}
}

func (s *Store) wakeCompaction() {
	select {
	case s.compaction.wake <- struct{}{}:
	default:
	}
}

// compactionDue tells at a glance whether there is something to do, as far as new readings can make it so.
func (s *Store) compactionDue() bool {
	return s.compaction.goal > 0 || s.journal.long() || s.options.Elapsed()-s.compaction.looked >= compactEvery
}

func (j *journalTail) long() bool {
	return j.readings > maxJournalReadings || j.bytes > maxJournalBytes || len(j.records) > maxJournalRecords
}

func (s *Store) compact(ctx context.Context, wake <-chan struct{}, stopped chan<- struct{}) {
	defer close(stopped)
	again := time.NewTimer(compactEvery)
	defer again.Stop()
	for ready := wake; ; {
		select {
		case <-ctx.Done():
			return
		case <-ready:
		case <-again.C:
		}
		pause := s.compactAll(ctx)
		if ready = wake; pause == compactRetry {
			ready = nil // or else each commit would try it again, and say so
		}
		again.Reset(pause)
	}
}

// compactAll does what is due and returns when to look again.
func (s *Store) compactAll(ctx context.Context) time.Duration {
	for {
		pause, err := s.compactStep(ctx)
		switch {
		case ctx.Err() != nil, errors.Is(err, errNothingDue), errors.Is(err, ErrClosed):
			return compactEvery
		case err != nil:
			s.log.Warn("cannot put readings into blocks; trying again", "err", err)
			return compactRetry
		}
		if pause > 0 {
			select {
			case <-ctx.Done():
			case <-time.After(pause):
			}
		}
	}
}

var errNothingDue = errors.New("nothing to compact")

// step is one transaction of compaction; done is run when it is committed.
type step struct {
	run  func() error
	done func()
	idle bool // it need not hurry
}

func (s *Store) compactStep(ctx context.Context) (pause time.Duration, err error) {
	if err := s.acquire(ctx); err != nil {
		return 0, err
	}
	defer s.release()
	began := time.Now()
	if err := s.settlePending(); err != nil {
		return 0, err
	}
	next := s.nextStep()
	if next == nil {
		return 0, errNothingDue
	}
	err = s.transact(func() error {
		s.tx.lazy = true // what it deletes is on disk elsewhere, and stays if a power cut takes all of this back
		return next.run()
	})
	if err != nil {
		return 0, err
	}
	if next.done != nil {
		next.done()
	}
	if next.idle {
		pause = min(time.Since(began), maxMovePause)
	}
	return pause, nil
}

func (s *Store) nextStep() *step {
	if devices := s.toFlush(); len(devices) > 0 {
		return &step{run: func() error { return s.flushDevices(devices) }}
	}
	if next := s.toCut(false); next != nil {
		return next
	}
	if s.compaction.moving {
		var last placed
		more := false
		return &step{idle: true,
			run: func() (err error) { last, more, err = s.moveRows(s.compaction.moved); return err },
			done: func() {
				if s.compaction.moved, s.compaction.moving = last, more; !more {
					s.compaction.moved = placed{}
				}
			}}
	}
	return nil
}

// toFlush chooses devices whose readings become blocks next.
func (s *Store) toFlush() (devices []*device) {
	c := &s.compaction
	if len(c.due) == 0 {
		c.due = s.dueDevices()
	}
	n := 0
	for readings := 0; n < len(c.due) && len(devices) < stepDevices && readings < stepReadings; n++ {
		if d := s.state.byID[c.due[n].Device]; d != nil {
			devices = append(devices, d)
			readings += c.due[n].Readings
		} else {
			s.tail.Load().Drop(c.due[n].Device) // it was removed
		}
	}
	c.due = c.due[n:]
	return devices
}

// dueDevices are those that have many readings in the tail, or old ones, in the order in which table newest has them: those of one
// step are on few of its pages.
func (s *Store) dueDevices() []tail.About {
	c := &s.compaction
	if c.goal == 0 && s.journal.long() {
		c.goal = s.journal.seq // all: neighbours share pages, and what is freed lies together
	}
	now := s.options.Elapsed()
	c.looked = now
	due := slices.DeleteFunc(s.tail.Load().All(), func(a tail.About) bool {
		return a.Readings < flushReadings && a.First > c.goal && now-a.Since < flushAge
	})
	slices.SortFunc(due, func(a, b tail.About) int { return cmp.Compare(a.Device, b.Device) })
	return due
}

// flushDevices puts all that the tail has of devices into blocks, inside the running transaction. They may have been chosen before it
// began, and read anew since.
func (s *Store) flushDevices(devices []*device) error {
	w := &s.compaction.work
	for _, d := range devices {
		if d = s.state.byID[d.id]; d == nil {
			continue // it was removed
		}
		list := w.read(s.tail.Load().Slice(d.id, math.MinInt64, math.MaxInt64))
		if len(list) == 0 {
			continue
		}
		left, err := s.putBlocks(d, list)
		if err != nil {
			return err
		}
		for i := range left {
			r := &left[i]
			if _, err := s.insertRow(d, r.Time, r.Received, int64(r.Flags), r.Given, r.Values); err != nil {
				return err
			}
		}
		if err := s.writeNewest(d, list, s.journal.seq); err != nil {
			return err
		}
		s.tx.flushed = append(s.tx.flushed, flushed{d, list[len(list)-1].Time, true})
	}
	return nil
}

// toCut deletes records of the journal whose readings are all in blocks, when they are many or few will do, after it has written the
// counters that they have.
func (s *Store) toCut(few bool) *step {
	j, c := &s.journal, &s.compaction
	n := len(j.records) - keepRecords
	if n <= 0 {
		c.goal = 0
		return nil
	}
	cut := j.records[n].seq
	for _, a := range s.tail.Load().All() {
		cut = min(cut, a.First)
	}
	readings, bytes := 0, 0
	for n = 0; j.records[n].seq < cut; n++ {
		readings += int(j.records[n].readings)
		bytes += int(j.records[n].bytes)
	}
	if j.records[0].seq > c.goal { // each step adds one, so this must end
		c.goal = 0
	}
	if n == 0 || !few && c.goal == 0 && n < maxJournalRecords/8 && readings < maxJournalReadings/8 && bytes < maxJournalBytes/8 {
		c.goal = 0
		return nil
	}
	var dirty []*device
	for _, d := range s.state.byID {
		if d.dirty != 0 && d.dirty < cut {
			if dirty = append(dirty, d); len(dirty) == stepCounters {
				break
			}
		}
	}
	if len(dirty) > 0 {
		return &step{run: func() error { return s.writeCounters(dirty) }}
	}
	if n > stepRecords {
		cut = j.records[stepRecords].seq
	}
	return &step{run: func() error { return s.cutJournal(cut) }}
}

// cutFlushed deletes what can be deleted of the journal now. Of a large one that is all: what keeps records in it becomes blocks.
func (s *Store) cutFlushed(ctx context.Context) error {
	until := int64(math.MinInt64)
	for {
		var next *step
		err := s.freeing(ctx, func() error {
			if next = nil; until == math.MinInt64 {
				if until = s.journal.seq; s.journal.bytes > maxJournalBytes/16 {
					s.compaction.goal = until
				}
			}
			if devices := s.toFlush(); len(devices) > 0 {
				next = &step{run: func() error { return s.flushDevices(devices) }}
			} else if len(s.journal.records) > 0 && s.journal.records[0].seq <= until { // each step adds one
				next = s.toCut(true)
			}
			if next == nil {
				return nil // with this one all are on disk
			}
			s.tx.lazy = true
			return next.run()
		})
		if err != nil || next == nil {
			return err
		}
	}
}

// cutJournal deletes the records before one. What cannot be read stays, for who wants to know what is missing.
func (s *Store) cutJournal(cut int64) error {
	from := int64(math.MinInt64)
	for _, damaged := range append(slices.Clone(s.journal.damaged), cut) {
		to := min(damaged, cut)
		if err := s.w.deleteRecords.run(from, to); err != nil {
			return err
		}
		from = to + 1
	}
	s.tx.cut = cut
	return nil
}

type compactStatements struct {
	deleteRecords, rowsAfter, deleteRow *statement

	lastBlocks, writeBlock, deleteBlock, selectNewest, writeNewest, deleteNewest *statement
}

func (q *compactStatements) all() []compile {
	return []compile{
		{&q.deleteRecords, `DELETE FROM journal WHERE seq >= ? AND seq < ?`},
		{&q.rowsAfter, `SELECT device, time, received, flags, coalesce(given, ''), body FROM reading
			WHERE (device, time) > (?, ?) AND flags & 4 = 0 ORDER BY device, time LIMIT ?`},
		{&q.deleteRow, `DELETE FROM reading WHERE device = ? AND time = ?`},

		{&q.lastBlocks, `SELECT key, n, t0, t1 FROM block WHERE key BETWEEN ? AND ? ORDER BY key DESC LIMIT ?`},
		{&q.writeBlock, `INSERT OR REPLACE INTO block (key, n, t0, t1, summary, body) VALUES (?, ?, ?, ?, ?, ?)`},
		{&q.deleteBlock, `DELETE FROM block WHERE key = ?`},
		{&q.selectNewest, `SELECT flushed, last, body FROM newest WHERE device = ?`},
		{&q.writeNewest, `INSERT OR REPLACE INTO newest (device, flushed, last, body) VALUES (?, ?, ?, ?)`},
		{&q.deleteNewest, `DELETE FROM newest WHERE device = ?`},
	}
}

// moveRows moves rows of table reading of one device into blocks, those behind a place first, inside the running transaction.
// What waits to be dated anew stays, and what cannot be read.
func (s *Store) moveRows(behind placed) (last placed, more bool, err error) {
	w := &s.compaction.work
	list, device := w.readings[:0], int64(0)
	w.values = w.values[:0]
	err = s.w.rowsAfter.query(func(row []driver.Value) error {
		at := placed{row[0].(int64), row[1].(int64)}
		if !more {
			device, more = at.device, true
		} else if at.device != device {
			return errOtherDevice
		}
		last = at
		list = w.readRow(list, row)
		return nil
	}, behind.device, behind.time, int64(stepRows))
	w.readings = list
	if errors.Is(err, errOtherDevice) {
		err = nil
	}
	if err != nil || !more {
		s.hasRows = s.hasRows && err != nil
		if err == nil {
			var n int64
			n, err = s.w.anyRow.number()
			s.hasRows = n != 0
		}
		return placed{}, false, err
	}
	d := s.state.byID[device]
	if d == nil {
		return placed{device, math.MaxInt64}, true, nil
	}
	if len(list) == 0 {
		return last, true, nil
	}
	left, err := s.putBlocks(d, list)
	if err != nil {
		return placed{}, false, err
	}
	for i := range list {
		if slices.ContainsFunc(left, func(r blockReading) bool { return r.Time == list[i].Time }) {
			continue
		}
		if err := s.w.deleteRow.run(device, list[i].Time); err != nil {
			return placed{}, false, err
		}
	}
	s.tx.flushed = append(s.tx.flushed, flushed{d, list[len(list)-1].Time, false})
	return last, true, s.writeNewest(d, list, d.flushed)
}

var errOtherDevice = errors.New("a row of another device")
