package store

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io/fs"
	"math"
	"os"
	"path/filepath"
	"strconv"
	"syscall"
	"time"

	"github.com/plantops/plantops/store/block"
	"github.com/plantops/plantops/store/swap"
)

// Health is what there is to know about the file.
type Health struct {
	Path      string
	SizeBytes int64 // of the database
	WALBytes  int64 // of its write-ahead log
	Space
	Pages         int64 // of PageBytes each
	FreePages     int64 // inside the file, used before it grows
	PageBytes     int64
	Readings      int64 // times of devices of which there are values
	Quarantined   int64 // entries that can be looked at
	Damaged       int64 // records of the journal that cannot be read, each with readings of some devices
	SchemaVersion int
}

// Space is the room on the file system of the database.
type Space struct {
	FreeBytes  int64 // left for this user
	TotalBytes int64
}

// Space asks the file system only; it is cheap.
func (s *Store) Space() (Space, error) {
	var disk syscall.Statfs_t
	if err := syscall.Statfs(filepath.Dir(s.path), &disk); err != nil {
		return Space{}, fmt.Errorf("free space for store %s: %w", s.path, err)
	}
	block := int64(disk.Bsize) // the types differ between systems
	return Space{FreeBytes: int64(disk.Bavail) * block, TotalBytes: int64(disk.Blocks) * block}, nil
}

// Health looks at the file and its file system.
func (s *Store) Health(ctx context.Context) (Health, error) {
	h, err := s.health(ctx)
	if err != nil {
		return Health{}, fmt.Errorf("health of store %s: %w", s.path, err)
	}
	return h, nil
}

func (s *Store) health(ctx context.Context) (Health, error) {
	h := Health{Path: s.path}
	info, err := os.Stat(s.path)
	if err != nil {
		return h, reason(err)
	}
	h.SizeBytes = info.Size()
	if info, err := os.Stat(s.path + walSuffix); err == nil {
		h.WALBytes = info.Size()
	} else if !errors.Is(err, fs.ErrNotExist) {
		return h, reason(err)
	}
	if h.Space, err = s.Space(); err != nil {
		return h, err
	}
	for query, to := range map[string]any{
		`PRAGMA page_count`:     &h.Pages,
		`PRAGMA freelist_count`: &h.FreePages,
		`PRAGMA page_size`:      &h.PageBytes,
		`PRAGMA user_version`:   &h.SchemaVersion,
	} {
		if err := s.queryRow(ctx, query).Scan(to); err != nil {
			return h, s.suspect(err)
		}
	}
	if err := s.refresh(ctx); err != nil {
		return h, err
	}
	s.state.mu.RLock()
	for _, d := range s.state.devices {
		h.Readings += d.rows
	}
	s.state.mu.RUnlock()
	h.Damaged = s.damagedRecords.Load()
	h.Quarantined, err = s.countQuarantined(ctx)
	return h, err
}

// countQuarantined looks at the table when who writes has not counted it yet: with many entries that takes thousands of reads.
func (s *Store) countQuarantined(ctx context.Context) (n int64, err error) {
	if known := s.entries.Load(); known > 0 && !s.options.ReadOnly {
		return known - 1, nil
	}
	err = s.queryRow(ctx, `SELECT count(*) FROM quarantine`).Scan(&n)
	if err == nil {
		s.entries.CompareAndSwap(0, n+1)
	}
	return n, err
}

// checkAfterUncleanStop looks at the whole file before it is used, where that is quick. A larger one is looked at beside
// everything else, by CheckLater.
func (s *Store) checkAfterUncleanStop(ctx context.Context) error {
	info, err := os.Stat(s.path)
	if err != nil {
		return err
	}
	if info.Size() > maxCheckBytes {
		s.log.Info("the last stop was unclean, the database is checked while it is used", "path", s.path)
		s.unchecked.Store(true)
		return nil
	}
	s.log.Info("the last stop was unclean, checking the database", "path", s.path)
	return s.check(ctx, `PRAGMA quick_check(3)`)
}

// checkNames compares the names of devices and metrics with their indexes at each start: they have no checksum, and readings below a
// wrong name would be readings of nobody. It takes some milliseconds for thousands of devices.
func (s *Store) checkNames(ctx context.Context) error {
	for _, table := range []string{"device", "metric"} {
		if err := s.check(ctx, `PRAGMA integrity_check(`+table+`)`); err != nil {
			return err
		}
	}
	return nil
}

// CheckLater does what Open left to do: after an unclean stop it reads the whole of a large database, beside everything else.
// What is damaged is made anew as if a reader had come upon it. It returns when ctx ends.
func (s *Store) CheckLater(ctx context.Context) error {
	if s.unchecked.Load() {
		began := time.Now()
		err := s.check(ctx, `PRAGMA quick_check(3)`)
		took := time.Since(began).Round(time.Second)
		switch {
		case ctx.Err() != nil:
			return nil
		case isDamage(err):
			s.log.Error("the database is damaged", "path", s.path, "err", err, "took", took)
			_ = s.suspect(err) // the next commit, or a quiet moment, makes it anew
		case err != nil:
			s.log.Warn("the database cannot be checked", "path", s.path, "err", err)
		default:
			s.log.Info("the database is intact", "path", s.path, "took", took)
		}
		s.unchecked.Store(false)
	}
	<-ctx.Done()
	return nil
}

// Check reads the whole database and compares its parts. What it finds wraps ErrDamaged.
func (s *Store) Check(ctx context.Context) error {
	err := s.suspect(explain(s.check(ctx, `PRAGMA integrity_check(10)`)))
	if err == nil {
		err = s.checkBroker(ctx)
	}
	if err == nil {
		err = s.checkBlobs(ctx)
	}
	if err != nil {
		return fmt.Errorf("check store %s: %w", s.path, err)
	}
	return nil
}

func (s *Store) check(ctx context.Context, pragma string) error {
	var findings []string
	err := s.each(ctx, func(scan func(...any) error) error {
		var text string
		err := scan(&text)
		findings = append(findings, text)
		return err
	}, pragma)
	if err != nil {
		return err
	}
	if len(findings) != 1 || findings[0] != "ok" {
		return fmt.Errorf("%w: %q", ErrDamaged, findings)
	}
	return nil
}

// Examination is what Examine looked at.
type Examination struct {
	Devices  int64
	Readings int64 // messages with readings
	Findings []Finding
}

// Finding is something in the database that is not as it was written.
type Finding struct {
	Where string // a table, and the device where it is one's
	What  string
}

func (e *Examination) add(where, format string, args ...any) {
	e.Findings = append(e.Findings, Finding{where, fmt.Sprintf(format, args...)})
}

// Examine reads everything that SQLite's own check does not understand: each blob, and whether the rows of each device are as
// many as were counted. told, which may be nil, is called with the share of devices that are done. A device is one short
// transaction, so that the log does not grow meanwhile. An error says that reading was broken off.
func (s *Store) Examine(ctx context.Context, told func(done, of int)) (e Examination, err error) {
	devices, err := s.Devices(ctx)
	if err != nil {
		return e, err
	}
	e.Devices = int64(len(devices))
	ids, err := s.examinedDevices(ctx, &e)
	if err == nil {
		err = s.examineJournal(ctx, &e)
	}
	for i, d := range ids {
		if err != nil {
			break
		}
		if err = s.examineDevice(ctx, d.id, d.name, &e); isDamage(err) && ctx.Err() == nil {
			e.add(placeOfReadings(d.name), "they cannot be read: %v", err)
			err = nil
		}
		if told != nil {
			told(i+1, len(ids))
		}
	}
	if err == nil {
		err = s.examineBroker(ctx, &e)
	}
	if isDamage(err) && ctx.Err() == nil {
		e.add("the file", "%v", err)
		err = nil
	}
	if err != nil {
		return e, fmt.Errorf("examine store %s: %w", s.path, err)
	}
	return e, nil
}

type examined struct {
	id   int64
	name string
}

// examinedDevices are those that have rows or should have some.
func (s *Store) examinedDevices(ctx context.Context, e *Examination) (list []examined, err error) {
	err = s.each(ctx, func(scan func(...any) error) error {
		var d examined
		err := scan(&d.id, &d.name)
		list = append(list, d)
		return err
	}, `SELECT id, name FROM device ORDER BY name`)
	return list, err
}

// checkBlobs is Examine as far as readings go. The error names what is not whole, and wraps ErrDamaged.
func (s *Store) checkBlobs(ctx context.Context) error {
	var e Examination
	err := s.examineJournal(ctx, &e)
	var list []examined
	if err == nil {
		list, err = s.examinedDevices(ctx, &e)
	}
	for _, d := range list {
		if err == nil {
			err = s.examineDevice(ctx, d.id, d.name, &e)
		}
	}
	for _, f := range e.Findings[:min(len(e.Findings), maxNamed)] {
		err = errors.Join(err, fmt.Errorf("%w: %s: %s", ErrDamaged, f.Where, f.What))
	}
	return err
}

// maxNamed bounds how many findings an error names.
const maxNamed = 20

// examineJournal reads all records of the journal.
func (s *Store) examineJournal(ctx context.Context, e *Examination) error {
	var r block.CommitReader
	return s.each(ctx, func(scan func(...any) error) error {
		var seq int64
		var body sql.RawBytes
		err := scan(&seq, &body)
		if err == nil && readRecord(&r, seq, body) != nil {
			e.add("the journal", "record %d cannot be read: what some devices sent with it is lost", seq)
		}
		return err
	}, `SELECT seq, body FROM journal`)
}

// readRecord reads a record of the journal to its end.
func readRecord(r *block.CommitReader, seq int64, body []byte) error {
	if err := r.Reset(seq, body); err != nil {
		return err
	}
	for r.NextChange() {
	}
	return r.Err()
}

// examineDevice reads all readings of a device, and compares their number with its counter as of the same moment, or in a file that
// another process writes as of about the same.
func (s *Store) examineDevice(ctx context.Context, id int64, name string, e *Examination) error {
	where := placeOfReadings(name)
	s.state.mu.RLock()
	d := s.state.byID[id]
	before := int64(0)
	if d != nil {
		before = d.rows
	}
	s.state.mu.RUnlock()
	v, err := s.view(ctx, id)
	if err != nil {
		return err
	}
	defer func() { _ = v.Close() }() // it only reads
	s.state.mu.RLock()
	if d = s.state.byID[id]; d == nil {
		s.state.mu.RUnlock()
		return nil // it was purged
	}
	after := d.rows
	s.state.mu.RUnlock()
	rows, lost := int64(0), false
	for _, err := range v.merged(ctx, named{name, id}, math.MinInt64, math.MaxInt64) {
		if damage := (*DamagedError)(nil); errors.As(err, &damage) {
			lost = true
			e.add(where, "from %s to %s: %v", momentText(max(damage.From, 0)), momentText(min(damage.To, maxMoment)), damage.Cause)
		} else if err != nil {
			return err
		} else {
			rows++
		}
	}
	e.Readings += rows
	if !lost && (rows < min(before, after) || rows > max(before, after)) {
		e.add(where, "there are %d readings, and %d were counted", rows, after)
	}
	return s.examineSummaries(ctx, v, named{name, id}, e)
}

// maxMoment is the last one that momentText has words for, in the year 9999.
const maxMoment = 253402300799000

// examineSummaries reads what else blocks have.
func (s *Store) examineSummaries(ctx context.Context, v *view, d named, e *Examination) error {
	blocks, _, err := v.blocks(ctx, d, math.MinInt64, math.MaxInt64) // damage was named
	var sum block.Summary
	for _, m := range blocks {
		if err != nil {
			break
		}
		if err = v.summary(ctx, d, m, &sum); errors.Is(err, ErrDamaged) {
			e.add(placeOfReadings(d.name), "the summary of a block from %s to %s cannot be read", momentText(m.First), momentText(m.Last))
			err = nil
		}
	}
	return err
}

func placeOfReadings(device string) string { return "readings of device " + strconv.Quote(device) }

// momentText is a time of the database for people.
func momentText(ms int64) string { return time.UnixMilli(ms).UTC().Format(time.RFC3339) }

// examineBroker looks for rows of the broker's tables that are not as they were written.
func (s *Store) examineBroker(ctx context.Context, e *Examination) error {
	err := s.checkBroker(ctx)
	if errors.Is(err, ErrDamaged) {
		e.add("the broker's state", "%v", err)
		return nil
	}
	return err
}

// QuarantineGrowth says how many entries arrived since a time, and when the newest did (UTC ms; zero: none).
func (s *Store) QuarantineGrowth(ctx context.Context, since int64) (count, newest int64, err error) {
	err = s.queryRow(ctx, `SELECT count(*) FILTER (WHERE time >= ?), coalesce(max(time), 0)
		FROM (SELECT time FROM quarantine ORDER BY id DESC LIMIT ?)`, since, maxGrowth).Scan(&count, &newest)
	if err != nil {
		err = fmt.Errorf("growth of the quarantine: %w", s.suspect(err))
	}
	return count, newest, err
}

// maxGrowth bounds what QuarantineGrowth looks at; a larger count is at least that.
const maxGrowth = 1000

// A database in WAL mode cannot even be read without room for the log's index, nor can anything be deleted from it. So a
// file beside it holds some room in good times, which is given up when the disk is full: then the server starts, what is
// there can be read, and retention can make room.

const (
	reserveSuffix = ".reserve"
	reserveBytes  = 4 << 20
	// reserveRoom is what must be free for the reserve to be made (again).
	reserveRoom  = 16 * reserveBytes
	reserveEvery = time.Minute
)

// isFull reports whether an error comes from a disk without room.
func (s *Store) isFull(err error) bool {
	switch code(err) {
	case codeFull:
		return true
	case codeIO, codeCannotUse:
		space, statErr := s.Space()
		return statErr == nil && space.FreeBytes < minRoomBytes
	}
	return errors.Is(err, ErrFull) || errors.Is(err, syscall.ENOSPC)
}

// giveReserve frees the room that was held, and reports whether there was any.
func (s *Store) giveReserve() bool {
	if err := os.Remove(s.path + reserveSuffix); err != nil {
		return false
	}
	s.allowLongLog(false)
	s.log.Warn("the disk is full: the room held in reserve is used, so that old readings can be read and deleted; make room", "path", s.path)
	return true
}

// keepReserve makes the reserve if it is not there and there is room for it. That it cannot be made is no fault.
func (s *Store) keepReserve() {
	if time.Since(s.reserved) < reserveEvery {
		return
	}
	s.reserved = time.Now()
	path := s.path + reserveSuffix
	if info, err := os.Stat(path); err == nil && info.Size() == reserveBytes {
		s.allowLongLog(true)
		return
	}
	if space, err := s.Space(); err != nil || space.FreeBytes < reserveRoom {
		return
	}
	file, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return
	}
	err = swap.GiveToOwnerOf(filepath.Dir(path), file.Chown)
	if err == nil {
		_, err = file.WriteAt(make([]byte, reserveBytes), 0) // really written: not every file system takes it from the free room otherwise
	}
	if err = errors.Join(err, file.Sync(), file.Close()); err != nil {
		if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
			s.log.Debug("remove the reserve", "err", err)
		}
		return
	}
	s.allowLongLog(true)
}

// allowLongLog says whether there is room for a long write-ahead log.
func (s *Store) allowLongLog(long bool) {
	if s.w != nil && s.w.copier != nil {
		s.w.copier.long.Store(long)
	}
}
