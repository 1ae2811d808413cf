package store

import (
	"context"
	"database/sql/driver"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"os"
	"path/filepath"
	"slices"
	"time"

	"modernc.org/sqlite"

	"github.com/plantops/plantops/store/block"
	"github.com/plantops/plantops/store/salvage"
	"github.com/plantops/plantops/store/swap"
)

// A damaged file is made anew: what is small (devices, accounts, counters, quarantine …) is carried over at once (carry.go),
// while devices wait some seconds; readings follow in the background (regain.go). The old file stays beside the new one.

const (
	// rebuildEvery bounds how often a running server makes its file anew: a disk that damages what it has just written needs
	// to be replaced.
	rebuildEvery = 10 * time.Minute

	// SQLite's extended codes for a page that cannot be read.
	codeReadFailed  = codeIO | 1<<8  // SQLITE_IOERR_READ
	codeShortRead   = codeIO | 2<<8  // SQLITE_IOERR_SHORT_READ
	codeDataDamaged = codeIO | 32<<8 // SQLITE_IOERR_DATA
	codeFileSystem  = codeIO | 33<<8 // SQLITE_IOERR_CORRUPTFS
)

// isDamage reports whether an error says that something in the file cannot be read, now or later. That something cannot be
// written is no damage: it may pass.
func isDamage(err error) bool {
	if errors.Is(err, ErrDamaged) {
		return true
	}
	e, ok := errors.AsType[*sqlite.Error](err)
	if !ok {
		return false
	}
	switch e.Code() {
	case codeReadFailed, codeShortRead, codeDataDamaged, codeFileSystem:
		return true
	}
	return e.Code()&0xff == codeCorrupt || e.Code()&0xff == codeNotADB
}

// suspect remembers damage that reading found: the next commit, or the next quiet moment, makes the file anew. It returns err.
func (s *Store) suspect(err error) error {
	if s.idle != nil && isDamage(err) && s.suspected.CompareAndSwap(nil, &err) { // no timer: opening, or only reading
		s.idle.Reset(idleAfter)
	}
	return err
}

// rebuild makes the file anew because of what cause says, and opens it. The caller has the right to write, or is Open; no
// transaction is running. After an error the old file is in its place, or the new one cannot be opened yet.
func (s *Store) rebuild(ctx context.Context, cause error) error {
	began := time.Now()
	s.log.Error("the database is damaged: making it anew from what can be read", "path", s.path, "err", cause)
	if s.w != nil {
		_ = s.w.close() // it may say again what is damaged
		s.w = nil
	}
	old := damagedName(s.path, s.options.Now())
	report, err := s.carryOver(ctx, filepath.Base(old), cause)
	if s.isFull(err) && s.giveReserve() {
		report, err = s.carryOver(ctx, filepath.Base(old), cause)
	}
	if err == nil {
		err = swap.ReplaceOrUndo(s.path, s.path+newSuffix, old)
	}
	// Also where nothing was made anew: to close the file after reading it has ended the locks that SQLite held on it in this
	// process, and only what opens it from now on has them again.
	if openErr := s.reopenReaders(); err != nil || openErr != nil {
		return fmt.Errorf("make the damaged database anew: %w (it is damaged: %w)", errors.Join(err, openErr), cause)
	}
	if s.broker.source != nil {
		s.broker.source.Rewrite()
	}
	if err := s.openWriter(ctx, false); err != nil {
		return err
	}
	version := s.tx.version
	s.tx.version = unknownVersion
	s.tx.forget()
	s.tx.quarantine, s.tx.originals = quarantineSize{}, originalsSize{}
	s.entries.Store(0)
	if err := s.load(ctx); err != nil {
		return err
	}
	if err := s.loadAccounts(ctx); err != nil {
		return err
	}
	s.tx.version = version
	s.suspected.Store(nil) // that was the old file
	s.log.Warn("the database was made anew; the damaged file is kept, readings follow in the background",
		"old", old, "lost", report, "took", time.Since(began).Round(time.Millisecond))
	return nil
}

// reopenReaders lets readers go on with the file that is at the path now.
func (s *Store) reopenReaders() error {
	before := s.db.Load()
	if err := s.openReaders(); err != nil {
		return err
	}
	if before != nil {
		_ = before.Close() // they only read
	}
	return nil
}

// carryOver makes PATH.new with everything but readings, and returns what is missing.
func (s *Store) carryOver(ctx context.Context, old string, cause error) (lost string, err error) {
	making := s.path + makingSuffix
	if err := swap.RemoveAll(making); err != nil {
		return "", err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, swap.RemoveAll(making)) // it takes room
		}
	}()
	fresh := s.beside(making, slog.New(slog.DiscardHandler)) // of migrations of a file that nobody knows yet
	c := carrier{from: s.path, to: fresh, memory: s, restTime: restTime}
	if err = fresh.open(ctx); err == nil {
		lost, err = c.run(ctx, old, cause, s.options.Now())
	}
	if err = errors.Join(err, fresh.disconnect()); err != nil {
		return "", err
	}
	file, err := os.Open(making)
	if err != nil {
		return "", err
	}
	if err := errors.Join(file.Sync(), file.Close()); err != nil {
		return "", err
	}
	if err := os.Rename(making, s.path+newSuffix); err != nil {
		return "", err
	}
	return lost, swap.SyncDir(s.path)
}

// beside is a store for a file that is to become the database; it is opened, and closed with disconnect.
func (s *Store) beside(path string, log *slog.Logger) *Store {
	o := Options{Path: path, Log: log, Now: s.options.Now}
	o.defaults()
	fresh := &Store{
		options: o, log: log, writing: make(chan struct{}, 1),
		reserved: time.Now(), // it needs no room in reserve
	}
	fresh.keep()
	return fresh
}

// Names beside the database while it is made anew.
const (
	makingSuffix = ".making" // may be half written: begun anew
	newSuffix    = ".new"    // complete
)

// damagedName is what a damaged file is called from now on: no other one has the name.
func damagedName(path string, now time.Time) string { return swap.OldName(path, ".damaged-", now) }

// finishSwap does what an interrupted swap left to do. It must know under which name the new file expects the old one.
func (s *Store) finishSwap(ctx context.Context, path string) error {
	if _, err := os.Stat(path + newSuffix); err != nil {
		return nil // the usual case
	}
	fresh := s.beside(path+newSuffix, s.log)
	var source string
	err := fresh.open(ctx)
	if err == nil {
		err = fresh.db.Load().QueryRowContext(ctx, `SELECT source FROM salvage ORDER BY id DESC LIMIT 1`).Scan(&source)
	}
	if err = errors.Join(err, fresh.disconnect()); err != nil {
		return fmt.Errorf("finish making the database anew from %s: %w", filepath.Base(path)+newSuffix, err)
	}
	return swap.Replace(path, path+newSuffix, filepath.Join(filepath.Dir(path), source))
}

// sequence reads which ids were given out.
func (c *carrier) sequence(w *salvage.Walk, named []salvage.Table) error {
	c.last = map[string]int64{}
	i := slices.IndexFunc(named, func(n salvage.Table) bool { return n.Name == "sqlite_sequence" })
	if i < 0 {
		return nil
	}
	_, err := w.Tree(named[i].Root, func(row salvage.Row) error {
		if len(row.Values) == 2 {
			name, _ := row.Values[0].(string)
			last, _ := row.Values[1].(int64)
			c.last[name] = max(c.last[name], last)
		}
		return nil
	})
	return err
}

// lostIDs is how many ids are left out after those that are known of a damaged table: readings of the old file have them.
const lostIDs = maxDevices

// setSequence sees to it that an id of the old file never names anything else.
func (c *carrier) setSequence(ctx context.Context) error {
	for _, name := range []string{"device", "metric", "quarantine", "original"} {
		gap := 0
		if t := c.table(name); t != nil && t.damaged {
			gap = lostIDs
		}
		last := c.last[name]
		if last > math.MaxInt64/2 {
			last = 0 // damaged
		}
		err := c.to.w.run(ctx, fmt.Sprintf(`DELETE FROM sqlite_sequence WHERE name = '%[1]s'; INSERT INTO sqlite_sequence (name, seq)
			SELECT '%[1]s', max(%[2]d, coalesce(max(id), 0)) + %[3]d FROM %[1]s`, name, last, gap))
		if err != nil {
			return fmt.Errorf("ids of table %s: %w", name, err)
		}
	}
	return nil
}

// A running server has in memory what the small tables say: names, counters and accounts. Where the file has lost some of
// that, memory gives it back.

// remembers reports whether a table is in memory.
func (c *carrier) remembers(table string) bool {
	if c.memory == nil || c.memory.state.devices == nil || c.memory.accounts.Load() == nil {
		return false
	}
	switch table {
	case "device", "counter", "metric", "refusal", "account", "rule":
		return true
	case "zone", "plant", "threshold", "assignment":
		return c.memory.garden.Remembered() != nil
	case "api_token":
		return c.memory.people.Remembers()
	case "journal":
		return c.memory.doubt == nil // what is in doubt is in the file only
	}
	return false
}

// remember inserts what is in memory and not in the new file.
func (c *carrier) remember() error {
	if !c.remembers("device") {
		return nil
	}
	s := &c.memory.state
	for _, d := range s.devices {
		c.recall(`INSERT OR IGNORE INTO device (id, name, created) VALUES (?, ?, ?)`, d.id, d.name, d.created)
		c.recall(`INSERT OR IGNORE INTO counter (device) VALUES (?)`, d.id) // count knows the rest
	}
	for name, id := range s.metrics {
		c.recall(`INSERT OR IGNORE INTO metric (id, name, device) VALUES (?, ?, 0)`, int64(id), name)
	}
	for reason, n := range s.refusals {
		c.recall(`INSERT OR IGNORE INTO refusal (reason, count) VALUES (?, ?)`, reason, n)
	}
	for name, credential := range *c.memory.accounts.Load() {
		c.recallAccount(name, &credential)
	}
	if err := errors.Join(c.endRecall(), c.rememberGarden()); err != nil {
		return fmt.Errorf("what was in memory: %w", err)
	}
	return nil
}

// rememberTail writes the journal anew where some of it is lost: its readings are in the tail.
func (c *carrier) rememberTail(ctx context.Context) error {
	if t := c.table("journal"); !c.remembers("journal") || !t.damaged && t.refused == 0 {
		return nil
	}
	seq, err := c.to.w.lastRecord.number()
	if err == nil {
		err = c.to.w.run(ctx, `DELETE FROM journal`)
	}
	if seq = max(seq, c.memory.journal.seq); err != nil {
		return err
	}
	held := c.memory.tail.Load()
	for _, a := range held.All() {
		list, commit := held.Slice(a.Device, math.MinInt64, math.MaxInt64), block.Commit{}
		for i := range list.Len() {
			e := block.Entry{Device: a.Device}
			list.Read(i, &e.Reading)
			commit.Readings = append(commit.Readings, e)
		}
		seq++
		if err := c.to.w.insertRecord.run(seq, block.AppendCommit(nil, seq, &commit)); err != nil {
			return fmt.Errorf("readings that were in memory: %w", err)
		}
	}
	return nil
}

func (c *carrier) endRecall() error {
	err := c.recalled.err
	for _, q := range c.recalled.statements {
		err = errors.Join(err, q.stmt.Close())
	}
	c.recalled = recalled{}
	return err
}

func (c *carrier) recallAccount(name string, of *credential) {
	a := &of.account
	algorithm, salt, hash, admin := algorithmSHA256, of.salt, of.hash, int64(0)
	if of.password != nil {
		algorithm, salt, hash = algorithmPassword, []byte{}, []byte(of.password.hash.String())
	}
	if a.Admin {
		admin = 1
	}
	c.recall(`INSERT OR IGNORE INTO account (name, role, algorithm, salt, hash, created, admin, web_role) VALUES (?, ?, ?, ?, ?, ?, ?, ?)`,
		name, string(a.Role), algorithm, salt, hash, a.Created, admin, string(a.WebRole))
	if of.password == nil {
		return // devices have no rules
	}
	for action, filters := range map[string][]string{"publish": a.Publish, "subscribe": a.Subscribe} {
		for _, filter := range filters {
			c.recall(`INSERT OR IGNORE INTO rule (account, action, filter) VALUES (?, ?, ?)`, name, action, filter)
		}
	}
}

// recalled is what recall keeps from call to call.
type recalled struct {
	statements map[string]*statement
	err        error // the first one
}

// recall runs a statement, unless one before has failed.
func (c *carrier) recall(text string, values ...driver.Value) {
	if c.recalled.err != nil {
		return
	}
	q := c.recalled.statements[text]
	if q == nil {
		if q, c.recalled.err = c.to.w.statement(text); c.recalled.err != nil {
			return
		}
		if c.recalled.statements == nil {
			c.recalled.statements = map[string]*statement{}
		}
		c.recalled.statements[text] = q
	}
	c.recalled.err = q.run(values...)
}

// The journal of a damaged file comes along as it is, so that the tail is there at once. Its records say how many readings a
// device had, which is not right any more: blocks and rows are still to be found. So one more record is added with what is.

// countedDevice is what is known of a device: its facts, and how many of its readings the journal has.
type countedDevice struct {
	id      int64
	facts   facts
	flushed int64
	tail    int64
}

// isWhole reports whether a row that has a checksum fits it.
func (t *carried) isWhole(row salvage.Row) bool {
	switch t.name {
	case "journal":
		body, _ := row.Values[1].([]byte)
		var r block.CommitReader
		return readRecord(&r, row.RowID, body) == nil
	case "newest":
		body, _ := row.Values[len(row.Values)-1].([]byte)
		_, err := decodeNewest(row.RowID, body)
		return err == nil
	}
	return true
}

// count reads what the counters are: of the table, the journal, and where the file was open, of memory.
func (c *carrier) count() (list []*countedDevice, err error) {
	byID := map[int64]*countedDevice{}
	err = c.query(`SELECT id, stored, duplicate, quarantined, refused, rows, last_seen, last_reading, dropped, skipped, left_at, unsure_seen,
		unsure_line, coalesce(flushed, 0) FROM device JOIN counter ON counter.device = id LEFT JOIN newest ON newest.device = id`, func(row []driver.Value) error {
		d := &countedDevice{id: row[0].(int64), flushed: row[changes+1].(int64)}
		change := block.Change{Mask: 1<<changes - 1}
		for _, v := range row[1 : changes+1] {
			change.Values = append(change.Values, v.(int64))
		}
		d.facts.set(&change, 0)
		byID[d.id], list = d, append(list, d)
		return nil
	})
	if err != nil {
		return nil, err
	}
	var r block.CommitReader
	metrics := map[uint32]bool{}
	err = c.query(`SELECT seq, body FROM journal ORDER BY seq`, func(row []driver.Value) error {
		seq, _ := row[0].(int64)
		body, _ := row[1].([]byte)
		if err := r.Reset(seq, body); err != nil {
			return err
		}
		for r.Next() {
			e := r.Entry()
			if byID[e.Device] == nil && c.table("device").damaged { // nobody else knows it
				byID[e.Device] = &countedDevice{id: e.Device}
				list = append(list, byID[e.Device])
			}
			if e.Flags&flagExtra == 0 && byID[e.Device] != nil && seq > byID[e.Device].flushed {
				byID[e.Device].tail++
			}
			for _, v := range e.Values {
				metrics[v.Metric] = true
			}
		}
		for change := (recordChanges{CommitReader: &r}); change.next(); {
			if d := byID[r.Change().Device]; d != nil {
				change.change(&d.facts)
			}
		}
		return r.Err()
	})
	if err == nil {
		err = c.name(metrics, list)
	}
	if c.remembers("counter") {
		for id, d := range c.memory.state.byID {
			if to := byID[id]; to != nil {
				to.facts = d.facts
			}
		}
	}
	return list, err
}

// name gives metrics and devices whose names are lost others.
func (c *carrier) name(metrics map[uint32]bool, devices []*countedDevice) error {
	for id := range metrics {
		c.recall(`INSERT OR IGNORE INTO metric (id, name, device) VALUES (?1, 'salvaged_' || ?1, 0)`, int64(id))
	}
	for _, d := range devices {
		c.recall(`INSERT OR IGNORE INTO device (id, name, created) VALUES (?1, 'salvaged-' || ?1, 0)`, d.id)
		c.recall(`INSERT OR IGNORE INTO counter (device) VALUES (?)`, d.id)
	}
	return c.endRecall()
}

func (c *carrier) query(text string, row func([]driver.Value) error) error {
	q, err := c.to.w.statement(text)
	if err != nil {
		return err
	}
	defer func() { _ = q.stmt.Close() }() // what Close could say, the query has said
	return q.query(row)
}

// writeCounts writes how many readings are to be found of each device, and how many there are.
func (c *carrier) writeCounts(salvage int64, list []*countedDevice) error {
	expected, err := c.to.w.statement(`INSERT INTO salvage_device (salvage, device, expected, found) VALUES (?, ?, ?, 0)`)
	if err != nil {
		return err
	}
	defer func() { _ = expected.stmt.Close() }()
	commit := block.Commit{Changes: make([]block.Change, 0, len(list))}
	for _, d := range list {
		if err := expected.run(salvage, d.id, max(d.facts.rows-d.tail, 0)); err != nil {
			return err
		}
		d.facts.rows = d.tail
		values := d.facts.list(0)
		commit.Changes = append(commit.Changes, block.Change{Device: d.id, Mask: 1<<changes - 1, Values: values[:]})
		n := &d.facts
		err := c.to.w.updateCounter.run(n.counts.Stored, n.counts.Duplicate, n.counts.Quarantined, n.counts.Refused,
			n.rows, n.lastSeen, n.lastReading, n.dropped, n.skipped, n.leftAt, n.unsureSeen, n.unsureLine, d.id)
		if err != nil {
			return fmt.Errorf("counters of device %d: %w", d.id, err)
		}
	}
	seq, err := c.to.w.lastRecord.number()
	if err != nil {
		return err
	}
	return c.to.w.insertRecord.run(seq+1, block.AppendCommit(nil, seq+1, &commit))
}
