package store

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
	"time"
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
		return
	}
	if space, err := s.Space(); err != nil || space.FreeBytes < reserveRoom {
		return
	}
	file, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return
	}
	err = giveToOwnerOf(filepath.Dir(path), file)
	if err == nil {
		_, err = file.WriteAt(make([]byte, reserveBytes), 0) // really written: not every file system takes it from the free room otherwise
	}
	if err = errors.Join(err, file.Sync(), file.Close()); err != nil {
		if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
			s.log.Debug("remove the reserve", "err", err)
		}
	}
}

// ClockLine is a stretch of time in which this machine's wall clock and its monotonic clock kept their distance.
type ClockLine struct {
	Number int64     // from 1
	Start  time.Time // when the machine started, as the wall clock of this stretch has it
	Sure   bool      // the time was believed at some moment of it
}

// ClockLines returns what is remembered of a start of this machine, in order of number, and the next number that nothing in the
// database has.
func (s *Store) ClockLines(ctx context.Context, boot string) (lines []ClockLine, next int64, err error) {
	err = s.each(ctx, func(scan func(...any) error) error {
		var l ClockLine
		var start int64
		err := scan(&l.Number, &start, &l.Sure)
		l.Start = time.UnixMilli(start)
		lines = append(lines, l)
		return err
	}, `SELECT number, start, sure FROM clock_line WHERE boot = ? ORDER BY number`, boot)
	if err == nil {
		err = s.db.Load().QueryRowContext(ctx, `SELECT 1 + max((SELECT coalesce(max(number), 0) FROM clock_line),
			(SELECT coalesce(max(flags), 0) >> 8 FROM reading WHERE flags > 255),
			(SELECT coalesce(max(flags), 0) >> 8 FROM quarantine WHERE flags > 255),
			(SELECT coalesce(max(flags), 0) >> 8 FROM original WHERE flags > 255))`).Scan(&next)
	}
	if err == nil {
		err = s.refresh(ctx)
	}
	if err != nil {
		return nil, 0, fmt.Errorf("read what is known of the clock: %w", explain(err))
	}
	s.state.mu.RLock()
	defer s.state.mu.RUnlock()
	for _, d := range s.state.devices {
		next = max(next, d.unsureLine+1)
	}
	return lines, next, nil
}

// RememberClock writes down the lines of this start of the machine, in order of number, and forgets those of others, by which
// nothing can be dated any more, and those before the second one that are not in the list: the clock forgets its oldest ones.
func (s *Store) RememberClock(ctx context.Context, boot string, lines []ClockLine) error {
	if err := s.acquire(ctx); err != nil {
		return fmt.Errorf("remember the clock: %w", err)
	}
	defer s.release()
	err := s.transact(func() error {
		first, second := int64(0), int64(0)
		if len(lines) > 0 {
			first, second = lines[0].Number, lines[min(1, len(lines)-1)].Number
		}
		if err := s.w.forgetLines.run(boot, first, first, second); err != nil {
			return err
		}
		for _, l := range lines {
			sure := int64(0)
			if l.Sure {
				sure = 1
			}
			if err := s.w.writeLine.run(l.Number, boot, l.Start.UnixMilli(), sure); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("remember the clock: %w", err)
	}
	return nil
}

// NewestArrival is when the newest message came that was stored while the clock was to be trusted, to the second; zero: none
// that is known. The counters of device "" hold it.
func (s *Store) NewestArrival() time.Time {
	s.state.mu.RLock()
	defer s.state.mu.RUnlock()
	if at := s.state.devices[""].lastSeen; at != 0 {
		return time.UnixMilli(at)
	}
	return time.Time{}
}

// noteArrival keeps NewestArrival inside the running transaction, at most once a second.
func (s *Store) noteArrival(batch []Message) {
	nobody := s.state.devices[""]
	for i := len(batch) - 1; i >= 0; i-- {
		if batch[i].ClockUnsure {
			continue
		}
		known := nobody.lastSeen
		if nobody.touched {
			known = nobody.next.lastSeen
		}
		if at := batch[i].Received; at < known || at-known >= 1000 {
			s.touch(nobody)
			nobody.next.see(&batch[i])
		}
		return
	}
}

// see notes that a device was heard. A clock that is not to be trusted changes nothing of what was known before. One that is
// may show less than before: a clock that was ahead for a while must not keep a dead device online.
func (f *facts) see(m *Message) {
	if m.ClockUnsure {
		f.unsureSeen, f.unsureLine = m.Received, max(m.ClockLine, 0)
		return
	}
	f.lastSeen, f.unsureSeen, f.unsureLine = m.Received, 0, 0
}

// dateOf is when a message came, for what Redate does not reach: by a clock that is not to be trusted it came when the newest did
// that came by one that was.
func (s *Store) dateOf(received int64, unsure bool) int64 {
	nobody := s.state.devices[""]
	newest := nobody.lastSeen
	if nobody.touched {
		newest = nobody.next.lastSeen
	}
	if !unsure || newest == 0 {
		return received
	}
	return newest
}

// SettingAuthorities is the setting with the SHA-256 fingerprints of the certificate authorities that devices of this
// database trust, AB:CD:… separated by spaces, as certs prints them.
const SettingAuthorities = "certificate_authorities"

// SettingAuthorityPEM is the setting with their certificates, in PEM form.
const SettingAuthorityPEM = "certificate_authorities_pem"

// SettingRetention is the setting with what deleting by age has reached; package control writes it.
const SettingRetention = "retention"

// Setting returns what was remembered under that name; "" when nothing was.
func (s *Store) Setting(ctx context.Context, name string) (string, error) {
	value := ""
	err := s.each(ctx, func(scan func(...any) error) error { return scan(&value) }, `SELECT value FROM setting WHERE name = ?`, name)
	if err != nil {
		return "", fmt.Errorf("read setting %s: %w", name, explain(err))
	}
	return value, nil
}

// SetSetting remembers value under that name, on disk when it returns nil.
func (s *Store) SetSetting(ctx context.Context, name, value string) error {
	if err := s.acquire(ctx); err != nil {
		return err
	}
	defer s.release()
	if err := s.transact(func() error { return s.w.setSetting.run(name, value) }); err != nil {
		return fmt.Errorf("write setting %s: %w", name, err)
	}
	return nil
}

type settingStatements struct {
	setSetting *statement
}

func (q *settingStatements) all() []compile {
	return []compile{
		{&q.setSetting, `INSERT INTO setting (name, value) VALUES (?, ?) ON CONFLICT (name) DO UPDATE SET value = excluded.value`},
	}
}
