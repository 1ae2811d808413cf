package store

import (
	"context"
	"database/sql"
	"fmt"
	"maps"
	"math"
	"slices"
	"strings"
	"sync"

	"github.com/plantops/plantops/store/hourly"
	"github.com/plantops/plantops/store/tail"
)

// facts are what the counter table knows about a device.
type facts struct {
	counts                Counts
	rows                  int64 // readings: times of which it has values
	lastSeen, lastReading int64 // UTC ms; zero is never
	unsureSeen            int64 // UTC ms by a clock that was not to be trusted, after lastSeen; zero is not since
	unsureLine            int64 // the line of that clock; zero is not known
	dropped               int64 // readings that the device gave up
	skipped               int64 // fields that could not be read
	lastSkipped           Skipped
	skippedAt             int64 // UTC ms; zero is never
	leftAt                int64 // UTC ms, when it said that it goes; zero: it did not, or was heard of since
	arrivals              span  // not in the table: milliseconds known to be taken, to find the next free one
}

// span is every millisecond from first to last.
type span struct{ first, last int64 }

// device is one row of the tables device and counter.
type device struct {
	id      int64
	name    string
	created int64
	behind  Behind // zero: it speaks for itself; guarded by state.mu
	facts          // as committed; guarded by state.mu

	// Only who writes uses the rest.
	next    facts // as it will be when the running transaction commits
	touched bool  // next differs
	metrics int   // names that this device brought

	pending    int            // in the running transaction: its last entry, plus one; 0: none
	pendingEnd int64          // the newest time of those
	flushed    int64          // the last record of the journal whose readings of it are in blocks
	blockEnd   int64          // the newest time that is in a block; math.MinInt64: none
	firstMonth int64          // block.Month: in those before it has no block
	hours      hourly.Pending // of the tables for other programs
	shown      seenTimes
	written    int64 // the pass that wrote its latest value
	outlived   hoursKept

	dirty int64 // the first record of the journal with counters that table counter does not have; 0: none
}

// state is what of the database is kept in memory: names, ids and counters. Who writes the database is the
// only one to change it, so he reads without the lock and writes with it.
type state struct {
	mu      sync.RWMutex
	devices map[string]*device // "" is the device of messages that belong to none
	byID    map[int64]*device
	metrics map[string]uint32
	names   map[uint32]string               // of metrics
	behind  map[string]map[*device]struct{} // gateways: the devices that an account speaks for

	refusals map[string]int64 // by reason

	refused map[refusal]int64 // not yet committed, not in the counters above; unlike them anybody may add
}

// refusal says whose message was refused and why.
type refusal struct{ device, reason string }

// otherReasons stands for what comes after the bound on different reasons.
const otherReasons = "other reasons"

const (
	maxRefusalReasons = 64
	maxSummaryReasons = 1024
)

// Device is a device and its counters.
type Device struct {
	ID                             string
	Registered                     bool  // it has an account
	Created, LastSeen, LastReading int64 // UTC ms; zero is never
	UnsureSeen                     int64 // UTC ms by a clock that was not to be trusted, after LastSeen; zero is not since
	Counts                         Counts
	Dropped                        int64 // readings that the device gave up before it could send them, by its own account
	Skipped                        int64 // fields of its messages that could not be read; SkippedFields names them
	LastSkipped                    Skipped
	SkippedAt                      int64 // UTC ms, of the last one; zero is never
	LeftAt                         int64 // UTC ms, when it said that it goes; zero: it did not, or was heard of since
	Behind                         Behind
}

// Devices returns every device that was registered or heard of, in order of id.
func (s *Store) Devices(ctx context.Context) ([]Device, error) {
	if err := s.refresh(ctx); err != nil {
		return nil, fmt.Errorf("list devices: %w", err)
	}
	accounts := *s.accounts.Load()
	s.state.mu.RLock()
	defer s.state.mu.RUnlock()
	waiting := s.state.waiting()
	list := make([]Device, 0, len(s.state.devices))
	for name, d := range s.state.devices {
		if name != "" {
			list = append(list, s.exportDevice(d, accounts, waiting))
		}
	}
	slices.SortFunc(list, func(a, b Device) int { return strings.Compare(a.ID, b.ID) })
	return list, nil
}

// Device returns one device, or ErrNotFound. The empty id stands for messages that belong to no known device.
func (s *Store) Device(ctx context.Context, id string) (Device, error) {
	if err := s.refresh(ctx); err != nil {
		return Device{}, fmt.Errorf("device %q: %w", id, err)
	}
	accounts := *s.accounts.Load()
	s.state.mu.RLock()
	defer s.state.mu.RUnlock()
	d, ok := s.state.devices[id]
	if !ok {
		return Device{}, fmt.Errorf("device %q: %w", id, ErrNotFound)
	}
	return s.exportDevice(d, accounts, s.state.waiting()), nil
}

func (s *Store) exportDevice(d *device, accounts map[string]credential, waiting map[string]int64) Device {
	out := Device{ID: d.name, Created: d.created, LastSeen: d.lastSeen, UnsureSeen: d.unsureSeen, LastReading: d.lastReading, Counts: d.counts,
		LeftAt: d.leftAt, Behind: d.behind, Dropped: d.dropped, Skipped: d.skipped, LastSkipped: d.lastSkipped, SkippedAt: d.skippedAt}
	out.Counts.Refused += waiting[d.name]
	out.Counts.Quarantined += s.aside.Count(d.name)
	out.Registered = accounts[d.name].account.Role == RoleDevice
	return out
}

// Totals returns the sum of the counters of all devices and of what belongs to none.
func (s *Store) Totals(ctx context.Context) (Counts, error) {
	if err := s.refresh(ctx); err != nil {
		return Counts{}, fmt.Errorf("total counts: %w", err)
	}
	s.state.mu.RLock()
	defer s.state.mu.RUnlock()
	var total Counts
	for _, d := range s.state.devices {
		total.plus(d.counts)
	}
	for _, n := range s.state.refused {
		total.Refused += n
	}
	total.Quarantined += s.aside.Count("*")
	return total, nil
}

// Refusals returns how many messages were refused for which reason.
func (s *Store) Refusals(ctx context.Context) (map[string]int64, error) {
	if err := s.refresh(ctx); err != nil {
		return nil, fmt.Errorf("list refusals: %w", err)
	}
	s.state.mu.RLock()
	defer s.state.mu.RUnlock()
	sum := maps.Clone(s.state.refusals)
	for r, n := range s.state.refused {
		sum[r.reason] += n
	}
	return sum, nil
}

// AddRefused counts n messages that access rules refused. Totals has them at once; they are committed with the next
// Append, by Flush or Close, or after a second of quiet. A device that the store does not know is counted as none.
func (s *Store) AddRefused(device, reason string, n int64) {
	st := &s.state
	st.mu.Lock()
	first := len(st.refused) == 0
	if _, known := st.devices[device]; !known {
		device = ""
	}
	if _, known := st.refusals[reason]; !known && len(st.refusals) >= maxRefusalReasons {
		reason = otherReasons
	}
	st.refused[refusal{device, reason}] += n
	st.mu.Unlock()
	if first && s.idle != nil {
		s.idle.Reset(idleAfter)
	}
}

// disownRefused counts the refused messages of a device that wait as nobody's.
func (st *state) disownRefused(device string) {
	st.mu.Lock()
	defer st.mu.Unlock()
	for r, n := range st.refused {
		if r.device == device && device != "" {
			st.refused[refusal{"", r.reason}] += n
			delete(st.refused, r)
		}
	}
}

// forgetRefused takes away refused counts that are committed.
func (st *state) forgetRefused(counts map[refusal]int64) {
	st.mu.Lock()
	defer st.mu.Unlock()
	for r, n := range counts {
		if st.refused[r] -= n; st.refused[r] == 0 {
			delete(st.refused, r)
		}
	}
}

func (st *state) anyRefused() bool {
	st.mu.RLock()
	defer st.mu.RUnlock()
	return len(st.refused) > 0
}

// waiting returns the refused counts that are not yet committed, by device; the caller holds the lock.
func (st *state) waiting() map[string]int64 {
	sum := make(map[string]int64, len(st.refused))
	for r, n := range st.refused {
		sum[r.device] += n
	}
	return sum
}

// refresh looks at the file again if another process may be the one that writes.
func (s *Store) refresh(ctx context.Context) error {
	if !s.options.ReadOnly {
		return nil
	}
	if err := s.load(ctx); err != nil {
		return err
	}
	return s.loadAccounts(ctx)
}

// onDisk is what load reads.
type onDisk struct {
	tables  keptTables
	devices map[string]*device
	byID    map[int64]*device
	behind  map[string]map[*device]struct{}
	metrics map[string]uint32
	names   map[uint32]string

	refusals map[string]int64
	tail     *tail.Tail
	journal  journalTail
	rows     bool
}

// load fills the state from what is committed, as it is at one moment. Refused counts that wait stay.
func (s *Store) load(ctx context.Context) error {
	s.loading.Lock()
	defer s.loading.Unlock()
	for {
		db := s.db.Load()
		l := &onDisk{}
		err := s.loadFrom(ctx, db, l)
		if err != nil && s.db.Load() != db {
			continue // it was made anew
		}
		if err != nil {
			return s.suspect(err)
		}
		s.adopt(l)
		return nil
	}
}

func (s *Store) adopt(l *onDisk) {
	s.state.mu.Lock()
	defer s.state.mu.Unlock()
	s.state.devices, s.state.byID, s.state.metrics, s.state.names = l.devices, l.byID, l.metrics, l.names
	s.state.refusals, s.state.behind = l.refusals, l.behind
	if s.state.refused == nil {
		s.state.refused = make(map[refusal]int64)
	}
	s.journal, s.hasRows, s.lookups = l.journal, l.rows, map[int64]*lookup{}
	s.compaction.moving, s.compaction.moved = l.rows, placed{}
	s.tail.Store(l.tail)
	s.tables.computed, s.tables.kept = l.tables.computed, l.tables.kept
	if n := int64(len(l.journal.damaged)); s.damagedRecords.Swap(n) != n && n > 0 {
		s.log.Error("records of the journal cannot be read: what devices sent with them is lost", "path", s.path, "count", n)
	}
	s.wakeCompaction()
}

func (s *Store) loadFrom(ctx context.Context, db *sql.DB, l *onDisk) error {
	tx, err := db.BeginTx(ctx, nil)
	if err != nil {
		return err
	}
	defer func() { _ = tx.Rollback() }() // it only reads
	for _, step := range []func(context.Context, querier, *onDisk) error{s.loadDevices, s.loadSkipped, s.loadGateways, s.loadNames, s.loadJournal, s.loadTables} {
		if err := step(ctx, tx, l); err != nil {
			return err
		}
	}
	return nil
}

func (s *Store) loadDevices(ctx context.Context, q querier, l *onDisk) error {
	l.devices, l.byID = make(map[string]*device), make(map[int64]*device)
	err := s.eachIn(ctx, q, func(scan func(...any) error) error {
		d := &device{blockEnd: math.MinInt64, firstMonth: math.MinInt64}
		err := scan(&d.id, &d.name, &d.created, &d.counts.Stored, &d.counts.Duplicate, &d.counts.Quarantined,
			&d.counts.Refused, &d.rows, &d.lastSeen, &d.lastReading, &d.dropped, &d.skipped, &d.leftAt,
			&d.unsureSeen, &d.unsureLine, &d.metrics)
		l.devices[d.name], l.byID[d.id] = d, d
		return err
	}, `SELECT id, name, created, stored, duplicate, quarantined, refused, rows, last_seen, last_reading, dropped, skipped, left_at,
		unsure_seen, unsure_line, coalesce(brought.metrics, 0)
		FROM device JOIN counter ON counter.device = device.id
		LEFT JOIN (SELECT device, count(*) AS metrics FROM metric GROUP BY device) AS brought ON brought.device = device.id`)
	if err != nil {
		return err
	}
	return s.eachIn(ctx, q, func(scan func(...any) error) error {
		var id, flushed, last int64
		err := scan(&id, &flushed, &last)
		if d := l.byID[id]; d != nil {
			d.flushed, d.blockEnd = flushed, last
		}
		l.journal.seq = max(l.journal.seq, flushed)
		return err
	}, `SELECT device, flushed, last FROM newest`)
}

func (s *Store) loadNames(ctx context.Context, q querier, l *onDisk) error {
	l.metrics, l.names = make(map[string]uint32), make(map[uint32]string)
	err := s.eachIn(ctx, q, func(scan func(...any) error) error {
		var id uint32
		var name string
		err := scan(&id, &name)
		l.metrics[name], l.names[id] = id, name
		return err
	}, `SELECT id, name FROM metric`)
	if err != nil {
		return err
	}
	l.refusals = make(map[string]int64)
	return s.eachIn(ctx, q, func(scan func(...any) error) error {
		var reason string
		var n int64
		err := scan(&reason, &n)
		l.refusals[reason] = n
		return err
	}, `SELECT reason, count FROM refusal`)
}

type creationStatements struct {
	insertDeviceAs, insertMetricAs *statement

	insertDevice, insertCounter, insertMetric *statement
}

func (q *creationStatements) all() []compile {
	return []compile{
		// An id that was another's is never given out again: a damaged file that is still searched may have readings of it.
		{&q.insertDevice, `INSERT INTO device (id, name, created) VALUES (1 + max((SELECT coalesce(max(id), 0) FROM device),
			(SELECT coalesce(max(seq), 0) FROM sqlite_sequence WHERE name = 'device')), ?, ?)`},
		{&q.insertDeviceAs, `INSERT INTO device (id, name, created) VALUES (?, ?, ?)`},
		{&q.insertMetricAs, `INSERT INTO metric (id, name, device) VALUES (?, ?, ?)`},
		{&q.insertCounter, `INSERT INTO counter (device) VALUES (?)`},
		{&q.insertMetric, `INSERT INTO metric (id, name, device) VALUES (1 + max((SELECT coalesce(max(id), 0) FROM metric),
			(SELECT coalesce(max(seq), 0) FROM sqlite_sequence WHERE name = 'metric')), ?, ?)`},
	}
}

// createDevice gives a name that is new its rows, inside the running transaction.
func (s *Store) createDevice(name string) (*device, error) {
	created := s.options.Now().UnixMilli()
	result, err := s.w.insertDevice.exec(name, created)
	if err != nil {
		return nil, fmt.Errorf("create device %q: %w", name, err)
	}
	id, _ := result.LastInsertId()
	return s.adoptDevice(id, name, created)
}

// createDeviceAs gives a device that readings know by its id, and nobody by its name, its rows.
func (s *Store) createDeviceAs(id int64, name string) (*device, error) {
	if err := s.w.insertDeviceAs.run(id, name, int64(0)); err != nil {
		return nil, fmt.Errorf("create device %q: %w", name, err)
	}
	return s.adoptDevice(id, name, 0)
}

func (s *Store) adoptDevice(id int64, name string, created int64) (*device, error) {
	if err := s.w.insertCounter.run(id); err != nil {
		return nil, fmt.Errorf("create counters of device %q: %w", name, err)
	}
	d := &device{id: id, name: name, created: created}
	s.tx.devices = append(s.tx.devices, d)
	s.state.mu.Lock()
	defer s.state.mu.Unlock()
	s.state.devices[name], s.state.byID[id] = d, d
	return d, nil
}

// createMetric gives a metric name that is new its row; d brought it.
func (s *Store) createMetric(d *device, name string) (uint32, error) {
	result, err := s.w.insertMetric.exec(name, d.id)
	if err != nil {
		return 0, fmt.Errorf("create metric %q: %w", name, err)
	}
	rowid, _ := result.LastInsertId()
	id := uint32(rowid) // at most maxDevices * maxMetrics
	s.adoptMetric(d, id, name)
	return id, nil
}

// createMetricAs gives a metric that readings know by its id, and nobody by its name, its row.
func (s *Store) createMetricAs(d *device, id uint32, name string) error {
	if err := s.w.insertMetricAs.run(int64(id), name, d.id); err != nil {
		return fmt.Errorf("create metric %q: %w", name, err)
	}
	s.adoptMetric(d, id, name)
	return nil
}

func (s *Store) adoptMetric(d *device, id uint32, name string) {
	s.tx.metrics = append(s.tx.metrics, newMetric{name, d})
	d.metrics++
	s.state.mu.Lock()
	defer s.state.mu.Unlock()
	s.state.metrics[name], s.state.names[id] = id, name
}
