package store

import (
	"bytes"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestFileThatCannotBeUsedIsRefusedAndNotChanged(t *testing.T) {
	run := func(script string) func(t *testing.T, path string) {
		return func(t *testing.T, path string) {
			s := openTest(t, Options{Path: path})
			execute(t, s, script)
			require.NoError(t, s.Close())
		}
	}
	write := func(content []byte) func(t *testing.T, path string) {
		return func(t *testing.T, path string) { require.NoError(t, os.WriteFile(path, content, 0o600)) }
	}
	for name, c := range map[string]struct {
		make func(t *testing.T, path string)
		is   error
		says string
	}{
		"text":            {write([]byte("temperature: 22.5\n")), ErrDamaged, "not a database"},
		"only NUL bytes":  {write(make([]byte, 8192)), ErrDamaged, "not a database"},
		"another program": {run(`PRAGMA application_id = 7`), ErrForeign, "0x7"},
		"no mark of ours": {run(`PRAGMA application_id = 0; PRAGMA user_version = 0`), ErrForeign, "0x0"},
		"newer":           {run(`PRAGMA user_version = 99`), ErrNewerSchema, "99"},
		"a log without its database": {func(t *testing.T, path string) {
			write([]byte("log"))(t, path+walSuffix)
		}, ErrDamaged, "plantops.db-wal"},
		"a log with an empty database": {func(t *testing.T, path string) {
			write(nil)(t, path)
			write([]byte("log"))(t, path+walSuffix)
		}, ErrDamaged, "plantops.db-wal"},
		"directory":    {func(t *testing.T, path string) { require.NoError(t, os.Mkdir(path, 0o700)) }, nil, "not a regular file"},
		"no directory": {func(t *testing.T, path string) { require.NoError(t, os.Remove(filepath.Dir(path))) }, syscall.ENOENT, "no such file"},
	} {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "data", "plantops.db")
			require.NoError(t, os.Mkdir(filepath.Dir(path), 0o700))
			c.make(t, path)
			before, _ := os.ReadFile(path)
			_, err := Open(t.Context(), Options{Path: path})
			require.ErrorContains(t, err, path)
			require.ErrorContains(t, err, c.says)
			if c.is != nil {
				require.ErrorIs(t, err, c.is)
			}
			after, _ := os.ReadFile(path)
			assert.True(t, bytes.Equal(before, after), "the file has changed")
		})
	}
}

func TestReadOnlyFileSystemIsNamedAsRoot(t *testing.T) {
	for name, exists := range map[string]bool{"new": false, "existing": true} {
		t.Run(name, func(t *testing.T) {
			dir := mountDisk(t, "")
			path := filepath.Join(dir, "plantops.db")
			if exists {
				require.NoError(t, openTest(t, Options{Path: path}).Close())
			}
			require.NoError(t, syscall.Mount("tmpfs", dir, "tmpfs", syscall.MS_REMOUNT|syscall.MS_RDONLY, ""))
			_, err := Open(t.Context(), Options{Path: path})
			require.ErrorIs(t, err, syscall.EROFS)
			require.ErrorContains(t, err, path)
		})
	}
}

func TestNoRoomForANewFileIsNamedAsRoot(t *testing.T) {
	path := filepath.Join(mountDisk(t, "size=24k"), "plantops.db")
	_, err := Open(t.Context(), Options{Path: path})
	require.ErrorIs(t, err, ErrFull)
	require.ErrorContains(t, err, path)
}

func TestAFullDiskIsReadAndCanMakeRoomAsRoot(t *testing.T) {
	dir := mountDisk(t, "size=90m")
	path := filepath.Join(dir, "plantops.db")
	s, err := Open(t.Context(), Options{Path: path})
	require.NoError(t, err)
	for i := range int64(20) {
		var batch []Message
		for j := range int64(500) {
			batch = append(batch, telemetry("bed-1", noon+i*500+j, Value{"ph", 6}))
		}
		mustAppend(t, s, batch...)
	}
	require.FileExists(t, path+reserveSuffix)
	require.NoError(t, s.Close())
	fill, err := os.Create(filepath.Join(dir, "fill"))
	require.NoError(t, err)
	_, err = io.Copy(fill, zeros{})
	require.ErrorIs(t, err, syscall.ENOSPC)
	require.NoError(t, fill.Close())

	count := func(s *Store) (n int) {
		for _, err := range s.Readings(t.Context(), Query{}) {
			require.NoError(t, err)
			n++
		}
		return n
	}
	reader, err := Open(t.Context(), Options{Path: path, ReadOnly: true})
	require.NoError(t, err)
	assert.Equal(t, 10_000, count(reader))
	require.NoError(t, reader.Close())

	s, err = Open(t.Context(), Options{Path: path})
	require.NoError(t, err)
	assert.Equal(t, 10_000, count(s))
	deleted, err := s.DeleteBefore(t.Context(), time.UnixMilli(noon+9000))
	require.NoError(t, err)
	assert.EqualValues(t, 9000, deleted)
	mustAppend(t, s, telemetry("bed-1", noon+20_000, Value{"ph", 6}))
	require.NoError(t, s.Close())
}

// zeros never ends.
type zeros struct{}

func (zeros) Read(p []byte) (int, error) { clear(p); return len(p), nil }

func TestNewFileIsPrivateAndInWALMode(t *testing.T) {
	s := openTest(t, Options{Path: filepath.Join(t.TempDir(), "odd ?#%41 name.db")})
	info, err := os.Stat(s.path)
	require.NoError(t, err)
	assert.Equal(t, os.FileMode(0o600), info.Mode())
	for pragma, want := range map[string]int64{
		"page_size": pageBytes, "synchronous": 1, "busy_timeout": 1000, "foreign_keys": 1, "application_id": ApplicationID,
		"user_version": LatestSchema(), "wal_autocheckpoint": 0, "journal_size_limit": 16 << 20,
	} {
		got, err := s.w.number("PRAGMA " + pragma)
		require.NoError(t, err)
		assert.Equal(t, want, got, pragma)
	}
	assert.FileExists(t, s.path+walSuffix)
	_, err = s.db.Load().ExecContext(t.Context(), `DELETE FROM device`)
	assert.ErrorContains(t, err, "readonly", "readers cannot write")
}

// copyFiles is what is on the disk when the program is killed at this moment.
func copyFiles(t *testing.T, s *Store) (path string) {
	t.Helper()
	path = filepath.Join(t.TempDir(), "plantops.db")
	for _, suffix := range []string{"", walSuffix} {
		data, err := readOutside(s.path + suffix)
		require.NoError(t, err)
		require.NoError(t, os.WriteFile(path+suffix, data, 0o600))
	}
	return path
}

func TestEveryAppendedMessageSurvivesAKill(t *testing.T) {
	s := openTest(t, Options{})
	for i := range int64(20) {
		mustAppend(t, s, telemetry("a", noon+i, Value{"ph", float64(i)}), Message{Kind: Bad, Device: "b", Payload: []byte("x"), Received: noon})
		if i%5 != 0 {
			continue
		}
		var log bytes.Buffer
		after := openTest(t, Options{Path: copyFiles(t, s), Log: slog.New(slog.NewTextHandler(&log, nil))})
		assert.Equal(t, Counts{Stored: i + 1, Quarantined: i + 1}, totals(t, after))
		assert.Contains(t, log.String(), "unclean")
		assert.NoError(t, after.Check(t.Context()))
	}
}

func TestCleanStopLeavesNoLogAndIsNotChecked(t *testing.T) {
	s := openTest(t, Options{})
	mustAppend(t, s, telemetry("a", noon, Value{"ph", 6}))
	require.NoError(t, s.Close())
	assert.NoFileExists(t, s.path+walSuffix)
	var log bytes.Buffer
	openTest(t, Options{Path: s.path, Log: slog.New(slog.NewTextHandler(&log, nil))})
	assert.NotContains(t, log.String(), "unclean")
}

func TestDamageIsFoundAfterAnUncleanStop(t *testing.T) {
	s := openTest(t, Options{})
	var batch []Message
	for i := range int64(200) {
		batch = append(batch, telemetry(fmt.Sprint("device-", i), noon, Value{"ph", 6}))
	}
	mustAppend(t, s, batch...)
	execute(t, s, `PRAGMA wal_checkpoint(TRUNCATE)`)
	mustAppend(t, s, Message{Kind: Heartbeat, Device: "device-0", Received: noon})
	path := copyFiles(t, s)
	data, err := os.ReadFile(path)
	require.NoError(t, err)
	at := bytes.Index(data, []byte("device-42"))
	require.Positive(t, at)
	copy(data[at-at%pageBytes:], make([]byte, pageBytes))
	require.NoError(t, os.WriteFile(path, data, 0o600))
	again := openTest(t, Options{Path: path})
	list, err := again.Salvages(t.Context())
	require.NoError(t, err)
	require.Len(t, list, 1)
	assert.Contains(t, list[0].Cause, "damaged")
}

func TestReadOnlyStoreSeesWhatTheServerWrites(t *testing.T) {
	s := openTest(t, Options{})
	mustAppend(t, s, telemetry("a", noon, Value{"ph", 6}))
	reader := openTest(t, Options{Path: s.path, ReadOnly: true})
	mustAppend(t, s, telemetry("b", noon, Value{"co2", 400}))
	var got []string
	for r, err := range reader.Readings(t.Context(), Query{}) {
		require.NoError(t, err)
		got = append(got, r.Device+" "+r.Metric)
	}
	assert.Equal(t, []string{"a ph", "b co2"}, got)
	assert.Equal(t, Counts{Stored: 2}, totals(t, reader))
	_, err := reader.Append(t.Context(), nil, nil)
	assert.ErrorContains(t, err, "read-only")
	_, err = Open(t.Context(), Options{Path: s.path + "x", ReadOnly: true})
	assert.ErrorIs(t, err, os.ErrNotExist)
}

func TestHealth(t *testing.T) {
	s := openTest(t, Options{})
	mustAppend(t, s, telemetry("a", noon, Value{"ph", 6}), telemetry("a", noon, Value{"co2", 400}), telemetry("a", noon+1, Value{"ph", 6}))
	h, err := s.Health(t.Context())
	require.NoError(t, err)
	assert.Equal(t, int64(2), h.Readings)
	assert.Positive(t, h.FreeBytes)
	assert.Greater(t, h.TotalBytes, h.FreeBytes)
	assert.Positive(t, h.WALBytes)
	assert.Equal(t, int64(pageBytes), h.PageBytes)
	assert.Equal(t, int(LatestSchema()), h.SchemaVersion)
	assert.True(t, strings.HasSuffix(h.Path, "plantops.db"))
}

func TestLogStaysBoundedUnderLoadAndIsCopiedWhenIdle(t *testing.T) {
	s := openTest(t, Options{})
	keepLogShort(s)
	var batch []Message
	for i := range 1000 {
		batch = append(batch, telemetry(fmt.Sprint("device-", i), 0, Value{"ph", 6}))
	}
	for round := range int64(10) {
		for i := range batch {
			batch[i].Time, batch[i].Received = noon+round, noon+round
		}
		mustAppend(t, s, batch...)
	}
	h, err := s.Health(t.Context())
	require.NoError(t, err)
	assert.Less(t, h.WALBytes, int64(7<<20))
	logIsCopied(t, s)
}

// logIsCopied waits until the write-ahead log is in the database, which what is idle does by itself.
func logIsCopied(t *testing.T, s *Store) {
	t.Helper()
	require.Eventually(t, func() bool {
		s.writing <- struct{}{}
		defer s.release()
		q, err := s.w.statement(`PRAGMA wal_checkpoint(NOOP)`)
		require.NoError(t, err)
		defer func() { _ = q.stmt.Close() }()
		pages, copied, err := checkpoint(q)
		require.NoError(t, err)
		return pages-copied < checkpointPages/4
	}, 30*time.Second, 10*time.Millisecond)
}

// keepLogShort is as if no room could be held in reserve.
func keepLogShort(s *Store) {
	s.writing <- struct{}{}
	defer s.release()
	s.reserved = time.Now().Add(time.Hour) // it is not looked at again
	s.allowLongLog(false)
}

func TestTheLogIsShortWithoutAReserve(t *testing.T) {
	s := openTest(t, Options{})
	require.NoError(t, s.acquire(t.Context()))
	defer s.release()
	assert.True(t, s.w.copier.long.Load())
	require.True(t, s.giveReserve())
	assert.False(t, s.w.copier.long.Load())
}

// A commit does not copy what a reader has held up for long; a later one finds it done.
func TestLogThatAReaderHeldUpIsCopiedBesideCommits(t *testing.T) {
	s := openTest(t, Options{})
	keepLogShort(s)
	var batch []Message
	for i := range 1000 {
		batch = append(batch, telemetry(fmt.Sprint("device-", i), 0, Value{"ph", 6}))
	}
	round := int64(0)
	appendMore := func() {
		round++
		for i := range batch {
			batch[i].Time, batch[i].Received = noon+round, noon+round
		}
		mustAppend(t, s, batch...)
	}
	appendMore()
	v, err := s.View(t.Context())
	require.NoError(t, err)
	walBytes := func() int64 {
		h, err := s.Health(t.Context())
		require.NoError(t, err)
		return h.WALBytes
	}
	for walBytes() < 2*checkpointPages*pageBytes {
		appendMore()
	}
	require.NoError(t, s.acquire(t.Context()))
	copier := s.w.copier
	require.NoError(t, copier.close())
	s.release()
	require.NoError(t, v.Close())
	appendMore()
	q, err := s.w.statement(`PRAGMA wal_checkpoint(NOOP)`)
	require.NoError(t, err)
	pages, copied, err := checkpoint(q)
	require.NoError(t, err)
	require.NoError(t, q.stmt.Close())
	assert.Greater(t, pages-copied, int64(checkpointPages), "the commit has left it")
	require.NoError(t, s.acquire(t.Context()))
	s.w.copier = newCopier(copier.dsn, copier.report)
	s.w.copier.look(false)
	s.release()
	logIsCopied(t, s)
	require.Eventually(t, func() bool { // it begins anew
		grown := walBytes()
		for range 50 {
			appendMore()
		}
		return walBytes() == grown
	}, 30*time.Second, time.Millisecond)
}

func TestWhoComesSecondToANewFileFindsItReady(t *testing.T) {
	s := openTest(t, Options{})
	mustAppend(t, s, telemetry("a", noon, Value{"ph", 6}))
	require.NoError(t, createFile(s.path), "the file was not there a moment ago")
	require.NoError(t, s.acquire(t.Context()))
	require.NoError(t, s.migrate(t.Context(), 0), "it was empty a moment ago")
	s.release()
	assert.Equal(t, Counts{Stored: 1}, totals(t, s))
	mustAppend(t, s, telemetry("b", noon, Value{"ph", 6}))

	require.NoError(t, s.acquire(t.Context()))
	defer s.release()
	require.NoError(t, s.w.run(t.Context(), `PRAGMA user_version = 99`))
	assert.ErrorIs(t, s.migrate(t.Context(), 0), ErrNewerSchema)
	require.NoError(t, s.w.run(t.Context(), `PRAGMA user_version = 1`), "no transaction is left open")
}

func TestFileThatAnotherProcessMigratesIsOurs(t *testing.T) {
	for after := 1; after <= 3; after++ {
		path := filepath.Join(t.TempDir(), "plantops.db")
		require.NoError(t, createFile(path))
		w, err := connectWriter(t.Context(), "file:"+path)
		require.NoError(t, err)
		t.Cleanup(func() { assert.NoError(t, w.close()) })
		questions := 0
		_, err = (&Store{}).identify(func(query string) (int64, error) {
			n, err := w.number(query)
			if questions++; questions == after {
				openTest(t, Options{Path: path})
			}
			return n, err
		})
		require.NoError(t, err, "after question %d", after)
	}
}

// What cannot be read is not in the record of the journal, and takes room in the log all the same.
func TestWhatIsKeptAsItCameIsKnownToTakeRoomInTheLog(t *testing.T) {
	s := openTest(t, Options{})
	bad := Message{Device: "a", Kind: Bad, Topic: "devices/a/telemetry", Payload: make([]byte, 100_000), Reason: "test", Received: noon}
	require.NoError(t, s.acquire(t.Context()))
	defer s.release()
	for range 2 { // of each transaction its own
		require.NoError(t, s.transact(func() error {
			_, err := s.appendBatch([]Message{bad, bad}, nil)
			assert.Greater(t, s.weight(), 200_000)
			assert.Less(t, s.weight(), 250_000)
			return err
		}))
	}
}

func TestALogThatCannotBeCopiedIsSaidOnce(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "none")
	said := make(chan bool, 100)
	c := newCopier("file:"+filepath.Join(dir, "x.db")+"?mode=rw&_error_rc=1", func(_ error, first bool) { said <- first })
	for _, first := range []bool{true, false} {
		c.look(false)
		assert.Equal(t, first, <-said)
	}
	c.fails.Store(false) // as when it has worked
	c.look(false)
	assert.True(t, <-said)
	require.NoError(t, c.close())
}
